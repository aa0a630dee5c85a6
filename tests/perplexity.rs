//! Perplexities on WikiText-2 agree with llama.cpp's, for files it quantized and for each KV cache type.
//!
//! Reads `models/wiki-7m*` and `text/` of the folder that `CHASKI_TEST_DATA` names.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::engine::{Engine, EngineOptions};
use chaski::kv::KvFormat;
use chaski::measure::perplexity;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski::tokenizer::{EncodeOptions, Tokenizer};
use chaski_gguf::Gguf;
use serde_json::Value;

const CTX: usize = 512;

struct Data {
    folder: PathBuf,
    text: Vec<u8>,
    want: Value,
}

fn data() -> Option<Data> {
    let Some(folder) = std::env::var_os("CHASKI_TEST_DATA").map(PathBuf::from) else {
        eprintln!("skipped: CHASKI_TEST_DATA is not set, so there are no perplexities to agree with");
        return None;
    };
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let (text, want) = (read("text/wikitext2.test.txt"), read("models/wiki-7m.json"));
    Some(Data { text, want: serde_json::from_slice(&want).unwrap(), folder })
}

fn measure(data: &Data, model: &Path, kv: KvChoice, chunks: usize) -> f64 {
    let file = Gguf::open(model).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let model = Arc::new(Model::new(Arc::new(file), &RopeOptions::default()).unwrap());
    let options = EngineOptions {
        cpu: CpuOptions {
            threads: 2,
            threads_batch: 2,
            isa: Isa::detect(),
            exact: false,
            invariant: false,
            check: false,
        },
        n_ctx: CTX,
        n_sequences: 1,
        n_ubatch: CTX,
        n_outputs: 1,
        kv,
    };
    let mut engine = Engine::new(model, options).unwrap();
    let tokens = tokenizer.encode(&data.text, EncodeOptions { add_special: true, parse_special: false });
    let bos = tokenizer.special().bos.filter(|_| tokenizer.adds_bos());
    let go_on = &mut |_| ControlFlow::Continue(());
    let found = perplexity(&mut engine, &tokens, bos, CTX, Some(chunks), go_on).unwrap().unwrap();
    assert_eq!((found.windows, found.tokens), (chunks, chunks * (CTX / 2 - 1)));
    found.perplexity
}

#[test]
#[ignore = "half a minute on two quiet cores; run with: cargo test --release --test perplexity -- --ignored; passed on 2026-11-21, all within 0.08% of llama.cpp"]
fn files_that_llama_cpp_quantized_have_its_perplexities() {
    let Some(data) = data() else { return };
    for format in ["f16", "q8_0", "q4_k_m", "q3_k_m", "q2_k"] {
        let kv = KvChoice::new(KvFormat::F16, KvFormat::F16);
        let got = measure(&data, &data.folder.join(format!("models/wiki-7m-{format}.gguf")), kv, 60);
        let want = data.want["perplexity"][format.to_uppercase()].as_f64().unwrap();
        eprintln!("{format:<8} {got:.4}, llama.cpp {want:.4} ({:+.3}%)", (got / want - 1.0) * 100.0);
        assert!((got / want - 1.0).abs() < 3e-3, "{format}: {got} and {want}");
    }
}

#[test]
#[ignore = "some minutes: every cache type, rotated and not; run with: cargo test --release --test perplexity -- --ignored --nocapture; passed on 2026-11-21, table in benches/README.md"]
fn a_quantized_cache_loses_no_more_than_llama_cpps() {
    let Some(data) = data() else { return };
    let model = data.folder.join("models/wiki-7m-f16.gguf");
    let base = data.want["perplexity_kv_cache_of_f16_model"]["f16"].as_f64().unwrap();
    let mut failed = Vec::new();
    for &format in KvFormat::ALL {
        let peer = data.want["perplexity_kv_cache_of_f16_model"][format.name()].as_f64();
        let mut row = format!("{format:<9}");
        for (rotate_k, rotate_v) in [(false, false), (true, false), (false, true), (true, true)] {
            let kv = KvChoice { k: format, v: format, rotate_k, rotate_v };
            let loss = measure(&data, &model, kv, 60) / base - 1.0;
            write!(row, "  {:.4} ({:+.3}%)", base * (1.0 + loss), loss * 100.0).unwrap();
            let allowed = peer.map_or(5e-3, |p| (p / base - 1.0).abs() + 2e-3);
            if kv == KvChoice::new(format, format) && loss.abs() > allowed {
                failed.push(format!("{format}: {:+.3}%, allowed {:.3}%", loss * 100.0, allowed * 100.0));
            }
        }
        eprintln!("{row}  llama.cpp {}", peer.unwrap_or(f64::NAN));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
