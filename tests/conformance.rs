//! Logits agree with llama.cpp's on tiny models of every architecture and format.
//!
//! Reads `conformance/` of the folder that `CHASKI_TEST_DATA` names; its README says what agreement
//! means: normalised mean squared error, `sum((a - b)^2) / sum(b^2)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::engine::{BatchToken, Engine, EngineOptions};
use chaski::kv::KvFormat;
use chaski::model::{ARCHS, KvChoice, Model, RopeOptions};
use chaski_gguf::Gguf;
use serde_json::Value;

struct Case {
    name: String,
    model: PathBuf,
    arch: String,
    quant: String,
    kv: (KvFormat, KvFormat),
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// For a quantized cache: the logits with an f16 cache, and llama.cpp's own loss against them.
    base: Option<(Vec<f32>, f64)>,
}

fn cases() -> Option<Vec<Case>> {
    let Some(data) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("skipped: CHASKI_TEST_DATA is not set, so there are no reference logits to agree with");
        return None;
    };
    let folder = Path::new(&data).join("conformance");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            cases.push(read_case(&folder, &path));
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    Some(cases)
}

fn read_case(folder: &Path, path: &Path) -> Case {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |key: &str| json[key].as_str().unwrap().to_owned();
    let floats = |name: &str| -> Vec<f32> {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let kv = |i: usize| json["kv"][i].as_str().unwrap().parse().unwrap();
    Case {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        model: folder.join(text("model")),
        arch: text("arch"),
        quant: text("quant"),
        kv: (kv(0), kv(1)),
        tokens: json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect(),
        logits: floats(&text("logits")),
        base: json
            .get("base_logits")
            .map(|b| (floats(b.as_str().unwrap()), json["peer_nmse_to_base"].as_f64().unwrap())),
    }
}

/// What the data's README allows.
fn allowed(case: &Case, model: &Model) -> f64 {
    if let Some((_, peer)) = case.base {
        return 1.3 * peer;
    }
    if model.hparams().experts.is_some() {
        return 3e-2;
    }
    match case.quant.as_str() {
        "F32" | "F16" => 1e-5,
        "BF16" => 1e-4,
        _ => 2e-3,
    }
}

fn nmse(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        got.iter().zip(want).map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum()
    };
    sum(&|a, b| (a - b) * (a - b)) / sum(&|_, b| b * b)
}

/// The logits of every position.
fn logits(case: &Case, threads: usize, n_ubatch: usize, isa: Isa, exact: bool) -> (Arc<Model>, Vec<f32>) {
    let file = Gguf::open(&case.model).unwrap();
    let model = Arc::new(Model::new(Arc::new(file), &RopeOptions::default()).unwrap());
    let options = EngineOptions {
        cpu: CpuOptions { threads, threads_batch: threads, isa, exact, invariant: false, check: false },
        n_ctx: case.tokens.len(),
        n_sequences: 1,
        n_ubatch,
        n_outputs: 1,
        kv: KvChoice::new(case.kv.0, case.kv.1),
    };
    let mut engine = Engine::new(model.clone(), options).unwrap();
    let batch: Vec<BatchToken> = case
        .tokens
        .iter()
        .enumerate()
        .map(|(i, id)| BatchToken { id: *id, position: i as u32, sequence: 0, logits: true })
        .collect();
    let mut out = Vec::new();
    engine.decode(&batch, &mut out).unwrap();
    (model, out)
}

/// By the file's own word: a case's name for its architecture may say more (`llama-moe`).
fn runs(case: &Case) -> bool {
    let file = Gguf::open(&case.model).unwrap();
    let arch = file.require_str("general.architecture").unwrap();
    ARCHS.iter().any(|a| a.name() == arch)
}

#[test]
fn logits_agree_with_llama_cpp_in_one_batch_and_token_by_token_at_1_and_2_threads() {
    let Some(cases) = cases() else { return };
    let mut failed = Vec::new();
    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for case in &cases {
        if !runs(case) {
            eprintln!("{:<20} skipped: architecture {} does not run yet", case.name, case.arch);
            continue;
        }
        *ran.entry(case.arch.clone()).or_default() += 1;
        let want = case.base.as_ref().map_or(&case.logits, |(base, _)| base);
        for (threads, n_ubatch) in [(1, 64), (2, 64), (1, 1), (2, 1), (2, 17)] {
            let (model, got) = logits(case, threads, n_ubatch, Isa::detect(), false);
            let (error, limit) = (nmse(&got, want), allowed(case, &model));
            eprintln!(
                "{:<20} threads {threads} ubatch {n_ubatch:2}  nmse {error:.2e} (at most {limit:.1e})",
                case.name
            );
            if error > limit || error.is_nan() {
                failed.push(format!(
                    "{} at {threads} threads, ubatch {n_ubatch}: {error:.2e} > {limit:.1e}",
                    case.name
                ));
            }
        }
    }
    for arch in ["llama", "llama-moe", "qwen2", "qwen3", "qwen3moe"] {
        assert!(ran.contains_key(arch), "no case of architecture {arch}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn logits_do_not_depend_on_the_number_of_threads() {
    let Some(cases) = cases() else { return };
    for case in cases.iter().filter(|c| runs(c)) {
        for n_ubatch in [64, 1] {
            let (_, one) = logits(case, 1, n_ubatch, Isa::detect(), false);
            for threads in [2, 3] {
                let (_, many) = logits(case, threads, n_ubatch, Isa::detect(), false);
                assert!(one == many, "{} differs at {threads} threads, ubatch {n_ubatch}", case.name);
            }
        }
    }
}

#[test]
fn every_instruction_set_agrees() {
    let Some(cases) = cases() else { return };
    for case in cases.iter().filter(|c| runs(c)) {
        for isa in Isa::all_available() {
            let want = case.base.as_ref().map_or(&case.logits, |(base, _)| base);
            let (model, got) = logits(case, 2, 64, isa, false);
            let (error, limit) = (nmse(&got, want), allowed(case, &model));
            assert!(error <= limit, "{} on {isa}: {error:.2e} > {limit:.1e}", case.name);
        }
    }
}

#[test]
fn exact_activations_are_closer_than_llama_cpps_own_rounding() {
    let Some(cases) = cases() else { return };
    for case in cases.iter().filter(|c| runs(c) && c.base.is_none()) {
        let (model, got) = logits(case, 2, 64, Isa::detect(), true);
        let (error, limit) = (nmse(&got, &case.logits), allowed(case, &model));
        assert!(error <= limit, "{}: {error:.2e} > {limit:.1e}", case.name);
    }
}
