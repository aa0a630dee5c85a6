//! Evaluation with a look at what meets every matrix: for calibration.

use super::{BatchToken, Engine, Result};
use crate::backend::Backend;
use crate::exec::{self, Homes};
use crate::graph::{Graph, NodeId, Op, WeightId};
use crate::model::BatchShape;

/// The activations that met a matrix in one micro-batch.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The matrix's name.
    pub weight: &'a str,
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

/// Have the inputs of every matrix product kept.
fn tap(graph: &mut Graph) -> Vec<Tap> {
    let mut taps = Vec::new();
    for (_, node) in graph.iter() {
        let (Op::MatMul | Op::MatMulExperts, [w, x, rest @ ..]) = (&node.op, &node.inputs[..]) else {
            continue;
        };
        if let Op::Weight(weight) = graph.node(*w).op {
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
        for part in batch.chunks(self.options.n_ubatch) {
            let n_out = part.iter().filter(|t| t.logits).count();
            let shape = BatchShape { n_tokens: part.len(), n_out };
            let backends: Vec<&dyn Backend> = self.devices.iter().map(|d| &*d.backend).collect();
            let mut graph = self.model.graph(shape, self.options.kv)?;
            let taps = tap(&mut graph);
            let homes = Homes { weights: &self.homes.0, kv: &self.homes.1 };
            let placement = exec::place(&graph, &homes, &backends);
            let lowered = exec::lower(&graph, &placement, &backends);
            let layout = exec::layout(&lowered, backends.len());
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
            for tap in &taps {
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
                watch(&Observed { weight: &decl.name, x: &x, row: node.shape.row(), experts });
            }
        }
        Ok(())
    }
}
