//! What 32-value blocks have in common: a scale, quants of a byte or less, in some formats a minimum.

use std::arch::x86_64::*;

use super::lanes::{load, sum};
use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x32;
use crate::tensor::Act;

/// A block whose values are `d * q`, with `q` in -128 to 127.
pub(super) struct Signed {
    pub d: f32,
    pub q: __m256i,
}

impl Unpacked for Signed {
    type Act = BlockQ8x32;
    const ACT: Act = Act::Q8x32;
    type Sum = __m256;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }

    // The sign of a weight is moved to its activation; pairs are at most 2 * 128 * 127 < 2^15.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x32, sum: __m256) -> __m256 {
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(self.q), _mm256_sign_epi8(load(&a.q), self.q));
        scaled(pairs, self.d * a.d, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn total(dot: __m256) -> f32 {
        sum(dot)
    }
}

/// A block whose values are `d * q + m`, with `q` in 0 to 31.
pub(super) struct Unsigned {
    pub d: f32,
    pub m: f32,
    pub q: __m256i,
}

impl Unpacked for Unsigned {
    type Act = BlockQ8x32;
    const ACT: Act = Act::Q8x32;
    type Sum = (__m256, f32);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn zero() -> (__m256, f32) {
        (_mm256_setzero_ps(), 0.0)
    }

    // Pairs are at most 2 * 31 * 127.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x32, (dot, min): (__m256, f32)) -> (__m256, f32) {
        let pairs = _mm256_maddubs_epi16(self.q, load(&a.q));
        (scaled(pairs, self.d * a.d, dot), self.m.mul_add(a.s, min))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn total((dot, min): (__m256, f32)) -> f32 {
        sum(dot) + min
    }
}

/// `sum` plus the pairs times `d`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scaled(pairs: __m256i, d: f32, sum: __m256) -> __m256 {
    let dot = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    _mm256_fmadd_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(dot), sum)
}
