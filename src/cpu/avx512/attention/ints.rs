//! Keys of integers under a scale for 32: products in integers, four to a lane.
//!
//! A query becomes integers of 16 bits under one scale, each split into two signed bytes: its error is 2^-16 of its largest
//! value at the most, far below what the rows themselves have lost. Bytes of rows are offset to be unsigned, as
//! `dpbusd` wants one factor; the offset times the query is where the integer sums begin. So sums of a block are exact,
//! and a score is a float sum over blocks in their order.

use std::arch::x86_64::*;
use std::ops::Range;

use bytemuck::Pod;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::iq4_nl::BlockIq4Nl;
use chaski_gguf::block::q4_0::BlockQ4_0;
use chaski_gguf::block::q4_1::BlockQ4_1;
use chaski_gguf::block::q5_0::BlockQ5_0;
use chaski_gguf::block::q5_1::BlockQ5_1;
use chaski_gguf::block::q8_0::BlockQ8_0;

use super::columns::{Square, transpose};
use super::rows::{AHEAD, block, fives, looked_up, nibbles, prefetch};
use crate::cpu::attention::kernels::{BLOCK, COLUMNS, Keys, LANES, Packed, Rows};
use crate::cpu::avx512::lanes::{load, load_f32, load_half, store_f32};

/// The largest integer of a query: its upper byte, rounded, is 127 at the most.
const LARGEST: f32 = 127.0 * 256.0;

/// Words of a packed block of a query: where its two integer sums begin, then for each four values the upper bytes and the lower.
const QUERY_WORDS: usize = 2 + BLOCK / 4 * 2;

/// A block of a row: value `i` is `d * (q[i] - OFFSET) + m`.
pub(super) trait Ints: Pod {
    const OFFSET: i32;
    /// Whether there is an `m`.
    const MIN: bool;
    /// `d` and `m`.
    fn scales(&self) -> [F16Le; 2];
    /// `q`.
    ///
    /// # Safety
    /// The machine has AVX-512.
    unsafe fn quants(&self) -> __m256i;
}

macro_rules! ints {
    ($block:ty, $offset:expr, $min:expr, |$b:ident| $scales:expr, $quants:expr) => {
        impl Ints for $block {
            const OFFSET: i32 = $offset;
            const MIN: bool = $min;
            #[inline]
            fn scales(&self) -> [F16Le; 2] {
                let $b = self;
                $scales
            }
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn quants(&self) -> __m256i {
                let $b = self;
                $quants
            }
        }
    };
}

ints!(BlockQ8_0, 128, false, |b| [b.d, b.d], flip(load_half(&b.qs)));
ints!(BlockQ4_0, 8, false, |b| [b.d, b.d], nibbles(&b.qs));
ints!(BlockQ4_1, 0, true, |b| [b.d, b.m], nibbles(&b.qs));
ints!(BlockQ5_0, 16, false, |b| [b.d, b.d], fives(b.qh, &b.qs));
ints!(BlockQ5_1, 0, true, |b| [b.d, b.m], fives(b.qh, &b.qs));
ints!(BlockIq4Nl, 128, false, |b| [b.d, b.d], flip(looked_up(&b.qs)));

/// Signed bytes, offset by 128.
#[inline]
#[target_feature(enable = "avx2")]
fn flip(q: __m256i) -> __m256i {
    _mm256_xor_si256(q, _mm256_set1_epi8(-128))
}

/// The keys of a format.
pub(super) const fn keys<B: Ints>() -> Keys {
    Keys { queries: queries::<B>, pack: pack::<B>, scores: scores::<B> }
}

/// For each query `QUERY_WORDS` a block, and as floats its scale and then the sum of the integers of each block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn queries<B: Ints>(q: &[f32], d: usize, out: &mut Packed) {
    let (n, blocks) = (q.len() / d, d.div_ceil(BLOCK));
    out.words.reserve(n * blocks * QUERY_WORDS);
    out.floats.reserve(n * (1 + blocks));
    let words = out.words.words_mut().chunks_exact_mut(blocks * QUERY_WORDS);
    let floats = out.floats.floats_mut().chunks_exact_mut(1 + blocks);
    for ((q, words), floats) in q.chunks_exact(d).zip(words).zip(floats) {
        let mut most = _mm512_setzero_ps();
        let mut finite = true;
        for q in q.chunks(LANES) {
            let q = _mm512_abs_ps(sixteen(q));
            most = _mm512_max_ps(most, q);
            finite &= _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(q, _mm512_set1_ps(f32::INFINITY)) == 0;
        }
        let scale = _mm512_reduce_max_ps(most) / LARGEST;
        let inverse = if finite && (1.0 / scale).is_finite() { 1.0 / scale } else { 0.0 };
        // What is not finite shows in every score.
        floats[0] = if finite { scale } else { f32::NAN };
        let words = words.as_chunks_mut::<QUERY_WORDS>().0;
        for ((q, words), sum) in q.chunks(BLOCK).zip(words).zip(&mut floats[1..]) {
            let mut sums = [0; 2];
            let (starts, parts) = words.split_at_mut(2);
            for (i, parts) in parts.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let q = if inverse == 0.0 {
                    _mm512_setzero_ps()
                } else {
                    sixteen(q.get(16 * i..).unwrap_or(&[]))
                };
                let whole = _mm512_cvtps_epi32(_mm512_mul_ps(q, _mm512_set1_ps(inverse)));
                let upper = _mm512_srai_epi32::<8>(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
                let lower = _mm512_sub_epi32(whole, _mm512_slli_epi32::<8>(upper));
                sums[0] += _mm512_reduce_add_epi32(upper);
                sums[1] += _mm512_reduce_add_epi32(lower);
                let (upper, lower) = (_mm512_cvtepi32_epi8(upper), _mm512_cvtepi32_epi8(lower));
                let both =
                    _mm256_set_m128i(_mm_unpackhi_epi32(upper, lower), _mm_unpacklo_epi32(upper, lower));
                // SAFETY: eight writable words.
                unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), both) };
            }
            for (start, sum) in starts.iter_mut().zip(sums) {
                *start = (-B::OFFSET * sum) as u32;
            }
            *sum = (256 * sums[0] + sums[1]) as f32;
        }
    }
}

/// Up to sixteen values, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixteen(q: &[f32]) -> __m512 {
    crate::cpu::avx512::lanes::load_tail(&q[..q.len().min(LANES)])
}

/// Four values of row `r` go to a word of `words[values / 4][r]`; scales, and minima after all scales, to `floats[block][r]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack<B: Ints>(rows: &Rows, out: &mut Packed) {
    let blocks = rows.d.div_ceil(BLOCK);
    // Blocks are turned two at a time.
    out.words.reserve(blocks.next_multiple_of(2) * (BLOCK / 4) * COLUMNS);
    out.floats.reserve(2 * blocks * COLUMNS);
    let words = out.words.floats_mut().as_chunks_mut::<COLUMNS>().0;
    let (scales, mins) = out.floats.floats_mut().as_chunks_mut::<COLUMNS>().0.split_at_mut(blocks);
    let mut square = Square::ZERO;
    for first in (0..rows.n).step_by(16) {
        let n = 16.min(rows.n - first);
        for (i, words) in words.as_chunks_mut::<16>().0[..blocks.div_ceil(2)].iter_mut().enumerate() {
            let both = 2 * i + 1 < blocks;
            let mut halves = [[[0u16; 16]; 2]; 2];
            for (r, square) in square.0.iter_mut().enumerate().take(n) {
                let row = rows.row(first + r);
                if i == 0 {
                    prefetch(row, rows.row_bytes * AHEAD);
                }
                let [low, high] = square.as_chunks_mut::<8>().0 else { unreachable!() };
                let block: &B = block(row, 2 * i);
                // SAFETY: eight writable words each, and the machine has the features of this function.
                unsafe { _mm256_storeu_si256(low.as_mut_ptr().cast(), block.quants()) };
                let [d, m] = block.scales().map(|x| u16::from_le_bytes(x.0));
                (halves[0][0][r], halves[0][1][r]) = (d, m);
                if both {
                    let block: &B = self::block(row, 2 * i + 1);
                    // SAFETY: as above.
                    unsafe { _mm256_storeu_si256(high.as_mut_ptr().cast(), block.quants()) };
                    let [d, m] = block.scales().map(|x| u16::from_le_bytes(x.0));
                    (halves[1][0][r], halves[1][1][r]) = (d, m);
                }
            }
            transpose(&square, words, first);
            for (j, halves) in halves.iter().enumerate().take(1 + usize::from(both)) {
                store_sixteen(&mut scales[2 * i + j], first, &halves[0]);
                if B::MIN {
                    store_sixteen(&mut mins[2 * i + j], first, &halves[1]);
                }
            }
        }
    }
}

/// Sixteen binary16 numbers as floats.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn store_sixteen(out: &mut [f32; COLUMNS], at: usize, halves: &[u16; 16]) {
    if let Some(out) = out[at..].first_chunk_mut() {
        store_f32(out, _mm512_cvtph_ps(load_half(halves)));
    }
}

/// A score is one sum over blocks in their order, times the query's scale.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scores<B: Ints>(
    q: &Packed,
    queries: Range<usize>,
    d: usize,
    k: &Packed,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let blocks = d.div_ceil(BLOCK);
    let words = q.words.words().as_chunks::<QUERY_WORDS>().0;
    let q = Queries {
        words: &words[queries.start * blocks..queries.end * blocks],
        floats: &q.floats.floats()[queries.start * (1 + blocks)..queries.end * (1 + blocks)],
        blocks,
    };
    let out = out.as_chunks_mut::<COLUMNS>().0;
    let (from, to) = (columns.start / 16, columns.end.div_ceil(16));
    if to - from == 4 {
        all_scores::<B, 4>(&q, k, 0, out);
    } else {
        for c in from..to {
            all_scores::<B, 1>(&q, k, c, out);
        }
    }
}

struct Queries<'a> {
    words: &'a [[u32; QUERY_WORDS]],
    floats: &'a [f32],
    blocks: usize,
}

#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn all_scores<B: Ints, const C: usize>(q: &Queries, k: &Packed, c: usize, out: &mut [[f32; COLUMNS]]) {
    let (pairs, rest) = out.as_chunks_mut::<2>();
    let n = 2 * pairs.len();
    for (i, out) in pairs.iter_mut().enumerate() {
        some_scores::<B, 2, C>(q, 2 * i, k, c, out);
    }
    if !rest.is_empty() {
        some_scores::<B, 1, C>(q, n, k, c, rest);
    }
}

#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn some_scores<B: Ints, const R: usize, const C: usize>(
    q: &Queries,
    first: usize,
    k: &Packed,
    c: usize,
    out: &mut [[f32; COLUMNS]],
) {
    let words: [&[[u32; QUERY_WORDS]]; R] =
        std::array::from_fn(|r| &q.words[(first + r) * q.blocks..][..q.blocks]);
    let floats: [&[f32]; R] = std::array::from_fn(|r| &q.floats[(first + r) * (1 + q.blocks)..][..=q.blocks]);
    let quants = k.words.words().as_chunks::<COLUMNS>().0.as_chunks::<{ BLOCK / 4 }>().0;
    let (scales, mins) = k.floats.floats().as_chunks::<COLUMNS>().0.split_at(q.blocks);
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for b in 0..q.blocks {
        let mut upper = [[_mm512_setzero_si512(); C]; R];
        let mut lower = upper;
        for r in 0..R {
            upper[r] = [_mm512_set1_epi32(words[r][b][0] as i32); C];
            lower[r] = [_mm512_set1_epi32(words[r][b][1] as i32); C];
        }
        for (i, k) in quants[b].iter().enumerate() {
            let k = &k.as_chunks::<LANES>().0[c..][..C];
            for r in 0..R {
                let u = _mm512_set1_epi32(words[r][b][2 + 2 * i] as i32);
                let l = _mm512_set1_epi32(words[r][b][3 + 2 * i] as i32);
                for j in 0..C {
                    upper[r][j] = _mm512_dpbusd_epi32(upper[r][j], load(&k[j]), u);
                    lower[r][j] = _mm512_dpbusd_epi32(lower[r][j], load(&k[j]), l);
                }
            }
        }
        let scales = &scales[b].as_chunks::<LANES>().0[c..][..C];
        for r in 0..R {
            for j in 0..C {
                let whole = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper[r][j]), lower[r][j]);
                sums[r][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), load_f32(&scales[j]), sums[r][j]);
            }
        }
        if B::MIN {
            let mins = &mins[b].as_chunks::<LANES>().0[c..][..C];
            for r in 0..R {
                let sum = _mm512_set1_ps(floats[r][1 + b]);
                for j in 0..C {
                    sums[r][j] = _mm512_fmadd_ps(sum, load_f32(&mins[j]), sums[r][j]);
                }
            }
        }
    }
    for (r, out) in out.iter_mut().enumerate().take(R) {
        let scale = _mm512_set1_ps(floats[r][0]);
        for (j, out) in out.as_chunks_mut::<LANES>().0[c..][..C].iter_mut().enumerate() {
            store_f32(out, _mm512_mul_ps(sums[r][j], scale));
        }
    }
}
