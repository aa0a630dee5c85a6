//! Sixteen lanes by the vector instructions of x86-64: one register of AVX-512, or two of AVX2.
//!
//! Values of these types are made only by [`super::lanes::widest`], in functions that are compiled for the instructions and
//! called where the machine was found to have them. So every operation below may use them, and is inlined there.

#![allow(clippy::wildcard_imports)] // The names of the intrinsics say where they are from.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::lanes::{LANES, Lanes};

/// A call of an intrinsic.
macro_rules! call {
    ($e:expr) => {
        // SAFETY: a value of these types exists only where its instructions do, see the top of this file; loads and stores
        // are of whole arrays of sixteen numbers.
        unsafe { $e }
    };
}

/// Sixteen numbers in a register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Avx512(__m512);

/// Sixteen numbers in two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

impl Avx512 {
    /// Whether this machine has the instructions.
    #[inline]
    pub(crate) fn is_here() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }
}

impl Avx2 {
    /// Whether this machine has the instructions.
    #[inline]
    pub(crate) fn is_here() -> bool {
        is_x86_feature_detected!("avx2")
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $wide:ident, $narrow:ident) => {
        impl $trait for Avx512 {
            type Output = Avx512;
            #[inline(always)]
            fn $method(self, other: Avx512) -> Avx512 {
                Avx512(call!($wide(self.0, other.0)))
            }
        }
        impl $trait for Avx2 {
            type Output = Avx2;
            #[inline(always)]
            fn $method(self, other: Avx2) -> Avx2 {
                Avx2(call!($narrow(self.0, other.0)), call!($narrow(self.1, other.1)))
            }
        }
    };
}
operator!(Add, add, _mm512_add_ps, _mm256_add_ps);
operator!(Sub, sub, _mm512_sub_ps, _mm256_sub_ps);
operator!(Mul, mul, _mm512_mul_ps, _mm256_mul_ps);
operator!(Div, div, _mm512_div_ps, _mm256_div_ps);

/// What [`super::rounding::nearest`] adds, so that the whole number stands in the low bits.
const MAGIC: f32 = 12_582_912.0;
const LOW: i32 = 0x007f_ffff;
const OFFSET: i32 = 0x0040_0000;

impl Lanes for Avx512 {
    type Mask = __mmask16;

    #[inline(always)]
    fn new(values: [f32; LANES]) -> Avx512 {
        Avx512(call!(_mm512_loadu_ps(values.as_ptr())))
    }
    #[inline(always)]
    fn get(self) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        call!(_mm512_storeu_ps(out.as_mut_ptr(), self.0));
        out
    }
    #[inline(always)]
    fn bytes(self) -> [u8; LANES] {
        let mut out = [0; LANES];
        call!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(self.0))));
        out
    }
    #[inline(always)]
    fn all(v: f32) -> Avx512 {
        Avx512(call!(_mm512_set1_ps(v)))
    }
    #[inline(always)]
    fn abs(self) -> Avx512 {
        Avx512(call!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn neg(self) -> Avx512 {
        Avx512(call!(_mm512_xor_ps(self.0, _mm512_set1_ps(-0.0))))
    }
    #[inline(always)]
    fn sqrt(self) -> Avx512 {
        Avx512(call!(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn nearest(self, min: i32, max: i32) -> Avx512 {
        Avx512(call!({
            let sum = _mm512_castps_si512(_mm512_add_ps(self.0, _mm512_set1_ps(MAGIC)));
            let whole =
                _mm512_sub_epi32(_mm512_and_si512(sum, _mm512_set1_epi32(LOW)), _mm512_set1_epi32(OFFSET));
            let clamped =
                _mm512_min_epi32(_mm512_max_epi32(whole, _mm512_set1_epi32(min)), _mm512_set1_epi32(max));
            _mm512_cvtepi32_ps(clamped)
        }))
    }
    #[inline(always)]
    fn lt(self, other: Avx512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0))
    }
    #[inline(always)]
    fn ge(self, other: Avx512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, other.0))
    }
    #[inline(always)]
    fn eq(self, other: Avx512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0))
    }
    #[inline(always)]
    fn select(mask: __mmask16, yes: Avx512, no: Avx512) -> Avx512 {
        Avx512(call!(_mm512_mask_blend_ps(mask, no.0, yes.0)))
    }
    #[inline(always)]
    fn and(a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn not(a: __mmask16) -> __mmask16 {
        !a
    }
    #[inline(always)]
    fn any(a: __mmask16) -> bool {
        a != 0
    }
}

#[inline(always)]
fn nearest(x: __m256, min: i32, max: i32) -> __m256 {
    call!({
        let sum = _mm256_castps_si256(_mm256_add_ps(x, _mm256_set1_ps(MAGIC)));
        let whole =
            _mm256_sub_epi32(_mm256_and_si256(sum, _mm256_set1_epi32(LOW)), _mm256_set1_epi32(OFFSET));
        let clamped =
            _mm256_min_epi32(_mm256_max_epi32(whole, _mm256_set1_epi32(min)), _mm256_set1_epi32(max));
        _mm256_cvtepi32_ps(clamped)
    })
}

impl Lanes for Avx2 {
    type Mask = (__m256, __m256);

    #[inline(always)]
    fn new(values: [f32; LANES]) -> Avx2 {
        let (low, high) = values.split_at(LANES / 2);
        Avx2(call!(_mm256_loadu_ps(low.as_ptr())), call!(_mm256_loadu_ps(high.as_ptr())))
    }
    #[inline(always)]
    fn get(self) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        let (low, high) = out.split_at_mut(LANES / 2);
        call!(_mm256_storeu_ps(low.as_mut_ptr(), self.0));
        call!(_mm256_storeu_ps(high.as_mut_ptr(), self.1));
        out
    }
    #[inline(always)]
    fn bytes(self) -> [u8; LANES] {
        let mut whole = [0i32; LANES];
        let (low, high) = whole.split_at_mut(LANES / 2);
        call!(_mm256_storeu_si256(low.as_mut_ptr().cast(), _mm256_cvttps_epi32(self.0)));
        call!(_mm256_storeu_si256(high.as_mut_ptr().cast(), _mm256_cvttps_epi32(self.1)));
        let mut out = [0; LANES];
        for (out, whole) in out.iter_mut().zip(whole) {
            *out = whole as u8;
        }
        out
    }
    #[inline(always)]
    fn all(v: f32) -> Avx2 {
        let v = call!(_mm256_set1_ps(v));
        Avx2(v, v)
    }
    #[inline(always)]
    fn abs(self) -> Avx2 {
        let sign = call!(_mm256_set1_ps(-0.0));
        Avx2(call!(_mm256_andnot_ps(sign, self.0)), call!(_mm256_andnot_ps(sign, self.1)))
    }
    #[inline(always)]
    fn neg(self) -> Avx2 {
        let sign = call!(_mm256_set1_ps(-0.0));
        Avx2(call!(_mm256_xor_ps(sign, self.0)), call!(_mm256_xor_ps(sign, self.1)))
    }
    #[inline(always)]
    fn sqrt(self) -> Avx2 {
        Avx2(call!(_mm256_sqrt_ps(self.0)), call!(_mm256_sqrt_ps(self.1)))
    }
    #[inline(always)]
    fn nearest(self, min: i32, max: i32) -> Avx2 {
        Avx2(nearest(self.0, min, max), nearest(self.1, min, max))
    }
    #[inline(always)]
    fn lt(self, other: Avx2) -> Self::Mask {
        (
            call!(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)),
            call!(_mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1)),
        )
    }
    #[inline(always)]
    fn ge(self, other: Avx2) -> Self::Mask {
        (
            call!(_mm256_cmp_ps::<_CMP_GE_OQ>(self.0, other.0)),
            call!(_mm256_cmp_ps::<_CMP_GE_OQ>(self.1, other.1)),
        )
    }
    #[inline(always)]
    fn eq(self, other: Avx2) -> Self::Mask {
        (
            call!(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)),
            call!(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.1, other.1)),
        )
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Avx2, no: Avx2) -> Avx2 {
        Avx2(call!(_mm256_blendv_ps(no.0, yes.0, mask.0)), call!(_mm256_blendv_ps(no.1, yes.1, mask.1)))
    }
    #[inline(always)]
    fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        (call!(_mm256_and_ps(a.0, b.0)), call!(_mm256_and_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn not(a: Self::Mask) -> Self::Mask {
        let ones = call!(_mm256_castsi256_ps(_mm256_set1_epi32(-1)));
        (call!(_mm256_xor_ps(a.0, ones)), call!(_mm256_xor_ps(a.1, ones)))
    }
    #[inline(always)]
    fn any(a: Self::Mask) -> bool {
        call!(_mm256_movemask_ps(_mm256_or_ps(a.0, a.1))) != 0
    }
}
