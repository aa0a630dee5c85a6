//! What runs when: every node that computes something at its place, and those that a device computes together at the place of
//! the last of them.

use super::lower::Lowered;
use crate::backend::Fused;
use crate::graph::{Graph, NodeId, Op};

/// One thing that a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step<'a> {
    /// The place at which it runs: the last of its nodes.
    pub(super) at: NodeId,
    /// What is computed together with it; none where it is one node.
    pub(super) fused: Option<&'a Fused>,
}

impl Step<'_> {
    /// The nodes whose inputs are read.
    pub(super) fn nodes(&self) -> &[NodeId] {
        self.fused.map_or(std::slice::from_ref(&self.at), |fused| &fused.nodes)
    }
    /// The nodes whose values are written.
    pub(super) fn stores(&self) -> &[NodeId] {
        self.fused.map_or(std::slice::from_ref(&self.at), |fused| &fused.stores)
    }
}

/// The node whose bytes a node shows: itself, or the one behind its views.
pub(super) fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while let (Op::View, Some(&of)) = (&graph.node(id).op, graph.node(id).inputs.first()) {
        id = of;
    }
    id
}

/// The steps of a lowered graph, in order. A node that is computed together with others also runs by itself where someone
/// outside wants a value of it that is not stored.
pub(super) fn schedule(low: &Lowered) -> Vec<Step<'_>> {
    let graph = &low.graph;
    let n = graph.nodes().len();
    let mut by_itself = vec![true; n];
    let mut last: Vec<Option<&Fused>> = vec![None; n];
    if !low.fused.is_empty() {
        // By place in the list of those that the node is computed together with.
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (number, fused) in low.fused.iter().enumerate() {
            for id in &fused.nodes {
                members[id.index()].push(number);
            }
            for id in fused.stores.iter().chain(fused.nodes.last()) {
                by_itself[id.index()] = false;
            }
            if let Some(at) = fused.nodes.last() {
                last[at.index()] = Some(fused);
            }
        }
        let mut wanted = vec![false; n];
        for id in graph.output().iter().chain(graph.kept()) {
            wanted[source(graph, *id).index()] = true;
        }
        for (user, node) in graph.iter().filter(|(_, node)| node.op != Op::View) {
            for input in &node.inputs {
                let of = source(graph, *input).index();
                let inside = !members[user.index()].is_empty()
                    && members[user.index()].iter().all(|number| members[of].contains(number));
                wanted[of] |= !inside;
            }
        }
        for (id, of) in members.iter().enumerate() {
            by_itself[id] &= of.is_empty() || wanted[id];
        }
    }
    let step = |(id, node): (NodeId, &crate::graph::Node)| match last[id.index()] {
        Some(fused) => Some(Step { at: id, fused: Some(fused) }),
        None if node.op.is_free() || !by_itself[id.index()] => None,
        None => Some(Step { at: id, fused: None }),
    };
    graph.iter().filter_map(step).collect()
}
