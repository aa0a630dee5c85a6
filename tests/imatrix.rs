//! What `imatrix` promises: sums of squares of exactly what meets each matrix, however the text is cut into micro-batches.

mod common;

use std::fs;
use std::ops::ControlFlow;

use chaski::engine::Engine;
use chaski::model::RopeOptions;
use chaski::quant::{Calibration, Imatrix, calibrate};
use chaski_gguf::Format;
use common::tiny::{EMBD, Tiny, ids, options};
use common::{arg, run, tiny_llama};

fn gather(tiny: &Tiny, tokens: &[u32], ctx: usize, n_ubatch: usize) -> Imatrix {
    let mut engine = Engine::open(tiny.file(), &RopeOptions::default(), options(2, ctx, n_ubatch)).unwrap();
    let wanted = Calibration { tokens, bos: None, ctx, most: None, output: true, dataset: "a text".into() };
    calibrate(&mut engine, &wanted, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn floats(tiny: &mut Tiny, name: &str) -> Vec<f32> {
    tiny.tensor(name).bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn the_first_matrices_meet_the_normed_embeddings() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let (tokens, row) = (ids(24, 3), EMBD as usize);
    let (embeddings, norm) =
        (floats(&mut tiny, "token_embd.weight"), floats(&mut tiny, "blk.0.attn_norm.weight"));
    let mut expected = vec![0f64; row];
    for id in &tokens {
        let x = &embeddings[*id as usize * row..][..row];
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row as f64;
        for ((sum, x), w) in expected.iter_mut().zip(x).zip(&norm) {
            *sum += (f64::from(*x) * f64::from(*w)).powi(2) / (mean + 1e-5);
        }
    }
    let found = gather(&tiny, &tokens, 24, 24);
    for name in ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"] {
        let entry = &found.entries[name];
        assert_eq!(entry.counts, [24.0]);
        for (c, (sum, expected)) in entry.sums.iter().zip(&expected).enumerate() {
            assert!((f64::from(*sum) / expected - 1.0).abs() < 1e-4, "{name} column {c}: {sum} {expected}");
        }
    }
    // Every token reaches every matrix of every layer, the last one's too.
    assert!(found.entries.values().all(|e| e.counts == [24.0]));
    assert_eq!(found.entries.len(), 2 * 7 + 1);
    assert_eq!((found.chunks, found.chunk_size), (1, 24));
}

#[test]
fn cutting_into_micro_batches_changes_nothing() {
    for experts in [false, true] {
        let tiny = Tiny::new("llama", experts, Format::F32, false).unwrap();
        let tokens = ids(64, 5);
        let (whole, cut) = (gather(&tiny, &tokens, 32, 32), gather(&tiny, &tokens, 32, 5));
        assert_eq!(whole.entries.keys().collect::<Vec<_>>(), cut.entries.keys().collect::<Vec<_>>());
        for (name, entry) in &whole.entries {
            assert_eq!(entry.counts, cut.entries[name].counts, "{name}");
            let total: f32 = entry.sums.iter().sum();
            for (a, b) in entry.sums.iter().zip(&cut.entries[name].sums) {
                assert!((a - b).abs() <= 1e-5 * total, "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn every_expert_counts_the_tokens_that_chose_it() {
    let tiny = Tiny::new("llama", true, Format::F32, false).unwrap();
    let found = gather(&tiny, &ids(64, 7), 64, 64);
    for layer in 0..2 {
        let of = |part: &str| &found.entries[&format!("blk.{layer}.{part}_exps.weight")];
        // Two of four experts a token.
        assert_eq!(of("ffn_up").counts.iter().sum::<f32>(), 128.0);
        assert_eq!(of("ffn_up").counts.len(), 4);
        assert_eq!(of("ffn_up"), of("ffn_gate"));
        assert_eq!(of("ffn_down").counts, of("ffn_up").counts);
        assert_eq!(of("ffn_up").sums.len(), 4 * EMBD as usize);
    }
}

#[test]
fn the_command_writes_what_quantize_reads() {
    let folder = tempfile::tempdir().unwrap();
    let source = tiny_llama().write(folder.path(), "source.gguf");
    let (text, matrix, out) =
        (folder.path().join("text.txt"), folder.path().join("imatrix.gguf"), folder.path().join("out.gguf"));
    fs::write(&text, "hello abc ab hello ".repeat(40)).unwrap();
    let gather = |flags: &[&str]| {
        run(&[&["imatrix", arg(&source), "-f", arg(&text), "-o", arg(&matrix), "-c", "32"], flags].concat())
    };
    let done = gather(&["--chunks", "2"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    let found = Imatrix::open(&matrix).unwrap();
    assert_eq!((found.chunks, found.chunk_size, found.entries.len()), (2, 32, 14));
    assert!(!found.entries.contains_key("output.weight"), "only on request");
    assert_eq!(gather(&["--process-output"]).code, Some(0));
    assert_eq!(Imatrix::open(&matrix).unwrap().entries.len(), 15);
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_0", "--imatrix", arg(&matrix)]);
    assert_eq!(done.code, Some(0), "{done:?}");

    fs::write(&text, "hello").unwrap();
    let short = gather(&[]);
    assert!(short.code == Some(3) && short.stderr.contains("do not fill a window"), "{short:?}");
    let model = run(&["run", arg(&matrix), "-p", "x"]);
    assert!(model.code == Some(3) && model.stderr.contains("imatrix"), "{model:?}");
}
