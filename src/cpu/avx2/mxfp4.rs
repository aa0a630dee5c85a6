//! MXFP4.

use std::arch::x86_64::*;

use chaski_gguf::block::mxfp4::{BlockMxfp4, E2M1_DOUBLED, half_scale};

use super::block32::Signed;
use super::lanes::{load_half, nibbles};
use super::tile::Weights;

impl Weights for BlockMxfp4 {
    type Unpacked = Signed;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let values = _mm256_broadcastsi128_si256(load_half(&E2M1_DOUBLED));
        Signed { d: half_scale(self.e), q: _mm256_shuffle_epi8(values, nibbles(&self.qs)) }
    }
}
