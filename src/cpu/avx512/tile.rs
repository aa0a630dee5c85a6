//! The loop over a tile, for formats with integer products.

use bytemuck::Pod;

use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::stream::Stream;
use crate::tensor::{Act, Format};

/// A block of weights in registers.
pub(in crate::cpu) trait Unpacked {
    /// A block of activations of as many values.
    type Act: Pod;
    /// The format of `Act`.
    const ACT: Act;
    /// Partial sums of an element.
    type Sum: Copy;
    /// Sums of nothing.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn zero() -> Self::Sum;
    /// Add the product of the block and one of activations.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn add(&self, a: &Self::Act, sum: Self::Sum) -> Self::Sum;
    /// The element.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn total(sum: Self::Sum) -> f32;
}

/// A block of weights as the file holds it.
pub(in crate::cpu) trait Weights: Pod {
    /// What it unpacks to.
    type Unpacked: Unpacked;
    /// Unpack it.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn unpack(&self) -> Self::Unpacked;
}

/// The kernel of a format.
pub(in crate::cpu) const fn kernel<W: Weights>(format: Format) -> Kernel {
    Kernel { format, act: W::Unpacked::ACT, name: "avx512vnni", tile: tile::<W>, wide: None }
}

/// Columns of a register block, which share unpacked blocks.
const COLS: usize = 4;
/// Rows of a register block where there is a single column, whose loads they share; two where there are `COLS`.
const ROWS: usize = 4;

/// Compute a tile: in registers `2 x COLS` at a time, or `ROWS x 1` for the columns left over. The operations of an
/// element are the same in both.
///
/// # Safety
/// `Kernel::run` has checked the tile, and the machine has AVX-512 and VNNI.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn tile<W: Weights>(_: &Kernel, tile: &Tile) {
    let stream = Stream::new(tile.weights);
    let grouped = tile.cols - tile.cols % COLS;
    // SAFETY: within the tile.
    unsafe {
        for c in (0..grouped).step_by(COLS) {
            rows::<W, 2, COLS>(tile, stream, c);
        }
        for c in grouped..tile.cols {
            rows::<W, ROWS, 1>(tile, stream, c);
        }
    }
}

/// All rows, `R` at a time, of `C` columns from `col`.
///
/// # Safety
/// As for `tile`, and the columns are within it.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn rows<W: Weights, const R: usize, const C: usize>(tile: &Tile, stream: Stream, col: usize) {
    let grouped = tile.rows - tile.rows % R;
    // SAFETY: within the tile.
    unsafe {
        for r in (0..grouped).step_by(R) {
            micro::<W, R, C>(tile, stream, r, col);
        }
        for r in grouped..tile.rows {
            micro::<W, 1, C>(tile, stream, r, col);
        }
    }
}

/// `R` rows from `row` times `C` columns from `col`.
///
/// # Safety
/// As for `tile`, and the rows and columns are within it.
#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
