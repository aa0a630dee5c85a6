//! The loop over a tile, for formats with integer products.

use bytemuck::Pod;

use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::stream::Stream;
use crate::tensor::Act;

/// A block of weights in registers.
pub(super) trait Unpacked {
    /// A block of activations of as many values.
    type Act: Pod;
    /// The format of `Act`.
    const ACT: Act;
    /// Partial sums of an element.
    type Sum: Copy;
    /// Sums of nothing.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn zero() -> Self::Sum;
    /// Add the product of the block and one of activations.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn add(&self, a: &Self::Act, sum: Self::Sum) -> Self::Sum;
    /// The element.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn total(sum: Self::Sum) -> f32;
}

/// A block of weights as the file holds it.
pub(super) trait Weights: Pod {
    /// What it unpacks to.
    type Unpacked: Unpacked;
    /// Unpack it.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn unpack(&self) -> Self::Unpacked;
}

/// Columns that share an unpacked block.
const COLS: usize = 4;
/// Rows that share the loads of a column, where there are fewer columns.
const ROWS: usize = 4;

/// Compute a tile: in registers `1 x COLS` at a time, or `ROWS x 1` for the columns left over. The operations of an
/// element are the same in both.
///
/// # Safety
/// `Kernel::run` has checked the tile, and the machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile<W: Weights>(_: &Kernel, tile: &Tile) {
    let stream = Stream::new(tile.weights);
    let grouped = tile.cols - tile.cols % COLS;
    for r in 0..tile.rows {
        for c in (0..grouped).step_by(COLS) {
            // SAFETY: within the tile.
            unsafe { micro::<W, 1, COLS>(tile, stream, r, c) }
        }
    }
    for c in grouped..tile.cols {
        let paired = tile.rows - tile.rows % ROWS;
        for r in (0..paired).step_by(ROWS) {
            // SAFETY: within the tile.
            unsafe { micro::<W, ROWS, 1>(tile, stream, r, c) }
        }
        for r in paired..tile.rows {
            // SAFETY: within the tile.
            unsafe { micro::<W, 1, 1>(tile, stream, r, c) }
        }
    }
}

/// `R` rows from `row` times `C` columns from `col`.
///
/// # Safety
/// As for `tile`, and the rows and columns are within it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn micro<W: Weights, const R: usize, const C: usize>(
    tile: &Tile,
    stream: Stream,
    row: usize,
    col: usize,
) {
    type Block<W> = <<W as Weights>::Unpacked as Unpacked>::Act;
    let blocks = tile.k / W::Unpacked::ACT.block_len();
    let rows: [&[W]; R] = std::array::from_fn(|r| {
        bytemuck::cast_slice(&tile.weights[(row + r) * tile.row_bytes..][..blocks * size_of::<W>()])
    });
    let cols: [&[Block<W>]; C] = std::array::from_fn(|c| {
        bytemuck::cast_slice(&tile.acts[(col + c) * tile.act_bytes..][..blocks * size_of::<Block<W>>()])
    });
    // SAFETY: the machine has the features; `b` is less than the length of each slice, and elements are in the tile.
    unsafe {
        let mut sums = [[W::Unpacked::zero(); C]; R];
        for b in 0..blocks {
            if C == 1 {
                stream.ahead(row * tile.row_bytes + b * R * size_of::<W>(), R * size_of::<W>());
            }
            for r in 0..R {
                let w = rows[r].get_unchecked(b).unpack();
                for c in 0..C {
                    sums[r][c] = w.add(cols[c].get_unchecked(b), sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                tile.out.set(row + r, col + c, W::Unpacked::total(sums[r][c]));
            }
        }
    }
}
