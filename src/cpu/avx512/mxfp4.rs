//! MXFP4.

use std::arch::x86_64::*;

use chaski_gguf::block::mxfp4::{BlockMxfp4, E2M1_DOUBLED, half_scale};

use super::block32::{FLIPPED, Signed, flip};
use super::lanes::{load_quarter, nibbles};
use super::tile::Weights;

impl Weights for BlockMxfp4 {
    type Unpacked = Signed<FLIPPED>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let values = flip(_mm256_broadcastsi128_si256(load_quarter(&E2M1_DOUBLED)));
        Signed { d: half_scale(self.e), q: _mm256_shuffle_epi8(values, nibbles(&self.qs)) }
    }
}
