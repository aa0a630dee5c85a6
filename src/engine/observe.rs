//! Evaluation with a look at what meets every matrix: for calibration.

use std::sync::Arc;

use chaski_gguf::Gguf;

use super::reach::{half, reaches};
use super::{BatchToken, Engine, EngineError, Result, shape_of};
use crate::backend::Backend;
use crate::exec::{self, Homes};
use crate::graph::{Graph, NodeId, Op, WeightId};
use crate::model::BatchShape;

/// The activations that met a matrix in one micro-batch.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The matrix's name.
    pub weight: &'a str,
    /// The value of the graph that meets it: the same number for matrices that share their input.
    pub input: usize,
    /// The activations before any rounding, row after row.
    pub x: &'a [f32],
    /// Values of a row: the matrix's columns.
    pub row: usize,
    /// For a stack of experts' matrices, which one each slot of each token chose: `[slots, tokens]`.
    pub experts: Option<Experts<'a>>,
}

/// Which experts were chosen.
#[derive(Debug)]
pub struct Experts<'a> {
    /// Their numbers, token after token.
    pub ids: &'a [i32],
    /// How many each token chose.
    pub slots: usize,
    /// Rows of activations a token: 1 where all its experts meet the same, else `slots`.
    pub rows: usize,
    /// How many there are to choose from.
    pub count: usize,
}

/// A matrix product whose input is watched; indices are those of the graph's kept values.
struct Tap {
    weight: WeightId,
    x: NodeId,
    ids: Option<NodeId>,
}

/// Have the inputs of the matrix products with these matrices kept.
fn tap(graph: &mut Graph, wanted: &dyn Fn(&str) -> bool) -> Vec<Tap> {
    let mut taps = Vec::new();
    for (_, node) in graph.iter() {
        let (Op::MatMul | Op::MatMulExperts, [w, x, rest @ ..]) = (&node.op, &node.inputs[..]) else {
            continue;
        };
        if let Op::Weight(weight) = graph.node(*w).op
            && wanted(&graph.node(*w).name)
        {
            taps.push(Tap { weight, x: *x, ids: rest.first().copied() });
        }
    }
    for tap in &taps {
        graph.keep(tap.x);
        tap.ids.iter().for_each(|ids| graph.keep(*ids));
    }
    taps
}

impl Engine {
    /// Evaluate tokens as [`Engine::decode`] does, and show `watch` what met every matrix, micro-batch by micro-batch. Every
    /// input is kept until the micro-batch is done, so a small micro-batch takes less memory.
    ///
    /// # Errors
    /// As [`Engine::decode`].
    pub fn observe(
        &mut self,
        batch: &[BatchToken],
        logits: &mut Vec<f32>,
        watch: &mut dyn FnMut(&Observed<'_>),
    ) -> Result<()> {
        let mut rest = batch;
        while !rest.is_empty() {
            let mut part = self.ubatch(rest);
            while !self.observe_ubatch(part, logits, watch)? {
                part = half(part);
            }
            rest = &rest[part.len()..];
        }
        Ok(())
    }

    /// See [`Engine::watch_graph`] for what is given back.
    fn observe_ubatch(
        &mut self,
        part: &[BatchToken],
        logits: &mut Vec<f32>,
        watch: &mut dyn FnMut(&Observed<'_>),
    ) -> Result<bool> {
        let shape = shape_of(part);
        let mut graph = self.model.graph(shape, self.options.kv)?;
        let taps = tap(&mut graph, &|_| true);
        self.watch_graph(part, shape, &graph, &taps, logits, watch)
    }

    /// As [`Engine::observe`], but only what meets the matrices `wanted` by name is shown, nothing is computed that comes
    /// after the last of them, and no logits are had. The tokens come in one micro-batch or as the micro-batches cut them;
    /// the cache must be cleared before other tokens are evaluated, since the layers that were left out wrote nothing.
    ///
    /// # Errors
    /// As [`Engine::decode`].
    pub fn observe_some(
        &mut self,
        batch: &[BatchToken],
        wanted: &dyn Fn(&str) -> bool,
        watch: &mut dyn FnMut(&Observed<'_>),
    ) -> Result<()> {
        let mut rest = batch;
        while !rest.is_empty() {
            let mut part = self.ubatch(rest);
            while !self.observe_some_ubatch(part, wanted, watch)? {
                part = half(part);
            }
            rest = &rest[part.len()..];
        }
        Ok(())
    }

    /// See [`Engine::watch_graph`] for what is given back.
    fn observe_some_ubatch(
        &mut self,
        part: &[BatchToken],
        wanted: &dyn Fn(&str) -> bool,
        watch: &mut dyn FnMut(&Observed<'_>),
    ) -> Result<bool> {
        // With all rows wanted the last layer computes all of them; the plan is kept under the shape without logits,
        // because what would make them is cut off.
        let whole = BatchShape { n_tokens: part.len(), n_out: part.len() };
        let mut graph = self.model.graph(whole, self.options.kv)?;
        let taps = tap(&mut graph, wanted);
        let Some(last) = taps.iter().flat_map(|tap| tap.ids.iter().chain([&tap.x])).max().copied() else {
            return Ok(true);
        };
        graph.cut_after(last);
        let silent: Vec<BatchToken> = part.iter().map(|t| BatchToken { logits: false, ..*t }).collect();
        let shape = BatchShape { n_tokens: part.len(), n_out: 0 };
        self.watch_graph(&silent, shape, &graph, &taps, &mut Vec::new(), watch)
    }

    /// Let every weight that `file` holds take the place of the model's own: same name, shape and format.
    ///
    /// # Errors
    /// The model has no such weight, or one of another shape or format; or the device refuses it.
    pub fn replace(&mut self, file: &Arc<Gguf>) -> Result<()> {
        for (index, info) in file.tensors().iter().enumerate() {
            let refused =
                |why: &str| Err(EngineError::Replacement { name: info.name.clone(), why: why.to_owned() });
            let Some((id, decl)) = self.model.weights().get(&info.name) else {
                return refused("the model has no such weight");
            };
            let shape = info.shape.map(|d| usize::try_from(d).unwrap_or(usize::MAX));
            if shape != decl.shape.0 || info.format != decl.format {
                return refused("another shape or format than the model's");
            }
            let (id, home) = (id.0 as usize, self.homes.0.get(id.0 as usize).copied());
            for (number, device) in self.devices.iter_mut().enumerate() {
                let Some(slot) = device.weights.get_mut(id) else { continue };
                if slot.is_some() || home == Some(number) {
                    *slot = Some(device.backend.load_weight(file, index)?);
                }
            }
        }
        // Plans hold the weights that they were made with.
        self.plans.clear();
        Ok(())
    }

    /// Evaluate one micro-batch by this graph, and show what is tapped. False, and nothing is done, where it has several tokens
    /// and a device does not reach all of their intermediates.
    fn watch_graph(
        &mut self,
        part: &[BatchToken],
        shape: BatchShape,
        graph: &Graph,
        taps: &[Tap],
        logits: &mut Vec<f32>,
        watch: &mut dyn FnMut(&Observed<'_>),
    ) -> Result<bool> {
        let backends: Vec<&dyn Backend> = self.devices.iter().map(|d| &*d.backend).collect();
        let homes = Homes { weights: &self.homes.0, kv: &self.homes.1 };
        let placement = exec::place(graph, &homes, &backends);
        let lowered = exec::lower(graph, &placement, &backends);
        let layout = exec::layout(&lowered, backends.len());
        if shape.n_tokens > 1 && !reaches(&layout, &backends) {
            return Ok(false);
        }
        self.load(&lowered)?;
        // Ready-made plans hold windows into arenas that may be too small now; and this one must not outlive the
        // micro-batch, since ordinary evaluation has no use for what it keeps.
        self.plans.clear();
        self.reserve_arenas(&layout.arena)?;
        let plan = exec::prepare(&lowered, &layout, &self.devices)?;
        self.plans.push_front((shape, plan));
        let evaluated = self.decode(part, logits);
        self.plans.clear();
        evaluated?;

        let kept: std::collections::HashMap<NodeId, NodeId> =
            graph.kept().iter().copied().zip(lowered.graph.kept().iter().copied()).collect();
        let read = |id: NodeId, out: &mut [u8]| -> Result<()> {
            let Some(id) = kept.get(&id) else { return Ok(()) };
            let device = &self.devices[lowered.device[id.index()]];
            if let Some(region) = layout.regions[id.index()] {
                device.backend.read(&device.arena, region.offset, out)?;
            }
            Ok(())
        };
        let (mut x, mut ids) = (Vec::new(), Vec::new());
        let mut last = None;
        for tap in taps {
            let node = graph.node(tap.x);
            // Query, key and value meet the same activations.
            if last != Some(tap.x) {
                x.resize(node.shape.len(), 0.0f32);
                read(tap.x, bytemuck::cast_slice_mut(&mut x))?;
                last = Some(tap.x);
            }
            let decl = &self.model.weights().list()[tap.weight.0 as usize];
            let experts = match tap.ids {
                None => None,
                Some(at) => {
                    let shape = graph.node(at).shape;
                    ids.resize(shape.len(), 0i32);
                    read(at, bytemuck::cast_slice_mut(&mut ids))?;
                    let count = decl.shape.0[2];
                    Some(Experts { ids: &ids, slots: shape.row(), rows: node.shape.0[1], count })
                }
            };
            watch(&Observed {
                weight: &decl.name,
                input: tap.x.index(),
                x: &x,
                row: node.shape.row(),
                experts,
            });
        }
        Ok(true)
    }
}
