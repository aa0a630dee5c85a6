//! Q6_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q6_k::BlockQ6K;

use super::lanes::{load, load_half, load_quarter, scale};
use super::panel::{Integers, Super};
use super::superblock::Superblock;
use super::tile::Weights;

impl Super for BlockQ6K {
    const SUB: usize = 16;
    const OFFSET: i16 = 32;
    const MINIMA: bool = false;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn integers(&self) -> Integers {
        let mut q = [_mm512_setzero_si512(); 4];
        let (nibble, high) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        let halves = self.ql.as_chunks::<64>().0.iter().zip(self.qh.as_chunks::<32>().0);
        for (q, (ql, qh)) in q.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
            let (ql, qh) = (load(ql), _mm512_broadcast_i64x4(load_half(qh)));
            // The bit pairs 0 and 1, then 2 and 3, of the two halves, in bits 5-4.
            let pairs01 = _mm512_sllv_epi64(qh, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2));
            let pairs23 = _mm512_srlv_epi64(qh, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
            let low = _mm512_and_si512(ql, nibble);
            q[0] = _mm512_or_si512(low, _mm512_and_si512(pairs01, high));
            let low = _mm512_and_si512(_mm512_srli_epi16::<4>(ql), nibble);
            q[1] = _mm512_or_si512(low, _mm512_and_si512(pairs23, high));
        }
        Integers {
            d: scale(self.d),
            dmin: 0.0,
            q,
            scales: _mm256_cvtepi8_epi16(load_quarter(&self.scales)),
            mins: _mm256_setzero_si256(),
        }
    }
}

impl Weights for BlockQ6K {
    type Unpacked = Superblock<32, false>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        // SAFETY: the machine has the features of this function.
        Superblock::of(&unsafe { self.integers() })
    }
}
