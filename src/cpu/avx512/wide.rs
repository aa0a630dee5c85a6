//! Products with many columns by VNNI: panels of 16 rows, unpacked once for all columns.
//!
//! `dpbusd` multiplies unsigned bytes by signed ones. Here the weights are the signed ones and activations get 128
//! added, which a sum of weights takes off again, in integers and once for all columns.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::block32::Parts;
use super::lanes::{load, load_f32, load_half, store_f32};
use super::panel::{ROWS, Super, Words, load_words, store_words, transpose};
use super::tile::Weights;
use crate::cpu::act::{BlockQ8x32, BlockQ8x256};
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::scratch::Scratch;

/// Values that are unpacked at once.
const LEN: usize = 256;
/// The most sub-blocks of these values.
const SUBS: usize = 16;
/// Panels that are multiplied at once.
const PANELS: usize = 2;
/// Tokens that are multiplied at once.
const TOKENS: usize = 4;
/// Up to `LEN` values of a row, in order: signed bytes, and scale and minimum of every 16 values or, where sub-blocks have
/// 32, of every other 16.
pub(in crate::cpu) struct Row {
    q: [Words; 4],
    scales: [f32; SUBS],
    mins: [f32; SUBS],
}

/// As many activations: bytes with 128 added, and scales and sums likewise.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Act {
    q: [i8; LEN],
    scales: [f32; SUBS],
    sums: [f32; SUBS],
}

/// A family of formats.
pub(in crate::cpu) trait Family {
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
    /// Take blocks of a row apart: `LEN` values or fewer, what is beyond them stays as it is.
    ///
    /// # Safety
    /// The machine has AVX-512 and VNNI.
    unsafe fn row(blocks: &[Self::Block], row: &mut Row);
    /// Take activations apart likewise.
    ///
    /// # Safety
    /// As above.
    unsafe fn act(blocks: &[Self::Act], act: &mut Act);
}

/// Super-blocks. Products of a row's scales are exact: 11 bits by 8 at most.
pub(in crate::cpu) struct Supers<W>(PhantomData<W>);

/// Blocks of 32 values.
pub(in crate::cpu) struct Blocks<W>(PhantomData<W>);

impl<W: Super> Family for Supers<W> {
    type Block = W;
    const BLOCK: usize = 256;
    type Act = BlockQ8x256;
    const ACT: usize = 256;
    const SUB: usize = W::SUB;
    const MINIMA: bool = W::MINIMA;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn row(blocks: &[W], row: &mut Row) {
        for block in blocks {
            // SAFETY: the machine has the features of this function.
            let block = unsafe { block.integers() };
            for (words, q) in row.q.iter_mut().zip(block.q) {
                store_words(words, _mm512_sub_epi8(q, _mm512_set1_epi8(W::OFFSET as i8)));
            }
            let scales = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(block.scales));
            store_f32(&mut row.scales, _mm512_mul_ps(scales, _mm512_set1_ps(block.d)));
            if W::MINIMA {
                let mins = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(block.mins));
                store_f32(&mut row.mins, _mm512_mul_ps(mins, _mm512_set1_ps(-block.dmin)));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn act(blocks: &[BlockQ8x256], act: &mut Act) {
        for block in blocks {
            for (from, to) in block.q.as_chunks().0.iter().zip(act.q.as_chunks_mut().0) {
                flip(from, to);
            }
            act.scales = [block.d; SUBS];
            if W::MINIMA {
                let sums = load_half(&block.sums);
                let sums = if W::SUB == 32 {
                    _mm512_cvtepu32_epi64(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)))
                } else {
                    _mm512_cvtepi16_epi32(sums)
                };
                let sums = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(block.d));
                store_f32(&mut act.sums, sums);
            }
        }
    }
}

impl<W: Weights<Unpacked: Parts>> Family for Blocks<W> {
    type Block = W;
    const BLOCK: usize = 32;
    type Act = BlockQ8x32;
    const ACT: usize = 32;
    const SUB: usize = 32;
    const MINIMA: bool = <W::Unpacked as Parts>::MINIMA;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn row(blocks: &[W], row: &mut Row) {
        let words = row.q.as_flattened_mut().as_chunks_mut::<8>().0;
        for (i, (block, words)) in blocks.iter().zip(words).enumerate() {
            // SAFETY: the machine has the features of this function, and 32 bytes are writable.
            unsafe {
                let (d, m, q) = block.unpack().parts();
                _mm256_storeu_si256(words.as_mut_ptr().cast(), q);
                row.scales[2 * i] = d;
                row.mins[2 * i] = m;
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn act(blocks: &[BlockQ8x32], act: &mut Act) {
        for (i, (block, q)) in blocks.iter().zip(act.q.as_chunks_mut::<32>().0).enumerate() {
            flip(&block.q, q);
            act.scales[2 * i] = block.d;
            act.sums[2 * i] = block.s;
        }
    }
}

/// Add 128 to signed bytes, so that they are unsigned.
#[inline]
#[target_feature(enable = "avx2")]
fn flip(from: &[i8; 32], to: &mut [i8; 32]) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), super::block32::flip(load_half(from))) }
}

/// Up to `LEN` values of 16 rows side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Panel {
    /// Words of signed bytes.
    q: [Words; LEN / 4],
    /// For each sub-block minus 128 times the sum of its bytes.
    start: [[i32; ROWS]; SUBS],
    scales: [[f32; ROWS]; SUBS],
    mins: [[f32; ROWS]; SUBS],
}

impl Panel {
    const ZERO: Panel = Panel {
        q: [[0; ROWS]; LEN / 4],
        start: [[0; ROWS]; SUBS],
        scales: [[0.0; ROWS]; SUBS],
        mins: [[0.0; ROWS]; SUBS],
    };

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn fill<F: Family>(&mut self, rows: [&[F::Block]; ROWS]) {
        let mut apart = [const { Row { q: [[0; ROWS]; 4], scales: [0.0; SUBS], mins: [0.0; SUBS] } }; ROWS];
        for (apart, blocks) in apart.iter_mut().zip(rows) {
            // SAFETY: the machine has the features of this function.
            unsafe { F::row(blocks, apart) };
        }
        let turned = |values: [__m512i; ROWS], to: &mut [[f32; ROWS]; SUBS]| {
            for (to, v) in to.iter_mut().zip(transpose(&values)) {
                store_f32(to, _mm512_castsi512_ps(v));
            }
        };
        let zero = _mm512_setzero_si512();
        let mut values = [zero; ROWS];
        for r in 0..ROWS {
            values[r] = load(&apart[r].scales);
        }
        turned(values, &mut self.scales);
        if F::MINIMA {
            for r in 0..ROWS {
                values[r] = load(&apart[r].mins);
            }
            turned(values, &mut self.mins);
        }
        for (i, words) in self.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for r in 0..ROWS {
                values[r] = load(&apart[r].q[i]);
            }
            for (words, v) in words.iter_mut().zip(transpose(&values)) {
                store_words(words, v);
            }
        }
        for (words, start) in self.q.chunks_exact(F::SUB / 4).zip(self.start.iter_mut().step_by(F::SUB / 16))
        {
            let sum = words
                .iter()
                .fold(zero, |sum, words| _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), load_words(words)));
            *start = bytemuck::cast(unpacked(_mm512_sub_epi32(zero, sum)));
        }
    }
}

/// The words of a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn unpacked(v: __m512i) -> Words {
    let mut words = [0; ROWS];
    store_words(&mut words, v);
    words
}

/// Compute a tile.
///
/// # Safety
/// `Kernel::run_wide` has checked the tile, and the machine has AVX-512 and VNNI.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn tile<F: Family>(_: &Kernel, tile: &Tile, scratch: &mut Scratch) {
    let row = |r: usize| -> &[F::Block] {
        let bytes = tile.k / F::BLOCK * size_of::<F::Block>();
        bytemuck::cast_slice(&tile.weights[r * tile.row_bytes..][..bytes])
    };
    let groups = tile.cols.div_ceil(TOKENS);
    let sums = scratch.zeros(groups * TOKENS * PANELS * ROWS);
    let mut panels = [Panel::ZERO; PANELS];
    let mut acts = [Act { q: [0; LEN], scales: [0.0; SUBS], sums: [0.0; SUBS] }; TOKENS];
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
/// Not inlined: the compiler would keep activations in registers and shuffle words out of them, on the port that
/// multiplies, instead of loading them.
#[inline(never)]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn multiply<F: Family>(acts: &[Act; TOKENS], panels: &[Panel; PANELS], n: usize, sums: &mut [f32]) {
    let words = F::SUB / 4;
    let mut total = [[_mm512_setzero_ps(); PANELS]; TOKENS];
    for sub in 0..n / F::SUB {
        let at = sub * (F::SUB / 16);
        let mut dots = [[_mm512_setzero_si512(); PANELS]; TOKENS];
        for t in 0..TOKENS {
            for p in 0..PANELS {
                dots[t][p] = load(&panels[p].start[at]);
            }
        }
        for word in sub * words..(sub + 1) * words {
            let w: [__m512i; PANELS] = std::array::from_fn(|p| load_words(&panels[p].q[word]));
            for t in 0..TOKENS {
                let four = acts[t].q.as_chunks::<4>().0[word];
                let a = _mm512_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)));
                for p in 0..PANELS {
                    dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], a, w[p]);
                }
            }
        }
        for p in 0..PANELS {
            let (scale, min) = (load_f32(&panels[p].scales[at]), load_f32(&panels[p].mins[at]));
            for t in 0..TOKENS {
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t][p]), scale);
                total[t][p] = _mm512_fmadd_ps(scaled, _mm512_set1_ps(acts[t].scales[at]), total[t][p]);
                if F::MINIMA {
                    total[t][p] = _mm512_fmadd_ps(min, _mm512_set1_ps(acts[t].sums[at]), total[t][p]);
                }
            }
        }
    }
    for (total, sums) in total.iter().zip(sums.chunks_exact_mut(PANELS * ROWS)) {
        for (total, sums) in total.iter().zip(sums.as_chunks_mut::<ROWS>().0) {
            store_f32(sums, _mm512_add_ps(load_f32(sums), *total));
        }
    }
}
