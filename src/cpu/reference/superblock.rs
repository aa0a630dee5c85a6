//! What 256-value super-blocks have in common: 16 sub-blocks of 16 with integer scales and minima.

use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x256;
use crate::tensor::Act;

/// A super-block whose values are `d * scale * q - dmin * min`, with `scale` and `min` of sub-block `index / 16`.
pub(super) struct Superblock {
    pub d: f32,
    pub dmin: f32,
    pub q: [i8; 256],
    pub scales: [i16; 16],
    pub mins: [i16; 16],
}

impl Unpacked for Superblock {
    type Act = BlockQ8x256;
    const ACT: Act = Act::Q8x256;

    #[inline]
    fn dot(&self, a: &BlockQ8x256) -> f32 {
        let mut dot = 0;
        let mut min = 0;
        let (w, x) = (self.q.as_chunks::<16>().0, a.q.as_chunks::<16>().0);
        for s in 0..16 {
            let sub: i32 = w[s].iter().zip(&x[s]).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
            dot += i32::from(self.scales[s]) * sub;
            min += i32::from(self.mins[s]) * i32::from(a.sums[s]);
        }
        (self.d * a.d) * dot as f32 - (self.dmin * a.d) * min as f32
    }
}

/// Scales or minima of 8 sub-blocks of 32, as of 16 of 16.
#[inline]
pub(super) fn twice<T: Copy + Into<i16>>(of_32: [T; 8]) -> [i16; 16] {
    let mut of_16 = [0; 16];
    for (s, value) in of_16.iter_mut().enumerate() {
        *value = of_32[s / 2].into();
    }
    of_16
}
