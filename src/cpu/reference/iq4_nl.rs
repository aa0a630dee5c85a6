//! IQ4_NL.

use chaski_gguf::block::iq4_nl::{BlockIq4Nl, CODEBOOK};

use super::block32::{Block32, nibbles};
use super::tile::Weights;

impl Weights for BlockIq4Nl {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = nibbles(&self.qs).map(|q| CODEBOOK[usize::from(q)]);
        Block32 { d: self.d.to_f32(), m: 0.0, q }
    }
}
