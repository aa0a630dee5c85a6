//! Q5_0.

use std::arch::x86_64::*;

use chaski_gguf::block::q5_0::BlockQ5_0;

use super::block32::Signed;
use super::lanes::scale;
use super::q5_1::quants;
use super::tile::Weights;

impl Weights for BlockQ5_0 {
    type Unpacked = Signed;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Signed { d: scale(self.d), q: _mm256_sub_epi8(quants(self.qh, &self.qs), _mm256_set1_epi8(16)) }
    }
}
