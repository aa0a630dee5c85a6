//! What 256-value super-blocks have in common: 16 sub-blocks of 16 (or 8 of 32) with integer scales and minima.

use std::arch::x86_64::*;

use super::lanes::{load, sum};
use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x256;
use crate::tensor::Act;

/// A super-block whose values are `d * scale * q - dmin * min` (no minimum where `MINIMA` is false).
///
/// With `OFFSET`, `q` is the byte less the offset; a byte is at most 63. With an offset of [`SIGNED`], it is a signed byte.
pub(super) struct Superblock<const OFFSET: i8, const MINIMA: bool> {
    pub d: f32,
    pub dmin: f32,
    /// 32 quants each.
    pub q: [__m256i; 8],
    /// The scales as i16: those of even sub-blocks of 16 in the lower half, of odd ones in the upper.
    pub scales: __m256i,
    /// The minima of sub-blocks of 16, as i16 in order.
    pub mins: __m256i,
}

/// The offset of bytes that are signed by themselves.
pub(super) const SIGNED: i8 = -1;

impl<const OFFSET: i8, const MINIMA: bool> Unpacked for Superblock<OFFSET, MINIMA> {
    type Act = BlockQ8x256;
    const ACT: Act = Act::Q8x256;
    type Sum = __m256;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }

    // Pairs are at most 2 * 63 * 127, or 2 * 128 * 127 for signed bytes: below 2^15. Times a scale of at most 128 (32
    // for signed bytes), 16 of them in a lane: below 2^26.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x256, mut sum: __m256) -> __m256 {
        let quants = a.q.as_chunks::<32>().0;
        let mut dot = _mm256_setzero_si256();
        for i in 0..8 {
            let a = load(&quants[i]);
            let pairs = match OFFSET {
                SIGNED => _mm256_maddubs_epi16(_mm256_abs_epi8(self.q[i]), _mm256_sign_epi8(a, self.q[i])),
                0 => _mm256_maddubs_epi16(self.q[i], a),
                offset => _mm256_sub_epi16(
                    _mm256_maddubs_epi16(self.q[i], a),
                    _mm256_maddubs_epi16(_mm256_set1_epi8(offset), a),
                ),
            };
            // Word i of each half, in all of its words.
            let word = _mm256_set1_epi16((2 * i + ((2 * i + 1) << 8)) as i16);
            let scale = _mm256_shuffle_epi8(self.scales, word);
            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, scale));
        }
        sum = _mm256_fmadd_ps(_mm256_set1_ps(self.d * a.d), _mm256_cvtepi32_ps(dot), sum);
        if MINIMA {
            let min = _mm256_madd_epi16(self.mins, load(&a.sums));
            sum = _mm256_fnmadd_ps(_mm256_set1_ps(self.dmin * a.d), _mm256_cvtepi32_ps(min), sum);
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn total(dot: __m256) -> f32 {
        sum(dot)
    }
}

/// The scales of 16 sub-blocks of 16, signed bytes, in the order of [`Superblock::scales`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scales_of_16(scales: __m128i) -> __m256i {
    let even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, even_odd))
}

/// The scales of 8 sub-blocks of 32, in the order of [`Superblock::scales`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scales_of_32(scales: [u8; 8]) -> __m256i {
    let scales = _mm_cvtsi64_si128(i64::from_le_bytes(scales));
    _mm256_cvtepi8_epi16(_mm_unpacklo_epi64(scales, scales))
}

/// The minima of 8 sub-blocks of 32, in the order of [`Superblock::mins`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn mins_of_32(mins: [u8; 8]) -> __m256i {
    let mins = _mm_cvtsi64_si128(i64::from_le_bytes(mins));
    _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins))
}
