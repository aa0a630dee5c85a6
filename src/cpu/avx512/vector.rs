//! Functions of one or two vectors.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{first, load_f32, load_half, load_tail, store_f32, store_tail, sum as sum_lanes};
use crate::cpu::vector::Vector;
use crate::cpu::vector::exp::{COEFFICIENTS, LN2_HIGH, LN2_LOW, MAX, MIN};
use crate::graph::hadamard_block;

/// What the table holds.
pub(super) static VECTOR: Vector =
    Vector { dot, dot_f16, dot_bf16, axpy, axpy_f16, axpy_bf16, scale, max, sum, exp_sum, hadamard };

/// Something that sixteen f32 are made of.
trait Wide: Copy {
    const ZERO: Self;
    /// # Safety
    /// The machine has AVX-512.
    unsafe fn widen(values: &[Self; 16]) -> __m512;
}

impl Wide for f32 {
    const ZERO: f32 = 0.0;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[f32; 16]) -> __m512 {
        load_f32(values)
    }
}

impl Wide for f16 {
    const ZERO: f16 = f16::ZERO;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[f16; 16]) -> __m512 {
        _mm512_cvtph_ps(load_half(values))
    }
}

impl Wide for bf16 {
    const ZERO: bf16 = bf16::ZERO;
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[bf16; 16]) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_half(values))))
    }
}

/// Up to sixteen values, then zeros.
#[inline]
fn padded<T: Wide>(tail: &[T]) -> [T; 16] {
    let mut values = [T::ZERO; 16];
    values[..tail.len()].copy_from_slice(tail);
    values
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot_of<T: Wide>(a: &[f32], b: &[T]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 4];
    let (a, a_tail) = a.as_chunks::<64>();
    let (b, b_tail) = b.as_chunks::<64>();
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
        for i in 0..4 {
            // SAFETY: the machine has the features of this function.
            let b = unsafe { T::widen(&b[i]) };
            sums[i] = _mm512_fmadd_ps(load_f32(&a[i]), b, sums[i]);
        }
    }
    for (i, (a, b)) in a_tail.chunks(16).zip(b_tail.chunks(16)).enumerate() {
        // SAFETY: as above.
        let b = unsafe { T::widen(&padded(b)) };
        sums[i] = _mm512_fmadd_ps(load_tail(a), b, sums[i]);
    }
    sum_lanes(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_of(a, b)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot_f16(a: &[f32], b: &[f16]) -> f32 {
    dot_of(a, b)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot_bf16(a: &[f32], b: &[bf16]) -> f32 {
    dot_of(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn axpy_of<T: Wide>(acc: &mut [f32], a: f32, x: &[T]) {
    let a = _mm512_set1_ps(a);
    let (acc, acc_tail) = acc.as_chunks_mut::<16>();
    let (x, x_tail) = x.as_chunks::<16>();
    for (acc, x) in acc.iter_mut().zip(x) {
        // SAFETY: the machine has the features of this function.
        let x = unsafe { T::widen(x) };
        store_f32(acc, _mm512_fmadd_ps(a, x, load_f32(acc)));
    }
    if !acc_tail.is_empty() {
        // SAFETY: as above.
        let x = unsafe { T::widen(&padded(x_tail)) };
        let sum = _mm512_fmadd_ps(a, x, load_tail(acc_tail));
        store_tail(acc_tail, sum);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn axpy(acc: &mut [f32], a: f32, x: &[f32]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn axpy_f16(acc: &mut [f32], a: f32, x: &[f16]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn axpy_bf16(acc: &mut [f32], a: f32, x: &[bf16]) {
    axpy_of(acc, a, x);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scale(x: &mut [f32], a: f32) {
    for x in x {
        *x *= a;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn max(x: &[f32]) -> f32 {
    let mut max = _mm512_set1_ps(f32::NEG_INFINITY);
    let (chunks, tail) = x.as_chunks::<16>();
    for x in chunks {
        // Where either is NaN, `max_ps` gives the second.
        max = _mm512_max_ps(load_f32(x), max);
    }
    max = _mm512_mask_max_ps(max, first(tail.len()), load_tail(tail), max);
    _mm512_reduce_max_ps(max)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sum(x: &[f32]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 4];
    let (chunks, tail) = x.as_chunks::<64>();
    for x in chunks {
        for (sum, x) in sums.iter_mut().zip(x.as_chunks::<16>().0) {
            *sum = _mm512_add_ps(*sum, load_f32(x));
        }
    }
    for (sum, x) in sums.iter_mut().zip(tail.chunks(16)) {
        *sum = _mm512_add_ps(*sum, load_tail(x));
    }
    sum_lanes(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let max = _mm512_set1_ps(max);
    let mut sum = _mm512_setzero_ps();
    let (chunks, tail) = x.as_chunks_mut::<16>();
    for x in chunks {
        let e = exp(_mm512_sub_ps(load_f32(x), max));
        store_f32(x, e);
        sum = _mm512_add_ps(sum, e);
    }
    let lanes = first(tail.len());
    let e = _mm512_maskz_mov_ps(lanes, exp(_mm512_sub_ps(load_tail(tail), max)));
    store_tail(tail, e);
    sum_lanes(_mm512_add_ps(sum, e))
}

/// As in the reference: `2^n * e^r`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn exp(x: __m512) -> __m512 {
    let (low, high) = (_mm512_set1_ps(MIN), _mm512_set1_ps(MAX));
    // NaN stays: where either is NaN, the second is given.
    let clamped = _mm512_min_ps(high, _mm512_max_ps(low, x));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
        clamped,
        _mm512_set1_ps(std::f32::consts::LOG2_E),
    ));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2_HIGH), clamped);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2_LOW), r);
    let mut polynomial = _mm512_setzero_ps();
    for c in COEFFICIENTS {
        polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(c));
    }
    let value = _mm512_scalef_ps(polynomial, n);
    let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, high);
    let value = _mm512_mask_mov_ps(value, above, _mm512_set1_ps(f32::INFINITY));
    // Not below, rather than above or equal: NaN is neither.
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, low), value)
}

/// As in the reference: sums and differences of values `half` apart, for `half` = 1, 2, 4 and on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn hadamard(row: &mut [f32]) {
    let Some(len) = hadamard_block(row.len()) else { return };
    let factor = _mm512_set1_ps(1.0 / (len as f32).sqrt());
    for block in row.chunks_exact_mut(len) {
        let vectors = block.as_chunks_mut::<16>().0;
        for v in vectors.iter_mut() {
            let mut x = load_f32(v);
            // A value plus its partner, or the partner less the value: exactly what a subtraction gives.
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, swap1(x)), 0xAAAA, swap1(x), x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, swap2(x)), 0xCCCC, swap2(x), x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, swap4(x)), 0xF0F0, swap4(x), x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, swap8(x)), 0xFF00, swap8(x), x);
            store_f32(v, x);
        }
        let mut half = 1;
        while half < vectors.len() {
            for pair in vectors.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    let (x, y) = (load_f32(a), load_f32(b));
                    store_f32(a, _mm512_add_ps(x, y));
                    store_f32(b, _mm512_sub_ps(x, y));
                }
            }
            half *= 2;
        }
        for v in vectors {
            let x = load_f32(v);
            store_f32(v, _mm512_mul_ps(x, factor));
        }
    }
}

/// Neighbours change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap1(x: __m512) -> __m512 {
    _mm512_permute_ps::<0b10_11_00_01>(x)
}

/// Neighbouring pairs change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap2(x: __m512) -> __m512 {
    _mm512_permute_ps::<0b01_00_11_10>(x)
}

/// Neighbouring fours change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap4(x: __m512) -> __m512 {
    _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x)
}

/// Halves change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap8(x: __m512) -> __m512 {
    _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x)
}
