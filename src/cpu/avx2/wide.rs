//! Products with many columns: panels of 8 rows, a row a lane, unpacked once for all columns.
//!
//! Small quants are kept unsigned, what they are offset by is taken off sums, and sums of several `maddubs` fit in 16
//! bits. Quants that fill a byte stay signed: their signs are moved to the activations, and every pair is widened.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::block32::{Signed, Unsigned};
use super::lanes::{load, load_f32, store_f32};
use super::superblock::Superblock;
use super::tile::Weights;
use crate::cpu::act::{BlockQ8x32, BlockQ8x256};
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::scratch::Scratch;

/// Rows of a panel.
const ROWS: usize = 8;
/// Panels that are multiplied at once.
const PANELS: usize = 2;
/// Tokens that are multiplied at once.
const TOKENS: usize = 4;
/// Values that are unpacked at once.
const LEN: usize = 256;
/// The most sub-blocks of these values.
const SUBS: usize = 16;
/// The largest rounded activation.
const ACT_MAX: usize = 127;

/// A register of words, in memory.
type Words = [u32; ROWS];

/// Up to `LEN` values of a row, in order: bytes, and scale and minimum of every 16 values or, where sub-blocks have
/// 32, of every other 16.
pub(super) struct Row {
    q: [Words; LEN / 32],
    scales: [f32; SUBS],
    mins: [f32; SUBS],
}

/// As many activations, with their scales and sums likewise.
#[derive(Clone, Copy)]
pub(super) struct Act {
    q: [i8; LEN],
    scales: [f32; SUBS],
    sums: [f32; SUBS],
    /// What the offset of the weights adds to a sub-block's product.
    excess: [i32; SUBS],
}

impl Act {
    const ZERO: Act = Act { q: [0; LEN], scales: [0.0; SUBS], sums: [0.0; SUBS], excess: [0; SUBS] };
}

/// A family of formats.
pub(super) trait Family {
    /// A block of weights.
    type Block: Pod;
    /// Values of it.
    const BLOCK: usize;
    /// A block of activations.
    type Act: Pod;
    /// Values of it.
    const ACT: usize;
    /// Values of a sub-block, which have a scale.
    const SUB: usize;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Whether something is to be taken off integer products.
    const EXCESS: bool = false;
    /// The largest quant, where they are unsigned; none where they are signed.
    const MAX: Option<usize>;
    /// Take blocks of a row apart: `LEN` values or fewer, what is beyond them stays as it is.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn row(blocks: &[Self::Block], row: &mut Row);
    /// Take activations apart likewise.
    ///
    /// # Safety
    /// As above.
    unsafe fn act(blocks: &[Self::Act], act: &mut Act);
}

/// Super-blocks with sub-blocks of `SUB` values and unsigned quants of at most `MAX`; signed ones where `MAX` is 0.
pub(super) struct Supers<W, const SUB: usize, const MAX: usize>(PhantomData<W>);

/// Blocks of 32 signed quants, which `OFFSET` makes unsigned ones of at most `MAX`; they stay signed where `MAX` is 0.
pub(super) struct Blocks<W, const OFFSET: i8, const MAX: usize>(PhantomData<W>);

/// Blocks of 32 unsigned quants of at most `MAX`, with a minimum.
pub(super) struct Affine<W, const MAX: usize>(PhantomData<W>);

/// The largest quant where they are unsigned.
const fn unsigned(max: usize) -> Option<usize> {
    if max == 0 { None } else { Some(max) }
}

/// What a super-block's type knows of its quants.
pub(super) trait Quants {
    /// What is taken from unsigned quants; [`SIGNED`](super::superblock::SIGNED) where they are signed.
    const OFFSET: i8;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Scale, scale of minima, 32 quants each; scales of even sub-blocks of 16 and those of odd ones; minima in order.
    fn apart(&self) -> (f32, f32, &[__m256i; 8], __m256i, __m256i);
}

impl<const OFFSET: i8, const MINIMA: bool> Quants for Superblock<OFFSET, MINIMA> {
    const OFFSET: i8 = OFFSET;
    const MINIMA: bool = MINIMA;
    #[inline]
    fn apart(&self) -> (f32, f32, &[__m256i; 8], __m256i, __m256i) {
        (self.d, self.dmin, &self.q, self.scales, self.mins)
    }
}

impl<W: Weights<Unpacked: Quants>, const SUB: usize, const MAX: usize> Family for Supers<W, SUB, MAX> {
    type Block = W;
    const BLOCK: usize = 256;
    type Act = BlockQ8x256;
    const ACT: usize = 256;
    const SUB: usize = SUB;
    const MINIMA: bool = W::Unpacked::MINIMA;
    const EXCESS: bool = W::Unpacked::OFFSET > 0;
    const MAX: Option<usize> = unsigned(MAX);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn row(blocks: &[W], row: &mut Row) {
        for block in blocks {
            // SAFETY: the machine has the features of this function.
            let block = unsafe { block.unpack() };
            let (d, dmin, q, scales, mins) = block.apart();
            for (words, q) in row.q.iter_mut().zip(q) {
                store(words, *q);
            }
            // In order: an even one, then an odd one. Products are exact: 11 bits by 8 at most.
            let (even, odd) = (_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales));
            let scales = [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)];
            let mins = [_mm256_castsi256_si128(mins), _mm256_extracti128_si256::<1>(mins)];
            let (to_scales, to_mins) = (row.scales.as_chunks_mut().0, row.mins.as_chunks_mut().0);
            for half in 0..2 {
                let scales = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(scales[half]));
                let scales = _mm256_mul_ps(scales, _mm256_set1_ps(d));
                store_f32(&mut to_scales[half], scales);
                if W::Unpacked::MINIMA {
                    let mins = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(mins[half]));
                    store_f32(&mut to_mins[half], _mm256_mul_ps(mins, _mm256_set1_ps(-dmin)));
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn act(blocks: &[BlockQ8x256], act: &mut Act) {
        for block in blocks {
            act.q = block.q;
            act.scales = [block.d; SUBS];
            let step = SUB / 16;
            for (i, sums) in block.sums.chunks_exact(step).enumerate() {
                let sum = i32::from(sums.iter().sum::<i16>());
                act.sums[i * step] = block.d * sum as f32;
                act.excess[i * step] = i32::from(W::Unpacked::OFFSET) * sum;
            }
        }
    }
}

impl<W: Weights<Unpacked = Signed>, const OFFSET: i8, const MAX: usize> Family for Blocks<W, OFFSET, MAX> {
    type Block = W;
    const BLOCK: usize = 32;
    type Act = BlockQ8x32;
    const ACT: usize = 32;
    const SUB: usize = 32;
    const MINIMA: bool = MAX != 0;
    const MAX: Option<usize> = unsigned(MAX);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn row(blocks: &[W], row: &mut Row) {
        for (i, (block, words)) in blocks.iter().zip(&mut row.q).enumerate() {
            // SAFETY: the machine has the features of this function.
            let Signed { d, q } = unsafe { block.unpack() };
            row.scales[2 * i] = d;
            if MAX == 0 {
                store(words, q);
            } else {
                store(words, _mm256_add_epi8(q, _mm256_set1_epi8(OFFSET)));
                row.mins[2 * i] = -f32::from(OFFSET) * d;
            }
        }
    }

    #[inline]
    unsafe fn act(blocks: &[BlockQ8x32], act: &mut Act) {
        act_of_blocks(blocks, act);
    }
}

impl<W: Weights<Unpacked = Unsigned>, const MAX: usize> Family for Affine<W, MAX> {
    type Block = W;
    const BLOCK: usize = 32;
    type Act = BlockQ8x32;
    const ACT: usize = 32;
    const SUB: usize = 32;
    const MINIMA: bool = true;
    const MAX: Option<usize> = unsigned(MAX);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn row(blocks: &[W], row: &mut Row) {
        for (i, (block, words)) in blocks.iter().zip(&mut row.q).enumerate() {
            // SAFETY: the machine has the features of this function.
            let Unsigned { d, m, q } = unsafe { block.unpack() };
            store(words, q);
            row.scales[2 * i] = d;
            row.mins[2 * i] = m;
        }
    }

    #[inline]
    unsafe fn act(blocks: &[BlockQ8x32], act: &mut Act) {
        act_of_blocks(blocks, act);
    }
}

#[inline]
fn act_of_blocks(blocks: &[BlockQ8x32], act: &mut Act) {
    for (i, (block, q)) in blocks.iter().zip(act.q.as_chunks_mut::<32>().0).enumerate() {
        *q = block.q;
        act.scales[2 * i] = block.d;
        act.sums[2 * i] = block.s;
    }
}

/// Store a register of words.
#[inline]
#[target_feature(enable = "avx2")]
fn store(words: &mut Words, v: __m256i) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), v) }
}

/// Transpose 8 registers of 8 words.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: &[__m256i; 8]) -> [__m256i; 8] {
    let zero = _mm256_setzero_si256();
    // After this, register `4 g + j` holds words `j` and `4 + j` of the rows `4 g ..`, one to a half.
    let mut fours = [zero; 8];
    for g in 0..2 {
        let r = &rows[4 * g..][..4];
        let (low01, high01) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
        let (low23, high23) = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
        fours[4 * g] = _mm256_unpacklo_epi64(low01, low23);
        fours[4 * g + 1] = _mm256_unpackhi_epi64(low01, low23);
        fours[4 * g + 2] = _mm256_unpacklo_epi64(high01, high23);
        fours[4 * g + 3] = _mm256_unpackhi_epi64(high01, high23);
    }
    let mut out = [zero; 8];
    for j in 0..4 {
        out[j] = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
        out[4 + j] = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
    }
    out
}

/// Up to `LEN` values of 8 rows side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Panel {
    q: [Words; LEN / 4],
    scales: [[f32; ROWS]; SUBS],
    mins: [[f32; ROWS]; SUBS],
}

impl Panel {
    const ZERO: Panel =
        Panel { q: [[0; ROWS]; LEN / 4], scales: [[0.0; ROWS]; SUBS], mins: [[0.0; ROWS]; SUBS] };

    #[target_feature(enable = "avx2,fma,f16c")]
    fn fill<F: Family>(&mut self, rows: [&[F::Block]; ROWS]) {
        let mut apart =
            [const { Row { q: [[0; ROWS]; LEN / 32], scales: [0.0; SUBS], mins: [0.0; SUBS] } }; ROWS];
        for (apart, blocks) in apart.iter_mut().zip(rows) {
            // SAFETY: the machine has the features of this function.
            unsafe { F::row(blocks, apart) };
        }
        let turn = |values: &dyn Fn(usize) -> __m256i| transpose(&std::array::from_fn(values));
        for half in 0..2 {
            let scales = turn(&|r| load(&apart[r].scales.as_chunks::<8>().0[half]));
            for (to, v) in self.scales[8 * half..].iter_mut().zip(scales) {
                store_f32(to, _mm256_castsi256_ps(v));
            }
            if F::MINIMA {
                let mins = turn(&|r| load(&apart[r].mins.as_chunks::<8>().0[half]));
                for (to, v) in self.mins[8 * half..].iter_mut().zip(mins) {
                    store_f32(to, _mm256_castsi256_ps(v));
                }
            }
        }
        for (i, words) in self.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            for (words, v) in words.iter_mut().zip(turn(&|r| load(&apart[r].q[i]))) {
                store(words, v);
            }
        }
    }
}

/// Compute a tile.
///
/// # Safety
/// `Kernel::run_wide` has checked the tile, and the machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile<F: Family>(_: &Kernel, tile: &Tile, scratch: &mut Scratch) {
    let row = |r: usize| -> &[F::Block] {
        let bytes = tile.k / F::BLOCK * size_of::<F::Block>();
        bytemuck::cast_slice(&tile.weights[r * tile.row_bytes..][..bytes])
    };
    let groups = tile.cols.div_ceil(TOKENS);
    let sums = scratch.zeros(groups * TOKENS * PANELS * ROWS);
    let mut panels = [Panel::ZERO; PANELS];
    let mut acts = [Act::ZERO; TOKENS];
    for first in (0..tile.rows).step_by(PANELS * ROWS) {
        sums.fill(0.0);
        for k in (0..tile.k).step_by(LEN) {
            let n = LEN.min(tile.k - k);
            for (p, panel) in panels.iter_mut().enumerate() {
                // Rows past the end repeat the last one; their results are not written.
                panel.fill::<F>(std::array::from_fn(|r| {
                    let row = row((first + p * ROWS + r).min(tile.rows - 1));
                    &row[k / F::BLOCK..(k + n) / F::BLOCK]
                }));
            }
            for (g, sums) in sums.chunks_exact_mut(TOKENS * PANELS * ROWS).enumerate() {
                for (t, act) in acts.iter_mut().enumerate() {
                    // Columns past the end repeat the last one likewise.
                    let col = (g * TOKENS + t).min(tile.cols - 1);
                    let size = size_of::<F::Act>();
                    let at = col * tile.act_bytes + k / F::ACT * size;
                    let blocks = bytemuck::cast_slice(&tile.acts[at..][..n / F::ACT * size]);
                    // SAFETY: the machine has the features of this function.
                    unsafe { F::act(blocks, act) };
                }
                multiply::<F>(&acts, &panels, n, sums);
            }
        }
        let rows = (tile.rows - first).min(PANELS * ROWS);
        for (col, sums) in sums.chunks_exact(PANELS * ROWS).take(tile.cols).enumerate() {
            // SAFETY: within the tile.
            unsafe { tile.out.set_rows(first, col, &sums[..rows]) };
        }
    }
}

/// Add the products of `n` values of some tokens and panels.
///
/// Not inlined, so that words of activations are loaded and not shuffled out of registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<F: Family>(acts: &[Act; TOKENS], panels: &[Panel; PANELS], n: usize, sums: &mut [f32]) {
    let words = F::SUB / 4;
    // These values by themselves first: added to the row's sum one by one, sub-blocks would each be rounded to it.
    let mut totals = [[_mm256_setzero_ps(); PANELS]; TOKENS];
    for sub in 0..n / F::SUB {
        let at = sub * (F::SUB / 16);
        let dots = dots::<F>(acts, panels, sub * words);
        for t in 0..TOKENS {
            let (act, sum) = (_mm256_set1_ps(acts[t].scales[at]), _mm256_set1_ps(acts[t].sums[at]));
            let excess = _mm256_set1_epi32(acts[t].excess[at]);
            for p in 0..PANELS {
                let dot = if F::EXCESS { _mm256_sub_epi32(dots[t][p], excess) } else { dots[t][p] };
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), load_f32(&panels[p].scales[at]));
                totals[t][p] = _mm256_fmadd_ps(scaled, act, totals[t][p]);
                if F::MINIMA {
                    totals[t][p] = _mm256_fmadd_ps(load_f32(&panels[p].mins[at]), sum, totals[t][p]);
                }
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums.chunks_exact_mut(PANELS * ROWS)) {
        for (total, sums) in totals.iter().zip(sums.as_chunks_mut::<ROWS>().0) {
            store_f32(sums, _mm256_add_ps(load_f32(sums), *total));
        }
    }
}

/// The integer products of a sub-block, from word `first` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<F: Family>(
    acts: &[Act; TOKENS],
    panels: &[Panel; PANELS],
    first: usize,
) -> [[__m256i; PANELS]; TOKENS] {
    let zero = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[zero; PANELS]; TOKENS];
    let four = |t: usize, word: usize| {
        let four = acts[t].q.as_chunks::<4>().0[word];
        _mm256_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)))
    };
    let Some(max) = F::MAX else {
        // Pairs are at most 2 * 128 * 127 < 2^15.
        for word in first..first + F::SUB / 4 {
            let w: [__m256i; PANELS] = std::array::from_fn(|p| load(&panels[p].q[word]));
            let magnitudes = w.map(|w| _mm256_abs_epi8(w));
            for t in 0..TOKENS {
                let a = four(t, word);
                for p in 0..PANELS {
                    let pairs = _mm256_maddubs_epi16(magnitudes[p], _mm256_sign_epi8(a, w[p]));
                    dots[t][p] = _mm256_add_epi32(dots[t][p], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        return dots;
    };
    // So many pairs fit in 16 bits together.
    let run = (i16::MAX as usize / (2 * ACT_MAX * max)).min(F::SUB / 4);
    let mut word = first;
    while word < first + F::SUB / 4 {
        let end = (word + run).min(first + F::SUB / 4);
        let mut pairs = [[zero; PANELS]; TOKENS];
        while word < end {
            let w: [__m256i; PANELS] = std::array::from_fn(|p| load(&panels[p].q[word]));
            for t in 0..TOKENS {
                let a = four(t, word);
                for p in 0..PANELS {
                    pairs[t][p] = _mm256_add_epi16(pairs[t][p], _mm256_maddubs_epi16(w[p], a));
                }
            }
            word += 1;
        }
        for t in 0..TOKENS {
            for p in 0..PANELS {
                dots[t][p] = _mm256_add_epi32(dots[t][p], _mm256_madd_epi16(pairs[t][p], ones));
            }
        }
    }
    dots
}
