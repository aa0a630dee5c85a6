//! Where each node runs, and why it does not run where its layer lives.
//!
//! 1. A node goes where its weight or its cache layer lives. Looking up rows of a table that a matrix product reads as well (an
//!    embedding tied to the output) is the exception: unless the first layer lives there too, it is done on the CPU, which
//!    reads the file's own bytes, instead of sending rows back from where the last layers are.
//! 2. A node without either follows its first input of its own layer; without such an input it goes where its layer's
//!    weights live, and outside of the layers it follows its first input. So a residual is added where its layer runs, not
//!    where the hidden state comes from. What reads nothing but the batch (the angles) goes to the layer that reads it first.
//! 3. Where that backend declines it, it goes to the CPU (device 0), and the reason is kept.

use crate::backend::{Backend, Why};
use crate::graph::{Graph, Node, NodeId, Op};

/// Where weights and caches live, by device number.
pub struct Homes<'a> {
    /// For every weight of the model.
    pub weights: &'a [usize],
    /// For every cache layer.
    pub kv: &'a [usize],
}

/// The device of every node, and the reasons for those that were declined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// For every node of the graph: its device.
    pub device: Vec<usize>,
    /// Nodes that their own device declined, with the reason.
    pub declined: Vec<(NodeId, Why)>,
}

/// Place every node. Device 0 is the CPU, which runs every op.
pub fn place(graph: &Graph, homes: &Homes, backends: &[&dyn Backend]) -> Placement {
    let mut device = Vec::with_capacity(graph.nodes().len());
    let mut declined = Vec::new();
    for (id, node) in graph.iter() {
        let home = home(graph, id, homes, &device);
        let at = match backends.get(home).map(|b| b.supports(graph, id)) {
            Some(Ok(())) => home,
            _ if node.op.is_free() => home,
            Some(Err(why)) => {
                declined.push((id, why));
                0
            }
            None => 0,
        };
        device.push(at);
    }
    Placement { device, declined }
}

fn home(graph: &Graph, id: NodeId, homes: &Homes, device: &[usize]) -> usize {
    let node = graph.node(id);
    let lives = |node: &Node| match node.op {
        Op::Weight(w) => homes.weights.get(w.0 as usize).copied(),
        Op::Kv { layer, .. } => homes.kv.get(layer).copied(),
        _ => None,
    };
    if matches!(node.op, Op::GetRows)
        && let Some(table) = node.inputs.first()
        && matches!(graph.node(*table).op, Op::Weight(_))
        && graph.nodes().iter().any(|n| matches!(n.op, Op::MatMul) && n.inputs.first() == Some(table))
    {
        let mut layered = graph.nodes().iter().filter(|n| n.layer.is_some());
        let first_layer = layered.find_map(lives).unwrap_or(0);
        return lives(graph.node(*table)).filter(|home| *home == first_layer).unwrap_or(0);
    }
    let of_leaf = node.inputs.iter().find_map(|i| lives(graph.node(graph.kv_leaf(*i).unwrap_or(*i))));
    lives(node)
        .or(of_leaf)
        .or_else(|| {
            let mut placed = node.inputs.iter().filter(|i| !matches!(graph.node(**i).op, Op::Input(_)));
            let first = placed.clone().next();
            let of_layer = placed.find(|i| graph.node(**i).layer == node.layer);
            let layers_own = |layer: Option<usize>| {
                let mut of_layer = graph.nodes().iter().filter(|n| n.layer.is_some() && n.layer == layer);
                of_layer.find_map(lives)
            };
            let readers_own = || {
                let reader = graph.nodes()[id.index()..].iter().find(|n| n.inputs.contains(&id))?;
                layers_own(reader.layer)
            };
            of_layer
                .map(|i| device[i.index()])
                .or_else(|| layers_own(node.layer))
                .or(first.map(|i| device[i.index()]))
                .or_else(|| if node.op.is_free() { None } else { readers_own() })
        })
        .unwrap_or(0)
}
