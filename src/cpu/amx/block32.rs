//! Formats of 32-value blocks.
//!
//! Both a block of weights and one of activations have a float scale, so tiles are 32 values deep, and every product of
//! two blocks is scaled by itself.

use std::arch::asm;
use std::arch::x86_64::*;

use super::tiles::{InUse, ROW, Shapes, TILE};
use crate::cpu::act::BlockQ8x32;
use crate::cpu::avx512::block32::Parts;
use crate::cpu::avx512::lanes::{load_f32, store_f32};
use crate::cpu::avx512::panel::{ROWS, Words, store_words, transpose};
use crate::cpu::avx512::tile::Weights;
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::scratch::Scratch;

/// Panels that are multiplied at once.
const PANELS: usize = 2;
/// Tokens of a tile of results.
const TOKENS: usize = 16;
/// Sums of 16 tokens.
const SUMS: usize = TOKENS * PANELS * ROWS;
/// Values of a block.
const LEN: usize = 32;
/// Blocks of a row that are unpacked at once, an even number.
const BLOCKS: usize = 8;
/// Bytes of a block of activations.
const ACT: usize = size_of::<BlockQ8x32>();
/// Bytes from a block of activations to its quants.
const ACT_QUANTS: usize = std::mem::offset_of!(BlockQ8x32, q);

/// Some blocks of 16 rows, as second operands.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Panel {
    q: [[Words; LEN / 4]; BLOCKS],
    d: [[f32; ROWS]; BLOCKS],
    m: [[f32; ROWS]; BLOCKS],
}

impl Panel {
    const ZERO: Panel =
        Panel { q: [[[0; ROWS]; LEN / 4]; BLOCKS], d: [[0.0; ROWS]; BLOCKS], m: [[0.0; ROWS]; BLOCKS] };

    /// Put the blocks of 16 rows side by side, up to `BLOCKS` of each.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn fill<W: Weights<Unpacked: Parts>>(&mut self, rows: [&[W]; ROWS]) {
        for first in (0..rows[0].len()).step_by(2) {
            let mut pairs = [_mm512_setzero_si512(); ROWS];
            for (r, row) in rows.iter().enumerate() {
                let mut part = |i: usize| {
                    let Some(block) = row.get(i) else { return _mm256_setzero_si256() };
                    // SAFETY: the machine has the features of this function.
                    let (d, m, q) = unsafe { block.unpack().parts() };
                    self.d[i][r] = d;
                    self.m[i][r] = m;
                    q
                };
                let low = _mm512_castsi256_si512(part(first));
                pairs[r] = _mm512_inserti64x4::<1>(low, part(first + 1));
            }
            let words = self.q[first..first + 2].as_flattened_mut();
            for (words, v) in words.iter_mut().zip(transpose(&pairs)) {
                store_words(words, v);
            }
        }
    }
}

/// Integers of 16 tokens: for each block the products with the two panels.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Results([[[[i32; ROWS]; TOKENS]; PANELS]; BLOCKS]);

/// Compute a tile.
///
/// # Safety
/// `Kernel::run_wide` has checked the tile, and the machine has AMX.
#[allow(clippy::large_stack_arrays, reason = "tens of KiB, which stay in the nearest caches")]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn tile<W: Weights<Unpacked: Parts>>(_: &Kernel, tile: &Tile, scratch: &mut Scratch) {
    let blocks = tile.k / LEN;
    let groups = tile.cols.div_ceil(TOKENS);
    let last = tile.cols - (groups - 1) * TOKENS;
    let (whole, rest) = (Shapes::new(TOKENS, LEN), Shapes::new(last, LEN));
    let row = |r: usize| -> &[W] {
        bytemuck::cast_slice(&tile.weights[r * tile.row_bytes..][..blocks * size_of::<W>()])
    };
    let sums = scratch.zeros(groups * SUMS);
    let mut panels = [Panel::ZERO; PANELS];
    let mut results = Results([[[[0; ROWS]; TOKENS]; PANELS]; BLOCKS]);
    let _in_use = InUse::new();
    for first in (0..tile.rows).step_by(PANELS * ROWS) {
        sums.fill(0.0);
        for b in (0..blocks).step_by(BLOCKS) {
            let n = (blocks - b).min(BLOCKS);
            for (p, panel) in panels.iter_mut().enumerate() {
                // Rows past the end repeat the last one; their results are not written.
                panel
                    .fill(std::array::from_fn(|r| &row((first + p * ROWS + r).min(tile.rows - 1))[b..b + n]));
            }
            // SAFETY: the machine has AMX; 16 rows.
            unsafe { whole.load() };
            for (g, sums) in sums.chunks_exact_mut(SUMS).enumerate() {
                let tokens = if g + 1 == groups { last } else { TOKENS };
                if tokens < TOKENS {
                    // SAFETY: the machine has AMX; 1 to 15 rows.
                    unsafe { rest.load() };
                }
                let acts = &tile.acts[g * TOKENS * tile.act_bytes + b * ACT..];
                for i in (0..n).step_by(2) {
                    // A block that is not there is zeros in the panel, whatever it is multiplied by.
                    let second = (i + 1).min(n - 1);
                    // SAFETY: as many tokens as the shapes have rows lie in `acts`, as the caller has checked.
                    unsafe {
                        multiply(
                            &acts[i * ACT..],
                            (second - i) * ACT,
                            tile.act_bytes,
                            &panels,
                            i,
                            &mut results,
                        );
                    }
                }
                for (t, sums) in sums.chunks_exact_mut(PANELS * ROWS).take(tokens).enumerate() {
                    prefetch(acts.as_ptr().wrapping_add((TOKENS + t) * tile.act_bytes), n);
                    let acts: &[BlockQ8x32] = bytemuck::cast_slice(&acts[t * tile.act_bytes..][..n * ACT]);
                    add::<W>(acts, &panels, &results, t, sums);
                }
            }
        }
        let rows = (tile.rows - first).min(PANELS * ROWS);
        for (col, sums) in sums.chunks_exact(PANELS * ROWS).take(tile.cols).enumerate() {
            // SAFETY: within the tile.
            unsafe { tile.out.set_rows(first, col, &sums[..rows]) };
        }
    }
}

/// Multiply two blocks of activations of each token, `apart` bytes from one to the other, by the blocks `i` and
/// `i + 1` of the panels.
///
/// # Safety
/// The machine has AMX; of such pairs, `stride` apart, `acts` holds as many as the shapes loaded have rows.
#[inline]
unsafe fn multiply(
    acts: &[u8],
    apart: usize,
    stride: usize,
    panels: &[Panel; PANELS],
    i: usize,
    results: &mut Results,
) {
    let results = &mut results.0[i..i + 2];
    // SAFETY: what is read and written lies within the arguments, by this function's contract.
    unsafe {
        let first = acts.as_ptr().add(ACT_QUANTS);
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{first} + {stride}*1]",
            "tileloadd tmm5, [{x} + {row}*1]",
            "tdpbssd tmm0, tmm4, tmm5",
            "tilezero tmm1",
            "tileloadd tmm6, [{y} + {row}*1]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tilezero tmm2",
            "tileloadd tmm4, [{second} + {stride}*1]",
            "tileloadd tmm7, [{x} + {row}*1 + {block}]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tilezero tmm3",
            "tileloadd tmm5, [{y} + {row}*1 + {block}]",
            "tdpbssd tmm3, tmm4, tmm5",
            "tilestored [{to} + {row}*1], tmm0",
            "tilestored [{to} + {row}*1 + {tile}], tmm1",
            "tilestored [{to} + {row}*1 + 2*{tile}], tmm2",
            "tilestored [{to} + {row}*1 + 3*{tile}], tmm3",
            first = in(reg) first, second = in(reg) first.add(apart), stride = in(reg) stride,
            x = in(reg) panels[0].q[i].as_ptr(), y = in(reg) panels[1].q[i].as_ptr(), to = in(reg) results.as_mut_ptr(),
            row = in(reg) ROW, tile = const TILE, block = const ROW * LEN / 4,
            options(nostack, preserves_flags),
        );
    }
}

/// Ask for blocks of activations.
#[inline]
fn prefetch(blocks: *const u8, n: usize) {
    for line in (0..n * ACT).step_by(64) {
        // SAFETY: prefetching an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(blocks.wrapping_add(line).cast()) };
    }
}

/// Add the products of one token under their scales.
#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add<W: Weights<Unpacked: Parts>>(
    acts: &[BlockQ8x32],
    panels: &[Panel; PANELS],
    results: &Results,
    t: usize,
    sums: &mut [f32],
) {
    for (p, sums) in sums.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        let mut sum = load_f32(sums);
        for (i, act) in acts.iter().enumerate() {
            // SAFETY: 64 readable bytes.
            let product = unsafe { _mm512_loadu_si512(results.0[i][p][t].as_ptr().cast()) };
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(product), load_f32(&panels[p].d[i]));
            sum = _mm512_fmadd_ps(scaled, _mm512_set1_ps(act.d), sum);
            if <W::Unpacked as Parts>::MINIMA {
                sum = _mm512_fmadd_ps(load_f32(&panels[p].m[i]), _mm512_set1_ps(act.s), sum);
            }
        }
        store_f32(sums, sum);
    }
}
