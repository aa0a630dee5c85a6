//! Q6_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q6_k::BlockQ6K;

use super::lanes::{load, load_half, scale};
use super::superblock::{Superblock, scales_of_16};
use super::tile::Weights;

impl Weights for BlockQ6K {
    type Unpacked = Superblock<32, false>;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let mut q = [_mm256_setzero_si256(); 8];
        let (nibble, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
        let (ql, qh) = (self.ql.as_chunks::<32>().0, self.qh.as_chunks::<32>().0);
        for h in 0..2 {
            let (ql0, ql1, qh) = (load(&ql[2 * h]), load(&ql[2 * h + 1]), load(&qh[h]));
            let low = [ql0, ql1, _mm256_srli_epi16::<4>(ql0), _mm256_srli_epi16::<4>(ql1)];
            let top =
                [_mm256_slli_epi16::<4>(qh), _mm256_slli_epi16::<2>(qh), qh, _mm256_srli_epi16::<2>(qh)];
            for i in 0..4 {
                q[4 * h + i] =
                    _mm256_or_si256(_mm256_and_si256(low[i], nibble), _mm256_and_si256(top[i], high));
            }
        }
        Superblock {
            d: scale(self.d),
            dmin: 0.0,
            q,
            scales: scales_of_16(load_half(&self.scales)),
            mins: _mm256_setzero_si256(),
        }
    }
}
