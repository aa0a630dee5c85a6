//! Loads, sums over lanes, and what several formats unpack alike.

use std::arch::x86_64::*;

use bytemuck::{NoUninit, Pod};
use chaski_gguf::block::f16::F16Le;

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: NoUninit>(bytes: &T) -> __m512i {
    const { assert!(size_of::<T>() == 64) };
    // SAFETY: 64 initialised bytes, at any alignment.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(bytes).cast()) }
}

/// Store 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store<T: Pod>(to: &mut T, v: __m512i) {
    const { assert!(size_of::<T>() == 64) };
    // SAFETY: 64 writable bytes, at any alignment.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), v) }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_half<T: NoUninit>(bytes: &T) -> __m256i {
    const { assert!(size_of::<T>() == 32) };
    // SAFETY: 32 initialised bytes, at any alignment.
    unsafe { _mm256_loadu_si256(std::ptr::from_ref(bytes).cast()) }
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_quarter<T: NoUninit>(bytes: &T) -> __m128i {
    const { assert!(size_of::<T>() == 16) };
    // SAFETY: 16 initialised bytes, at any alignment.
    unsafe { _mm_loadu_si128(std::ptr::from_ref(bytes).cast()) }
}

/// 16 floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) fn load_f32(values: &[f32; 16]) -> __m512 {
    // SAFETY: 16 readable floats.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Up to 16 floats, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_tail(values: &[f32]) -> __m512 {
    // SAFETY: the mask lets only the values be read.
    unsafe { _mm512_maskz_loadu_ps(first(values.len()), values.as_ptr()) }
}

/// Store 16 floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) fn store_f32(values: &mut [f32; 16], v: __m512) {
    // SAFETY: 16 writable floats.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), v) }
}

/// Store the first lanes in up to 16 floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_tail(values: &mut [f32], v: __m512) {
    // SAFETY: the mask lets only the values be written.
    unsafe { _mm512_mask_storeu_ps(values.as_mut_ptr(), first(values.len()), v) }
}

/// The mask of the first `n` of 16 lanes.
#[inline]
pub(super) fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// The sum of the lanes, by halves.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2")]
pub(super) fn sum(v: __m512) -> f32 {
    sum_half(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)))
}

/// The sum of the lanes, by halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_half(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// A scale, exactly.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scale(d: F16Le) -> f32 {
    let half: __m128i;
    // SAFETY: moves a register. Left to itself the compiler loads the word into the lowest lane of whatever register, which
    // may hold a running sum: every block would wait for the one before.
    unsafe {
        std::arch::asm!(
            "vmovd {half}, {bits:e}",
            half = lateout(xmm_reg) half,
            bits = in(reg) u32::from(u16::from_le_bytes(d.0)),
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    _mm_cvtss_f32(_mm_cvtph_ps(half))
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn nibbles(qs: &[u8; 16]) -> __m256i {
    let twice = _mm256_broadcastsi128_si256(load_quarter(qs));
    _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15))
}

/// 32 bytes twice over, the first copy shifted right by `low` bits and the second by `high`: bits move in from the
/// next byte, for masks that drop those.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn shifted(qs: &[u8; 32], low: usize, high: usize) -> __m512i {
    let (low, high) = (low as i64, high as i64);
    let counts = _mm512_setr_epi64(low, low, low, low, high, high, high, high);
    _mm512_srlv_epi64(_mm512_broadcast_i64x4(load_half(qs)), counts)
}

/// `q` plus `value` where a bit of 32 bytes is set: bit `2 * i` for the lower half of `q`, `2 * i + 1` for the upper.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx2")]
pub(super) fn add_where_bit(q: __m512i, bits: &[u8; 32], i: usize, value: i8) -> __m512i {
    let (low, high) = (0x0101_0101_0101_0101 << (2 * i), 0x0202_0202_0202_0202 << (2 * i));
    let tested = _mm512_setr_epi64(low, low, low, low, high, high, high, high);
    let set = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(load_half(bits)), tested);
    _mm512_mask_add_epi8(q, set, q, _mm512_set1_epi8(value))
}
