//! Q8_0.

use chaski_gguf::block::q8_0::BlockQ8_0;

use super::block32::Block32;
use super::tile::Weights;

impl Weights for BlockQ8_0 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        Block32 { d: self.d.to_f32(), m: 0.0, q: self.qs }
    }
}
