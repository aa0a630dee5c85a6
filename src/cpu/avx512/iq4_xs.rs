//! IQ4_XS. Its quants fill a byte, so sums of four products do not fit in words as those of the other super-blocks do.

use std::arch::x86_64::*;

use chaski_gguf::block::iq4_nl::CODEBOOK;
use chaski_gguf::block::iq4_xs::BlockIq4Xs;

use super::lanes::{load, load_half, load_quarter, scale, sum};
use super::panel::{Integers, Super};
use super::superblock::minus_excess;
use super::tile::{Unpacked, Weights};
use crate::cpu::act::BlockQ8x256;
use crate::tensor::Act;

/// A super-block whose values are `d * scale * (q - 128)`.
pub(in crate::cpu) struct Wide {
    d: f32,
    /// 64 quants each.
    q: [__m512i; 4],
    /// The scales of those quants, as i32 for each four.
    scales: [__m512i; 4],
}

impl Super for BlockIq4Xs {
    const SUB: usize = 32;
    const OFFSET: i16 = 128;
    const MINIMA: bool = false;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn integers(&self) -> Integers {
        let codebook = _mm512_broadcast_i32x4(load_quarter(&CODEBOOK));
        let codebook = _mm512_xor_si512(codebook, _mm512_set1_epi8(-128));
        let mut q = [_mm512_setzero_si512(); 4];
        for (q, qs) in q.iter_mut().zip(self.qs.as_chunks::<32>().0) {
            // 16 bytes twice, the low nibbles of the first copy and the high ones of the second; 16 more likewise.
            let qs = _mm512_castsi256_si512(load_half(qs));
            let twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), qs);
            let indices = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
            *q = _mm512_shuffle_epi8(codebook, _mm512_and_si512(indices, _mm512_set1_epi8(15)));
        }
        let scales = _mm_cvtsi64_si128(i64::from_le_bytes(self.scales().map(|s| s as u8)));
        let scales = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(scales, scales));
        Integers { d: scale(self.d), dmin: 0.0, q, scales, mins: _mm256_setzero_si256() }
    }
}

impl Weights for BlockIq4Xs {
    type Unpacked = Wide;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Wide {
        // SAFETY: the machine has the features of this function.
        let Integers { d, q, scales: all, .. } = unsafe { self.integers() };
        let all = _mm512_cvtepi16_epi32(all);
        let mut scales = [_mm512_setzero_si512(); 4];
        for (i, scales) in scales.iter_mut().enumerate() {
            let (s, t) = (4 * i as i32, 4 * i as i32 + 2);
            let order = _mm512_setr_epi32(s, s, s, s, s, s, s, s, t, t, t, t, t, t, t, t);
            *scales = _mm512_permutexvar_epi32(order, all);
        }
        Wide { d, q, scales }
    }
}

impl Unpacked for Wide {
    type Act = BlockQ8x256;
    const ACT: Act = Act::Q8x256;
    type Sum = __m512;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x256, sum: __m512) -> __m512 {
        let mut dot = _mm512_setzero_si512();
        for (i, quants) in a.q.as_chunks::<64>().0.iter().enumerate() {
            let a = load(quants);
            let fours = _mm512_dpbusd_epi32(minus_excess::<-128>(a), self.q[i], a);
            dot = _mm512_add_epi32(dot, _mm512_mullo_epi32(fours, self.scales[i]));
        }
        _mm512_fmadd_ps(_mm512_set1_ps(self.d * a.d), _mm512_cvtepi32_ps(dot), sum)
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn total(dot: __m512) -> f32 {
        sum(dot)
    }
}
