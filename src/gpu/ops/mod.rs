//! One file an op: what of it the device computes, and the dispatches that compute it.

mod add;
mod each;
pub(super) mod kv;
pub(super) mod products;
mod rms_norm;
mod rope;
pub(super) mod rope_write;

use std::sync::Arc;

use super::device::Device;
use super::inputs::InputsLayout;
use super::layout::Layout;
use super::memory::gpu_buffer;
use super::plan::Dispatch;
use super::shader::KernelKey;
use super::weight::{GpuWeight, Matrix, Vector, gpu_weight, unit};
use crate::backend::{Buffer, KvLayer, Segment, Weight, Why};
use crate::graph::{Graph, Input, Node, NodeId, Op};
use crate::tensor::{DType, Format, Shape};

/// Threads of a workgroup of most kernels: `WG` in the shaders.
pub(crate) const WG: usize = 256;

type Result<T, E = String> = std::result::Result<T, E>;

/// A node that a backend is asked about, before anything is allocated.
pub(crate) struct Query<'a> {
    pub(crate) device: &'a Device,
    pub(crate) graph: &'a Graph,
    pub(crate) id: NodeId,
}

impl Query<'_> {
    pub(crate) fn node(&self) -> &Node {
        self.graph.node(self.id)
    }
    /// Input `i`.
    pub(crate) fn input(&self, i: usize) -> Result<&Node> {
        let id = self.node().inputs.get(i).ok_or_else(|| format!("has no input {i}"))?;
        Ok(self.graph.node(*id))
    }
    /// The format and shape of input `i`, a matrix of the file that some shader decodes.
    pub(crate) fn matrix(&self, i: usize) -> Result<(Format, Shape)> {
        let node = self.input(i)?;
        let (Op::Weight(_), DType::Block(format)) = (&node.op, node.dtype) else {
            return Err(format!("{} is computed, and no kernel takes that as a matrix", node.name));
        };
        if node.shape.rows() == 1 {
            return Err(format!("{} is a matrix of one row, which no kernel takes", node.name));
        }
        let k = node.shape.row();
        let layout = Layout::of(format, k).ok_or_else(|| format!("no kernel for rows of {k} {format}"))?;
        let shards = layout.shards(node.shape.rows(), unit(node.shape), self.device.max_binding());
        shards.ok_or_else(|| format!("a row of {} is more than the device binds at once", node.name))?;
        Ok((format, node.shape))
    }
    /// Whether input `i` is a vector of the file.
    pub(crate) fn vector(&self, i: usize) -> Result<()> {
        let node = self.input(i)?;
        match node.op {
            Op::Weight(_) if node.shape.rows() == 1 => Ok(()),
            _ => Err(format!("{} is no vector of the file", node.name)),
        }
    }
}

/// A node of a segment, with the means to find what it reads and writes.
pub(crate) struct Planner<'a> {
    pub(crate) device: &'a Device,
    pub(crate) segment: &'a Segment<'a>,
    pub(crate) inputs: &'a InputsLayout,
    pub(crate) id: NodeId,
}

impl Planner<'_> {
    pub(crate) fn node(&self) -> &Node {
        self.segment.graph.node(self.id)
    }
    pub(crate) fn input(&self, i: usize) -> Result<NodeId> {
        self.node().inputs.get(i).copied().ok_or_else(|| format!("has no input {i}"))
    }
    pub(crate) fn shape(&self, i: usize) -> Result<Shape> {
        Ok(self.segment.graph.node(self.input(i)?).shape)
    }
    /// Where a computed value lies in the arena, in words; a multiple of 16.
    pub(crate) fn place(&self, id: NodeId) -> Result<usize> {
        let node = self.segment.graph.node(id);
        let region = self.segment.regions.get(id.index()).copied().flatten();
        let region = region.ok_or_else(|| format!("{} has no memory", node.label()))?;
        let arena = gpu_buffer(self.segment.arena)?;
        if region.offset + node.bytes() > arena.bytes() {
            return Err(format!("{} lies outside of the arena", node.label()));
        }
        Ok(region.offset / 4)
    }
    /// Where the values of input `i` lie in the arena, in words.
    pub(crate) fn src(&self, i: usize) -> Result<usize> {
        self.place(self.input(i)?)
    }
    /// Where the node's own values go, in words.
    pub(crate) fn dst(&self) -> Result<usize> {
        self.place(self.id)
    }
    /// Where the integers of input `i` lie, and the file of `shaders/lib` that reads them from there.
    pub(crate) fn ids(&self, i: usize) -> Result<(usize, &'static str)> {
        match self.segment.graph.node(self.input(i)?).op {
            Op::Input(input) => {
                Ok((self.inputs.ids(input).ok_or("its integers are not of the batch")?, "ids_inputs"))
            }
            _ => Ok((self.src(i)?, "ids_arena")),
        }
    }
    /// Whether input `i` is a weight of the file.
    pub(crate) fn is_weight(&self, i: usize) -> bool {
        self.input(i).is_ok_and(|id| matches!(self.segment.graph.node(id).op, Op::Weight(_)))
    }
    fn weight(&self, id: NodeId) -> Result<&Arc<dyn Weight>> {
        let node = self.segment.graph.node(id);
        let Op::Weight(id) = &node.op else { return Err(format!("{} is no weight", node.label())) };
        let weight = self.segment.weights.get(id.0 as usize).and_then(Option::as_ref);
        weight.ok_or_else(|| format!("weight {} does not live here", node.name))
    }
    /// Input `i`, a matrix, as a dispatch takes it.
    pub(crate) fn matrix(&self, i: usize) -> Result<&Arc<dyn Weight>> {
        self.matrix_of(self.input(i)?)
    }
    /// A node that is a matrix, as a dispatch takes it.
    pub(crate) fn matrix_of(&self, id: NodeId) -> Result<&Arc<dyn Weight>> {
        let weight = self.weight(id)?;
        match gpu_weight(weight)? {
            GpuWeight::Matrix(_) => Ok(weight),
            GpuWeight::Vector(_) => Err("a vector stands where a matrix is needed".into()),
        }
    }
    /// Input `i`, a vector of the file.
    pub(crate) fn vector(&self, i: usize) -> Result<Vector> {
        vector_of(self.segment, self.input(i)?)
    }
    /// The cache that input `i` is or writes to: the leaf's op and its buffers.
    pub(crate) fn kv(&self, i: usize) -> Result<(&Op, &KvLayer)> {
        let leaf = self.segment.graph.kv_leaf(self.input(i)?).ok_or("reads no cache")?;
        let op = &self.segment.graph.node(leaf).op;
        let Op::Kv { layer, .. } = op else { return Err("reads no cache".into()) };
        let kv = self.segment.kv.get(*layer).and_then(Option::as_ref);
        Ok((op, kv.ok_or_else(|| format!("cache layer {layer} does not live here"))?))
    }
    /// Where it lies what each token sees, in words of the inputs.
    pub(crate) fn views(&self, i: usize) -> Result<(Option<u32>, usize)> {
        let Op::Input(Input::Visible { window }) = self.segment.graph.node(self.input(i)?).op else {
            return Err("an input does not say what is visible".into());
        };
        Ok((window, self.inputs.views(window).ok_or("its view is not of the batch")?))
    }
}

/// The vector that a node of a segment stands for.
pub(crate) fn vector_of(segment: &Segment, id: NodeId) -> Result<Vector> {
    let node = segment.graph.node(id);
    let Op::Weight(weight) = node.op else { return Err(format!("{} is no weight", node.label())) };
    let weight = segment.weights.get(weight.0 as usize).and_then(Option::as_ref);
    let weight = weight.ok_or_else(|| format!("weight {} does not live here", node.name))?;
    match gpu_weight(weight)? {
        GpuWeight::Vector(vector) => Ok(vector.clone()),
        GpuWeight::Matrix(_) => Err("a matrix stands where a vector is needed".into()),
    }
}

/// A kernel of [`WG`] threads a workgroup.
pub(crate) fn kernel(op: &'static str) -> KernelKey {
    KernelKey::new(op).with("WG", WG)
}

/// What a weight is, as a matrix.
pub(crate) fn matrix(weight: &Arc<dyn Weight>) -> Result<&Matrix> {
    match gpu_weight(weight)? {
        GpuWeight::Matrix(matrix) => Ok(matrix),
        GpuWeight::Vector(_) => Err("a vector stands where a matrix is needed".into()),
    }
}

/// Whether the first input is a weight of the file.
fn is_weight(q: &Query) -> bool {
    q.input(0).is_ok_and(|node| matches!(node.op, Op::Weight(_)))
}

/// Whether the device computes a node, and if not, why.
pub(crate) fn supports(q: &Query) -> Result<(), Why> {
    let answer = match &q.node().op {
        Op::RmsNorm { .. } => rms_norm::supports(q),
        Op::RopeTable(_) => rope::supports_table(q),
        Op::Add => add::supports(q),
        Op::TopK { .. } => each::supports_top_k(q),
        Op::Hadamard => each::supports_hadamard(q),
        Op::KvWrite => kv::supports(q, 2),
        Op::Attention { .. } => kv::supports(q, 1),
        Op::GetRows if !is_weight(q) => Ok(()),
        Op::GetRows | Op::MatMul | Op::MatMulExperts => q.matrix(0).map(|_| ()),
        Op::Rope(_)
        | Op::Glu(_)
        | Op::Softmax
        | Op::SumToOne
        | Op::WeightedSum
        | Op::Gather
        | Op::Input(_)
        | Op::Weight(_)
        | Op::Kv { .. }
        | Op::View
        | Op::Copy => Ok(()),
        Op::Quantize(_) => Err("no kernel rounds activations by themselves".into()),
    };
    answer.map_err(Why)
}

/// The dispatches that compute a node.
pub(crate) fn dispatches(p: &Planner) -> Result<Vec<Dispatch>> {
    match &p.node().op {
        Op::RmsNorm { eps } => rms_norm::dispatches(p, *eps),
        Op::RopeTable(_) => rope::table(p),
        Op::Add => add::dispatches(p),
        Op::Rope(pairs) => rope::turn(p, *pairs),
        Op::Glu(act) => each::glu(p, *act),
        Op::Softmax | Op::SumToOne => each::to_one(p),
        Op::WeightedSum => each::weighted_sum(p),
        Op::TopK { k } => each::top_k(p, *k),
        Op::Gather => each::gather(p),
        Op::Hadamard => each::hadamard(p),
        Op::KvWrite => kv::write(p),
        Op::Attention { n_head, scale, softcap } => kv::attention(p, *n_head, *scale, *softcap),
        Op::GetRows if p.is_weight(0) => products::rows(p),
        Op::GetRows => each::computed_rows(p),
        Op::MatMul => products::product(p),
        Op::MatMulExperts => products::experts(p),
        op => Err(format!("no kernel for {}", op.name())),
    }
}
