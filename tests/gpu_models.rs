//! Whole models on the GPU against the CPU with float activations, wherever the layers are divided; and what a token costs in
//! dispatches, submissions and read-backs.
#![cfg(feature = "gpu")]

mod common;

use std::sync::Arc;

use chaski::backend::Backend;
use chaski::cpu::CpuBackend;
use chaski::engine::{
    Engine, EngineOptions, GpuLayers, LeftBehind, Offload, OffloadError, offload, plan_offload,
};
use chaski::gpu::{Gpu, GpuOptions};
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model};
use chaski_gguf::Format;
use common::tiny::{LAYERS, Tiny, VOCAB, decode, ids, nmse, options, sequence};

fn gpu() -> Option<Arc<Gpu>> {
    match Gpu::open(&GpuOptions { software: true, checked: true, ..GpuOptions::default() }) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(error) => {
            assert!(std::env::var_os("CHASKI_REQUIRE_GPU").is_none(), "{error}");
            println!("skipped: {error}");
            None
        }
    }
}

fn exact(kv: KvChoice) -> EngineOptions {
    let mut options = options(1, 64, 16);
    options.cpu.exact = true;
    options.kv = kv;
    options
}

/// A prompt in uneven micro-batches, none of whose logits, some and all are wanted, then single tokens.
fn evaluate(engine: &mut Engine) -> Vec<f32> {
    let mut prompt = sequence(0, 0, &ids(37, 2));
    prompt.iter_mut().enumerate().for_each(|(i, t)| t.logits = i >= 16 && i % 3 != 0);
    let mut out = decode(engine, &prompt);
    for (i, id) in ids(4, 8).into_iter().enumerate() {
        out.extend(decode(engine, &sequence(0, 37 + i, &[id])));
    }
    out
}

/// An engine whose weights and caches from layer `from` on, with the output, are the GPU's; the embedding too where `from` is
/// 0.
fn with(model: &Arc<Model>, options: &EngineOptions, gpu: &Arc<Gpu>, from: usize) -> Engine {
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(options.cpu).unwrap());
    let home = |layer: Option<usize>, name: &str| match layer {
        Some(layer) => usize::from(layer >= from),
        None => usize::from(name.starts_with("output") || from == 0),
    };
    let weights = model.weights().list().iter().map(|w| home(w.layer, &w.name)).collect();
    let kv = (0..model.hparams().n_layer).map(|l| home(Some(l), "")).collect();
    let gpu: Arc<dyn Backend> = gpu.clone();
    Engine::with_devices(model.clone(), options.clone(), &[cpu, gpu], (weights, kv)).unwrap()
}

fn plain(k: KvFormat, v: KvFormat) -> KvChoice {
    KvChoice { k, v, rotate_k: false, rotate_v: false }
}

#[test]
fn models_agree_with_the_cpu_wherever_they_are_divided() {
    let Some(gpu) = gpu() else { return };
    for (arch, experts, format) in [
        ("llama", false, Format::F32),
        ("llama", false, Format::Q4_K),
        ("qwen2", false, Format::Q8_0),
        ("qwen3", false, Format::Q6_K),
        ("qwen3moe", true, Format::F16),
    ] {
        let model = Tiny::new(arch, experts, format, arch == "qwen2").unwrap().model().unwrap();
        let options = exact(plain(KvFormat::F16, KvFormat::F16));
        let want = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap());
        for from in 0..=LAYERS as usize {
            let mut engine = with(&model, &options, &gpu, from);
            assert!(engine.declined().is_empty(), "{arch}: {:?}", engine.declined());
            let error = nmse(&evaluate(&mut engine), &want);
            assert!(error <= 1e-5, "{arch}, {format}, from layer {from} on: NMSE {error:.2e}");
        }
    }
}

/// Head sizes that models have.
const HEAD_SIZES: [usize; 8] = [32, 64, 80, 96, 112, 128, 192, 256];

fn with_heads_of(d: usize) -> Arc<Model> {
    Tiny::with_heads_of(d, "qwen3", Format::F32).model().unwrap()
}

/// What the CPU computes with such a cache, the GPU does.
fn cache_agrees(gpu: &Arc<Gpu>, model: &Arc<Model>, kv: KvChoice) {
    let options = exact(kv);
    let want = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap());
    let mut engine = with(model, &options, gpu, 0);
    assert!(engine.declined().is_empty(), "{:?}", engine.declined());
    let error = nmse(&evaluate(&mut engine), &want);
    let d = model.hparams().d_k;
    assert!(error <= 1e-5, "{kv:?}, heads of {d}: NMSE {error:.2e}");
}

#[test]
fn caches_of_every_format_and_of_every_head_size_agree_with_the_cpus() {
    let Some(gpu) = gpu() else { return };
    let models = HEAD_SIZES.map(with_heads_of);
    let all = KvFormat::ALL;
    for (i, format) in all.iter().enumerate() {
        // K and V alike are written by the kernel that turns them; else each by one of its own.
        cache_agrees(&gpu, &models[i % models.len()], KvChoice::new(*format, *format));
        let other = all[(i + 3) % all.len()];
        cache_agrees(&gpu, &models[(i + 4) % models.len()], KvChoice::new(*format, other));
    }
    let rotated = KvChoice { k: KvFormat::Q8_0, v: KvFormat::Q4_0, rotate_k: true, rotate_v: true };
    cache_agrees(&gpu, &models[1], rotated);
}

#[test]
#[ignore = "every pair of formats on a model of every head size; run with: cargo test --release --test gpu_models -- --ignored; not run as a whole yet"]
fn caches_of_every_pair_agree_with_the_cpus_at_every_head_size() {
    let Some(gpu) = gpu() else { return };
    for d in HEAD_SIZES {
        let model = with_heads_of(d);
        for k in KvFormat::ALL {
            for v in KvFormat::ALL {
                cache_agrees(&gpu, &model, KvChoice::new(*k, *v));
            }
        }
        println!("heads of {d}: {} pairs", KvFormat::ALL.len().pow(2));
    }
}

#[test]
fn for_every_pair_and_head_size_there_is_a_kernel_or_attention_and_cache_stay_on_the_cpu_by_name() {
    let Some(gpu) = gpu() else { return };
    let devices: [Arc<dyn Backend>; 2] =
        [Arc::new(CpuBackend::new(exact(KvChoice::new(KvFormat::F16, KvFormat::F16)).cpu).unwrap()), gpu];
    let layers: Vec<Option<usize>> = (0..LAYERS as usize).map(Some).collect();
    for d in HEAD_SIZES.into_iter().chain([40, 66, 576]) {
        let model = with_heads_of(d);
        for k in KvFormat::ALL {
            for v in KvFormat::ALL {
                let options = exact(KvChoice::new(*k, *v));
                let plan = |strict| {
                    let ask = Offload { strict, ..Offload::new(GpuLayers::All) };
                    plan_offload(&model, &options, &devices, &ask)
                };
                let planned = plan(false).unwrap();
                if d % 4 == 0 && d <= 512 {
                    assert_eq!(planned.fallbacks, [], "{k}, {v}, heads of {d}");
                    assert_eq!(planned.caches(), [1; LAYERS as usize], "{k}, {v}, heads of {d}");
                    assert!(plan(true).is_ok(), "{k}, {v}, heads of {d}");
                    continue;
                }
                assert_eq!(planned.caches(), [0; LAYERS as usize], "{k}, {v}, heads of {d}");
                assert_eq!(planned.gpu.kv, 0);
                let why = format!("no kernel for heads of {d} values");
                for op in ["attention", "kv_write"] {
                    let named = LeftBehind { op, why: &why, asked: false, layers: layers.clone() };
                    let behind = planned.left_behind();
                    assert!(behind.contains(&named), "{k}, {v}, heads of {d}: {behind:?}");
                }
                assert!(matches!(plan(true), Err(OffloadError::Strict { .. })), "{k}, {v}, heads of {d}");
            }
        }
    }
    // What stays behind is computed all the same.
    let model = with_heads_of(66);
    let options = exact(KvChoice::new(KvFormat::F16, KvFormat::Q8_0));
    let want = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap());
    let mut engine = offload(&model, &options, &devices, &Offload::new(GpuLayers::All)).unwrap();
    let error = nmse(&evaluate(&mut engine), &want);
    assert!(error <= 1e-5, "NMSE {error:.2e}");
}

#[test]
fn several_sequences_in_one_batch_agree_with_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let model = Tiny::new("llama", false, Format::F16, false).unwrap().model().unwrap();
    let options = exact(plain(KvFormat::F16, KvFormat::F16));
    let run = |engine: &mut Engine| {
        let mut out = decode(engine, &sequence(0, 0, &ids(9, 1)));
        out.extend(decode(engine, &sequence(1, 0, &ids(5, 4))));
        let mut both = sequence(0, 9, &ids(2, 3));
        both.extend(sequence(1, 5, &ids(3, 5)));
        out.extend(decode(engine, &both));
        engine.cells().truncate(0, 4).unwrap();
        out.extend(decode(engine, &sequence(0, 4, &ids(7, 6))));
        out
    };
    let want = run(&mut Engine::new(model.clone(), options.clone()).unwrap());
    let error = nmse(&run(&mut with(&model, &options, &gpu, 0)), &want);
    assert!(error <= 1e-5, "NMSE {error:.2e}");
}

#[test]
fn what_kernels_do_not_reach_of_a_buffer_is_divided_or_stays_on_the_cpu_with_the_reason() {
    if gpu().is_none() {
        return;
    }
    let devices = |max_binding| -> [Arc<dyn Backend>; 2] {
        let options = GpuOptions { software: true, checked: true, max_binding, ..GpuOptions::default() };
        let cpu = exact(KvChoice::new(KvFormat::F16, KvFormat::F16)).cpu;
        [Arc::new(CpuBackend::new(cpu).unwrap()), Arc::new(Gpu::open(&options).unwrap())]
    };
    let model = with_heads_of(64);
    let mut options = exact(KvChoice::new(KvFormat::F16, KvFormat::Q8_0));
    let strict = Offload { strict: true, ..Offload::new(GpuLayers::All) };
    let whole = plan_offload(&model, &options, &devices(None), &strict).unwrap();
    assert_eq!(whole.n_ubatch, None);

    // Less than the intermediates of 16 tokens: matrices are divided as well, and all the layers are there.
    let limit = whole.gpu.compute as usize - 16;
    let few = devices(Some(limit));
    let want = evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap());
    let mut engine = offload(&model, &options, &few, &strict).unwrap();
    assert_eq!(engine.offloaded().unwrap().n_ubatch, Some(8));
    let error = nmse(&evaluate(&mut engine), &want);
    assert!(error <= 1e-5, "NMSE {error:.2e}");

    // A cache of more tokens is more than that.
    options.n_ctx = 4096;
    let rows = options.n_ctx * 2 * 128;
    assert!(rows > limit);
    let mut engine = offload(&model, &options, &few, &Offload::new(GpuLayers::All)).unwrap();
    let went = engine.offloaded().unwrap().clone();
    assert_eq!((went.caches(), went.gpu.kv), (&[0; LAYERS as usize][..], 0));
    let told = went.left_behind();
    let reason = format!("a layer's K rows take {rows} bytes for 4096 tokens, and kernels reach ");
    assert_eq!(told.iter().map(|b| b.op).collect::<Vec<_>>(), ["kv_write", "attention"]);
    assert!(told.iter().all(|b| b.why.starts_with(&reason) && !b.asked), "{told:?}");
    let refused = plan_offload(&model, &options, &few, &strict);
    assert!(matches!(refused, Err(OffloadError::Strict { .. })), "{refused:?}");
    let error = nmse(&evaluate(&mut engine), &want);
    assert!(error <= 1e-5, "NMSE {error:.2e}");
}

/// Of an architecture the weights that its files have: no biases but where it is known for them.
fn as_released(arch: &str) -> Arc<Model> {
    let mut tiny = Tiny::new(arch, false, Format::Q8_0, false).unwrap();
    let biased = ["attn_q.bias", "attn_k.bias", "attn_v.bias"];
    tiny.tensors.retain(|t| {
        t.name.rsplit_once('.').is_none_or(|(_, last)| last != "bias")
            || (arch == "qwen2" && biased.iter().any(|b| t.name.ends_with(b)))
    });
    tiny.model().unwrap()
}

#[test]
fn a_token_takes_at_most_eight_dispatches_a_layer_and_reads_back_its_logits_only() {
    let Some(gpu) = gpu() else { return };
    for arch in ["llama", "qwen2", "qwen3"] {
        for format in [KvFormat::F16, KvFormat::Q8_0] {
            let model = as_released(arch);
            let options = exact(plain(format, format));
            let mut engine = with(&model, &options, &gpu, 0);
            let before = gpu.counters();
            decode(&mut engine, &sequence(0, 0, &ids(20, 1)));
            let prompt = gpu.counters();
            assert!(prompt.dispatches > before.dispatches);
            decode(&mut engine, &sequence(0, 20, &ids(1, 3)));
            let token = gpu.counters();
            // Outside of the layers: the embedding, the angles, the norm with the output matrix.
            let of_layers = token.dispatches - prompt.dispatches - 3;
            println!("{arch}, {format}: {of_layers} dispatches in {LAYERS} layers");
            assert!(of_layers <= 8 * u64::from(LAYERS), "{arch}, {format}: {of_layers} in {LAYERS} layers");
            assert_eq!(token.submissions - prompt.submissions, 1);
            assert_eq!(
                (token.reads - prompt.reads, token.bytes_read - prompt.bytes_read),
                (1, 4 * VOCAB as u64)
            );
            assert_eq!(engine.crossings(), (1, 0), "{arch}");
        }
    }
}

#[test]
fn the_time_of_every_kernel_is_told() {
    let Some(gpu) = gpu() else { return };
    let model = as_released("llama");
    let mut engine = with(&model, &exact(plain(KvFormat::F16, KvFormat::F16)), &gpu, 0);
    decode(&mut engine, &sequence(0, 0, &ids(5, 1)));
    engine.profile(true);
    decode(&mut engine, &sequence(0, 5, &ids(1, 3)));
    let profile = engine.profile(false).unwrap();
    if !gpu.caps().timestamps {
        println!("skipped: the device takes no times");
        return;
    }
    let rows = profile.rows();
    let products = rows.iter().filter(|r| r.how == "Q8_0 (matvec)");
    assert!(products.map(|r| r.weight_bytes).sum::<u64>() > 100_000, "{rows:?}");
    assert!(rows.iter().any(|r| r.op == "attention" && r.how == "f16, f16"), "{rows:?}");
}
