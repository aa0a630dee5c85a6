//! Q5_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q5_k::BlockQ5K;

use super::lanes::{add_where_bit, scale, shifted};
use super::panel::{Integers, Super};
use super::superblock::{Superblock, pairs};
use super::tile::Weights;
use chaski_gguf::block::scales;

impl Super for BlockQ5K {
    const SUB: usize = 32;
    const OFFSET: i16 = 0;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn integers(&self) -> Integers {
        let mut q = [_mm512_setzero_si512(); 4];
        for (i, (q, qs)) in q.iter_mut().zip(self.qs.as_chunks::<32>().0).enumerate() {
            let low = _mm512_and_si512(shifted(qs, 0, 4), _mm512_set1_epi8(15));
            *q = add_where_bit(low, &self.qh, i, 16);
        }
        let (scales, mins) = scales::unpack(&self.scales);
        Integers { d: scale(self.d), dmin: scale(self.dmin), q, scales: pairs(scales), mins: pairs(mins) }
    }
}

impl Weights for BlockQ5K {
    type Unpacked = Superblock<0, true>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        // SAFETY: the machine has the features of this function.
        Superblock::of(&unsafe { self.integers() })
    }
}
