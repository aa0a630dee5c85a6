//! Rows of the cache as floats, 32 at a time.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};
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
use crate::cpu::avx2::lanes::{load, load_half, nibbles, scale, store_f32};

/// A format's rows.
pub(super) trait Row {
    /// Values `32 * i` and on of a row; where the row ends before, what follows is a row's padding or zeros.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4];
}

/// The rows of 8-bit floats: see [`crate::kv::f8e4m3`].
pub(super) struct F8E4M3;

/// Ask for the memory `ahead` bytes past a row. An address that is not ours is no error.
#[inline(always)]
pub(super) fn prefetch(row: &[u8], ahead: usize) {
    for at in (ahead..ahead + row.len()).step_by(64) {
        let line = row.as_ptr().wrapping_add(at);
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
}

/// Rows as floats, [`width`] apart.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn decode<R: Row>(rows: &Rows, out: &mut [f32]) {
    for (r, out) in out.chunks_exact_mut(width(rows.d)).take(rows.n).enumerate() {
        let row = rows.row(r);
        prefetch(row, rows.row_bytes * COLUMNS);
        for (i, out) in out.chunks_mut(BLOCK).enumerate() {
            // SAFETY: the machine has the features of this function.
            let x = unsafe { R::load(row, i) };
            for (out, x) in out.as_chunks_mut::<8>().0.iter_mut().zip(x) {
                store_f32(out, x);
            }
        }
    }
}

/// Block `i` of a row.
#[inline]
fn block<B: Pod>(row: &[u8], i: usize) -> &B {
    bytemuck::from_bytes(&row[i * size_of::<B>()..][..size_of::<B>()])
}

/// `N` bytes of a row, or as many as there are and zeros.
#[inline]
fn part<T: Zeroable + Pod>(row: &[u8], i: usize) -> T {
    let part = &row[(i * size_of::<T>()).min(row.len())..];
    if let Some(whole) = part.get(..size_of::<T>()) {
        return bytemuck::pod_read_unaligned(whole);
    }
    let mut padded = T::zeroed();
    bytemuck::bytes_of_mut(&mut padded)[..part.len()].copy_from_slice(part);
    padded
}

impl Row for F32Le {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        part::<[__m256; 4]>(row, i)
    }
}

impl Row for F16Le {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let [a, b, c, d] = part::<[__m128i; 4]>(row, i);
        [_mm256_cvtph_ps(a), _mm256_cvtph_ps(b), _mm256_cvtph_ps(c), _mm256_cvtph_ps(d)]
    }
}

impl Row for Bf16Le {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let [a, b, c, d] = part::<[__m128i; 4]>(row, i);
        [widen(a), widen(b), widen(c), widen(d)]
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen(x: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))
}

/// 32 signed bytes as floats.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(q: __m256i) -> [__m256; 4] {
    let (low, high) = (_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
    [
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(low))),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(high))),
    ]
}

/// `d * q`.
#[inline]
#[target_feature(enable = "avx2")]
fn scaled(d: f32, q: __m256i) -> [__m256; 4] {
    let (mut values, d) = (signed(q), _mm256_set1_ps(d));
    for x in &mut values {
        *x = _mm256_mul_ps(d, *x);
    }
    values
}

/// `d * q + m`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scaled_from(d: f32, m: f32, q: __m256i) -> [__m256; 4] {
    let (mut values, d, m) = (signed(q), _mm256_set1_ps(d), _mm256_set1_ps(m));
    for x in &mut values {
        *x = _mm256_fmadd_ps(d, *x, m);
    }
    values
}

/// Nibbles and a fifth bit each.
#[inline]
#[target_feature(enable = "avx2")]
fn fives(qh: [u8; 4], qs: &[u8; 16]) -> __m256i {
    // Byte i of the bits to bytes 8i to 8i + 7, then one bit of each.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bits = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(qh)), spread);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
    _mm256_or_si256(nibbles(qs), _mm256_and_si256(set, _mm256_set1_epi8(16)))
}

impl Row for BlockQ8_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockQ8_0 = block(row, i);
        scaled(scale(block.d), load(&block.qs))
    }
}

impl Row for BlockQ4_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockQ4_0 = block(row, i);
        scaled(scale(block.d), _mm256_sub_epi8(nibbles(&block.qs), _mm256_set1_epi8(8)))
    }
}

impl Row for BlockQ4_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockQ4_1 = block(row, i);
        scaled_from(scale(block.d), scale(block.m), nibbles(&block.qs))
    }
}

impl Row for BlockQ5_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockQ5_0 = block(row, i);
        scaled(scale(block.d), _mm256_sub_epi8(fives(block.qh, &block.qs), _mm256_set1_epi8(16)))
    }
}

impl Row for BlockQ5_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockQ5_1 = block(row, i);
        scaled_from(scale(block.d), scale(block.m), fives(block.qh, &block.qs))
    }
}

impl Row for BlockIq4Nl {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let block: &BlockIq4Nl = block(row, i);
        let codebook = _mm256_broadcastsi128_si256(load_half(&CODEBOOK));
        scaled(scale(block.d), _mm256_shuffle_epi8(codebook, nibbles(&block.qs)))
    }
}

impl Row for F8E4M3 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(row: &[u8], i: usize) -> [__m256; 4] {
        let (header, codes) = row.split_at(size_of::<f32>());
        let scale = header.first_chunk().map_or(f32::NAN, |d| f32::from_le_bytes(*d));
        let [a, b, c, d] = part::<[i64; 4]>(codes, i);
        [eight_bits(scale, a), eight_bits(scale, b), eight_bits(scale, c), eight_bits(scale, d)]
    }
}

/// Eight 8-bit floats under a scale.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn eight_bits(scale: f32, codes: i64) -> __m256 {
    let codes = _mm_cvtepu8_epi16(_mm_set_epi64x(0, codes));
    // A binary16 number with the same exponent field, which is off by 2^8: exact, small numbers included.
    let magnitude = _mm_slli_epi16::<7>(_mm_and_si128(codes, _mm_set1_epi16(0x7F)));
    // The one code that is no number becomes binary16's.
    let nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7F << 7));
    let magnitude = _mm_or_si128(magnitude, _mm_and_si128(nan, _mm_set1_epi16(0x7E00)));
    let sign = _mm_slli_epi16::<8>(_mm_and_si128(codes, _mm_set1_epi16(0x80)));
    let value = _mm256_cvtph_ps(_mm_or_si128(magnitude, sign));
    _mm256_mul_ps(_mm256_mul_ps(value, _mm256_set1_ps(256.0)), _mm256_set1_ps(scale))
}
