//! Q2_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q2_k::BlockQ2K;

use super::lanes::{load_quarter, scale, shifted};
use super::panel::{Integers, Super};
use super::superblock::Superblock;
use super::tile::Weights;

impl Super for BlockQ2K {
    const SUB: usize = 16;
    const OFFSET: i16 = 0;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn integers(&self) -> Integers {
        let mut q = [_mm512_setzero_si512(); 4];
        for (q, qs) in q.as_chunks_mut::<2>().0.iter_mut().zip(self.qs.as_chunks::<32>().0) {
            q[0] = _mm512_and_si512(shifted(qs, 0, 2), _mm512_set1_epi8(3));
            q[1] = _mm512_and_si512(shifted(qs, 4, 6), _mm512_set1_epi8(3));
        }
        let (scales, nibble) = (load_quarter(&self.scales), _mm_set1_epi8(15));
        Integers {
            d: scale(self.d),
            dmin: scale(self.dmin),
            q,
            scales: _mm256_cvtepi8_epi16(_mm_and_si128(scales, nibble)),
            mins: _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(scales), nibble)),
        }
    }
}

impl Weights for BlockQ2K {
    type Unpacked = Superblock<0, true>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        // SAFETY: the machine has the features of this function.
        Superblock::of(&unsafe { self.integers() })
    }
}
