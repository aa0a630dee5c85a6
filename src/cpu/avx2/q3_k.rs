//! Q3_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q3_k::{BlockQ3K, unpack_scales};

use super::lanes::{load, load_half, scale, shift_right, where_bit};
use super::superblock::{Superblock, scales_of_16};
use super::tile::Weights;

impl Weights for BlockQ3K {
    type Unpacked = Superblock<4, false>;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let mut q = [_mm256_setzero_si256(); 8];
        let hmask = load(&self.hmask);
        for (h, qs) in self.qs.as_chunks::<32>().0.iter().enumerate() {
            let qs = load(qs);
            for pair in 0..4 {
                let low = _mm256_and_si256(shift_right(qs, 2 * pair), _mm256_set1_epi8(3));
                q[4 * h + pair] = _mm256_or_si256(low, where_bit(hmask, 4 * h + pair, 4));
            }
        }
        Superblock {
            d: scale(self.d),
            dmin: 0.0,
            q,
            scales: scales_of_16(load_half(&unpack_scales(&self.scales))),
            mins: _mm256_setzero_si256(),
        }
    }
}
