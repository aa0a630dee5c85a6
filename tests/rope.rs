//! Rotary embeddings agree with llama.cpp's: plain, linear, YaRN, frequency factors, magnitudes.
//!
//! `tests/data/rope.json` holds, for each set of metadata keys, the logits that llama.cpp (by llama-cpp-python 0.3.36, f32
//! throughout) gives at positions 70 and 149 of the same tiny model, whose weights both sides draw from one generator.

mod common;

use std::sync::Arc;

use chaski::engine::Engine;
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski_gguf::Gguf;
use common::GgufBytes;
use common::tiny::{Random, decode, nmse, options, sequence};
use serde_json::Value;

const EMBD: usize = 64;
const VOCAB: usize = 96;

/// The model of a case.
fn model(case: &Value) -> Gguf {
    let arch = case["arch"].as_str().unwrap();
    let mut file = GgufBytes::default().str("general.architecture", arch);
    for (key, value) in [
        ("context_length", 256),
        ("embedding_length", EMBD as u32),
        ("block_count", 2),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 32),
    ] {
        file = file.u32(&format!("{arch}.{key}"), value);
    }
    file = file.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5);
    for (key, value) in case["keys"].as_object().unwrap() {
        let key = format!("{arch}.{key}");
        file = match value {
            Value::String(text) => file.str(&key, text),
            Value::Number(n) if n.is_u64() => file.u32(&key, n.as_u64().unwrap() as u32),
            other => file.f32(&key, other.as_f64().unwrap() as f32),
        };
    }
    let mut random = Random(0x5EED);
    let mut matrix = |file: GgufBytes, name: &str, rows: usize, scale: f32| {
        let values: Vec<f32> = (0..rows * EMBD).map(|_| random.float() * scale).collect();
        file.tensor(name, &[EMBD as u64, rows as u64], &values)
    };
    let ones = [1.0; EMBD];
    file = matrix(file, "token_embd.weight", VOCAB, 1.0);
    for layer in 0..2 {
        for norm in ["attn_norm", "ffn_norm"] {
            file = file.tensor(&format!("blk.{layer}.{norm}.weight"), &[EMBD as u64], &ones);
        }
        for (name, rows) in [
            ("attn_q", 64),
            ("attn_k", 32),
            ("attn_v", 32),
            ("attn_output", 64),
            ("ffn_gate", 64),
            ("ffn_up", 64),
            ("ffn_down", 64),
        ] {
            file = matrix(file, &format!("blk.{layer}.{name}.weight"), rows, 0.5);
        }
    }
    file = file.tensor("output_norm.weight", &[EMBD as u64], &ones);
    file = matrix(file, "output.weight", VOCAB, 0.5);
    let factors: Vec<f32> =
        case["factors"].as_array().unwrap().iter().map(|f| f.as_f64().unwrap() as f32).collect();
    if !factors.is_empty() {
        file = file.tensor("rope_freqs.weight", &[factors.len() as u64], &factors);
    }
    Gguf::from_bytes(&file.bytes()).unwrap()
}

#[test]
fn logits_agree_with_llama_cpps_for_every_way_to_stretch_a_context() {
    let cases: Value = serde_json::from_str(include_str!("data/rope.json")).unwrap();
    let ids: Vec<u32> = std::iter::once(1).chain((0..149).map(|i| 3 + (i * 37 + 11) % 93)).collect();
    let mut ran = 0;
    for case in cases.as_array().unwrap() {
        let model = Arc::new(Model::new(Arc::new(model(case)), &RopeOptions::default()).unwrap());
        let mut options = options(1, 256, 64);
        options.kv = KvChoice::new(KvFormat::F32, KvFormat::F32);
        let mut engine = Engine::new(model, options).unwrap();
        let got = decode(&mut engine, &sequence(0, 0, &ids));
        for (row, position) in [70, 149].into_iter().enumerate() {
            let want: Vec<f32> =
                case["logits"][row].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let error = nmse(&got[position * VOCAB..(position + 1) * VOCAB], &want);
            assert!(error < 1e-8, "{} at position {position}: {error:.1e}", case["name"]);
            ran += 1;
        }
    }
    assert_eq!(ran, 26);
}
