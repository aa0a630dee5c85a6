//! Which part of a model each weight belongs to, and where weights and caches live when so many layers are offloaded.
//!
//! Layers are counted from the end, the output being the first: with `n` offloaded, part number `p` goes along where
//! `p <= n`. The embedding has the number of the first layer, so that it goes along when everything does.

use super::Result;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::model::{BatchShape, KvChoice, Model};

/// The number of the CPU among the devices.
pub(super) const CPU: usize = 0;
/// The number of the device that layers are offloaded to.
pub(super) const GPU: usize = 1;

/// A part of a model, as offloading sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What follows the last layer: its norm and the matrix of the logits, also where that is the embedding.
    Output,
    /// A layer.
    Layer(usize),
    /// What precedes the first layer.
    Embedding,
    /// What all layers share: the angles of the rotary embedding, which are made where the first layer is.
    Shared,
}

impl Part {
    /// How many layers must be offloaded for this one to go along.
    pub(super) fn number(self, n_layer: usize) -> usize {
        match self {
            Part::Output => 1,
            Part::Layer(layer) => n_layer.saturating_sub(layer) + 1,
            Part::Embedding | Part::Shared => n_layer + 1,
        }
    }
}

/// How many there are to offload: the layers and the output.
pub(super) fn most(model: &Model) -> usize {
    model.hparams().n_layer + 1
}

/// A graph that names every weight, for questions about what belongs where.
pub(super) fn sample(model: &Model, kv: KvChoice) -> Result<Graph> {
    Ok(model.graph(BatchShape { n_tokens: 1, n_out: 1 }, kv)?)
}

/// The part that a node belongs to.
pub(super) fn part_of_node(graph: &Graph, at: usize) -> Part {
    let node = &graph.nodes()[at];
    let last = graph.nodes().iter().rposition(|n| n.layer.is_some());
    match (node.layer, &node.op) {
        (Some(layer), _) => Part::Layer(layer),
        (None, Op::RopeTable(_)) => Part::Shared,
        (None, _) if last.is_some_and(|last| at < last) => Part::Embedding,
        (None, _) => Part::Output,
    }
}

/// For every weight of the model: the part that it belongs to.
///
/// # Errors
/// The graph of the model cannot be built.
pub(super) fn parts(model: &Model, kv: KvChoice) -> Result<Vec<Part>> {
    let graph = sample(model, kv)?;
    let mut parts: Vec<Part> =
        model.weights().list().iter().map(|w| w.layer.map_or(Part::Shared, Part::Layer)).collect();
    for (id, node) in graph.iter() {
        for input in &node.inputs {
            let Op::Weight(weight) = graph.node(*input).op else { continue };
            if let Some(part @ (Part::Shared | Part::Embedding)) = parts.get_mut(weight.0 as usize) {
                // In the order of the graph: a table that the embedding and the output share ends as the output's.
                *part = part_of_node(&graph, id.index());
            }
        }
    }
    Ok(parts)
}

/// The number of the weight that makes the keys of the cache that `id` reads or writes: a cache lives where its keys are made.
pub(super) fn key_weight(graph: &Graph, id: NodeId) -> Option<usize> {
    let node = graph.node(id);
    let write = match node.op {
        Op::KvWrite => Some(node),
        Op::Kv { .. } => graph.nodes().iter().find(|n| is_write_of(n, id)),
        _ => None,
    };
    maker(graph, graph.node(*write?.inputs.first()?))
}

fn is_write_of(node: &Node, leaf: NodeId) -> bool {
    matches!(node.op, Op::KvWrite) && node.inputs.get(2) == Some(&leaf)
}

/// The matrix that makes a value, found through whatever is done to it elementwise.
fn maker<'a>(graph: &'a Graph, mut node: &'a Node) -> Option<usize> {
    loop {
        let first = graph.node(*node.inputs.first()?);
        if let (Op::MatMul, Op::Weight(weight)) = (&node.op, &first.op) {
            return Some(weight.0 as usize);
        }
        node = first;
    }
}

/// Where weights and caches live, by device number, when `n` layers are offloaded. `pins` says of single weights where they
/// live whatever `n` is; without `kv` all caches stay on the CPU.
///
/// # Errors
/// The graph of the model cannot be built.
pub(super) fn homes(
    model: &Model,
    choice: KvChoice,
    n: usize,
    pins: &[Option<usize>],
    kv: bool,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let n_layer = model.hparams().n_layer;
    let by_number = |part: Part| if part.number(n_layer) <= n { GPU } else { CPU };
    let pinned = |weight: usize| pins.get(weight).copied().flatten();
    let weights: Vec<usize> = parts(model, choice)?
        .into_iter()
        .enumerate()
        .map(|(weight, part)| pinned(weight).unwrap_or_else(|| by_number(part)))
        .collect();
    let graph = sample(model, choice)?;
    let mut caches: Vec<usize> =
        (0..n_layer).map(|layer| if kv { by_number(Part::Layer(layer)) } else { CPU }).collect();
    for (id, node) in graph.iter() {
        if let Op::Kv { layer, .. } = node.op
            && let Some(home) = caches.get_mut(layer).filter(|_| kv)
            && let Some(of_key) = key_weight(&graph, id).and_then(|key| weights.get(key))
        {
            *home = *of_key;
        }
    }
    Ok((weights, caches))
}
