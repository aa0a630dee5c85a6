//! Every conformance case with no layer on the GPU, with the output and the last one, and with all: as the CPU computes it with
//! float activations, and as llama.cpp does; and nothing of what is offloaded stays on the CPU.
#![cfg(feature = "gpu")]

mod common;

use std::sync::Arc;

use chaski::backend::Backend;
use chaski::cpu::CpuBackend;
use chaski::engine::{BatchToken, Engine, GpuLayers, Offload, offload, plan_offload};
use chaski::gpu::{Gpu, GpuOptions};
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski_gguf::Gguf;
use common::cases::{Case, allowed, allowed_with_f16, cases, runs};
use common::tiny::{nmse, options};

/// `-ngl` as it is typed.
const LAYERS: [(&str, GpuLayers); 3] =
    [("0", GpuLayers::Count(0)), ("2", GpuLayers::Count(2)), ("all", GpuLayers::All)];

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
fn every_case_agrees_with_the_cpu_and_with_llama_cpp_at_0_2_and_all_layers() {
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
        options.cpu.exact = true;
        let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(options.cpu).unwrap());
        let devices: [Arc<dyn Backend>; 2] = [cpu, gpu.clone()];
        let strict = |layers| Offload { strict: true, ..Offload::new(layers) };
        for format in [KvFormat::F16, KvFormat::Q8_0, KvFormat::Q4_0] {
            options.kv = KvChoice::new(format, format);
            for (typed, layers) in LAYERS {
                let plan = plan_offload(&model, &options, &devices, &strict(layers));
                assert!(plan.is_ok(), "{}, {format}, -ngl {typed}: {:?}", case.name, plan.err());
            }
        }
        let f16 = (KvFormat::F16, KvFormat::F16);
        let mut caches = vec![f16, case.kv];
        caches.dedup();
        for (k, v) in caches {
            options.kv = KvChoice::new(k, v);
            let limit = if (k, v) == f16 { allowed_with_f16(case, &model) } else { allowed(case, &model) };
            let exact = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap(), case);
            let want = case.base.as_ref().map_or(&case.logits, |(base, _)| base);
            for (typed, layers) in LAYERS {
                let mut engine = offload(&model, &options, &devices, &strict(layers)).unwrap();
                let went = engine.offloaded().unwrap();
                assert_eq!((went.layers, went.given_back), (expected(layers, &model), 0), "{}", case.name);
                let got = evaluate(&mut engine, case);
                let (to_cpu, to_peer) = (nmse(&got, &exact), nmse(&got, want));
                let what = format!("{}, cache {k} {v}, -ngl {typed}", case.name);
                println!("{what:<40} {to_cpu:.2e} to the CPU, {to_peer:.2e} to llama.cpp");
                if !(to_cpu <= 1e-5 && to_peer <= limit) {
                    failed.push(format!("{what}: {to_cpu:.2e}, {to_peer:.2e} > {limit:.1e}"));
                }
            }
        }
        ran += 1;
    }
    assert!(ran > 0, "no case ran");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// How many layers such a number is, the output being the first.
fn expected(layers: GpuLayers, model: &Model) -> usize {
    let all = model.hparams().n_layer + 1;
    match layers {
        GpuLayers::Count(n) => n.min(all),
        GpuLayers::All | GpuLayers::Auto => all,
    }
}
