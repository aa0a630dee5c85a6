//! The engine: a model with its devices, its cache and its plans; it evaluates batches of tokens.
//!
//! [`Engine::decode`] takes tokens of any number of sequences. [`Session`] is the convenient form for
//! one: it knows what the cache holds and evaluates only what is new.

mod adapter;
mod memory;
mod observe;
mod offload;
mod reach;
mod reserve;
mod session;
mod split;

use std::collections::VecDeque;
use std::sync::Arc;

use chaski_gguf::Gguf;

pub use crate::exec::{Profile, ProfileRow};
pub use adapter::{GpuAdapter, GpuWanted, HAS_GPU, OpenGpu, adapters, open_gpu};
pub use memory::{MemoryPlan, kv_bytes, plan_memory};
pub use observe::{Experts, Observed};
pub use offload::{
    Fallback, GpuLayers, LeftBehind, Offload, OffloadError, OffloadPlan, Usage, offload, plan_offload,
};
pub use session::{Interrupted, Session};

use crate::backend::{Backend, BackendError, Inputs, Why};
use crate::cpu::{CpuBackend, CpuOptions};
use crate::exec::{self, Device, Homes, Layout, Lowered, Prepared};
use crate::graph::{Op, WeightId};
use crate::kv::{Cells, CellsError, SeqPos, Visible};
use crate::model::{BatchShape, KvChoice, Model, ModelError, RopeOptions};

/// Plans kept ready: one for single tokens, one for full batches, and a few for what is left over.
const PLANS: usize = 8;

/// What an engine is made with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How the CPU is used.
    pub cpu: CpuOptions,
    /// Cells of the cache: tokens that it can hold, over all sequences.
    pub n_ctx: usize,
    /// Sequences that may share the cache, numbered from 0.
    pub n_sequences: u32,
    /// Tokens that are evaluated at once, at least 1.
    pub n_ubatch: usize,
    /// Rows of logits that memory is reserved for; where a micro-batch wants more, they are had when it comes.
    pub n_outputs: usize,
    /// How K and V rows are kept.
    pub kv: KvChoice,
}

/// A token to be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchToken {
    /// Its id.
    pub id: u32,
    /// Its position in its sequence.
    pub position: u32,
    /// Its sequence.
    pub sequence: u32,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// What went wrong while evaluating.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A device.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The cache.
    #[error(transparent)]
    Cells(#[from] CellsError),
    /// A token that the vocabulary does not hold.
    #[error("token {id} at place {index} of the batch: the vocabulary has {n_vocab} tokens")]
    Token {
        /// The id.
        id: u32,
        /// Its place in the batch.
        index: usize,
        /// Tokens of the vocabulary.
        n_vocab: usize,
    },
    /// A weight that was to take the place of one of the model's.
    #[error("weight {name} cannot be replaced: {why}")]
    Replacement {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Logits that are not finite: the weights are not, or overflow.
    #[error("the logits of token {index} of the batch are not finite ({value} for token {id})")]
    NotFinite {
        /// The place in the batch of the token whose logits these are.
        index: usize,
        /// The entry of the vocabulary.
        id: usize,
        /// The value.
        value: f32,
    },
}

/// The result of evaluating.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// A model ready to evaluate tokens.
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    devices: Vec<Device>,
    homes: (Vec<usize>, Vec<usize>),
    declined: Vec<(String, Why)>,
    offloaded: Option<OffloadPlan>,
    cells: Cells,
    plans: VecDeque<(BatchShape, Prepared)>,
    inputs: Inputs,
    rows: Vec<f32>,
    profile: Option<Profile>,
    /// A shape whose intermediates are more than a device reaches of a buffer: so are those of larger ones.
    too_large: Option<BatchShape>,
}

/// Ask every backend for what it declines, and bring the caches of layers whose attention or write is declined to the
/// CPU with them: a cache is only read where it lives. Those that a device does not reach go there, too. Gives the names of
/// the nodes declined, with the reasons.
fn settle(
    model: &Model,
    options: &EngineOptions,
    homes: &mut (Vec<usize>, Vec<usize>),
    backends: &[&dyn Backend],
) -> Result<Vec<(String, Why)>> {
    let mut all = reach::bring_large_caches(model, options, &mut homes.1, backends)?;
    for n_tokens in [options.n_ubatch.min(options.n_ctx), 1] {
        let graph = model.graph(BatchShape { n_tokens, n_out: 1 }, options.kv)?;
        loop {
            let placement = exec::place(&graph, &Homes { weights: &homes.0, kv: &homes.1 }, backends);
            let mut moved = false;
            for (id, why) in placement.declined {
                let node = graph.node(id);
                for leaf in node.inputs.iter().filter_map(|input| graph.kv_leaf(*input)) {
                    if let Op::Kv { layer, .. } = graph.node(leaf).op
                        && let Some(home) = homes.1.get_mut(layer).filter(|home| **home != 0)
                    {
                        *home = 0;
                        moved = true;
                    }
                }
                let entry = (node.label(), why);
                if !all.contains(&entry) {
                    all.push(entry);
                }
            }
            if !moved {
                break;
            }
        }
    }
    Ok(all)
}

/// A graph lowered and laid out for its devices.
fn compile(
    model: &Model,
    kv: KvChoice,
    shape: BatchShape,
    homes: &Homes,
    backends: &[&dyn Backend],
) -> Result<(Lowered, Layout)> {
    let graph = model.graph(shape, kv)?;
    let placement = exec::place(&graph, homes, backends);
    let lowered = exec::lower(&graph, &placement, backends);
    let layout = exec::layout(&lowered, backends.len());
    Ok((lowered, layout))
}

/// The shape of a micro-batch.
fn shape_of(part: &[BatchToken]) -> BatchShape {
    BatchShape { n_tokens: part.len(), n_out: part.iter().filter(|t| t.logits).count() }
}

/// The weights that the nodes of a lowered graph read, with the device of the node.
fn weights_read(lowered: &Lowered) -> impl Iterator<Item = (usize, WeightId)> + '_ {
    let graph = &lowered.graph;
    graph.iter().flat_map(move |(id, node)| {
        node.inputs.iter().filter_map(move |input| match graph.node(*input).op {
            Op::Weight(weight) => Some((lowered.device[id.index()], weight)),
            _ => None,
        })
    })
}

impl Engine {
    /// Open a file as a model and make an engine of it.
    ///
    /// # Errors
    /// The file is no model that can be run, or memory is refused.
    pub fn open(file: Gguf, rope: &RopeOptions, options: EngineOptions) -> Result<Engine> {
        Engine::new(Arc::new(Model::new(Arc::new(file), rope)?), options)
    }

    /// An engine that runs everything on the CPU.
    ///
    /// # Errors
    /// Memory is refused.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Engine> {
        let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(options.cpu)?);
        let homes = (vec![0; model.weights().list().len()], vec![0; model.hparams().n_layer]);
        Engine::with_devices(model, options, &[cpu], homes)
    }

    /// An engine over several backends, the CPU first. `homes` gives for every weight and for every
    /// cache layer the number of the backend that it lives on. What a backend declines runs on the CPU, its weights and
    /// caches with it; [`Engine::declined`] says what and why.
    ///
    /// # Errors
    /// Memory is refused.
    pub fn with_devices(
        model: Arc<Model>,
        options: EngineOptions,
        backends: &[Arc<dyn Backend>],
        homes: (Vec<usize>, Vec<usize>),
    ) -> Result<Engine> {
        let mut engine = Engine::reserve(model, options, backends, homes).map_err(|refused| refused.error)?;
        engine.fill()?;
        Ok(engine)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
    /// What the engine was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }
    /// Which cells hold which tokens; sequences are copied, cut and removed here.
    pub fn cells(&mut self) -> &mut Cells {
        &mut self.cells
    }
    /// Nodes that run on the CPU although their layer lives elsewhere, and why: the name with its layer (`attn-3`).
    pub fn declined(&self) -> &[(String, Why)] {
        &self.declined
    }
    /// The names of the devices, the CPU first.
    pub fn device_names(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|device| device.backend.name())
    }
    /// What went to a second device, where the engine was made by [`offload`].
    pub fn offloaded(&self) -> Option<&OffloadPlan> {
        self.offloaded.as_ref()
    }
    /// Of the batch evaluated last: how many plans were run, and how many copies from device to device.
    pub fn crossings(&self) -> (usize, usize) {
        self.plans.front().map_or((0, 0), |(_, plan)| plan.crossings())
    }
    /// From now on take the time of every node, or no longer do; gives what was taken since it was asked for.
    pub fn profile(&mut self, on: bool) -> Option<Profile> {
        std::mem::replace(&mut self.profile, on.then(Profile::default))
    }
    /// Make sure that a plan for this shape is ready, and put it first. False where that is for several tokens and a device
    /// does not reach all of their intermediates.
    fn prepare(&mut self, shape: BatchShape) -> Result<bool> {
        if let Some(at) = self.plans.iter().position(|(s, _)| *s == shape) {
            self.plans.make_contiguous()[..=at].rotate_right(1);
            return Ok(true);
        }
        if self.too_large.is_some_and(|too| shape.n_tokens >= too.n_tokens && shape.n_out >= too.n_out) {
            return Ok(false);
        }
        let backends: Vec<&dyn Backend> = self.devices.iter().map(|d| &*d.backend).collect();
        let homes = Homes { weights: &self.homes.0, kv: &self.homes.1 };
        let (lowered, layout) = compile(&self.model, self.options.kv, shape, &homes, &backends)?;
        if shape.n_tokens > 1 && !reach::reaches(&layout, &backends) {
            self.too_large = Some(shape);
            return Ok(false);
        }
        self.load(&lowered)?;
        self.reserve_arenas(&layout.arena)?;
        let plan = exec::prepare(&lowered, &layout, &self.devices)?;
        self.plans.truncate(PLANS - 1);
        self.plans.push_front((shape, plan));
        Ok(true)
    }

    /// Load every weight where a node reads it, if it is not there yet.
    fn load(&mut self, lowered: &Lowered) -> Result<()> {
        for (number, weight) in weights_read(lowered) {
            let device = &mut self.devices[number];
            let slot = &mut device.weights[weight.0 as usize];
            if slot.is_none() {
                let decl = &self.model.weights().list()[weight.0 as usize];
                *slot = Some(device.backend.load_weight(self.model.file(), decl.index)?);
            }
        }
        Ok(())
    }

    /// Evaluate tokens and append the wanted logits to `logits`, `n_vocab` values a token in the order
    /// of the batch. Tokens of a sequence come in the order of their positions, each one after the last
    /// that the cache holds. On an error the cache is as before the micro-batch that failed.
    ///
    /// # Errors
    /// A token is not in the vocabulary, the cache is full, a device failed, or the logits are not finite.
    pub fn decode(&mut self, batch: &[BatchToken], logits: &mut Vec<f32>) -> Result<()> {
        let n_vocab = self.model.hparams().n_vocab;
        if let Some((index, token)) = batch.iter().enumerate().find(|(_, t)| t.id as usize >= n_vocab) {
            return Err(EngineError::Token { id: token.id, index, n_vocab });
        }
        let mut rest = batch;
        while !rest.is_empty() {
            let mut part = self.ubatch(rest);
            while !self.prepare(shape_of(part))? {
                part = reach::half(part);
            }
            self.decode_ubatch(part, batch.len() - rest.len(), logits)?;
            rest = &rest[part.len()..];
        }
        Ok(())
    }

    /// The first micro-batch of a batch.
    fn ubatch<'a>(&self, batch: &'a [BatchToken]) -> &'a [BatchToken] {
        &batch[..batch.len().min(self.options.n_ubatch)]
    }

    /// Evaluate a micro-batch whose plan is ready. `first` is the place in the batch of its first token.
    fn decode_ubatch(&mut self, part: &[BatchToken], first: usize, logits: &mut Vec<f32>) -> Result<()> {
        let places: Vec<SeqPos> = part.iter().map(|t| SeqPos { seq: t.sequence, pos: t.position }).collect();
        let mut slots = Vec::with_capacity(part.len());
        self.cells.append(&places, &mut slots)?;
        let inputs = &mut self.inputs;
        inputs.tokens = part.iter().map(|t| t.id as i32).collect();
        inputs.positions = part.iter().map(|t| t.position as i32).collect();
        inputs.cells = slots.iter().map(|c| *c as i32).collect();
        let wanted = part.iter().enumerate().filter(|(_, t)| t.logits);
        inputs.out_rows = wanted.map(|(i, _)| i as i32).collect();
        if inputs.visible.is_empty() {
            inputs.visible.push((None, Visible::default()));
        }
        for (window, visible) in &mut inputs.visible {
            self.cells.visible(&places, *window, true, visible);
        }

        let result = self.run_front(first);
        if result.is_err() {
            // What was to be written is forgotten: the cells are as before.
            for place in &places {
                if self.cells.next_pos(place.seq) > place.pos {
                    self.cells.truncate(place.seq, place.pos)?;
                }
            }
        }
        result?;
        logits.extend_from_slice(&self.rows);
        Ok(())
    }

    /// Run the first plan on the inputs; the logits of the wanted rows go to `self.rows`. `first` is the place in the
    /// batch of the micro-batch's first token.
    fn run_front(&mut self, first: usize) -> Result<()> {
        let n_vocab = self.model.hparams().n_vocab;
        self.rows.clear();
        if let Some((shape, plan)) = self.plans.front_mut() {
            match &mut self.profile {
                None => plan.run(&self.devices, &self.inputs)?,
                Some(profile) => plan.run_profiled(&self.devices, &self.inputs, profile)?,
            }
            if shape.n_out > 0 {
                plan.read_output(&self.devices, &mut self.rows)?;
            }
        }
        match self.rows.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let row = self.inputs.out_rows.get(at / n_vocab).copied().unwrap_or(0);
                let (index, value) = (first + row as usize, self.rows[at]);
                Err(EngineError::NotFinite { index, id: at % n_vocab, value })
            }
        }
    }
}
