//! Q2_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q2_k::BlockQ2K;

use super::lanes::{load, load_half, scale, shift_right};
use super::superblock::{Superblock, scales_of_16};
use super::tile::Weights;

impl Weights for BlockQ2K {
    type Unpacked = Superblock<0, true>;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let mut q = [_mm256_setzero_si256(); 8];
        for (h, qs) in self.qs.as_chunks::<32>().0.iter().enumerate() {
            let qs = load(qs);
            for pair in 0..4 {
                q[4 * h + pair] = _mm256_and_si256(shift_right(qs, 2 * pair), _mm256_set1_epi8(3));
            }
        }
        let (scales, nibble) = (load_half(&self.scales), _mm_set1_epi8(15));
        Superblock {
            d: scale(self.d),
            dmin: scale(self.dmin),
            q,
            scales: scales_of_16(_mm_and_si128(scales, nibble)),
            mins: _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(scales), nibble)),
        }
    }
}
