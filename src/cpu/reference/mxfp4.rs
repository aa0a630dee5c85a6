//! MXFP4.

use chaski_gguf::block::mxfp4::{BlockMxfp4, E2M1_DOUBLED, half_scale};

use super::block32::{Block32, nibbles};
use super::tile::Weights;

impl Weights for BlockMxfp4 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = nibbles(&self.qs).map(|q| E2M1_DOUBLED[usize::from(q)]);
        Block32 { d: half_scale(self.e), m: 0.0, q }
    }
}
