//! Q5_0.

use chaski_gguf::block::q5_0::BlockQ5_0;

use super::block32::Signed;
use super::lanes::scale;
use super::q5_1::quants;
use super::tile::Weights;

impl Weights for BlockQ5_0 {
    type Unpacked = Signed<16>;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Signed { d: scale(self.d), q: quants(self.qh, &self.qs) }
    }
}
