//! Q4_0.

use chaski_gguf::block::q4_0::BlockQ4_0;

use super::block32::Signed;
use super::lanes::{nibbles, scale};
use super::tile::Weights;

impl Weights for BlockQ4_0 {
    type Unpacked = Signed<8>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Signed { d: scale(self.d), q: nibbles(&self.qs) }
    }
}
