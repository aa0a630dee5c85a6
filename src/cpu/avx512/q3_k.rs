//! Q3_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q3_k::{BlockQ3K, unpack_scales};

use super::lanes::{add_where_bit, load_quarter, scale, shifted};
use super::panel::{Integers, Super};
use super::superblock::Superblock;
use super::tile::Weights;

impl Super for BlockQ3K {
    const SUB: usize = 16;
    const OFFSET: i16 = 4;
    const MINIMA: bool = false;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn integers(&self) -> Integers {
        let mut q = [_mm512_setzero_si512(); 4];
        for (h, (q, qs)) in q.as_chunks_mut::<2>().0.iter_mut().zip(self.qs.as_chunks::<32>().0).enumerate() {
            for (i, q) in q.iter_mut().enumerate() {
                let low = _mm512_and_si512(shifted(qs, 4 * i, 4 * i + 2), _mm512_set1_epi8(3));
                *q = add_where_bit(low, &self.hmask, 2 * h + i, 4);
            }
        }
        Integers {
            d: scale(self.d),
            dmin: 0.0,
            q,
            scales: _mm256_cvtepi8_epi16(load_quarter(&unpack_scales(&self.scales))),
            mins: _mm256_setzero_si256(),
        }
    }
}

impl Weights for BlockQ3K {
    type Unpacked = Superblock<4, false>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        // SAFETY: the machine has the features of this function.
        Superblock::of(&unsafe { self.integers() })
    }
}
