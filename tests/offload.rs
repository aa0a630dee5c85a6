//! Offloading to a second device: which layers go, what they take, that too little memory degrades step by step, and that
//! nothing stays behind without being named. The device here is a CPU under another name with a limited memory, which it
//! counts; what a GPU adds is tested with a GPU.

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use chaski::backend::{Backend, BackendError, Buffer, Plan, Result, Segment, Weight, Why};
use chaski::cpu::CpuBackend;
use chaski::engine::{
    Engine, EngineOptions, GpuLayers, Offload, OffloadError, OffloadPlan, offload, plan_offload,
};
use chaski::graph::{Graph, NodeId, Op};
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model};
use chaski::tensor::Act;
use chaski_gguf::{Format, Gguf};
use common::tiny::{Tensor, Tiny, VOCAB, decode, ids, options, sequence};

/// Layers of the models here.
const LAYERS: usize = 5;
/// Those and the output.
const MOST: usize = LAYERS + 1;

enum Held {
    Buffer(Weak<dyn Buffer>),
    Weight(Weak<dyn Weight>),
}

/// A CPU under another name, with a memory of its own.
struct Card {
    cpu: CpuBackend,
    /// Bytes that it has.
    memory: usize,
    /// Bytes that its kernels reach of a buffer.
    reach: usize,
    declines: fn(&Graph, NodeId) -> bool,
    held: Mutex<Vec<(Held, usize)>>,
    /// `alloc` and `fill` of weights, in the order in which they were asked for.
    log: Mutex<Vec<(&'static str, usize)>>,
}

impl Card {
    fn new(memory: usize) -> Arc<Card> {
        Card::declining(memory, |_, _| false)
    }
    fn declining(memory: usize, declines: fn(&Graph, NodeId) -> bool) -> Arc<Card> {
        Arc::new(Card { declines, ..Card::with(memory, usize::MAX) })
    }
    fn reaching(reach: usize) -> Arc<Card> {
        Arc::new(Card::with(usize::MAX, reach))
    }
    fn with(memory: usize, reach: usize) -> Card {
        let cpu = CpuBackend::new(options(1, 64, 16).cpu).unwrap();
        let declines = |_: &Graph, _: NodeId| false;
        Card { cpu, memory, reach, declines, held: Mutex::default(), log: Mutex::default() }
    }
    /// Bytes that are taken now.
    fn used(&self) -> usize {
        let mut held = self.held.lock().unwrap();
        held.retain(|(what, _)| match what {
            Held::Buffer(buffer) => buffer.strong_count() > 0,
            Held::Weight(weight) => weight.strong_count() > 0,
        });
        held.iter().map(|(_, bytes)| bytes).sum()
    }
    fn take(&self, what: &str, bytes: usize) -> Result<()> {
        if self.used() + bytes <= self.memory {
            return Ok(());
        }
        Err(BackendError::OutOfMemory { device: "card".into(), what: what.into(), bytes })
    }
    fn log(&self) -> Vec<(&'static str, usize)> {
        self.log.lock().unwrap().clone()
    }
}

impl Backend for Card {
    fn name(&self) -> &'static str {
        "card"
    }
    fn supports(&self, graph: &Graph, node: NodeId) -> Result<(), Why> {
        if (self.declines)(graph, node) { Err(Why("the card has no kernel for it".into())) } else { Ok(()) }
    }
    fn activation(&self, weight: Format) -> Act {
        self.cpu.activation(weight)
    }
    fn max_buffer(&self) -> usize {
        self.reach
    }
    fn alloc(&self, bytes: usize, what: &str) -> Result<Arc<dyn Buffer>> {
        assert!(bytes <= self.reach, "{bytes} bytes for {what}");
        self.take(what, bytes)?;
        let buffer = self.cpu.alloc(bytes, what)?;
        self.held.lock().unwrap().push((Held::Buffer(Arc::downgrade(&buffer)), bytes));
        Ok(buffer)
    }
    fn load_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        let weight = self.alloc_weight(file, index)?;
        self.fill_weight(file, index, &weight)?;
        Ok(weight)
    }
    /// A quarter more than in the file, so that nobody takes the file's bytes for the device's.
    fn weight_bytes(&self, file: &Gguf, index: usize) -> u64 {
        file.tensors()[index].bytes * 5 / 4
    }
    fn alloc_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        let bytes = self.weight_bytes(file, index) as usize;
        self.take(&file.tensors()[index].name, bytes)?;
        self.log.lock().unwrap().push(("alloc", index));
        let weight = self.cpu.load_weight(file, index)?;
        self.held.lock().unwrap().push((Held::Weight(Arc::downgrade(&weight)), bytes));
        Ok(weight)
    }
    fn fill_weight(&self, _: &Arc<Gguf>, index: usize, _: &Arc<dyn Weight>) -> Result<()> {
        self.log.lock().unwrap().push(("fill", index));
        Ok(())
    }
    fn plan(&self, segment: &Segment) -> Result<Box<dyn Plan>> {
        for id in segment.nodes {
            assert!(!(self.declines)(segment.graph, *id), "a declined node is planned here all the same");
        }
        self.cpu.plan(segment)
    }
    fn read(&self, buffer: &Arc<dyn Buffer>, offset: usize, out: &mut [u8]) -> Result<()> {
        self.cpu.read(buffer, offset, out)
    }
    fn write(&self, buffer: &Arc<dyn Buffer>, offset: usize, bytes: &[u8]) -> Result<()> {
        self.cpu.write(buffer, offset, bytes)
    }
}

/// A model of five layers.
fn model(arch: &str, experts: bool, format: Format, tied: bool) -> Arc<Model> {
    tiny(arch, experts, format, tied).model().unwrap()
}

fn tiny(arch: &str, experts: bool, format: Format, tied: bool) -> Tiny {
    let mut tiny = Tiny::new(arch, experts, format, tied).unwrap();
    let of_first: Vec<Tensor> =
        tiny.tensors.iter().filter(|t| t.name.starts_with("blk.0.")).cloned().collect();
    for layer in 2..LAYERS {
        tiny.tensors.extend(of_first.iter().cloned().map(|mut tensor| {
            tensor.name = tensor.name.replacen("blk.0.", &format!("blk.{layer}."), 1);
            tensor
        }));
    }
    tiny.set("block_count", LAYERS as u32);
    tiny
}

fn llama() -> Arc<Model> {
    model("llama", false, Format::Q8_0, false)
}

fn setup() -> EngineOptions {
    options(1, 64, 16)
}

fn beside(card: &Arc<Card>) -> [Arc<dyn Backend>; 2] {
    [Arc::new(CpuBackend::new(setup().cpu).unwrap()), card.clone()]
}

/// What is asked for, with what the card says to have.
fn ask(layers: GpuLayers, budget: Option<usize>) -> Offload {
    Offload { budget: budget.map(|b| b as u64), ..Offload::new(layers) }
}

fn evaluate(engine: &mut Engine) -> Vec<f32> {
    let mut out = decode(engine, &sequence(0, 0, &ids(19, 2)));
    for (i, id) in ids(3, 8).into_iter().enumerate() {
        out.extend(decode(engine, &sequence(0, 19 + i, &[id])));
    }
    out
}

fn alone(model: &Arc<Model>) -> Vec<f32> {
    evaluate(&mut Engine::new(model.clone(), setup()).unwrap())
}

fn planned(model: &Arc<Model>, card: &Arc<Card>, ask: &Offload) -> OffloadPlan {
    plan_offload(model, &setup(), &beside(card), ask).unwrap()
}

/// What all layers take on the card.
fn whole(model: &Arc<Model>) -> usize {
    planned(model, &Card::new(usize::MAX), &ask(GpuLayers::All, None)).gpu.total() as usize
}

fn not_fitting(result: Result<Engine, OffloadError>) -> (usize, Option<u64>, Option<usize>) {
    match result.map(|_| ()) {
        Err(OffloadError::DoesNotFit { asked, budget, fits, of, .. }) => {
            assert_eq!(of, MOST);
            (asked, budget, fits)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn layers_are_counted_from_the_end_and_the_output_is_the_first() {
    let (model, card) = (llama(), Card::new(usize::MAX));
    for n in 0..=MOST {
        let plan = planned(&model, &card, &ask(GpuLayers::Count(n), None));
        assert_eq!((plan.layers, plan.of), (n, MOST));
        for (weight, home) in model.weights().list().iter().zip(plan.weights()) {
            let goes = match weight.layer {
                Some(layer) => layer + n > LAYERS,
                None if weight.name.starts_with("output") => n > 0,
                None => n == MOST,
            };
            assert_eq!(*home, usize::from(goes), "-ngl {n}: {}", weight.name);
        }
        for (layer, home) in plan.caches().iter().enumerate() {
            assert_eq!(*home, usize::from(layer + n > LAYERS), "-ngl {n}: the cache of layer {layer}");
        }
        assert_eq!(plan.is_offloaded(), n > 0);
        assert_eq!(plan.fallbacks, []);
    }
    let all = planned(&model, &card, &ask(GpuLayers::All, None));
    for more in [GpuLayers::Count(MOST), GpuLayers::Count(99), GpuLayers::Auto] {
        assert_eq!(planned(&model, &card, &ask(more, None)), all, "{more:?}");
    }
}

#[test]
fn every_split_gives_the_logits_of_the_cpu_and_takes_what_was_planned() {
    let models =
        [llama(), model("qwen2", false, Format::Q4_K, true), model("qwen3moe", true, Format::F32, false)];
    for model in models {
        let want = alone(&model);
        for n in 0..=MOST {
            let card = Card::new(usize::MAX);
            let mut engine =
                offload(&model, &setup(), &beside(&card), &ask(GpuLayers::Count(n), None)).unwrap();
            let plan = engine.offloaded().unwrap().clone();
            assert_eq!(card.used() as u64, plan.gpu.total(), "{}: -ngl {n}", model.arch());
            assert!(evaluate(&mut engine) == want, "{}: -ngl {n}", model.arch());
        }
    }
}

#[test]
fn everything_is_had_before_the_first_weight_is_moved() {
    let (model, card) = (llama(), Card::new(usize::MAX));
    let engine = offload(&model, &setup(), &beside(&card), &ask(GpuLayers::All, None)).unwrap();
    let log = card.log();
    let (had, moved): (Vec<_>, Vec<_>) = log.iter().partition(|(what, _)| *what == "alloc");
    assert_eq!(log, [&had[..], &moved[..]].concat());
    let of = |list: &[(&str, usize)]| -> BTreeSet<usize> { list.iter().map(|(_, index)| *index).collect() };
    assert_eq!(of(&had), of(&moved));
    assert_eq!(had.len(), of(&had).len(), "a weight is had once");
    drop(engine);
    assert_eq!(card.used(), 0);
}

#[test]
fn a_tied_table_goes_with_the_output_and_is_looked_up_where_the_first_layer_is() {
    let model = model("qwen2", false, Format::Q8_0, true);
    let index = model.weights().get("token_embd.weight").unwrap().1.index;
    for n in 0..=MOST {
        let card = Card::new(usize::MAX);
        let mut engine = offload(&model, &setup(), &beside(&card), &ask(GpuLayers::Count(n), None)).unwrap();
        let copies = card.log().iter().filter(|entry| **entry == ("alloc", index)).count();
        assert_eq!(copies, usize::from(n > 0), "-ngl {n}: one buffer");
        evaluate(&mut engine);
        // The hidden state crosses once, and so do the angles where both sides have layers.
        let crossings = match n {
            0 | MOST => (1, 0),
            1 => (2, 1),
            _ => (3, 2),
        };
        assert_eq!(engine.crossings(), crossings, "-ngl {n}");
    }
}

#[test]
fn auto_degrades_step_by_step_with_the_budget_and_never_fails() {
    let model = llama();
    let (whole, want) = (whole(&model), alone(&model));
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for step in 0..=40 {
        let budget = whole * step / 40;
        let card = Card::new(budget);
        let ask = ask(GpuLayers::Auto, Some(budget));
        let mut engine = offload(&model, &setup(), &beside(&card), &ask).unwrap();
        let plan = engine.offloaded().unwrap();
        assert!(plan.layers >= last, "{budget} of {whole} bytes");
        assert_eq!((plan.given_back, plan.is_offloaded()), (0, plan.layers > 0));
        assert!(card.used() <= budget);
        last = plan.layers;
        if seen.insert(last) {
            assert!(evaluate(&mut engine) == want, "{last} layers");
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..=MOST).collect::<Vec<_>>());
}

#[test]
fn a_number_that_does_not_fit_is_an_error_with_the_largest_that_does() {
    let model = llama();
    let whole = whole(&model);
    for step in [0, 5, 9, 14, 19, 20] {
        let budget = whole * step / 20;
        let with = |layers| {
            let card = Card::new(budget);
            offload(&model, &setup(), &beside(&card), &ask(layers, Some(budget)))
        };
        let fits = with(GpuLayers::Auto).unwrap().offloaded().unwrap().layers;
        assert_eq!(with(GpuLayers::Count(fits)).unwrap().offloaded().unwrap().layers, fits);
        for more in fits + 1..=MOST {
            let told = not_fitting(with(GpuLayers::Count(more)));
            assert_eq!(told, (more, Some(budget as u64), Some(fits)), "{budget} of {whole} bytes");
        }
        if fits < MOST {
            assert_eq!(not_fitting(with(GpuLayers::All)), (MOST, Some(budget as u64), Some(fits)));
        }
    }
}

#[test]
fn layers_are_given_back_where_memory_is_refused_after_all() {
    let model = llama();
    let (whole, want) = (whole(&model), alone(&model));
    for step in 0..20 {
        let memory = whole * step / 20;
        let card = Card::new(memory);
        // The card says to have more than it has, or nothing at all.
        for budget in [Some(2 * whole), None] {
            let ask = ask(GpuLayers::Auto, budget);
            let mut engine = offload(&model, &setup(), &beside(&card), &ask).unwrap();
            let plan = engine.offloaded().unwrap().clone();
            assert_eq!(plan.given_back, MOST - plan.layers);
            assert!(plan.layers < MOST && card.used() <= memory);
            assert_eq!(card.used() as u64, plan.gpu.total());
            // No more were given back than had to be.
            let more = offload_count(&model, memory, plan.layers + 1);
            assert!(more.is_err(), "{} layers would have fitted as well", plan.layers + 1);
            if step % 5 == 0 {
                assert!(evaluate(&mut engine) == want, "{} layers", plan.layers);
            }
        }
        assert_eq!(card.used(), 0);
    }
}

type Told<'a> = (&'static str, &'a str, bool, Vec<Option<usize>>);

/// What stayed behind: op, reason, whether it was asked for, layers.
fn told(plan: &OffloadPlan) -> Vec<Told<'_>> {
    plan.left_behind().into_iter().map(|b| (b.op, b.why, b.asked, b.layers)).collect()
}

fn offload_count(model: &Arc<Model>, memory: usize, n: usize) -> Result<Engine, OffloadError> {
    offload(model, &setup(), &beside(&Card::new(memory)), &ask(GpuLayers::Count(n), None))
}

#[test]
fn a_number_whose_memory_is_refused_is_an_error_with_one_that_does_fit() {
    let model = llama();
    let whole = whole(&model);
    for step in [0, 3, 7, 11, 15, 19] {
        let memory = whole * step / 20;
        let (asked, budget, fits) = not_fitting(offload_count(&model, memory, MOST));
        assert_eq!((asked, budget), (MOST, None));
        let fits = fits.expect("with no layer nothing is asked of the card");
        assert_eq!(offload_count(&model, memory, fits).unwrap().offloaded().unwrap().layers, fits);
        assert!(offload_count(&model, memory, fits + 1).is_err(), "{fits} is the largest");
    }
}

#[test]
fn a_cache_kept_in_ram_keeps_its_attention_there_and_that_was_asked_for() {
    let (model, card) = (llama(), Card::new(usize::MAX));
    let ask = Offload { kv: false, strict: true, ..Offload::new(GpuLayers::Count(3)) };
    let mut engine = offload(&model, &setup(), &beside(&card), &ask).unwrap();
    assert!(evaluate(&mut engine) == alone(&model));
    let plan = engine.offloaded().unwrap();
    assert_eq!((plan.caches(), plan.gpu.kv), (&[0; LAYERS][..], 0));
    let told = told(plan);
    let of = [Some(3), Some(4)].to_vec();
    let why = "its cache is kept in RAM";
    assert_eq!(told, [("kv_write", why, true, of.clone()), ("attention", why, true, of)]);
}

#[test]
fn weights_placed_by_name_are_there_whatever_their_layer_and_take_the_cache_along() {
    let (model, card) = (llama(), Card::new(usize::MAX));
    let want = alone(&model);
    let pins = |cpu: &str, gpu: &str| -> Vec<Option<usize>> {
        let place = |name: &str| {
            let of = |part: &str| !part.is_empty() && name.contains(part);
            if of(cpu) { Some(0) } else { of(gpu).then_some(1) }
        };
        model.weights().list().iter().map(|weight| place(&weight.name)).collect()
    };
    let with = |layers, pins: Vec<Option<usize>>| {
        let ask = Offload { pins, strict: true, ..Offload::new(layers) };
        let mut engine = offload(&model, &setup(), &beside(&card), &ask).unwrap();
        assert!(evaluate(&mut engine) == want);
        engine.offloaded().unwrap().clone()
    };
    let plan = with(GpuLayers::All, pins("ffn_down", ""));
    let told = told(&plan);
    let why = "its weight is placed there by name";
    assert_eq!(told[0], ("matmul", why, true, (0..LAYERS).map(Some).collect()), "{told:?}");
    assert_eq!(plan.caches(), [1; LAYERS]);

    // A whole layer on the CPU.
    let plan = with(GpuLayers::All, pins("blk.2.", ""));
    assert_eq!(plan.caches(), [1, 1, 0, 1, 1]);
    assert!(plan.fallbacks.iter().all(|f| f.layer == Some(2) && f.asked), "{:?}", plan.fallbacks);

    // And one on the card though none is asked for.
    let plan = with(GpuLayers::Count(0), pins("", "blk.1."));
    assert_eq!((plan.layers, plan.caches(), plan.is_offloaded()), (0, &[0, 1, 0, 0, 0][..], true));
    assert_eq!(plan.fallbacks, []);
}

#[test]
fn what_is_placed_by_name_and_does_not_fit_leaves_no_number_to_offer() {
    let model = llama();
    let pins = vec![Some(1); model.weights().list().len()];
    for (memory, budget) in [(1000, Some(1000)), (1000, None)] {
        for layers in [GpuLayers::Auto, GpuLayers::Count(0), GpuLayers::Count(2)] {
            let ask = Offload { pins: pins.clone(), budget, ..Offload::new(layers) };
            let result = offload(&model, &setup(), &beside(&Card::new(memory)), &ask);
            assert_eq!(not_fitting(result).2, None, "{layers:?}");
        }
    }
}

/// The card computes attention where K and V are of one format, and that one is f16 or q8_0.
fn declines_attention(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let leaf = node.inputs.iter().find_map(|input| graph.kv_leaf(*input));
    match (&node.op, leaf.map(|leaf| &graph.node(leaf).op)) {
        (Op::Attention { .. }, Some(Op::Kv { k, v, .. })) => {
            k != v || ![KvFormat::F16, KvFormat::Q8_0].contains(k)
        }
        _ => false,
    }
}

#[test]
fn for_every_pair_of_cache_formats_attention_runs_on_the_card_or_is_named() {
    let model = llama();
    let n = 3;
    let offloaded = [Some(LAYERS - 2), Some(LAYERS - 1)].to_vec();
    for k in KvFormat::ALL {
        for v in KvFormat::ALL {
            let options = EngineOptions { kv: KvChoice::new(*k, *v), ..setup() };
            let card = Card::declining(usize::MAX, declines_attention);
            let with = |strict| {
                let ask = Offload { strict, ..Offload::new(GpuLayers::Count(n)) };
                offload(&model, &options, &beside(&card), &ask)
            };
            let has_kernel = k == v && [KvFormat::F16, KvFormat::Q8_0].contains(k);
            let engine = with(false).unwrap();
            let plan = engine.offloaded().unwrap();
            let mut caches = [0; LAYERS];
            if has_kernel {
                caches[LAYERS - 2..].fill(1);
                assert_eq!(plan.fallbacks, [], "{k}, {v}");
                assert!(with(true).is_ok(), "{k}, {v}");
            } else {
                let named: Vec<_> = told(plan);
                let attention = ("attention", "the card has no kernel for it", false, offloaded.clone());
                let write = ("kv_write", "its layer's cache is there", false, offloaded.clone());
                assert!(named.contains(&attention) && named.contains(&write), "{k}, {v}: {named:?}");
                let refused = with(true).map(|_| ()).unwrap_err();
                assert!(matches!(refused, OffloadError::Strict { .. }), "{k}, {v}: {refused:?}");
            }
            assert_eq!(plan.caches(), caches, "{k}, {v}");
        }
    }
}

#[test]
fn every_op_that_stays_behind_is_named_with_its_reason_or_whom_it_follows() {
    let model = llama();
    let declines: fn(&Graph, NodeId) -> bool = |graph, id| graph.node(id).name == "ffn_gate_bias";
    let card = Card::declining(usize::MAX, declines);
    let mut engine = offload(&model, &setup(), &beside(&card), &ask(GpuLayers::All, None)).unwrap();
    assert!(evaluate(&mut engine) == alone(&model));
    let plan = engine.offloaded().unwrap();
    let all: Vec<Option<usize>> = (0..LAYERS).map(Some).collect();
    let named = told(plan);
    let declined = ("add", "the card has no kernel for it", false, all.clone());
    assert_eq!(named, [declined, ("glu", "it follows add", false, all)]);
    // Its weight is read by the CPU alone.
    let bias = model.weights().get("blk.0.ffn_gate.bias").unwrap().1;
    assert!(!card.log().contains(&("alloc", bias.index)));
}

/// What the CPU computes alone.
fn alone_with(model: &Arc<Model>, options: &EngineOptions) -> Vec<f32> {
    evaluate(&mut Engine::new(model.clone(), options.clone()).unwrap())
}

#[test]
fn a_cache_that_the_card_does_not_reach_stays_on_the_cpu_with_the_reason() {
    let model = llama();
    let n = 3;
    let of = [Some(LAYERS - 2), Some(LAYERS - 1)].to_vec();
    // Two heads of 64 values in f16; V takes about half of that.
    let rows = 4096 * 2 * 128;
    let options = EngineOptions { n_ctx: 4096, kv: KvChoice::new(KvFormat::F16, KvFormat::Q8_0), ..setup() };
    let with = |reach, strict| {
        let ask = Offload { strict, ..Offload::new(GpuLayers::Count(n)) };
        offload(&model, &options, &beside(&Card::reaching(reach)), &ask)
    };
    let mut engine = with(rows - 1, false).unwrap();
    let plan = engine.offloaded().unwrap().clone();
    assert_eq!((plan.layers, plan.caches(), plan.gpu.kv, plan.n_ubatch), (n, &[0; LAYERS][..], 0, None));
    let why = "a layer's K rows take 1048576 bytes for 4096 tokens, and kernels reach 1048575 of a buffer";
    assert_eq!(told(&plan), [("kv_write", why, false, of.clone()), ("attention", why, false, of)]);
    assert!(evaluate(&mut engine) == alone_with(&model, &options));
    assert!(matches!(with(rows - 1, true).map(|_| ()), Err(OffloadError::Strict { .. })));
    let engine = with(rows, true).unwrap();
    assert_eq!(engine.offloaded().unwrap().caches(), [0, 0, 0, 1, 1]);
}

#[test]
fn micro_batches_are_halved_until_the_card_reaches_their_intermediates() {
    let model = llama();
    let all = ask(GpuLayers::All, None);
    // A cache that is smaller than the intermediates of a single token.
    let options = EngineOptions { kv: KvChoice::new(KvFormat::Q4_0, KvFormat::Q4_0), ..setup() };
    let plan = |reach| plan_offload(&model, &options, &beside(&Card::reaching(reach)), &all);
    let mut arena = plan(usize::MAX).unwrap().gpu.compute as usize;
    assert_eq!(plan(arena).unwrap().n_ubatch, None);
    for n_ubatch in [8, 4, 2, 1] {
        let card = Card::reaching(arena - 1);
        let strict = Offload { strict: true, ..all.clone() };
        let mut engine = offload(&model, &options, &beside(&card), &strict).unwrap();
        let went = engine.offloaded().unwrap().clone();
        assert_eq!((went.n_ubatch, went.layers, engine.options().n_ubatch), (Some(n_ubatch), MOST, n_ubatch));
        assert!(went.gpu.compute < arena as u64);
        assert_eq!(card.used() as u64, went.gpu.total());
        let alone = EngineOptions { n_ubatch, ..options.clone() };
        assert!(evaluate(&mut engine) == alone_with(&model, &alone), "{n_ubatch} tokens");
        arena = went.gpu.compute as usize;
    }
    // The intermediates of a single token: all layers cannot be had, which is said with the number that can.
    let reach = arena - 1;
    let Err(OffloadError::DoesNotFit { reach: told, fits: Some(fits), budget: None, .. }) = plan(reach)
    else {
        panic!("{:?}", plan(reach));
    };
    assert_eq!(told, Some(reach));
    let with = |layers| offload(&model, &options, &beside(&Card::reaching(reach)), &ask(layers, None));
    assert_eq!(with(GpuLayers::Count(fits)).unwrap().offloaded().unwrap().layers, fits);
    assert!(with(GpuLayers::Count(fits + 1)).is_err());
    let mut auto = with(GpuLayers::Auto).unwrap();
    assert_eq!(auto.offloaded().unwrap().layers, fits);
    evaluate(&mut auto);
}

#[test]
fn more_logits_than_the_card_reaches_at_once_are_had_in_smaller_micro_batches() {
    const WORDS: usize = 4096;
    let mut tiny = tiny("llama", false, Format::Q8_0, false);
    tiny.tensors.retain(|t| t.name != "output.bias");
    for name in ["token_embd.weight", "output.weight"] {
        let tensor = tiny.tensor(name);
        let row = tensor.bytes.len() / VOCAB;
        tensor.bytes = tensor.bytes.iter().copied().cycle().take(WORDS * row).collect();
        tensor.shape[1] = WORDS as u64;
    }
    let model = tiny.model().unwrap();
    let all = ask(GpuLayers::All, None);
    // Enough for a prompt, of which only the last logits are wanted.
    let enough = planned(&model, &Card::new(usize::MAX), &all).gpu.compute as usize;
    assert!(enough < 16 * WORDS * 4, "{enough}");
    // However a batch is cut, the bits are the same.
    let mut options = setup();
    options.cpu.invariant = true;
    let card = Card { cpu: CpuBackend::new(options.cpu).unwrap(), ..Card::with(usize::MAX, enough) };
    let mut engine = offload(&model, &options, &beside(&Arc::new(card)), &all).unwrap();
    assert_eq!(engine.offloaded().unwrap().n_ubatch, None);
    // Twice: that it does not fit is remembered.
    let mut cpu = Engine::new(model.clone(), options).unwrap();
    for first in [0, 19] {
        let batch = sequence(0, first, &ids(19, 2));
        assert!(decode(&mut engine, &batch) == decode(&mut cpu, &batch), "from {first} on");
        let mut seen = Vec::new();
        engine.cells().truncate(0, first as u32).unwrap();
        let mut logits = Vec::new();
        engine.observe(&batch, &mut logits, &mut |seen_here| seen.push(seen_here.x.len())).unwrap();
        assert_eq!(logits.len(), 19 * WORDS);
        assert!(!seen.is_empty());
    }
}
