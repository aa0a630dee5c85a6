//! Q8_0.

use chaski_gguf::block::q8_0::BlockQ8_0;

use super::block32::{FLIPPED, Signed, flip};
use super::lanes::{load_half, scale};
use super::tile::Weights;

impl Weights for BlockQ8_0 {
    type Unpacked = Signed<FLIPPED>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Signed { d: scale(self.d), q: flip(load_half(&self.qs)) }
    }
}
