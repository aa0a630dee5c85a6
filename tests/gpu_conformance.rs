//! Every conformance case on the GPU, wholly and with the last layer only: as the CPU computes it with float activations, and
//! as llama.cpp does.
#![cfg(feature = "gpu")]

mod common;

use std::sync::Arc;

use chaski::backend::Backend;
use chaski::cpu::CpuBackend;
use chaski::engine::{BatchToken, Engine};
use chaski::gpu::{Gpu, GpuOptions};
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski_gguf::Gguf;
use common::cases::{Case, allowed, cases, runs};
use common::tiny::{nmse, options};

fn evaluate(engine: &mut Engine, case: &Case) -> Vec<f32> {
    let token =
        |(i, id): (usize, &u32)| BatchToken { id: *id, position: i as u32, sequence: 0, logits: true };
    let batch: Vec<BatchToken> = case.tokens.iter().enumerate().map(token).collect();
    let mut out = Vec::new();
    // A batch of many columns, then few, then single tokens.
    let (most, few) = (batch.len() / 2, batch.len() * 3 / 4);
    for part in [&batch[..most], &batch[most..few], &batch[few..]] {
        engine.decode(part, &mut out).unwrap();
    }
    out
}

#[test]
fn every_case_agrees_with_the_cpu_and_with_llama_cpp() {
    let gpu = match Gpu::open(&GpuOptions { software: true, checked: true, ..GpuOptions::default() }) {
        Ok(gpu) => Arc::new(gpu),
        Err(error) => {
            assert!(std::env::var_os("CHASKI_REQUIRE_GPU").is_none(), "{error}");
            println!("skipped: {error}");
            return;
        }
    };
    let Some(cases) = cases() else { return };
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in cases.iter().filter(|c| runs(c)) {
        let file = Gguf::open(&case.model).unwrap();
        let model = Arc::new(Model::new(Arc::new(file), &RopeOptions::default()).unwrap());
        let mut options = options(1, case.tokens.len(), 64);
        options.kv = KvChoice::new(case.kv.0, case.kv.1);
        options.cpu.exact = true;
        let exact = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap(), case);
        let n = model.hparams().n_layer;
        for from in [0, n - 1] {
            let home = |layer: Option<usize>, name: &str| match layer {
                Some(layer) => usize::from(layer >= from),
                None => usize::from(name.starts_with("output") || from == 0),
            };
            let weights = model.weights().list().iter().map(|w| home(w.layer, &w.name)).collect();
            let kv = (0..n).map(|layer| home(Some(layer), "")).collect();
            let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(options.cpu).unwrap());
            let backends: [Arc<dyn Backend>; 2] = [cpu, gpu.clone()];
            let engine = Engine::with_devices(model.clone(), options.clone(), &backends, (weights, kv));
            let mut engine = engine.unwrap();
            assert!(engine.declined().is_empty(), "{}: {:?}", case.name, engine.declined());
            let got = evaluate(&mut engine, case);
            let want = case.base.as_ref().map_or(&case.logits, |(base, _)| base);
            let (to_cpu, to_peer, limit) = (nmse(&got, &exact), nmse(&got, want), allowed(case, &model));
            println!(
                "{:<20} from layer {from}: {to_cpu:.2e} to the CPU, {to_peer:.2e} to llama.cpp",
                case.name
            );
            if !(to_cpu <= 1e-5 && to_peer <= limit) {
                failed.push(format!(
                    "{} from layer {from}: {to_cpu:.2e}, {to_peer:.2e} > {limit:.1e}",
                    case.name
                ));
            }
        }
        ran += 1;
    }
    assert!(ran > 0, "no case ran");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
