//! How much of a model a second device takes: planned by the allocator that will then be used, held against a budget, had
//! before anything is uploaded, and told with everything that stays behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::reach::{compile_shapes, reaches};
use super::reserve::is_memory_of;
use super::split::{self, CPU, GPU, Part};
use super::{Engine, EngineError, EngineOptions, kv_bytes, settle, weights_read};
use crate::backend::{Backend, Why};
use crate::exec::{Homes, Lowered};
use crate::graph::{Graph, Node, NodeId, Op};
use crate::model::Model;

/// How many layers are to go to the device, counted from the end; the output is the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// As many as fit.
    Auto,
    /// So many; more than there are is all of them.
    Count(usize),
    /// All of them, the output and the embedding too.
    All,
}

/// What is asked of the second device.
#[derive(Debug, Clone)]
pub struct Offload {
    /// How many layers.
    pub layers: GpuLayers,
    /// For every weight of the model: the device that it is placed on by name (0 the CPU, 1 the second), whatever its layer.
    /// May be shorter than the list of weights.
    pub pins: Vec<Option<usize>>,
    /// Whether the cache of an offloaded layer goes with it.
    pub kv: bool,
    /// Bytes of the device's memory that may be taken, where that is known.
    pub budget: Option<u64>,
    /// Whether an op of an offloaded layer that would run on the CPU is an error.
    pub strict: bool,
}

impl Offload {
    /// So many layers, nothing placed by name, caches with their layers, and no budget.
    pub fn new(layers: GpuLayers) -> Offload {
        Offload { layers, pins: Vec::new(), kv: true, budget: None, strict: false }
    }
}

/// Bytes taken on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Weights that are read there. On the CPU they are mapped: the system may drop and re-read them.
    pub weights: u64,
    /// The K and V cache for the whole context.
    pub kv: u64,
    /// Intermediates of the largest batch.
    pub compute: u64,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// A node that runs on the CPU although its layer is offloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Its op.
    pub op: &'static str,
    /// Its name with its layer.
    pub node: String,
    /// Its layer; none for the embedding and the output.
    pub layer: Option<usize>,
    /// Why it runs there.
    pub why: String,
    /// Whether that was asked for (a placement by name, a cache kept in RAM).
    pub asked: bool,
}

/// What goes where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffloadPlan {
    /// How many layers are offloaded, the output being the first.
    pub layers: usize,
    /// How many there are.
    pub of: usize,
    /// How many of those that were planned were given back, because their memory was refused after all.
    pub given_back: usize,
    /// Tokens that are evaluated at once, where that is fewer than was asked for: of more, the second device does not reach the
    /// intermediates in one buffer.
    pub n_ubatch: Option<usize>,
    /// Bytes taken on the CPU.
    pub cpu: Usage,
    /// Bytes taken on the second device.
    pub gpu: Usage,
    /// What runs on the CPU although its layer is offloaded, in the order of the graph.
    pub fallbacks: Vec<Fallback>,
    /// Whether the second device reaches the intermediates of a single token in one buffer.
    reaches: bool,
    homes: (Vec<usize>, Vec<usize>),
}

impl OffloadPlan {
    /// The device of every weight of the model: 0 the CPU, 1 the second.
    pub fn weights(&self) -> &[usize] {
        &self.homes.0
    }
    /// The device of every cache layer.
    pub fn caches(&self) -> &[usize] {
        &self.homes.1
    }
    /// Whether anything is on the second device.
    pub fn is_offloaded(&self) -> bool {
        self.homes.0.iter().chain(&self.homes.1).any(|home| *home != CPU)
    }
    /// The fallbacks of one op for one reason together, in the order of the graph.
    pub fn left_behind(&self) -> Vec<LeftBehind<'_>> {
        let mut groups: Vec<LeftBehind> = Vec::new();
        for f in &self.fallbacks {
            let same = |g: &&mut LeftBehind| (g.op, g.why, g.asked) == (f.op, f.why.as_str(), f.asked);
            match groups.iter_mut().find(same) {
                Some(group) if group.layers.contains(&f.layer) => {}
                Some(group) => group.layers.push(f.layer),
                None => {
                    groups.push(LeftBehind { op: f.op, why: &f.why, asked: f.asked, layers: vec![f.layer] });
                }
            }
        }
        groups
    }
}

/// The nodes of one op that run on the CPU for one reason although their layers are offloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind<'a> {
    /// The op.
    pub op: &'static str,
    /// The reason.
    pub why: &'a str,
    /// Whether that was asked for.
    pub asked: bool,
    /// Their layers; none for the embedding and the output.
    pub layers: Vec<Option<usize>>,
}

/// Why there is no engine over two devices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// So many layers do not fit.
    #[error("{asked} of {of} layers do not fit on {device}")]
    DoesNotFit {
        /// The device.
        device: String,
        /// The layers asked for.
        asked: usize,
        /// How many there are.
        of: usize,
        /// What they take there.
        needed: Usage,
        /// What may be taken, where that decided; none where the device refused the memory.
        budget: Option<u64>,
        /// What its kernels reach of one buffer, where the intermediates of a single token are more and that decided.
        reach: Option<usize>,
        /// The most layers that do fit; none where what is placed by name does not fit already.
        fits: Option<usize>,
    },
    /// Ops of offloaded layers would run on the CPU, which was not to be.
    #[error("{} ops of offloaded layers would run on the CPU", .plan.fallbacks.iter().filter(|f| !f.asked).count())]
    Strict {
        /// The plan with the ops.
        plan: Box<OffloadPlan>,
    },
    /// The engine itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A model, how it is to be evaluated, and on what.
struct Planner<'a> {
    model: &'a Model,
    options: &'a EngineOptions,
    backends: [&'a dyn Backend; 2],
    ask: &'a Offload,
}

/// Work out what goes where, without allocating any of it. `devices` are the CPU and the second one.
///
/// # Errors
/// What is asked for does not fit, or `strict` cannot be kept, or the model's graph cannot be built.
pub fn plan_offload(
    model: &Model,
    options: &EngineOptions,
    devices: &[Arc<dyn Backend>; 2],
    ask: &Offload,
) -> Result<OffloadPlan, OffloadError> {
    Planner { model, options, backends: [&*devices[CPU], &*devices[GPU]], ask }.plan()
}

/// An engine over the CPU and a second device; [`Engine::offloaded`] says what went where. Where the device refuses memory that should have been
/// there, [`GpuLayers::Auto`] gives layers back until the rest is had; a number that was asked for is then an error.
///
/// # Errors
/// As [`plan_offload`], and memory of the CPU is refused.
pub fn offload(
    model: &Arc<Model>,
    options: &EngineOptions,
    devices: &[Arc<dyn Backend>; 2],
    ask: &Offload,
) -> Result<Engine, OffloadError> {
    let planner = Planner { model, options, backends: [&*devices[CPU], &*devices[GPU]], ask };
    let planned = planner.plan()?;
    let device = devices[GPU].name();
    let mut plan = planned.clone();
    loop {
        let used = if plan.is_offloaded() { &devices[..] } else { &devices[..1] };
        let most = match Engine::reserve(model.clone(), options.clone(), used, plan.homes.clone()) {
            Ok(_) if plan.given_back > 0 && ask.layers != GpuLayers::Auto => {
                return Err(planner.does_not_fit(&planned, None, Some(plan.layers)));
            }
            Ok(mut engine) => match engine.fill() {
                Ok(()) => {
                    engine.offloaded = Some(plan);
                    return Ok(engine);
                }
                Err(error) if is_memory_of(&error, device) => None,
                Err(error) => return Err(error.into()),
            },
            Err(refused) if refused.memory_of(device) => refused.most,
            Err(refused) => return Err(refused.error.into()),
        };
        let Some(fewer) = plan.layers.checked_sub(1) else {
            return Err(planner.does_not_fit(&planned, None, None));
        };
        plan = planner.with_layers(most.map_or(fewer, |most| most.min(fewer)))?;
        plan.given_back = planned.layers - plan.layers;
    }
}

impl Planner<'_> {
    fn plan(&self) -> Result<OffloadPlan, OffloadError> {
        let most = split::most(self.model);
        let plan = match self.ask.layers {
            GpuLayers::Auto => match self.largest(most)? {
                Some(plan) => plan,
                None => return Err(self.does_not_fit(&self.with_layers(0)?, self.ask.budget, None)),
            },
            GpuLayers::Count(n) if n < most => self.counted(n)?,
            GpuLayers::Count(_) | GpuLayers::All => self.counted(most)?,
        };
        if self.ask.strict && plan.fallbacks.iter().any(|f| !f.asked) {
            return Err(OffloadError::Strict { plan: Box::new(plan) });
        }
        Ok(plan)
    }

    /// A number of layers that was asked for.
    fn counted(&self, n: usize) -> Result<OffloadPlan, OffloadError> {
        let plan = self.with_layers(n)?;
        if self.fits(&plan) {
            return Ok(plan);
        }
        let fits = match n.checked_sub(1) {
            Some(fewer) => self.largest(fewer)?.map(|plan| plan.layers),
            None => None,
        };
        Err(self.does_not_fit(&plan, self.ask.budget, fits))
    }

    fn does_not_fit(&self, plan: &OffloadPlan, budget: Option<u64>, fits: Option<usize>) -> OffloadError {
        OffloadError::DoesNotFit {
            device: self.backends[GPU].name().into(),
            asked: plan.layers,
            of: plan.of,
            needed: plan.gpu,
            budget,
            reach: (!plan.reaches).then(|| self.backends[GPU].max_buffer()),
            fits,
        }
    }

    fn fits(&self, plan: &OffloadPlan) -> bool {
        plan.reaches && self.ask.budget.is_none_or(|budget| plan.gpu.total() <= budget)
    }

    /// The plan with the most layers, at most `most`, that fits; none where not even no layer does.
    fn largest(&self, most: usize) -> Result<Option<OffloadPlan>, OffloadError> {
        let (mut low, mut high) = (0, most);
        if self.fits(&self.with_layers(most)?) {
            low = most;
        }
        while low < high {
            let middle = usize::midpoint(low, high + 1);
            if self.fits(&self.with_layers(middle)?) { low = middle } else { high = middle - 1 }
        }
        // Weights and caches only grow with the layers, but an arena may shrink, so that what was found may not fit.
        loop {
            let plan = self.with_layers(low)?;
            if self.fits(&plan) {
                return Ok(Some(plan));
            }
            let Some(fewer) = low.checked_sub(1) else { return Ok(None) };
            low = fewer;
        }
    }

    /// What goes where with so many layers.
    fn with_layers(&self, n: usize) -> Result<OffloadPlan, EngineError> {
        let (model, mut options) = (self.model, self.options.clone());
        let mut homes = split::homes(model, options.kv, n, &self.ask.pins, self.ask.kv)?;
        let declined = settle(model, &options, &mut homes, &self.backends)?;
        let mut used = [Usage::default(); 2];
        let mut read = BTreeSet::new();
        let mut fallbacks: Vec<Fallback> = Vec::new();
        let mut within = true;
        let by = Homes { weights: &homes.0, kv: &homes.1 };
        for (lowered, layout) in compile_shapes(model, &mut options, &by, &self.backends)? {
            within &= reaches(&layout, &self.backends);
            for (used, bytes) in used.iter_mut().zip(&layout.arena) {
                used.compute = used.compute.max(*bytes as u64);
            }
            read.extend(weights_read(&lowered));
            for found in self.left_behind(&lowered, n, &declined) {
                if !fallbacks.contains(&found) {
                    fallbacks.push(found);
                }
            }
        }
        for (device, weight) in read {
            let decl = &model.weights().list()[weight.0 as usize];
            let bytes = match device {
                CPU => decl.bytes,
                _ => self.backends[device].weight_bytes(model.file(), decl.index),
            };
            used[device].weights = used[device].weights.saturating_add(bytes);
        }
        let layers = homes.1.len().max(1) as u64;
        let of_layer = kv_bytes(model, options.n_ctx, options.kv.k, options.kv.v) / layers;
        for home in &homes.1 {
            used[*home].kv = used[*home].kv.saturating_add(of_layer);
        }
        let [cpu, gpu] = used;
        let of = split::most(model);
        let n_ubatch = Some(options.n_ubatch).filter(|n| *n < self.options.n_ubatch);
        Ok(OffloadPlan {
            layers: n,
            of,
            given_back: 0,
            n_ubatch,
            cpu,
            gpu,
            fallbacks,
            reaches: within,
            homes,
        })
    }

    /// The nodes of offloaded layers that run on the CPU, and why.
    fn left_behind(&self, lowered: &Lowered, n: usize, declined: &[(String, Why)]) -> Vec<Fallback> {
        let graph = &lowered.graph;
        let n_layer = self.model.hparams().n_layer;
        let declined: HashMap<&str, &Why> =
            declined.iter().map(|(label, why)| (label.as_str(), why)).collect();
        let mut found: Vec<Fallback> = Vec::new();
        let mut of_node: HashMap<NodeId, usize> = HashMap::new();
        for (id, node) in graph.iter() {
            if lowered.device[id.index()] != CPU || node.op.is_free() || is_made_by_lowering(&node.op) {
                continue;
            }
            let part = split::part_of_node(graph, id.index());
            // What all layers share has no layer that could be offloaded without it.
            if part.number(n_layer) > n || part == Part::Shared {
                continue;
            }
            let label = node.label();
            let (why, asked) = match declined.get(label.as_str()) {
                Some(why) => (why.0.clone(), false),
                None => self.why_here(graph, node).unwrap_or_else(|| {
                    // A node without a weight or a cache follows what it reads.
                    let leader = node.inputs.iter().find_map(|i| of_node.get(&source(graph, *i)));
                    match leader.map(|at| &found[*at]) {
                        Some(of) => (format!("it follows {}", of.op), of.asked),
                        None => ("what it reads is there".into(), false),
                    }
                }),
            };
            of_node.insert(id, found.len());
            found.push(Fallback { op: node.op.name(), node: label, layer: node.layer, why, asked });
        }
        found
    }

    /// Why a node that no device declined is on the CPU, where its weight or its cache says so; and whether that was asked
    /// for.
    fn why_here(&self, graph: &Graph, node: &Node) -> Option<(String, bool)> {
        let pinned = |weight: usize| self.ask.pins.get(weight).copied().flatten() == Some(CPU);
        for input in &node.inputs {
            if let Op::Weight(weight) = graph.node(*input).op
                && pinned(weight.0 as usize)
            {
                return Some(("its weight is placed there by name".into(), true));
            }
            if graph.kv_leaf(*input).is_some() {
                let key = split::key_weight(graph, *input);
                let (why, asked) = if !self.ask.kv {
                    ("its cache is kept in RAM", true)
                } else if key.is_some_and(pinned) {
                    ("its cache is where its keys are made, which are placed there by name", true)
                } else {
                    ("its layer's cache is there", false)
                };
                return Some((why.into(), asked));
            }
        }
        None
    }
}

fn is_made_by_lowering(op: &Op) -> bool {
    matches!(op, Op::Copy | Op::Quantize(_))
}

/// The node that made a value, behind copies, roundings and views of it.
fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while let (Op::Copy | Op::Quantize(_) | Op::View, Some(&of)) =
        (&graph.node(id).op, graph.node(id).inputs.first())
    {
        id = of;
    }
    id
}
