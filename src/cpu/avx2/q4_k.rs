//! Q4_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q4_k::BlockQ4K;

use super::lanes::{load, scale};
use super::superblock::{Superblock, mins_of_32, scales_of_32};
use super::tile::Weights;
use chaski_gguf::block::scales;

impl Weights for BlockQ4K {
    type Unpacked = Superblock<0, true>;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let mut q = [_mm256_setzero_si256(); 8];
        let nibble = _mm256_set1_epi8(15);
        for (i, qs) in self.qs.as_chunks::<32>().0.iter().enumerate() {
            let qs = load(qs);
            q[2 * i] = _mm256_and_si256(qs, nibble);
            q[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(qs), nibble);
        }
        let (scales, mins) = scales::unpack(&self.scales);
        Superblock {
            d: scale(self.d),
            dmin: scale(self.dmin),
            q,
            scales: scales_of_32(scales),
            mins: mins_of_32(mins),
        }
    }
}
