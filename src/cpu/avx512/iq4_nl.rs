//! IQ4_NL.

use std::arch::x86_64::*;

use chaski_gguf::block::iq4_nl::{BlockIq4Nl, CODEBOOK};

use super::block32::{FLIPPED, Signed, flip};
use super::lanes::{load_quarter, nibbles, scale};
use super::tile::Weights;

impl Weights for BlockIq4Nl {
    type Unpacked = Signed<FLIPPED>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        let codebook = flip(_mm256_broadcastsi128_si256(load_quarter(&CODEBOOK)));
        Signed { d: scale(self.d), q: _mm256_shuffle_epi8(codebook, nibbles(&self.qs)) }
    }
}
