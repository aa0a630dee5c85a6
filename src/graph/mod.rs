//! The computation of a batch as a list of named nodes, independent of any device.
//!
//! A model builds a [`Graph`] with the [`Builder`]; `exec` places, lowers and runs it.
//! Nodes are stored in an order in which every input precedes its users.

mod build;
mod dump;
mod hadamard;
mod op;
mod rope;

pub use build::Builder;
pub use hadamard::hadamard_block;
pub use op::{Activation, Input, Op, RopePairs, RopeParams};

use crate::tensor::{DType, Shape};

/// The index of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index into per-node tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The index of a weight in the model's list of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// One operation and what it gives.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// What it reads, in the order that the op's documentation gives.
    pub inputs: Vec<NodeId>,
    /// The shape of the result.
    pub shape: Shape,
    /// The element type of the result.
    pub dtype: DType,
    /// What placement, dumps, profiles and tests call it (`attn_norm`, or a weight's name).
    pub name: String,
    /// The layer it belongs to; none for the embedding and the output.
    pub layer: Option<usize>,
}

impl Node {
    /// Bytes of the result; 0 for nodes that only order others.
    pub fn bytes(&self) -> usize {
        self.shape.rows() * self.dtype.row_bytes(self.shape.row())
    }
    /// The name with its layer: `ffn_up-3`.
    pub fn label(&self) -> String {
        match (self.layer, &self.op) {
            (Some(layer), op) if !matches!(op, Op::Weight(_)) => format!("{}-{layer}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// Nodes in an order in which every input precedes its users, and the node that is the answer.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    output: Option<NodeId>,
    kept: Vec<NodeId>,
}

impl Graph {
    /// Every node in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Every node with its id, in order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }
    /// The node of an id of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
    /// The node whose rows are read when the graph has run (the logits).
    pub fn output(&self) -> Option<NodeId> {
        self.output
    }
    /// Append a node whose shape is already known (used by `lower`; models use the [`Builder`]).
    pub fn push(&mut self, node: Node) -> NodeId {
        debug_assert!(node.inputs.iter().all(|i| i.index() < self.nodes.len()));
        self.nodes.push(node);
        NodeId((self.nodes.len() - 1) as u32)
    }
    /// Declare the node that is the answer.
    pub fn set_output(&mut self, id: NodeId) {
        self.output = Some(id);
    }
    /// Keep the value of a node until the graph has run, so that it can be read then, as the output is.
    pub fn keep(&mut self, id: NodeId) {
        self.kept.push(id);
    }
    /// Drop every node behind this one, and with them the answer: what is left computes what is kept.
    pub fn cut_after(&mut self, id: NodeId) {
        self.nodes.truncate(id.index() + 1);
        self.output = self.output.filter(|output| *output <= id);
        self.kept.retain(|kept| *kept <= id);
    }
    /// The nodes whose values are kept, in the order in which that was asked for.
    pub fn kept(&self) -> &[NodeId] {
        &self.kept
    }
    /// The cache leaf that `id` reads: itself, or the one behind the write that it waits for.
    pub fn kv_leaf(&self, id: NodeId) -> Option<NodeId> {
        match self.node(id).op {
            Op::Kv { .. } => Some(id),
            Op::KvWrite => self.node(id).inputs.get(2).and_then(|leaf| self.kv_leaf(*leaf)),
            _ => None,
        }
    }
}

/// A graph that breaks a shape rule: a mistake in a model's file of this crate, or a file whose
/// shapes were not checked before the graph was built.
#[derive(Debug, thiserror::Error)]
#[error("graph node {node}: {why}")]
pub struct GraphError {
    /// The node, with its layer.
    pub node: String,
    /// The rule that is broken, with the shapes.
    pub why: String,
}
