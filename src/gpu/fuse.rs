//! Which nodes are computed together. A dispatch costs the time in which a large GPU reads some megabytes, so a layer of a
//! dense model should have few of them:
//!
//! - matrix products that share their vectors (q, k, v), with the norm before them and the biases behind;
//! - gate, up and the activation, with the norm;
//! - any product with its bias and the residual that is added to it;
//! - norms and rotary embedding of q and k with the write into the cache.
//!
//! What belongs together is found here, before anything has memory; the dispatches are made from the same description when a
//! segment is planned.

use std::collections::HashSet;

use super::device::Device;
use super::matrix::MAX_COLUMNS;
use super::ops::products::{self, Operand, Product};
use super::ops::rope_write::{self, Heads};
use super::ops::{self, Planner, Query, vector_of};
use super::plan::Dispatch;
use crate::backend::Fused;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::tensor::DType;

/// Matrices that one kernel multiplies by.
const MOST_PARTS: usize = 3;

type Result<T, E = String> = std::result::Result<T, E>;

/// A graph with who reads what: through views, and of one device.
struct Uses<'a> {
    device: &'a Device,
    graph: &'a Graph,
    own: Vec<bool>,
    users: Vec<Vec<NodeId>>,
    /// Values that are read when the graph has run.
    wanted: Vec<bool>,
}

fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while let (Op::View, Some(&of)) = (&graph.node(id).op, graph.node(id).inputs.first()) {
        id = of;
    }
    id
}

/// What this device computes together of a lowered graph.
pub(crate) fn fuse(device: &Device, graph: &Graph, nodes: &[NodeId]) -> Vec<Fused> {
    let n = graph.nodes().len();
    let mut uses =
        Uses { device, graph, own: vec![false; n], users: vec![Vec::new(); n], wanted: vec![false; n] };
    for id in nodes {
        uses.own[id.index()] = true;
    }
    for (id, node) in graph.iter().filter(|(_, node)| node.op != Op::View) {
        for input in &node.inputs {
            uses.users[source(graph, *input).index()].push(id);
        }
    }
    for id in graph.output().iter().chain(graph.kept()) {
        uses.wanted[source(graph, *id).index()] = true;
    }
    let mut fused = Vec::new();
    let mut taken = HashSet::new();
    for &id in nodes {
        let found = match graph.node(id).op {
            Op::Glu(_) => uses.gated(id),
            Op::KvWrite => uses.heads(id),
            _ => None,
        };
        take(found, &mut taken, &mut fused);
    }
    for &id in nodes {
        if graph.node(id).op == Op::MatMul && !taken.contains(&id) {
            take(uses.side_by_side(id, &taken), &mut taken, &mut fused);
        }
    }
    for &id in nodes {
        if graph.node(id).op == Op::MatMul && !taken.contains(&id) {
            take(uses.alone(id), &mut taken, &mut fused);
        }
    }
    fused
}

fn take(found: Option<Fused>, taken: &mut HashSet<NodeId>, fused: &mut Vec<Fused>) {
    if let Some(found) = found {
        taken.extend(&found.nodes);
        fused.push(found);
    }
}

impl Uses<'_> {
    fn node(&self, id: NodeId) -> &Node {
        self.graph.node(id)
    }
    /// The one node that reads a value; none where there are several, or the value is read from outside.
    fn only_user(&self, id: NodeId) -> Option<NodeId> {
        match self.users[id.index()].as_slice() {
            &[user] if !self.wanted[id.index()] && self.own[user.index()] => Some(user),
            _ => None,
        }
    }
    fn is_weight(&self, id: NodeId) -> bool {
        matches!(self.node(id).op, Op::Weight(_))
    }
    /// Whether every node that reads `id` stands behind `at`, or is in `inside`.
    fn read_behind(&self, id: NodeId, at: NodeId, inside: &[NodeId]) -> bool {
        self.users[id.index()].iter().all(|user| *user > at || inside.contains(user))
    }

    /// A matrix product's weight and vectors, where the device computes it.
    fn product(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let node = self.node(id);
        let (&w, &x) = (node.inputs.first()?, node.inputs.get(1)?);
        let query = Query { device: self.device, graph: self.graph, id };
        let ours = self.own[id.index()] && node.op == Op::MatMul && ops::supports(&query).is_ok();
        ours.then_some((w, x))
    }
    /// Whether the products of these nodes can be one dispatch: matrices alike, each in one buffer, and few columns.
    fn alike(&self, products: &[NodeId]) -> bool {
        let weight = |id: &NodeId| self.product(*id).map(|(w, _)| self.node(w));
        let Some(first) = products.first().and_then(weight) else { return false };
        products.iter().all(|id| {
            let Some(w) = weight(id) else { return false };
            let DType::Block(format) = w.dtype else { return false };
            let whole = super::Gpu::stored_bytes(format, w.shape);
            self.node(*id).shape.rows() <= MAX_COLUMNS
                && w.dtype == first.dtype
                && w.shape.row() == first.shape.row()
                && whole.is_some_and(|bytes| bytes <= self.device.max_binding() as u64)
        })
    }
    /// The norm that makes a product's vectors, where all that read it are products that can take it in.
    fn norm(&self, x: NodeId) -> Option<NodeId> {
        let node = self.node(x);
        let fits = matches!(node.op, Op::RmsNorm { .. })
            && self.own[x.index()]
            && !self.wanted[x.index()]
            && node.shape.rows() <= MAX_COLUMNS
            && node.inputs.get(1).is_some_and(|w| self.is_weight(*w));
        let takes = |user: &NodeId| self.product(*user).is_some_and(|(_, of)| of == x);
        (fits && self.users[x.index()].iter().all(takes)).then_some(x)
    }
    /// The bias behind a product.
    fn bias(&self, product: NodeId) -> Option<NodeId> {
        let user = self.only_user(product)?;
        let node = self.node(user);
        let &[a, b] = node.inputs.as_slice() else { return None };
        (node.op == Op::Add && a == product && self.is_weight(b) && self.node(b).shape.rows() == 1)
            .then_some(user)
    }

    /// Gate, up and the activation.
    fn gated(&self, glu: NodeId) -> Option<Fused> {
        let &[gate, up] = self.node(glu).inputs.as_slice() else { return None };
        let ((wg, x), (wu, other)) = (self.product(gate)?, self.product(up)?);
        let same = self.node(wg).shape == self.node(wu).shape && x == other;
        if gate == up || !same || !self.alike(&[gate, up]) {
            return None;
        }
        if self.only_user(gate) != Some(glu) || self.only_user(up) != Some(glu) {
            return None;
        }
        let mut nodes: Vec<NodeId> = self.norm(x).into_iter().chain([gate, up, glu]).collect();
        nodes.sort_unstable();
        Some(Fused { nodes, stores: vec![glu] })
    }

    /// Products that share their vectors and are alike, from `first` on.
    fn side_by_side(&self, first: NodeId, taken: &HashSet<NodeId>) -> Option<Fused> {
        let (_, x) = self.product(first)?;
        let mut products = vec![first];
        for &user in &self.users[x.index()] {
            let others = products.len() < MOST_PARTS && user > first && !taken.contains(&user);
            if others && self.product(user).is_some_and(|(_, of)| of == x) && !products.contains(&user) {
                products.push(user);
                if !self.alike(&products) || self.bias(user).is_some() != self.bias(first).is_some() {
                    products.pop();
                }
            }
        }
        if products.len() < 2 {
            return None;
        }
        let stores: Vec<NodeId> = products.iter().map(|p| self.bias(*p).unwrap_or(*p)).collect();
        let mut nodes: Vec<NodeId> = self.norm(x).into_iter().chain(products).chain(stores.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let last = *nodes.last()?;
        let behind = stores.iter().all(|id| self.read_behind(*id, last, &nodes));
        behind.then_some(Fused { nodes, stores })
    }

    /// One product with the norm before it, its bias, and the residual that is added.
    fn alone(&self, product: NodeId) -> Option<Fused> {
        let (_, x) = self.product(product)?;
        let norm = if self.alike(&[product]) { self.norm(x) } else { None };
        let bias = self.bias(product);
        let out = bias.unwrap_or(product);
        let residual = self.only_user(out).filter(|user| {
            let node = self.node(*user);
            let &[a, b] = node.inputs.as_slice() else { return false };
            let same = node.op == Op::Add && self.node(a).shape == self.node(b).shape && a != b;
            same && (a == out || b == out) && !self.is_weight(a) && !self.is_weight(b)
        });
        let mut nodes: Vec<NodeId> = norm.into_iter().chain([product]).chain(bias).chain(residual).collect();
        nodes.sort_unstable();
        (nodes.len() > 1).then(|| Fused { nodes, stores: vec![residual.unwrap_or(out)] })
    }

    /// The heads of q, k and v on their way into attention and cache.
    fn heads(&self, write: NodeId) -> Option<Fused> {
        let heads = self.find_heads(write)?;
        let mut nodes = vec![write, heads.q];
        nodes.push(source(self.graph, *self.node(write).inputs.first()?));
        for (i, id) in [heads.q, nodes[2]].into_iter().enumerate() {
            if heads.norms[i].is_some() {
                nodes.push(source(self.graph, *self.node(id).inputs.first()?));
            }
        }
        nodes.sort_unstable();
        let last = *nodes.last()?;
        let fits = last == write && self.read_behind(heads.q, write, &[]);
        fits.then_some(Fused { nodes, stores: vec![heads.q, write] })
    }

    fn find_heads(&self, write: NodeId) -> Option<Heads> {
        let query = Query { device: self.device, graph: self.graph, id: write };
        if !self.own[write.index()] || ops::supports(&query).is_err() {
            return None;
        }
        let &[k, v, leaf, _] = self.node(write).inputs.as_slice() else { return None };
        let Op::Kv { k: format_k, v: format_v, d_k, d_v, .. } = self.node(leaf).op else { return None };
        if format_k != format_v || d_k != d_v {
            return None;
        }
        let attention = self.users[write.index()].iter().find(|user| {
            let node = self.node(**user);
            matches!(node.op, Op::Attention { .. }) && node.inputs.get(1) == Some(&write)
        })?;
        let q = *self.node(*attention).inputs.first()?;
        let turned = |id: NodeId, by: NodeId| -> Option<_> {
            let node = self.node(id);
            let (Op::Rope(pairs), &[x, table]) = (&node.op, node.inputs.as_slice()) else { return None };
            (self.own[id.index()] && self.only_user(id) == Some(by)).then_some((*pairs, x, table))
        };
        let (pairs, q_x, table) = turned(q, *attention)?;
        let (k_pairs, k_x, k_table) = turned(k, write)?;
        if k_pairs != pairs || k_table != table || v == k {
            return None;
        }
        let normed = |x: NodeId, by: NodeId| -> (NodeId, Option<(NodeId, f32)>) {
            let node = self.node(x);
            match (&node.op, node.inputs.as_slice()) {
                (Op::RmsNorm { eps }, &[of, weight])
                    if self.own[x.index()] && self.is_weight(weight) && self.only_user(x) == Some(by) =>
                {
                    (of, Some((weight, *eps)))
                }
                _ => (x, None),
            }
        };
        let (q_x, q_norm) = normed(q_x, q);
        let (k_x, k_norm) = normed(k_x, k);
        Some(Heads { x: [q_x, k_x, v], norms: [q_norm, k_norm], pairs, table, q })
    }
}

/// The dispatches of nodes that are computed together; the planner stands at the last of them.
pub(crate) fn dispatches(p: &Planner, fused: &Fused) -> Result<Vec<Dispatch>> {
    let graph = p.segment.graph;
    if p.node().op == Op::KvWrite {
        return Ok(vec![rope_write::dispatch(p, &heads_of(graph, fused)?)?]);
    }
    let of = |wanted: &dyn Fn(&Op) -> bool| -> Vec<NodeId> {
        fused.nodes.iter().copied().filter(|id| wanted(&graph.node(*id).op)).collect()
    };
    let input = |id: NodeId, i: usize| -> Result<NodeId> {
        graph.node(id).inputs.get(i).copied().ok_or_else(|| "has too few inputs".to_owned())
    };
    let products = of(&|op| *op == Op::MatMul);
    let adds = of(&|op| *op == Op::Add);
    let first = *products.first().ok_or("no product among nodes that are computed together")?;
    let norm = of(&|op| matches!(op, Op::RmsNorm { .. })).first().copied();
    let x = input(first, 1)?;
    let (x, norm) = match norm {
        Some(id) => {
            let Op::RmsNorm { eps } = graph.node(id).op else { return Err("is no norm".into()) };
            (input(id, 0)?, Some((vector_of(p.segment, input(id, 1)?)?, eps)))
        }
        None => (x, None),
    };
    let glu = fused.nodes.iter().find_map(|id| match graph.node(*id).op {
        Op::Glu(act) => Some((*id, act)),
        _ => None,
    });
    let mut operands = Vec::new();
    let mut add = None;
    for &product in &products {
        let mut out = product;
        let mut bias = None;
        for &id in &adds {
            let (a, b) = (input(id, 0)?, input(id, 1)?);
            if a == out && matches!(graph.node(b).op, Op::Weight(_)) {
                bias = Some(vector_of(p.segment, b)?);
                out = id;
            } else if a == out || b == out {
                add = Some(p.place(if a == out { b } else { a })?);
                out = id;
            }
        }
        let out = glu.map_or(out, |(id, _)| id);
        operands.push(Operand { weight: p.matrix_of(input(product, 0)?)?.clone(), bias, out: p.place(out)? });
    }
    let product = Product {
        operands,
        x: p.place(x)?,
        columns: graph.node(first).shape.rows(),
        norm,
        glu: glu.map(|(_, act)| act),
        add,
        experts: None,
    };
    products::dispatches(p.device, &product)
}

/// The heads that nodes computed together stand for.
fn heads_of(graph: &Graph, fused: &Fused) -> Result<Heads> {
    let unlike = || "nodes computed together are not heads on their way into the cache".to_owned();
    let (&write, &q) = (fused.nodes.last().ok_or_else(unlike)?, fused.stores.first().ok_or_else(unlike)?);
    let &[k, v, ..] = graph.node(write).inputs.as_slice() else { return Err(unlike()) };
    let part = |id: NodeId| -> Result<_> {
        let node = graph.node(id);
        let (Op::Rope(pairs), &[x, table]) = (&node.op, node.inputs.as_slice()) else { return Err(unlike()) };
        let of = graph.node(x);
        match (&of.op, of.inputs.as_slice()) {
            (Op::RmsNorm { eps }, &[of, weight]) if fused.nodes.contains(&x) => {
                Ok((*pairs, of, table, Some((weight, *eps))))
            }
            _ => Ok((*pairs, x, table, None)),
        }
    };
    let ((pairs, q_x, table, q_norm), (_, k_x, _, k_norm)) = (part(q)?, part(k)?);
    Ok(Heads { x: [q_x, k_x, v], norms: [q_norm, k_norm], pairs, table, q })
}
