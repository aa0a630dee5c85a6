//! Functions of one or two vectors.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{load_f32, load_half, store_f32, sum as sum_lanes};
use crate::cpu::vector::Vector;
use crate::cpu::vector::exp::{COEFFICIENTS, LN2_HIGH, LN2_LOW, MAX, MIN};
use crate::graph::hadamard_block;

/// What the table holds.
pub(super) static VECTOR: Vector =
    Vector { dot, dot_f16, dot_bf16, axpy, axpy_f16, axpy_bf16, scale, max, sum, exp_sum, hadamard };

/// Something that eight f32 are made of.
trait Wide: Copy {
    const ZERO: Self;
    /// # Safety
    /// The machine has AVX2 and F16C.
    unsafe fn widen(values: &[Self; 8]) -> __m256;
}

impl Wide for f32 {
    const ZERO: f32 = 0.0;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(values: &[f32; 8]) -> __m256 {
        load_f32(values)
    }
}

impl Wide for f16 {
    const ZERO: f16 = f16::ZERO;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(values: &[f16; 8]) -> __m256 {
        _mm256_cvtph_ps(load_half(values))
    }
}

impl Wide for bf16 {
    const ZERO: bf16 = bf16::ZERO;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(values: &[bf16; 8]) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_half(values))))
    }
}

/// Up to eight values, then zeros.
#[inline]
fn padded<T: Wide>(tail: &[T]) -> [T; 8] {
    let mut values = [T::ZERO; 8];
    values[..tail.len()].copy_from_slice(tail);
    values
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of<T: Wide>(a: &[f32], b: &[T]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let (a, a_tail) = a.as_chunks::<32>();
    let (b, b_tail) = b.as_chunks::<32>();
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        for i in 0..4 {
            // SAFETY: the machine has the features of this function.
            let b = unsafe { T::widen(&b[i]) };
            sums[i] = _mm256_fmadd_ps(load_f32(&a[i]), b, sums[i]);
        }
    }
    for (i, (a, b)) in a_tail.chunks(8).zip(b_tail.chunks(8)).enumerate() {
        // SAFETY: as above.
        let b = unsafe { T::widen(&padded(b)) };
        sums[i] = _mm256_fmadd_ps(load_f32(&padded(a)), b, sums[i]);
    }
    sum_lanes(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_of(a, b)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_f16(a: &[f32], b: &[f16]) -> f32 {
    dot_of(a, b)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_bf16(a: &[f32], b: &[bf16]) -> f32 {
    dot_of(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn axpy_of<T: Wide>(acc: &mut [f32], a: f32, x: &[T]) {
    let a = _mm256_set1_ps(a);
    let (acc, acc_tail) = acc.as_chunks_mut::<8>();
    let (x, x_tail) = x.as_chunks::<8>();
    for (acc, x) in acc.iter_mut().zip(x) {
        // SAFETY: the machine has the features of this function.
        let x = unsafe { T::widen(x) };
        store_f32(acc, _mm256_fmadd_ps(a, x, load_f32(acc)));
    }
    let mut last = padded(acc_tail);
    // SAFETY: as above.
    let x = unsafe { T::widen(&padded(x_tail)) };
    let sum = _mm256_fmadd_ps(a, x, load_f32(&last));
    store_f32(&mut last, sum);
    acc_tail.copy_from_slice(&last[..acc_tail.len()]);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn axpy(acc: &mut [f32], a: f32, x: &[f32]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn axpy_f16(acc: &mut [f32], a: f32, x: &[f16]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn axpy_bf16(acc: &mut [f32], a: f32, x: &[bf16]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scale(x: &mut [f32], a: f32) {
    for x in x {
        *x *= a;
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut max = _mm256_set1_ps(f32::NEG_INFINITY);
    let (chunks, tail) = x.as_chunks::<8>();
    for x in chunks {
        // Where either is NaN, `max_ps` gives the second.
        max = _mm256_max_ps(load_f32(x), max);
    }
    let mut last = [f32::NEG_INFINITY; 8];
    last[..tail.len()].copy_from_slice(tail);
    let max = _mm256_max_ps(load_f32(&last), max);
    let max = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps::<1>(max));
    let max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum(x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let (chunks, tail) = x.as_chunks::<32>();
    for x in chunks {
        for (sum, x) in sums.iter_mut().zip(x.as_chunks::<8>().0) {
            *sum = _mm256_add_ps(*sum, load_f32(x));
        }
    }
    for (sum, x) in sums.iter_mut().zip(tail.chunks(8)) {
        *sum = _mm256_add_ps(*sum, load_f32(&padded(x)));
    }
    sum_lanes(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let max = _mm256_set1_ps(max);
    let mut sum = _mm256_setzero_ps();
    let (chunks, tail) = x.as_chunks_mut::<8>();
    for x in chunks {
        let e = exp(_mm256_sub_ps(load_f32(x), max));
        store_f32(x, e);
        sum = _mm256_add_ps(sum, e);
    }
    if !tail.is_empty() {
        let mut last = [f32::NEG_INFINITY; 8];
        last[..tail.len()].copy_from_slice(tail);
        let e = exp(_mm256_sub_ps(load_f32(&last), max));
        store_f32(&mut last, e);
        tail.copy_from_slice(&last[..tail.len()]);
        // Negative infinities give zeros, but for a `max` that is one itself.
        sum = _mm256_add_ps(sum, load_f32(&padded(tail)));
    }
    sum_lanes(sum)
}

/// As in the reference: `2^n * e^r`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    let (low, high) = (_mm256_set1_ps(MIN), _mm256_set1_ps(MAX));
    // NaN stays: where either is NaN, the second is given.
    let clamped = _mm256_min_ps(high, _mm256_max_ps(low, x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        clamped,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_HIGH), clamped);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_LOW), r);
    let mut polynomial = _mm256_setzero_ps();
    for c in COEFFICIENTS {
        polynomial = _mm256_fmadd_ps(polynomial, r, _mm256_set1_ps(c));
    }
    // 2^n in two factors: 2^128, for the largest `x`, is no f32.
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let value = _mm256_mul_ps(_mm256_mul_ps(polynomial, power(half)), power(_mm256_sub_epi32(n, half)));
    let value = _mm256_blendv_ps(value, _mm256_set1_ps(f32::INFINITY), _mm256_cmp_ps::<_CMP_GT_OQ>(x, high));
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, low), value)
}

/// `2^n` for `n` in -126 to 127.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// As in the reference: sums and differences of values `half` apart, for `half` = 1, 2, 4 and on.
#[target_feature(enable = "avx2,fma,f16c")]
fn hadamard(row: &mut [f32]) {
    let Some(len) = hadamard_block(row.len()) else { return };
    let factor = _mm256_set1_ps(1.0 / (len as f32).sqrt());
    for block in row.chunks_exact_mut(len) {
        let vectors = block.as_chunks_mut::<8>().0;
        for v in vectors.iter_mut() {
            let mut x = load_f32(v);
            // A value plus its partner, or the partner less the value: exactly what a subtraction gives.
            let swapped = _mm256_permute_ps::<0b10_11_00_01>(x);
            x = _mm256_blend_ps::<0xAA>(_mm256_add_ps(x, swapped), _mm256_sub_ps(swapped, x));
            let swapped = _mm256_permute_ps::<0b01_00_11_10>(x);
            x = _mm256_blend_ps::<0xCC>(_mm256_add_ps(x, swapped), _mm256_sub_ps(swapped, x));
            let swapped = _mm256_permute2f128_ps::<0x01>(x, x);
            x = _mm256_blend_ps::<0xF0>(_mm256_add_ps(x, swapped), _mm256_sub_ps(swapped, x));
            store_f32(v, x);
        }
        let mut half = 1;
        while half < vectors.len() {
            for pair in vectors.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    let (x, y) = (load_f32(a), load_f32(b));
                    store_f32(a, _mm256_add_ps(x, y));
                    store_f32(b, _mm256_sub_ps(x, y));
                }
            }
            half *= 2;
        }
        for v in vectors {
            let x = load_f32(v);
            store_f32(v, _mm256_mul_ps(x, factor));
        }
    }
}
