//! Rounding of activations.

use std::arch::x86_64::*;

use super::lanes::{load, load_f32, load_half};
use crate::cpu::act::{BlockQ8x32, BlockQ8x256, Quantize, scales};

/// What the table holds.
pub(super) static QUANTIZE: Quantize = Quantize { q8x32, q8x256 };

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn q8x32(x: &[f32], out: &mut [BlockQ8x32]) {
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
        let d = round(x, &mut out.q);
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_half(&out.q));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        out.d = d;
        out.s = d * _mm512_reduce_add_epi32(_mm512_zextsi256_si512(fours)) as f32;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn q8x256(x: &[f32], out: &mut [BlockQ8x256]) {
    for (x, out) in x.as_chunks::<256>().0.iter().zip(out) {
        out.d = round(x, &mut out.q);
        for (q, sums) in out.q.as_chunks::<64>().0.iter().zip(out.sums.as_chunks_mut::<4>().0) {
            // Each quarter is a sub-block of 16: eight pairs, then four, two, one.
            let pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), load(q));
            let v = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
            let v = _mm512_add_epi32(v, _mm512_shuffle_epi32::<0b01_00_11_10>(v));
            let v = _mm512_add_epi32(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v));
            let lanes = _mm512_cvtepi32_epi16(v);
            sums[0] = _mm256_extract_epi16::<0>(lanes) as i16;
            sums[1] = _mm256_extract_epi16::<4>(lanes) as i16;
            sums[2] = _mm256_extract_epi16::<8>(lanes) as i16;
            sums[3] = _mm256_extract_epi16::<12>(lanes) as i16;
        }
        out.pad = [0; 28];
    }
}

/// Round a block and give its scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn round<const N: usize>(x: &[f32; N], q: &mut [i8; N]) -> f32 {
    let x = x.as_chunks::<16>().0;
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let mut max = _mm512_setzero_si512();
    for x in x {
        max = _mm512_max_epu32(max, _mm512_and_si512(load(x), magnitude));
    }
    let (d, inverse) = scales(_mm512_reduce_max_epu32(max));
    if d.is_nan() {
        *q = [0; N];
        return d;
    }
    for (x, q) in x.iter().zip(q.as_chunks_mut::<16>().0) {
        let nearest = _mm512_cvtps_epi32(_mm512_mul_ps(load_f32(x), _mm512_set1_ps(inverse)));
        let bytes = _mm512_cvtepi32_epi8(nearest);
        // SAFETY: 16 writable bytes.
        unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), bytes) }
    }
    d
}
