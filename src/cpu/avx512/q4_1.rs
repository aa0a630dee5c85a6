//! Q4_1.

use chaski_gguf::block::q4_1::BlockQ4_1;

use super::block32::Unsigned;
use super::lanes::{nibbles, scale};
use super::tile::Weights;

impl Weights for BlockQ4_1 {
    type Unpacked = Unsigned;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Unsigned { d: scale(self.d), m: scale(self.m), q: nibbles(&self.qs) }
    }
}
