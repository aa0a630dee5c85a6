//! The seam between graph and devices: an engine over several backends gives the same bits as one alone, wherever the
//! layers are divided and whatever a backend declines; and it says what was declined and why.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chaski::backend::{Backend, Buffer, Plan, Result, Segment, Weight, Why};
use chaski::cpu::CpuBackend;
use chaski::engine::Engine;
use chaski::graph::{Graph, NodeId, Op};
use chaski::model::Model;
use chaski::tensor::Act;
use chaski_gguf::{Format, Gguf};
use common::tiny::{LAYERS, Tiny, VOCAB, decode, ids, options, sequence};

/// A CPU under another name that declines some ops and counts what is asked of it.
struct Picky {
    cpu: CpuBackend,
    declines: &'static [&'static str],
    plans: AtomicUsize,
    weights: AtomicUsize,
    caches: AtomicUsize,
}

impl Picky {
    fn new(declines: &'static [&'static str]) -> Arc<Picky> {
        let cpu = CpuBackend::new(options(1, 64, 16).cpu).unwrap();
        let zero = AtomicUsize::default;
        Arc::new(Picky { cpu, declines, plans: zero(), weights: zero(), caches: zero() })
    }
}

impl Backend for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }
    fn supports(&self, graph: &Graph, node: NodeId) -> Result<(), Why> {
        let op = graph.node(node).op.name();
        if self.declines.contains(&op) { Err(Why(format!("{op} is beneath it"))) } else { Ok(()) }
    }
    fn activation(&self, weight: Format) -> Act {
        self.cpu.activation(weight)
    }
    fn alloc(&self, bytes: usize, what: &str) -> Result<Arc<dyn Buffer>> {
        self.caches.fetch_add(usize::from(what.ends_with("cache")), Ordering::Relaxed);
        self.cpu.alloc(bytes, what)
    }
    fn load_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        self.weights.fetch_add(1, Ordering::Relaxed);
        self.cpu.load_weight(file, index)
    }
    fn plan(&self, segment: &Segment) -> Result<Box<dyn Plan>> {
        for id in segment.nodes {
            let op = segment.graph.node(*id).op.name();
            assert!(!self.declines.contains(&op), "{op} was declined and is planned here all the same");
        }
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.cpu.plan(segment)
    }
    fn read(&self, buffer: &Arc<dyn Buffer>, offset: usize, out: &mut [u8]) -> Result<()> {
        self.cpu.read(buffer, offset, out)
    }
    fn write(&self, buffer: &Arc<dyn Buffer>, offset: usize, bytes: &[u8]) -> Result<()> {
        self.cpu.write(buffer, offset, bytes)
    }
}

fn models() -> Vec<(String, Arc<Model>)> {
    [("llama", false, Format::Q4_K), ("qwen2", false, Format::Q8_0), ("qwen3moe", true, Format::F32)]
        .into_iter()
        .map(|(arch, experts, format)| {
            let tiny = Tiny::new(arch, experts, format, false).unwrap();
            (arch.to_owned(), tiny.model().unwrap())
        })
        .collect()
}

/// Weights and caches by the device of their layer; `None` is the output, and the embedding is on the CPU.
fn homes(model: &Model, home: impl Fn(Option<usize>) -> usize) -> (Vec<usize>, Vec<usize>) {
    let weight = |name: &str, layer: Option<usize>| {
        if name.starts_with("output") || layer.is_some() { home(layer) } else { 0 }
    };
    let weights = model.weights().list().iter().map(|w| weight(&w.name, w.layer)).collect();
    (weights, (0..model.hparams().n_layer).map(|l| home(Some(l))).collect())
}

/// A prompt in uneven micro-batches, none of whose logits, some and all are wanted, then single tokens.
fn evaluate(engine: &mut Engine) -> Vec<f32> {
    let mut prompt = sequence(0, 0, &ids(37, 2));
    prompt.iter_mut().enumerate().for_each(|(i, t)| t.logits = i >= 16 && i % 3 != 0);
    let mut out = decode(engine, &prompt);
    for (i, id) in ids(4, 8).into_iter().enumerate() {
        out.extend(decode(engine, &sequence(0, 37 + i, &[id])));
    }
    assert_eq!(out.len() / VOCAB, (16..37).filter(|i| i % 3 != 0).count() + 4);
    out
}

fn alone(model: &Arc<Model>) -> Vec<f32> {
    evaluate(&mut Engine::new(model.clone(), options(1, 64, 16)).unwrap())
}

fn with(model: &Arc<Model>, other: Arc<dyn Backend>, home: impl Fn(Option<usize>) -> usize) -> Engine {
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(options(2, 64, 16).cpu).unwrap());
    Engine::with_devices(model.clone(), options(2, 64, 16), &[cpu, other], homes(model, home)).unwrap()
}

#[test]
fn layers_may_be_divided_at_any_point_without_changing_a_bit() {
    let layers = LAYERS as usize;
    for (name, model) in models() {
        let want = alone(&model);
        for split in 0..=layers {
            let other: Arc<dyn Backend> = Arc::new(CpuBackend::new(options(1, 64, 16).cpu).unwrap());
            let mut engine = with(&model, other, |layer| usize::from(layer.is_none_or(|l| l >= split)));
            assert!(evaluate(&mut engine) == want, "{name}, from layer {split} on");
            assert!(engine.declined().is_empty());
            // The hidden state crosses once; where there is a layer on the other side, so do the angles.
            let crossings = if split == layers { (2, 1) } else { (3, 2) };
            assert_eq!(engine.crossings(), crossings, "{name}, from layer {split} on");
        }
        // And back: the last layer and the output on the CPU.
        let other: Arc<dyn Backend> = Picky::new(&[]);
        let mut engine = with(&model, other, |layer| usize::from(layer == Some(0)));
        assert!(evaluate(&mut engine) == want, "{name}, the first layer elsewhere");
        assert_eq!(engine.crossings(), (4, 3), "{name}");
    }
}

#[test]
fn one_backend_makes_one_plan_and_no_copy() {
    for (_, model) in models() {
        let mut engine = Engine::new(model, options(1, 64, 16)).unwrap();
        evaluate(&mut engine);
        assert_eq!(engine.crossings(), (1, 0));
        assert!(engine.declined().is_empty());
    }
}

#[test]
fn what_a_backend_declines_runs_on_the_cpu_with_the_same_bits_and_is_named() {
    for (name, model) in models() {
        let want = alone(&model);
        let graph =
            model.graph(chaski::model::BatchShape { n_tokens: 16, n_out: 1 }, options(1, 64, 16).kv).unwrap();
        for declines in [
            &["rope"][..],
            &["rms_norm", "glu"],
            &["matmul"],
            &["matmul_experts", "top_k"],
            &["attention"],
            &["kv_write"],
            &["attention", "kv_write", "add", "softmax"],
        ] {
            let picky = Picky::new(declines);
            let mut engine = with(&model, picky.clone(), |_| 1);
            assert!(evaluate(&mut engine) == want, "{name} without {declines:?}");
            // Named are only nodes of the declined ops, with the reason; and of those all that have a home of their own. (One
            // without a weight or a cache may have followed a declined input to the CPU, and was never offered.)
            let got = engine.declined();
            for (node, why) in got {
                let of = graph.nodes().iter().find(|n| n.label() == *node).unwrap();
                assert!(declines.contains(&of.op.name()), "{name}: {node}");
                assert_eq!(why.0, format!("{} is beneath it", of.op.name()));
            }
            for node in graph.nodes().iter().filter(|n| declines.contains(&n.op.name())) {
                let has_home = |i: &NodeId| {
                    matches!(graph.node(*i).op, Op::Weight(_) | Op::Kv { .. }) || graph.kv_leaf(*i).is_some()
                };
                let named = got.iter().filter(|(label, _)| *label == node.label()).count();
                assert!(named <= 1, "{name}: {} is named {named} times", node.label());
                if node.inputs.iter().any(has_home) || *declines == ["rope"] {
                    assert_eq!(named, 1, "{name} without {declines:?}: {}", node.label());
                }
            }
            // A cache lives where it is read and written.
            let caches = picky.caches.load(Ordering::Relaxed);
            let moved = declines.iter().any(|d| ["attention", "kv_write"].contains(d));
            assert_eq!(caches, if moved { 0 } else { 2 * LAYERS as usize }, "{name} without {declines:?}");
        }
    }
}

#[test]
fn a_weight_is_loaded_where_it_is_read_and_once() {
    for (name, model) in models() {
        let all = model.weights().list().len();
        let in_layers = model.weights().list().iter().filter(|w| w.layer.is_some()).count();
        let picky = Picky::new(&[]);
        let mut engine = with(&model, picky.clone(), |_| 1);
        evaluate(&mut engine);
        let loaded = picky.weights.load(Ordering::Relaxed);
        assert!(loaded > in_layers && loaded < all, "{name}: {loaded} of {all}");
        assert!(picky.plans.load(Ordering::Relaxed) >= 2, "{name}");

        // Nothing is loaded by a backend that declines all that reads weights.
        let idle = Picky::new(&["matmul", "matmul_experts", "rms_norm", "add", "get_rows", "rope_table"]);
        let mut engine = with(&model, idle.clone(), |_| 1);
        evaluate(&mut engine);
        assert_eq!(idle.weights.load(Ordering::Relaxed), 0, "{name}");
    }
}

#[test]
fn a_backend_that_declines_everything_is_as_good_as_none() {
    for (name, model) in models() {
        let picky = Picky::new(&[
            "get_rows",
            "matmul",
            "matmul_experts",
            "top_k",
            "gather",
            "softmax",
            "sum_to_one",
            "weighted_sum",
            "rms_norm",
            "rope_table",
            "rope",
            "add",
            "glu",
            "hadamard",
            "scale",
            "kv_write",
            "attention",
        ]);
        let mut engine = with(&model, picky.clone(), |_| 1);
        assert!(evaluate(&mut engine) == alone(&model), "{name}");
        assert_eq!((picky.plans.load(Ordering::Relaxed), engine.crossings()), (0, (1, 0)), "{name}");
        let graph =
            model.graph(chaski::model::BatchShape { n_tokens: 1, n_out: 1 }, engine.options().kv).unwrap();
        let attention = graph.nodes().iter().filter(|n| matches!(n.op, Op::Attention { .. })).count();
        assert_eq!(attention, LAYERS as usize);
    }
}
