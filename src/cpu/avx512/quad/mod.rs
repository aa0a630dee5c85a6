//! Products of four rows at once, for one column or a few: what decoding is made of, where memory should be what limits.
//!
//! A step takes as many values of each of the four rows and ends with one register of integers, in each 128 bits of
//! which lane `r` belongs to row `r`: so four rows share conversions, scales, multiplications, and the sum at the end.
//! Columns are brought into the order of a step's registers once for all rows of a tile.

mod q4_0;
mod q4_k;
mod q5_k;
mod q6_k;
mod q8_0;
mod scales;

use std::arch::x86_64::*;
use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::stream::Stream;
use crate::tensor::{Act, Format};

/// Rows of a group.
pub(super) const ROWS: usize = 4;
/// Columns that share what is unpacked.
const COLS: usize = 4;

/// A format of weights in groups of four rows.
pub(in crate::cpu) trait Quad {
    /// What a step takes of a row. Zeros are weights like any other.
    type Step: Pod;
    /// What a step takes of a column, prepared.
    type Act: Pod;
    /// The format of the activations.
    const ACT: Act;
    /// Values of a step.
    const VALUES: usize;
    /// Four rows of a step in registers.
    type Unpacked: Copy;

    /// Bring a step of a column, which ends early at the end of a row, into the order of registers. What is missing
    /// counts as zeros.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn prepare(column: &[u8]) -> Self::Act;
    /// Unpack four rows.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn unpack(rows: [&Self::Step; ROWS]) -> Self::Unpacked;
    /// Add the products with a step of a column to the sums, whose lanes `4 i + r` belong to row `r`.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn add(rows: &Self::Unpacked, a: &Self::Act, sums: __m512) -> __m512;
}

/// The kernel of a format.
pub(in crate::cpu) const fn kernel<W: Quad>(format: Format) -> Kernel {
    Kernel { format, act: W::ACT, name: "avx512vnni", tile: tile::<W>, wide: None }
}

/// A cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// The prepared columns of a tile.
    static COLUMNS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Compute a tile.
///
/// # Safety
/// `Kernel::run` has checked the tile, and the machine has AVX-512 and VNNI.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn tile<W: Quad>(kernel: &Kernel, tile: &Tile) {
    let steps = tile.k.div_ceil(W::VALUES);
    let col_bytes = W::ACT.row_bytes(tile.k);
    let step_bytes = W::ACT.row_bytes(W::VALUES);
    let weights = Stream::new(&tile.weights[..(tile.rows - 1) * tile.row_bytes + kernel.row_bytes(tile.k)]);
    COLUMNS.with_borrow_mut(|lines| {
        let needed = steps * COLS.min(tile.cols) * size_of::<W::Act>() / size_of::<Line>();
        if lines.len() < needed {
            lines.resize(needed, Line::zeroed());
        }
        let columns: &mut [W::Act] = bytemuck::cast_slice_mut(&mut lines[..needed]);
        for first in (0..tile.cols).step_by(COLS) {
            let cols = COLS.min(tile.cols - first);
            for c in 0..cols {
                let column = &tile.acts[(first + c) * tile.act_bytes..][..col_bytes];
                for (out, step) in columns[c * steps..].iter_mut().zip(column.chunks(step_bytes)) {
                    // SAFETY: the machine has the features of this function.
                    *out = unsafe { W::prepare(step) };
                }
            }
            // SAFETY: the columns are within the tile, and so many are prepared.
            unsafe {
                match cols {
                    1 => group::<W, 1>(tile, first, columns, weights),
                    2 => group::<W, 2>(tile, first, columns, weights),
                    3 => group::<W, 3>(tile, first, columns, weights),
                    _ => group::<W, COLS>(tile, first, columns, weights),
                }
            }
        }
    });
}

/// All rows of `C` columns from `col`, which lie prepared in `columns` one after the other.
///
/// # Safety
/// As for `tile`; the columns are within it.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn group<W: Quad, const C: usize>(tile: &Tile, col: usize, columns: &[W::Act], weights: Stream) {
    let step_bytes = size_of::<W::Step>();
    let steps = tile.k.div_ceil(W::VALUES);
    let whole = tile.k / W::VALUES;
    let columns: [&[W::Act]; C] = std::array::from_fn(|c| &columns[c * steps..][..steps]);
    for row in (0..tile.rows).step_by(ROWS) {
        // Rows past the end repeat the last one; what comes of them is not written.
        let mut rows = [tile.weights.as_ptr().cast::<W::Step>(); ROWS];
        // SAFETY: the machine has the features; rows and columns have `whole` steps and what is left of one.
        unsafe {
            for r in 0..ROWS {
                rows[r] = rows[r].byte_add((row + r).min(tile.rows - 1) * tile.row_bytes);
            }
            let mut sums = [_mm512_setzero_ps(); C];
            for s in 0..whole {
                weights.ahead(row * tile.row_bytes + s * ROWS * step_bytes, ROWS * step_bytes);
                let unpacked =
                    W::unpack([&*rows[0].add(s), &*rows[1].add(s), &*rows[2].add(s), &*rows[3].add(s)]);
                for c in 0..C {
                    sums[c] = W::add(&unpacked, columns[c].get_unchecked(s), sums[c]);
                }
            }
            if whole < steps {
                let tail = W::ACT.block_len();
                let bytes = (tile.k - whole * W::VALUES) / tail * (step_bytes / (W::VALUES / tail));
                let mut padded = [W::Step::zeroed(); ROWS];
                for r in 0..ROWS {
                    let rest = std::slice::from_raw_parts(rows[r].add(whole).cast(), bytes);
                    bytemuck::bytes_of_mut(&mut padded[r])[..bytes].copy_from_slice(rest);
                }
                let unpacked = W::unpack(padded.each_ref());
                for c in 0..C {
                    sums[c] = W::add(&unpacked, &columns[c][whole], sums[c]);
                }
            }
            for c in 0..C {
                let totals = total(sums[c]);
                for (r, total) in totals.into_iter().enumerate().take(tile.rows - row) {
                    tile.out.set(row + r, col + c, total);
                }
            }
        }
    }
}

/// The sums of the four rows.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2")]
fn total(sums: __m512) -> [f32; ROWS] {
    let half = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums));
    let quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let mut out = [0.0; ROWS];
    // SAFETY: four writable floats.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), quarter) };
    out
}

/// Sums over the four lanes of each 128 bits: those of register `r` in lane `r`.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums_of_lanes(v: [__m512i; ROWS]) -> __m512i {
    let first = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let second = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second))
}
