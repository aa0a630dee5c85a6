//! One file per op: from a node to a [`Step`], which computes its result chunk by chunk.

mod add;
mod attention;
mod experts;
mod gather;
mod get_rows;
mod glu;
mod hadamard;
mod kv_write;
mod matmul;
mod quantize;
mod rms_norm;
mod rope;
mod rows;
mod softmax;
mod top_k;
mod weighted_sum;

use std::any::Any;
use std::ops::Range;

use bytemuck::Pod;

use super::CpuBackend;
use super::memory::{CpuBuffer, CpuWeight, Dst, Src};
use crate::backend::{Buffer, Inputs, KvLayer, Segment};
use crate::graph::{Input, Node, NodeId, Op};
use crate::tensor::{DType, Format, Shape};

/// A node made ready: its windows and its kernel are fixed.
pub(crate) trait Step: Send + Sync {
    /// Into how many independent pieces this batch's work is cut. The cut must not depend on the
    /// number of threads.
    fn chunks(&mut self, inputs: &Inputs) -> usize;
    /// Compute one of them, writing nothing that another chunk writes or reads.
    fn run(&self, chunk: usize, inputs: &Inputs, scratch: &mut Scratch);
    /// With what it is computed, for profiles: empty where there is nothing to choose.
    fn how(&self) -> String {
        String::new()
    }
}

/// Memory of one thread, kept from step to step, by the op that needs it.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Scores and sums of a unit of attention.
    pub(crate) attention: super::attention::Scratch,
    /// Sums of products with many columns.
    pub(crate) products: super::scratch::Scratch,
    /// Columns of one expert.
    pub(crate) gathered: experts::Gathered,
}

/// Integers that an op reads: from the batch, or computed by a step before.
#[derive(Clone, Copy)]
pub(crate) enum Ids {
    Input(Input),
    Mem(Src),
}

impl Ids {
    pub(crate) fn get<'a>(&'a self, inputs: &'a Inputs) -> &'a [i32] {
        match self {
            Ids::Mem(src) => src.slice(),
            Ids::Input(Input::Tokens) => &inputs.tokens,
            Ids::Input(Input::Positions) => &inputs.positions,
            Ids::Input(Input::Cells) => &inputs.cells,
            Ids::Input(Input::OutRows) => &inputs.out_rows,
            Ids::Input(Input::Visible { .. }) => &[],
        }
    }
}

/// A weight's blocks.
pub(crate) struct Blocks {
    pub(crate) src: Src,
    pub(crate) format: Format,
    pub(crate) shape: Shape,
}

impl Blocks {
    pub(crate) fn row_bytes(&self) -> usize {
        DType::Block(self.format).row_bytes(self.shape.row())
    }
}

/// A node of a segment, with the means to find what it reads and writes.
pub(crate) struct Planner<'a> {
    pub(crate) backend: &'a CpuBackend,
    pub(crate) segment: &'a Segment<'a>,
    pub(crate) id: NodeId,
}

type Result<T, E = String> = std::result::Result<T, E>;

/// Addresses of the arena that a step reads and writes; none where it touches a cache, or more than is known.
pub(crate) struct Touched(Option<(Vec<Range<usize>>, Range<usize>)>);

impl Touched {
    /// Whether the two steps may run at one time: neither writes what the other touches.
    pub(crate) fn is_apart_from(&self, other: &Touched) -> bool {
        let (Some((reads, writes)), Some((other_reads, other_writes))) = (&self.0, &other.0) else {
            return false;
        };
        let meet = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        !meet(writes, other_writes)
            && !reads.iter().any(|read| meet(read, other_writes))
            && !other_reads.iter().any(|read| meet(read, writes))
    }
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
    fn region(&self, id: NodeId) -> Result<(*mut u8, usize)> {
        let node = self.segment.graph.node(id);
        let region =
            self.segment.regions[id.index()].ok_or_else(|| format!("{} has no memory", node.label()))?;
        let arena = cpu_buffer(&**self.segment.arena)?;
        let bytes = node.bytes();
        if region.offset + bytes > arena.bytes() {
            return Err(format!("{} lies outside of the arena", node.label()));
        }
        // SAFETY: inside the buffer, as just checked.
        Ok((unsafe { arena.ptr().add(region.offset) }, bytes))
    }
    /// What the node's step touches of the arena.
    pub(crate) fn touched(&self) -> Touched {
        let at = |id| self.region(id).ok().map(|(start, bytes)| start.addr()..start.addr() + bytes);
        let graph = self.segment.graph;
        let mut reads = Vec::new();
        for &id in &self.node().inputs {
            match graph.node(id).op {
                Op::Input(_) | Op::Weight(_) => {}
                Op::Kv { .. } | Op::KvWrite => return Touched(None),
                _ => match at(id) {
                    Some(read) => reads.push(read),
                    None => return Touched(None),
                },
            }
        }
        Touched(at(self.id).map(|writes| (reads, writes)))
    }
    /// The values of input `i`, which a step before has computed.
    pub(crate) fn src(&self, i: usize) -> Result<Src> {
        let (ptr, bytes) = self.region(self.input(i)?)?;
        // SAFETY: the plan holds the arena; the layout gives no two values that are alive at once
        // the same bytes, so no step writes here while this one runs.
        Ok(unsafe { Src::new(ptr, bytes) })
    }
    /// Where the node's own values go.
    pub(crate) fn dst(&self) -> Result<Dst> {
        let (ptr, bytes) = self.region(self.id)?;
        // SAFETY: as above; regions are aligned to 64 bytes in an arena that is.
        Ok(unsafe { Dst::new(ptr, bytes) })
    }
    /// The integers of input `i`.
    pub(crate) fn ids(&self, i: usize) -> Result<Ids> {
        match self.segment.graph.node(self.input(i)?).op {
            Op::Input(input) => Ok(Ids::Input(input)),
            _ => Ok(Ids::Mem(self.src(i)?)),
        }
    }
    /// The blocks of input `i`, a weight.
    pub(crate) fn weight(&self, i: usize) -> Result<Blocks> {
        let node = self.segment.graph.node(self.input(i)?);
        let (Op::Weight(id), DType::Block(format)) = (&node.op, node.dtype) else {
            return Err(format!("{} is no weight", node.label()));
        };
        let weight = self.segment.weights.get(id.0 as usize).and_then(Option::as_ref);
        let weight = weight.ok_or_else(|| format!("weight {} does not live on the CPU", node.name))?;
        let any: &dyn Any = &**weight;
        let weight = any.downcast_ref::<CpuWeight>().ok_or("is another backend's weight")?;
        let bytes = weight.bytes().ok_or_else(|| format!("the file ends before {}", node.name))?;
        // SAFETY: the plan holds the weight, which holds the file, whose map nobody writes to.
        let src = unsafe { Src::new(bytes.as_ptr(), bytes.len()) };
        Ok(Blocks { src, format, shape: node.shape })
    }
    /// A small weight (a norm, a bias) as f32, whatever its format.
    pub(crate) fn vector(&self, i: usize) -> Result<Vec<f32>> {
        let blocks = self.weight(i)?;
        let mut out = vec![0.0; blocks.shape.len()];
        (blocks.format.info().decode)(blocks.src.slice(), &mut out);
        Ok(out)
    }
    /// Whether input `i` is a weight.
    pub(crate) fn is_weight(&self, i: usize) -> bool {
        self.input(i).is_ok_and(|id| matches!(self.segment.graph.node(id).op, Op::Weight(_)))
    }
    /// The cache that input `i` is or writes to: the leaf's op and its buffers.
    pub(crate) fn kv(&self, i: usize) -> Result<(&Op, &KvLayer)> {
        let leaf = self.segment.graph.kv_leaf(self.input(i)?).ok_or("reads no cache")?;
        let op = &self.segment.graph.node(leaf).op;
        let Op::Kv { layer, .. } = op else { return Err("reads no cache".into()) };
        let kv = self.segment.kv.get(*layer).and_then(Option::as_ref);
        Ok((op, kv.ok_or_else(|| format!("cache layer {layer} does not live on the CPU"))?))
    }
}

/// The CPU's view of a buffer.
pub(crate) fn cpu_buffer(buffer: &dyn Buffer) -> Result<&CpuBuffer> {
    let any: &dyn Any = buffer;
    any.downcast_ref::<CpuBuffer>().ok_or_else(|| "is another backend's buffer".into())
}

/// The bytes of row `i` of a window of rows.
pub(crate) fn row<T: Pod>(rows: &[T], len: usize, i: usize) -> &[T] {
    rows.get(i * len..(i + 1) * len).unwrap_or(&[])
}

/// Make a node ready.
pub(crate) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    match &p.node().op {
        Op::GetRows => get_rows::step(p),
        Op::MatMul => matmul::step(p),
        Op::MatMulExperts => experts::step(p),
        Op::TopK { k } => top_k::step(p, *k),
        Op::Gather => gather::step(p),
        Op::Softmax => softmax::softmax(p),
        Op::SumToOne => softmax::sum_to_one(p),
        Op::WeightedSum => weighted_sum::step(p),
        Op::RmsNorm { eps } => rms_norm::step(p, *eps),
        Op::RopeTable(params) => rope::table(p, params),
        Op::Rope(pairs) => rope::turn(p, *pairs),
        Op::Add => add::step(p),
        Op::Glu(act) => glu::step(p, *act),
        Op::Hadamard => hadamard::step(p),
        Op::KvWrite => kv_write::step(p),
        Op::Attention { n_head, scale, softcap } => attention::step(p, *n_head, *scale, *softcap),
        Op::Quantize(act) => quantize::step(p, *act),
        Op::Input(_) | Op::Weight(_) | Op::Kv { .. } | Op::View | Op::Copy => {
            Err(format!("{} is nothing to compute", p.node().op.name()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Touched;

    #[test]
    fn steps_are_apart_where_neither_writes_what_the_other_touches() {
        let q = Touched(Some((std::iter::once(0..64).collect(), 64..128)));
        let k = Touched(Some((std::iter::once(0..64).collect(), 128..192)));
        assert!(q.is_apart_from(&k) && k.is_apart_from(&q), "two readers of one value");
        let reader = Touched(Some((vec![200..300, 100..101], 400..500)));
        assert!(!q.is_apart_from(&reader) && !reader.is_apart_from(&q), "one reads what the other writes");
        let reuse = Touched(Some((Vec::new(), 32..48)));
        assert!(
            !q.is_apart_from(&reuse) && !reuse.is_apart_from(&q),
            "one writes where the other still reads"
        );
        let same = Touched(Some((Vec::new(), 120..130)));
        assert!(!q.is_apart_from(&same), "both write");
        assert!(!q.is_apart_from(&Touched(None)) && !Touched(None).is_apart_from(&q), "what touches a cache");
    }
}
