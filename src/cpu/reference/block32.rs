//! What 32-value blocks have in common: a scale, quants of a byte or less, in some formats a minimum.

use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x32;
use crate::tensor::Act;

/// A block whose values are `d * q + m`.
pub(super) struct Block32 {
    pub d: f32,
    pub m: f32,
    pub q: [i8; 32],
}

impl Unpacked for Block32 {
    type Act = BlockQ8x32;
    const ACT: Act = Act::Q8x32;

    #[inline]
    fn dot(&self, a: &BlockQ8x32) -> f32 {
        let dot: i32 = self.q.iter().zip(&a.q).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
        (self.d * a.d) * dot as f32 + self.m * a.s
    }
}

/// Nibbles 16 apart: the low ones are values 0 to 15, the high ones values 16 to 31.
#[inline]
pub(super) fn nibbles(qs: &[u8; 16]) -> [u8; 32] {
    let mut q = [0; 32];
    for j in 0..16 {
        q[j] = qs[j] & 15;
        q[16 + j] = qs[j] >> 4;
    }
    q
}
