//! Q5_0.

use chaski_gguf::block::q5_0::BlockQ5_0;

use super::block32::Block32;
use super::q5_1::quants;
use super::tile::Weights;

impl Weights for BlockQ5_0 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = quants(self.qh, &self.qs).map(|q| q - 16);
        Block32 { d: self.d.to_f32(), m: 0.0, q }
    }
}
