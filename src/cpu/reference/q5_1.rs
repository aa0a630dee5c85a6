//! Q5_1.

use chaski_gguf::block::q5_1::BlockQ5_1;

use super::block32::{Block32, nibbles};
use super::tile::Weights;

impl Weights for BlockQ5_1 {
    type Unpacked = Block32;

    #[inline]
    fn unpack(&self) -> Block32 {
        let q = quants(self.qh, &self.qs);
        Block32 { d: self.d.to_f32(), m: self.m.to_f32(), q }
    }
}

/// The quants of Q5_0 and Q5_1, 0 to 31: nibbles, and a fifth bit each.
#[inline]
pub(super) fn quants(qh: [u8; 4], qs: &[u8; 16]) -> [i8; 32] {
    let mut q = nibbles(qs);
    for (j, q) in q.iter_mut().enumerate() {
        *q |= (qh[j / 8] >> (j % 8) & 1) << 4;
    }
    q.map(|q| q as i8)
}
