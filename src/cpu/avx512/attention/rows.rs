//! Rows of the cache as floats, 32 at a time.

// Loads of vectors ask for no alignment.
#![allow(clippy::cast_ptr_alignment)]

use std::arch::x86_64::*;

use bytemuck::Pod;
use chaski_gguf::block::bf16::Bf16Le;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::iq4_nl::{BlockIq4Nl, CODEBOOK};
use chaski_gguf::block::plain::F32Le;
use chaski_gguf::block::q4_0::BlockQ4_0;
use chaski_gguf::block::q4_1::BlockQ4_1;
use chaski_gguf::block::q5_0::BlockQ5_0;
use chaski_gguf::block::q5_1::BlockQ5_1;
use chaski_gguf::block::q8_0::BlockQ8_0;

use crate::cpu::attention::kernels::{BLOCK, COLUMNS, Rows, width};
use crate::cpu::avx512::lanes::{load_half, load_quarter, store_f32};

/// A format's rows.
pub(super) trait Row {
    /// Bytes of a row before its first value.
    const HEADER: usize = 0;
    /// Bytes of 32 values.
    const BYTES: usize;
    /// Values `32 * i` and on of a row; where the row ends before, what follows is a row's padding or zeros.
    ///
    /// # Safety
    /// The machine has AVX-512.
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2];
}

/// The rows of 8-bit floats: see [`crate::kv::f8e4m3`].
pub(super) struct F8E4M3;

/// How far ahead memory is asked for, in rows: four tiles.
pub(super) const AHEAD: usize = 4 * COLUMNS;

/// Ask for the memory `ahead` bytes past a row, to come as far as the second-level cache. An address that is not ours is no
/// error.
#[inline(always)]
pub(super) fn prefetch(row: &[u8], ahead: usize) {
    for at in (ahead..ahead + row.len()).step_by(64) {
        let line = row.as_ptr().wrapping_add(at);
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T2>(line.cast()) };
    }
}

/// Row `r`; where the number of its blocks is known to the compiler, so is the length.
#[inline(always)]
pub(super) fn row<'a, R: Row, const BLOCKS: usize>(rows: &Rows<'a>, r: usize) -> &'a [u8] {
    let row = rows.row(r);
    if BLOCKS == 0 { row } else { &row[..R::HEADER + BLOCKS * R::BYTES] }
}

/// Rows as floats, [`width`] apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn decode<R: Row>(rows: &Rows, out: &mut [f32]) {
    // The usual lengths get loops without a branch.
    match rows.d {
        64 => decode_of::<R, 2>(rows, out),
        128 => decode_of::<R, 4>(rows, out),
        _ => decode_of::<R, 0>(rows, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn decode_of<R: Row, const BLOCKS: usize>(rows: &Rows, out: &mut [f32]) {
    let width = if BLOCKS == 0 { width(rows.d) } else { BLOCKS * BLOCK };
    for (r, out) in out.chunks_exact_mut(width).take(rows.n).enumerate() {
        let row = row::<R, BLOCKS>(rows, r);
        prefetch(row, rows.row_bytes * AHEAD);
        let (pairs, last) = out.as_chunks_mut::<BLOCK>();
        for i in 0..if BLOCKS == 0 { pairs.len() } else { BLOCKS } {
            // SAFETY: the machine has the features of this function.
            let [low, high] = unsafe { R::load(row, i) };
            let [to_low, to_high] = pairs[i].as_chunks_mut::<16>().0 else { unreachable!() };
            store_f32(to_low, low);
            store_f32(to_high, high);
        }
        if let [last] = last.as_chunks_mut::<16>().0 {
            // SAFETY: as above.
            store_f32(last, unsafe { R::load(row, pairs.len()) }[0]);
        }
    }
}

/// Block `i` of a row.
#[inline]
pub(super) fn block<B: Pod>(row: &[u8], i: usize) -> &B {
    bytemuck::from_bytes(&row[i * size_of::<B>()..][..size_of::<B>()])
}

/// The mask of the values of `size` bytes that `part` holds, 32 at the most, and where they begin.
#[inline]
fn part(row: &[u8], i: usize, size: usize) -> (u32, *const u8) {
    let part = &row[(i * BLOCK * size).min(row.len())..];
    let n = (part.len() / size).min(BLOCK);
    (((1u64 << n) - 1) as u32, part.as_ptr())
}

impl Row for F32Le {
    const BYTES: usize = 4 * BLOCK;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let (mask, from) = part(row, i, 4);
        let from = from.cast::<f32>();
        // SAFETY: the mask lets only the row's own values be read.
        unsafe {
            [
                _mm512_maskz_loadu_ps(mask as u16, from),
                _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16)),
            ]
        }
    }
}

/// 32 values of two bytes, or as many as there are and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn halves(row: &[u8], i: usize) -> [__m256i; 2] {
    let at = i * 2 * BLOCK;
    if let Some(whole) = row.get(at..at + 2 * BLOCK) {
        let halves = whole.as_chunks::<BLOCK>().0;
        return [load_half(&halves[0]), load_half(&halves[1])];
    }
    let (mask, from) = part(row, i, 2);
    let from = from.cast::<i16>();
    // SAFETY: the mask lets only the row's own values be read.
    unsafe {
        [
            _mm256_maskz_loadu_epi16(mask as u16, from),
            _mm256_maskz_loadu_epi16((mask >> 16) as u16, from.wrapping_add(16)),
        ]
    }
}

impl Row for F16Le {
    const BYTES: usize = 2 * BLOCK;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let [low, high] = halves(row, i);
        [_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)]
    }
}

impl Row for Bf16Le {
    const BYTES: usize = 2 * BLOCK;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let [low, high] = halves(row, i);
        [widen(low), widen(high)]
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widen(x: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// 32 signed bytes as floats.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn signed(q: __m256i) -> [__m512; 2] {
    let low = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(q));
    let high = _mm512_cvtepi8_epi32(_mm256_extracti128_si256::<1>(q));
    [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high)]
}

/// A scale in every lane. (Brought into one lane first, it would wait for what the register held before.)
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,f16c")]
fn scale(d: F16Le) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(d.0)))
}

/// `d * q`.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn scaled(d: __m512, q: __m256i) -> [__m512; 2] {
    let [low, high] = signed(q);
    [_mm512_mul_ps(d, low), _mm512_mul_ps(d, high)]
}

/// `d * q + m`.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
fn scaled_from(d: __m512, m: __m512, q: __m256i) -> [__m512; 2] {
    let [low, high] = signed(q);
    [_mm512_fmadd_ps(d, low, m), _mm512_fmadd_ps(d, high, m)]
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) fn nibbles(qs: &[u8; 16]) -> __m256i {
    let qs = load_quarter(qs);
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(qs), _mm_srli_epi16::<4>(qs));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// Nibbles and a fifth bit each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) fn fives(qh: [u8; 4], qs: &[u8; 16]) -> __m256i {
    let q = nibbles(qs);
    _mm256_mask_add_epi8(q, u32::from_le_bytes(qh), q, _mm256_set1_epi8(16))
}

/// The values of IQ4_NL for their indices.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) fn looked_up(qs: &[u8; 16]) -> __m256i {
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_quarter(&CODEBOOK)), nibbles(qs))
}

impl Row for BlockQ8_0 {
    const BYTES: usize = size_of::<BlockQ8_0>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockQ8_0 = block(row, i);
        scaled(scale(block.d), load_half(&block.qs))
    }
}

impl Row for BlockQ4_0 {
    const BYTES: usize = size_of::<BlockQ4_0>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockQ4_0 = block(row, i);
        scaled(scale(block.d), _mm256_sub_epi8(nibbles(&block.qs), _mm256_set1_epi8(8)))
    }
}

impl Row for BlockQ4_1 {
    const BYTES: usize = size_of::<BlockQ4_1>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockQ4_1 = block(row, i);
        scaled_from(scale(block.d), scale(block.m), nibbles(&block.qs))
    }
}

impl Row for BlockQ5_0 {
    const BYTES: usize = size_of::<BlockQ5_0>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockQ5_0 = block(row, i);
        scaled(scale(block.d), _mm256_sub_epi8(fives(block.qh, &block.qs), _mm256_set1_epi8(16)))
    }
}

impl Row for BlockQ5_1 {
    const BYTES: usize = size_of::<BlockQ5_1>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockQ5_1 = block(row, i);
        scaled_from(scale(block.d), scale(block.m), fives(block.qh, &block.qs))
    }
}

impl Row for BlockIq4Nl {
    const BYTES: usize = size_of::<BlockIq4Nl>();
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let block: &BlockIq4Nl = block(row, i);
        scaled(scale(block.d), looked_up(&block.qs))
    }
}

impl Row for F8E4M3 {
    const HEADER: usize = size_of::<f32>();
    const BYTES: usize = BLOCK;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m512; 2] {
        let (header, codes) = row.split_at(size_of::<f32>());
        let scale = header.first_chunk().map_or(f32::NAN, |d| f32::from_le_bytes(*d));
        let (mask, from) = part(codes, i, 1);
        // SAFETY: the mask lets only the row's own values be read.
        let codes = unsafe { _mm256_maskz_loadu_epi8(mask, from.cast()) };
        let low = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(codes));
        let high = _mm512_cvtepu8_epi32(_mm256_extracti128_si256::<1>(codes));
        [eight_bits(scale, low), eight_bits(scale, high)]
    }
}

/// 8-bit floats under a scale.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn eight_bits(scale: f32, codes: __m512i) -> __m512 {
    // Half of the bits of a binary16 number with the same exponent field, which is off by 2^8: exact, small numbers included.
    let magnitude = _mm512_slli_epi32::<7>(_mm512_and_si512(codes, _mm512_set1_epi32(0x7F)));
    let value = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(magnitude));
    let value = _mm512_mul_ps(value, _mm512_set1_ps(256.0));
    let nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7F << 7));
    let value = _mm512_mask_mov_ps(value, nan, _mm512_set1_ps(f32::NAN));
    let sign = _mm512_slli_epi32::<24>(_mm512_and_si512(codes, _mm512_set1_epi32(0x80)));
    _mm512_mul_ps(_mm512_or_ps(value, _mm512_castsi512_ps(sign)), _mm512_set1_ps(scale))
}
