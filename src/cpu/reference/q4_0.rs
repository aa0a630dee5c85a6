//! Q4_0.

use chaski_gguf::block::q4_0::BlockQ4_0;

use super::block32::{Block32, nibbles};
use super::tile::Weights;

impl Weights for BlockQ4_0 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = nibbles(&self.qs).map(|q| q as i8 - 8);
        Block32 { d: self.d.to_f32(), m: 0.0, q }
    }
}
