//! IQ4_XS.

use std::arch::x86_64::*;

use chaski_gguf::block::iq4_xs::BlockIq4Xs;

use super::lanes::{load_half, nibbles, scale};
use super::superblock::{SIGNED, Superblock, scales_of_32};
use super::tile::Weights;
use chaski_gguf::block::iq4_nl::CODEBOOK;

impl Weights for BlockIq4Xs {
    type Unpacked = Superblock<SIGNED, false>;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let codebook = _mm256_broadcastsi128_si256(load_half(&CODEBOOK));
        let mut q = [_mm256_setzero_si256(); 8];
        for (q, qs) in q.iter_mut().zip(self.qs.as_chunks::<16>().0) {
            *q = _mm256_shuffle_epi8(codebook, nibbles(qs));
        }
        Superblock {
            d: scale(self.d),
            dmin: 0.0,
            q,
            scales: scales_of_32(self.scales().map(|s| s as u8)),
            mins: _mm256_setzero_si256(),
        }
    }
}
