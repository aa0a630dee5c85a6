//! From the model's graph to what the devices run: activations are rounded once for all matrix
//! products that share them, and values that cross from one device to another get a copy there.

use std::collections::HashMap;

use super::place::Placement;
use crate::backend::{Backend, Fused};
use crate::graph::{Graph, Node, NodeId, Op};
use crate::tensor::{Act, DType};

/// A graph ready for its devices, and the device of each of its nodes.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The graph, with `Quantize` and `Copy` nodes.
    pub graph: Graph,
    /// For every node: its device.
    pub device: Vec<usize>,
    /// Nodes that their device computes together.
    pub fused: Vec<Fused>,
}

/// Lower a placed graph.
pub fn lower(graph: &Graph, placement: &Placement, backends: &[&dyn Backend]) -> Lowered {
    let mut low = Lowering {
        out: Lowered { graph: Graph::default(), device: Vec::new(), fused: Vec::new() },
        copies: HashMap::new(),
        rounded: HashMap::new(),
    };
    let mut new_id: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        let device = placement.device[id.index()];
        let mut node = node.clone();
        for input in &mut node.inputs {
            *input = low.on_device(new_id[input.index()], device);
        }
        if let (Op::MatMul | Op::MatMulExperts, Some(&w), Some(&x)) =
            (&node.op, node.inputs.first(), node.inputs.get(1))
            && let DType::Block(format) = low.out.graph.node(w).dtype
        {
            let act = backends.get(device).map_or(Act::F32, |b| b.activation(format));
            node.inputs[1] = low.rounded(x, act, device);
        }
        new_id.push(low.push(node, device));
    }
    if let Some(output) = graph.output() {
        low.out.graph.set_output(new_id[output.index()]);
    }
    for kept in graph.kept() {
        low.out.graph.keep(new_id[kept.index()]);
    }
    let Lowered { graph, device, fused } = &mut low.out;
    for (number, backend) in backends.iter().enumerate() {
        let own = graph.iter().filter(|(id, _)| device[id.index()] == number);
        let own: Vec<NodeId> = own.map(|(id, _)| id).collect();
        fused.extend(backend.fuse(graph, &own));
    }
    low.out
}

struct Lowering {
    out: Lowered,
    copies: HashMap<(NodeId, usize), NodeId>,
    rounded: HashMap<(NodeId, Act), NodeId>,
}

impl Lowering {
    fn push(&mut self, node: Node, device: usize) -> NodeId {
        self.out.device.push(device);
        self.out.graph.push(node)
    }

    /// The value of `id` on `device`: itself, or a copy made once.
    fn on_device(&mut self, id: NodeId, device: usize) -> NodeId {
        let node = self.out.graph.node(id);
        // Batch inputs are given to every device; a cache is only ever read where it lives.
        let everywhere = matches!(node.op, Op::Input(_) | Op::Weight(_) | Op::Kv { .. } | Op::KvWrite);
        if everywhere || self.out.device[id.index()] == device {
            return id;
        }
        if let Some(copy) = self.copies.get(&(id, device)) {
            return *copy;
        }
        let copy = Node { op: Op::Copy, inputs: vec![id], ..node.clone() };
        let copy = self.push(copy, device);
        self.copies.insert((id, device), copy);
        copy
    }

    /// `x` rounded to `act`; through views, so that all matrix products of one source share it.
    fn rounded(&mut self, x: NodeId, act: Act, device: usize) -> NodeId {
        if act == Act::F32 {
            return x;
        }
        if let Some(q) = self.rounded.get(&(x, act)) {
            return *q;
        }
        let node = self.out.graph.node(x);
        // Every row is rounded by itself, so it does not matter how the rows are counted.
        let source = match (&node.op, node.inputs.first()) {
            (Op::View, Some(&of)) if self.out.graph.node(of).shape.row() == node.shape.row() => Some(of),
            _ => None,
        };
        let (shape, name, layer) = (node.shape, node.name.clone(), node.layer);
        let (op, of) = match source {
            Some(source) => (Op::View, self.rounded(source, act, device)),
            None => (Op::Quantize(act), x),
        };
        let rounded = Node { op, inputs: vec![of], shape, dtype: DType::Act(act), name, layer };
        let q = self.push(rounded, device);
        self.rounded.insert((x, act), q);
        q
    }
}
