//! What 32-value blocks have in common: a scale, quants of a byte or less, in some formats a minimum.

use std::arch::x86_64::*;

use super::lanes::{load_half, sum_half};
use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x32;
use crate::tensor::Act;

/// A block whose values are `d * (q - OFFSET)`, with `q` in 0 to 255.
pub(in crate::cpu) struct Signed<const OFFSET: u8> {
    pub d: f32,
    pub q: __m256i,
}

/// A block apart, for products with many columns.
pub(in crate::cpu) trait Parts {
    /// Whether there is a minimum.
    const MINIMA: bool;
    /// The scale, the minimum, and the quants as signed bytes.
    ///
    /// # Safety
    /// The machine has AVX2.
    unsafe fn parts(self) -> (f32, f32, __m256i);
}

impl<const OFFSET: u8> Parts for Signed<OFFSET> {
    const MINIMA: bool = false;
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn parts(self) -> (f32, f32, __m256i) {
        (self.d, 0.0, _mm256_sub_epi8(self.q, _mm256_set1_epi8(OFFSET as i8)))
    }
}

impl Parts for Unsigned {
    const MINIMA: bool = true;
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn parts(self) -> (f32, f32, __m256i) {
        (self.d, self.m, self.q)
    }
}

/// The offset that flipping the upper bit of a signed byte adds.
pub(super) const FLIPPED: u8 = 128;

/// Signed bytes, offset by [`FLIPPED`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn flip(q: __m256i) -> __m256i {
    _mm256_xor_si256(q, _mm256_set1_epi8(FLIPPED as i8))
}

impl<const OFFSET: u8> Unpacked for Signed<OFFSET> {
    type Act = BlockQ8x32;
    const ACT: Act = Act::Q8x32;
    type Sum = __m256;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x32, sum: __m256) -> __m256 {
        let (quants, zero) = (load_half(&a.q), _mm256_setzero_si256());
        // The same for every row: computed once for those that share a register block.
        let excess = _mm256_dpbusd_epi32(zero, _mm256_set1_epi8(OFFSET as i8), quants);
        let dot = _mm256_dpbusd_epi32(_mm256_sub_epi32(zero, excess), self.q, quants);
        _mm256_fmadd_ps(_mm256_set1_ps(self.d * a.d), _mm256_cvtepi32_ps(dot), sum)
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn total(dot: __m256) -> f32 {
        sum_half(dot)
    }
}

/// A block whose values are `d * q + m`, with `q` in 0 to 255.
pub(in crate::cpu) struct Unsigned {
    pub d: f32,
    pub m: f32,
    pub q: __m256i,
}

impl Unpacked for Unsigned {
    type Act = BlockQ8x32;
    const ACT: Act = Act::Q8x32;
    type Sum = (__m256, f32);

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn zero() -> (__m256, f32) {
        (_mm256_setzero_ps(), 0.0)
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x32, (sum, min): (__m256, f32)) -> (__m256, f32) {
        let dot = _mm256_dpbusd_epi32(_mm256_setzero_si256(), self.q, load_half(&a.q));
        let sum = _mm256_fmadd_ps(_mm256_set1_ps(self.d * a.d), _mm256_cvtepi32_ps(dot), sum);
        (sum, self.m.mul_add(a.s, min))
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn total((sum, min): (__m256, f32)) -> f32 {
        sum_half(sum) + min
    }
}
