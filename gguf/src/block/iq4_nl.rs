//! IQ4_NL: 4-bit indices into a table of unevenly spaced integers, one f16 scale for 32 values (4.5 bits per
//! value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-17 | `qs` | byte `j`: index of value `j` in bits 3-0, of value `16 + j` in bits 7-4 |
//!
//! `value = d * CODEBOOK[q]`. Source: `block_iq4_nl` and `kvalues_iq4nl` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::Block;
use super::f16::F16Le;

/// The table that IQ4_NL and IQ4_XS share: denser near zero, where most weights are.
pub const CODEBOOK: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 values. Size: 18 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// The scale.
    pub d: F16Le,
    /// Two 4-bit indices per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);

impl Block for BlockIq4Nl {
    type Values = [f32; 32];

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for j in 0..16 {
            out[j] = d * f32::from(CODEBOOK[usize::from(self.qs[j] & 15)]);
            out[16 + j] = d * f32::from(CODEBOOK[usize::from(self.qs[j] >> 4)]);
        }
    }
}
