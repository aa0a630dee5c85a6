//! Q4_1.

use chaski_gguf::block::q4_1::BlockQ4_1;

use super::block32::{Block32, nibbles};
use super::tile::Weights;

impl Weights for BlockQ4_1 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = nibbles(&self.qs).map(|q| q as i8);
        Block32 { d: self.d.to_f32(), m: self.m.to_f32(), q }
    }
}
