//! Shapes and element types of the tensors that a graph speaks of.

use std::fmt;

pub use chaski_gguf::Format;

/// Four dimensions in ggml's order: `shape[0]` is the row length (contiguous), absent ones are 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape(pub [usize; 4]);

impl Shape {
    /// A shape of up to four dimensions, the row length first.
    ///
    /// # Panics
    /// Where `dims` has more than four entries: shapes are written by this crate, not read.
    pub fn new(dims: &[usize]) -> Shape {
        let mut shape = [1; 4];
        shape[..dims.len()].copy_from_slice(dims);
        Shape(shape)
    }
    /// The row length.
    pub fn row(&self) -> usize {
        self.0[0]
    }
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.0[1] * self.0[2] * self.0[3]
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.row() * self.rows()
    }
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.iter().rposition(|d| *d != 1).map_or(1, |i| i + 1);
        let dims: Vec<String> = self.0[..n].iter().map(ToString::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How the activations of a matrix product are stored.
///
/// Rounding is symmetric absmax: `d = max|x| / 127`, `q = round(x / d)`, `x ~ d * q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Not rounded.
    F32,
    /// 8-bit integers, one f32 scale for each 32 values (partner of the 32-value weight blocks).
    Q8x32,
    /// 8-bit integers, one f32 scale for each 256 values (partner of the 256-value super-blocks).
    Q8x256,
}

impl Act {
    /// Values in a block.
    pub const fn block_len(self) -> usize {
        match self {
            Act::F32 => 1,
            Act::Q8x32 => 32,
            Act::Q8x256 => 256,
        }
    }
    /// Bytes of a block: see `cpu::act` for the layouts.
    pub const fn block_bytes(self) -> usize {
        match self {
            Act::F32 => 4,
            // scale f32, scale times the sum of the quants f32, quants
            Act::Q8x32 => 4 + 4 + 32,
            // quants, sums of 16 quants each as i16 (x16), scale f32, padding to a multiple of 64
            Act::Q8x256 => 320,
        }
    }
    /// Bytes of a row of `k` values; `k` is a multiple of the block length.
    pub const fn row_bytes(self, k: usize) -> usize {
        k / self.block_len() * self.block_bytes()
    }
}

/// The element type of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// Blocks of a GGUF format: weights, and f32 intermediates as `Format::F32`.
    Block(Format),
    /// Rounded activations.
    Act(Act),
    /// 32-bit integers: token ids, positions, expert ids.
    I32,
}

impl DType {
    /// IEEE binary32: what every intermediate is unless `lower` says otherwise.
    pub const F32: DType = DType::Block(Format::F32);

    /// Bytes of a row of `n` values (a whole number of blocks).
    pub fn row_bytes(self, n: usize) -> usize {
        match self {
            DType::Block(format) => {
                let info = format.info();
                n / info.block_len * info.block_bytes
            }
            DType::Act(act) => act.row_bytes(n),
            DType::I32 => 4 * n,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Block(format) => write!(f, "{format}"),
            DType::Act(act) => write!(f, "{act:?}"),
            DType::I32 => write!(f, "I32"),
        }
    }
}
