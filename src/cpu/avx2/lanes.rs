//! Loads, sums over lanes, and what several formats unpack alike.

use std::arch::x86_64::*;

use bytemuck::NoUninit;
use chaski_gguf::block::f16::F16Le;

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load<T: NoUninit>(bytes: &T) -> __m256i {
    const { assert!(size_of::<T>() == 32) };
    // SAFETY: 32 initialised bytes, at any alignment.
    unsafe { _mm256_loadu_si256(std::ptr::from_ref(bytes).cast()) }
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_half<T: NoUninit>(bytes: &T) -> __m128i {
    const { assert!(size_of::<T>() == 16) };
    // SAFETY: 16 initialised bytes, at any alignment.
    unsafe { _mm_loadu_si128(std::ptr::from_ref(bytes).cast()) }
}

/// 8 floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32(values: &[f32; 8]) -> __m256 {
    // SAFETY: 8 readable floats.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// Store 8 floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_f32(values: &mut [f32; 8], v: __m256) {
    // SAFETY: 8 writable floats.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), v) }
}

/// The sum of the lanes, by halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum(v: __m256) -> f32 {
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
    let qs = load_half(qs);
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(qs), qs), _mm256_set1_epi8(15))
}

/// The bytes of `v` shifted right by `count`, which moves bits in from the next byte: for masks that drop those.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn shift_right(v: __m256i, count: usize) -> __m256i {
    _mm256_srl_epi16(v, _mm_cvtsi32_si128(count as i32))
}

/// `value` in the bytes where bit `bit` of `v` is set, 0 elsewhere.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn where_bit(v: __m256i, bit: usize, value: i8) -> __m256i {
    let bit = _mm256_set1_epi8((1u8 << bit) as i8);
    _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit), _mm256_set1_epi8(value))
}
