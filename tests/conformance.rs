//! Logits agree with llama.cpp's on tiny models of every architecture and format.
//!
//! Reads `conformance/` of the folder that `CHASKI_TEST_DATA` names; its README says what agreement
//! means: normalised mean squared error, `sum((a - b)^2) / sum(b^2)`.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::engine::{BatchToken, Engine, EngineOptions};
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski_gguf::Gguf;
use common::cases::{Case, allowed, cases, runs};
use common::tiny::nmse;

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
