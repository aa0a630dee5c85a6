//! Q8_0.

use chaski_gguf::block::q8_0::BlockQ8_0;

use super::block32::Signed;
use super::lanes::{load, scale};
use super::tile::Weights;

impl Weights for BlockQ8_0 {
    type Unpacked = Signed;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Signed { d: scale(self.d), q: load(&self.qs) }
    }
}
