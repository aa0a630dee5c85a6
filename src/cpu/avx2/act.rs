//! Rounding of activations.

use std::arch::x86_64::*;

use super::lanes::{load, load_f32};
use crate::cpu::act::{BlockQ8x32, BlockQ8x256, Quantize, scales};

/// What the table holds.
pub(super) static QUANTIZE: Quantize = Quantize { q8x32, q8x256 };

#[target_feature(enable = "avx2")]
fn q8x32(x: &[f32], out: &mut [BlockQ8x32]) {
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
        let (d, inverse) = scales(max_bits(x));
        let q = round(x, inverse, d);
        store(&mut out.q, q);
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
        let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        out.d = d;
        out.s = d * sum(sums) as f32;
    }
}

#[target_feature(enable = "avx2")]
fn q8x256(x: &[f32], out: &mut [BlockQ8x256]) {
    for (x, out) in x.as_chunks::<256>().0.iter().zip(out) {
        let (d, inverse) = scales(max_bits(x));
        let runs = x.as_chunks::<32>().0.iter().zip(out.q.as_chunks_mut::<32>().0);
        for ((x, q_out), sums) in runs.zip(out.sums.as_chunks_mut::<2>().0) {
            let q = round(x, inverse, d);
            store(q_out, q);
            // Each half is a sub-block of 16: eight pairs, then four, two, one.
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
            let v = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            let v = _mm256_add_epi32(v, _mm256_shuffle_epi32::<0b01_00_11_10>(v));
            let v = _mm256_add_epi32(v, _mm256_shuffle_epi32::<0b10_11_00_01>(v));
            sums[0] = _mm256_extract_epi32::<0>(v) as i16;
            sums[1] = _mm256_extract_epi32::<4>(v) as i16;
        }
        out.d = d;
        out.pad = [0; 28];
    }
}

/// The bits of the largest magnitude: see [`scales`].
#[inline]
#[target_feature(enable = "avx2")]
fn max_bits(x: &[f32]) -> u32 {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut max = _mm256_setzero_si256();
    for x in x.as_chunks::<8>().0 {
        max = _mm256_max_epi32(max, _mm256_and_si256(load(x), magnitude));
    }
    let max = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b10_11_00_01>(max));
    _mm_cvtsi128_si32(max) as u32
}

/// 32 quants; zeros where the scale is NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn round(x: &[f32; 32], inverse: f32, d: f32) -> __m256i {
    if d.is_nan() {
        return _mm256_setzero_si256();
    }
    let inverse = _mm256_set1_ps(inverse);
    let mut q = [_mm256_setzero_si256(); 4];
    for (q, x) in q.iter_mut().zip(x.as_chunks::<8>().0) {
        *q = _mm256_cvtps_epi32(_mm256_mul_ps(load_f32(x), inverse));
    }
    // Packing works in each half by itself: the words of 4 quants come out in the order 0 2 4 6, 1 3 5 7.
    let words = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
    _mm_cvtsi128_si32(v)
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [i8; 32], v: __m256i) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}
