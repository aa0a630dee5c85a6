//! The seam between a graph and a device: what a backend must answer and do.
//!
//! The executor asks [`Backend::supports`] for every node, has weights and caches placed, and turns
//! each run of nodes on one device into a [`Plan`], which is made once and run for every batch of its shape.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use chaski_gguf::{Format, Gguf};

use crate::graph::{Graph, NodeId};
use crate::kv::{KvFormat, Visible};
use crate::tensor::Act;

/// Why a backend declines a node, in words for the load report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(pub String);

/// What can go wrong on a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Memory for `what` was refused.
    #[error("{device}: no memory for {what} ({bytes} bytes)")]
    OutOfMemory {
        /// The device.
        device: String,
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        bytes: usize,
    },
    /// A weight that the file does not hold (any more).
    #[error("tensor {name}: {why}")]
    Weight {
        /// The tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A node that no plan could be made for.
    #[error("{device}: node {node}: {why}")]
    Node {
        /// The device.
        device: String,
        /// The node, with its layer.
        node: String,
        /// What is wrong.
        why: String,
    },
    /// The device itself has failed, or was lost.
    #[error("{device}: {why}")]
    Failed {
        /// The device.
        device: String,
        /// What it says.
        why: String,
    },
    /// `--check` found a value that is not finite.
    #[error("node {node}: {value} at element {index} of row {row}")]
    NotFinite {
        /// The node, with its layer.
        node: String,
        /// The value found.
        value: f32,
        /// The row of the node's result.
        row: usize,
        /// The element of that row.
        index: usize,
    },
}

/// The result of a call to a backend.
pub type Result<T, E = BackendError> = std::result::Result<T, E>;

/// Memory of a device. Only the backend that made it knows what is behind it.
pub trait Buffer: Any + Send + Sync {
    /// Its size in bytes.
    fn bytes(&self) -> usize;
}

/// A weight as a device holds it: mapped, uploaded or repacked; possibly in more than one layout.
pub trait Weight: Any + Send + Sync {}

/// Bytes of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// From the start of the buffer.
    pub offset: usize,
    /// How many.
    pub bytes: usize,
}

/// One layer's cache on its device; rows lie head by head: row of head `h` and cell `c` at
/// `(h * capacity + c) * row_bytes`.
#[derive(Clone)]
pub struct KvLayer {
    /// K rows.
    pub k: Arc<dyn Buffer>,
    /// V rows.
    pub v: Arc<dyn Buffer>,
    /// Their formats.
    pub formats: (KvFormat, KvFormat),
    /// Cells.
    pub capacity: usize,
}

/// Nodes that a device computes together, without memory for what only passes between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fused {
    /// The nodes, views between them included, in the order of the graph; they run where the last of them stands. A node may
    /// be computed together with several others.
    pub nodes: Vec<NodeId>,
    /// Those whose values are written. Whoever reads one stands behind the last node.
    pub stores: Vec<NodeId>,
}

/// Nodes of one device that run without a stop, and where everything they touch lies.
///
/// The executor makes these and keeps what backends rely on: values that are alive at once have regions that do not
/// overlap, and one plan of an arena runs at a time, while nobody reads or writes it.
pub struct Segment<'a> {
    /// The lowered graph.
    pub graph: &'a Graph,
    /// The nodes of this segment, in order; free nodes among them are skipped. Of nodes that are computed together it is the
    /// last.
    pub nodes: &'a [NodeId],
    /// What is computed together, here and elsewhere: see [`Backend::fuse`].
    pub fused: &'a [Fused],
    /// For every node of the graph: its place in the arena of its device, if it has one.
    pub regions: &'a [Option<Region>],
    /// This device's arena.
    pub arena: &'a Arc<dyn Buffer>,
    /// For every weight of the model: what this device's `load_weight` gave, if it lives here.
    pub weights: &'a [Option<Arc<dyn Weight>>],
    /// For every cache layer: its buffers, if they live here.
    pub kv: &'a [Option<KvLayer>],
}

/// What a batch brings, as the graph's inputs name it.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Token ids.
    pub tokens: Vec<i32>,
    /// Positions in their sequences.
    pub positions: Vec<i32>,
    /// The cache cell of each token.
    pub cells: Vec<i32>,
    /// The rows of the batch whose logits are wanted.
    pub out_rows: Vec<i32>,
    /// Which cells each token sees, for each window that the model has.
    pub visible: Vec<(Option<u32>, Visible)>,
}

/// How long a node of a plan took in the last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTime<'a> {
    /// The op's name.
    pub op: &'static str,
    /// With what it is computed: format and kernel of a matrix product, empty where there is nothing to choose.
    pub how: &'a str,
    /// Bytes of weights that it reads; 0 without weights.
    pub weight_bytes: u64,
    /// The time that the device's threads spent in it, divided by their number.
    pub time: Duration,
}

/// A segment made ready: kernels, memory and order are fixed.
pub trait Plan: Send {
    /// Start the segment for one batch.
    ///
    /// # Errors
    /// The device failed, or a check asked for found something.
    fn submit(&mut self, inputs: &Inputs) -> Result<()>;
    /// Wait until it has finished.
    ///
    /// # Errors
    /// As `submit`.
    fn wait(&mut self) -> Result<()>;
    /// From now on, take the time of every node, or no longer do. A plan that cannot does nothing.
    fn set_profiling(&mut self, _on: bool) {}
    /// Hand out the times of the last batch, in the order of the nodes, where they were taken.
    fn times(&self, _each: &mut dyn FnMut(NodeTime)) {}
}

/// A device that runs graphs.
pub trait Backend: Send + Sync {
    /// A short name for reports: `cpu`.
    fn name(&self) -> &str;
    /// Whether this device runs the node, and if not, why.
    ///
    /// # Errors
    /// The reason, for the load report.
    fn supports(&self, graph: &Graph, node: NodeId) -> Result<(), Why>;
    /// Which nodes of a lowered graph this device computes together; `nodes` are its own. A value that nobody outside of
    /// them reads needs no memory then.
    fn fuse(&self, _graph: &Graph, _nodes: &[NodeId]) -> Vec<Fused> {
        Vec::new()
    }
    /// How the activations of a matrix product with weights of this format are to be stored.
    fn activation(&self, weight: Format) -> Act;
    /// The most bytes of one buffer that this device's kernels reach. An arena, or a layer's K or V rows, cannot have more there;
    /// weights can, where the device divides them.
    fn max_buffer(&self) -> usize {
        usize::MAX
    }
    /// Zeroed memory; `what` goes into the error.
    ///
    /// # Errors
    /// The memory is refused.
    fn alloc(&self, bytes: usize, what: &str) -> Result<Arc<dyn Buffer>>;
    /// Make the tensor at `index` of the file usable on this device.
    ///
    /// # Errors
    /// The tensor's bytes cannot be had, or memory is refused.
    fn load_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>>;
    /// Bytes of this device's memory that the tensor at `index` of the file takes; 0 where it is used in place.
    fn weight_bytes(&self, file: &Gguf, index: usize) -> u64 {
        file.tensors().get(index).map_or(0, |tensor| tensor.bytes)
    }
    /// Memory for the tensor at `index` of the file, for [`Backend::fill_weight`] to bring its bytes: so that everything is
    /// had before the first byte is moved. A device that does not part the two loads the weight here.
    ///
    /// # Errors
    /// As [`Backend::load_weight`].
    fn alloc_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        self.load_weight(file, index)
    }
    /// Bring the bytes of a weight that [`Backend::alloc_weight`] gave for this tensor.
    ///
    /// # Errors
    /// The tensor's bytes cannot be had, or the device failed.
    fn fill_weight(&self, _file: &Arc<Gguf>, _index: usize, _weight: &Arc<dyn Weight>) -> Result<()> {
        Ok(())
    }
    /// Fix kernels and memory for a segment.
    ///
    /// # Errors
    /// A node is not supported after all, or names a weight or a cache that does not live here.
    fn plan(&self, segment: &Segment) -> Result<Box<dyn Plan>>;
    /// Copy bytes out of a buffer of this device.
    ///
    /// # Errors
    /// The range lies outside of the buffer.
    fn read(&self, buffer: &Arc<dyn Buffer>, offset: usize, out: &mut [u8]) -> Result<()>;
    /// Copy bytes into a buffer of this device.
    ///
    /// # Errors
    /// The range lies outside of the buffer.
    fn write(&self, buffer: &Arc<dyn Buffer>, offset: usize, bytes: &[u8]) -> Result<()>;
}
