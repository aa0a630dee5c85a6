//! IQ4_XS: 4-bit indices into the table of IQ4_NL in 8 sub-blocks of 32, 6-bit signed scales (4.25 bits per
//! value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale of the scales, binary16 |
//! | 2-3 | `scales_h` | little-endian `u16`: bits 5-4 of scale `s` in bits `2s + 1`-`2s` |
//! | 4-7 | `scales_l` | byte `i`: bits 3-0 of scale `2 i` in bits 3-0, of scale `2 i + 1` in bits 7-4 |
//! | 8-135 | `qs` | byte `16 s + j`: index of value `32 s + j` in bits 3-0, of `32 s + 16 + j` in bits 7-4 |
//!
//! `value = (d * (sc - 32)) * CODEBOOK[q]` with `sc` of sub-block `index / 32`.
//! Source: `block_iq4_xs` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::Block;
use super::f16::F16Le;
use super::iq4_nl::CODEBOOK;

/// 256 values. Size: 136 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// The scale of the scales.
    pub d: F16Le,
    /// The high two bits of the scales, a little-endian `u16`.
    pub scales_h: [u8; 2],
    /// The low four bits of the scales, two per byte.
    pub scales_l: [u8; 4],
    /// Two 4-bit indices per byte, 16 apart.
    pub qs: [u8; 128],
}

const _: () = assert!(size_of::<BlockIq4Xs>() == 136);

impl BlockIq4Xs {
    /// The scale of each sub-block, -32 to 31.
    #[inline(always)]
    pub fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        let mut scales = [0; 8];
        for (s, scale) in scales.iter_mut().enumerate() {
            let low = (self.scales_l[s / 2] >> (s % 2 * 4)) & 15;
            *scale = (low | ((high >> (2 * s)) as u8 & 3) << 4) as i8 - 32;
        }
        scales
    }
}

impl Block for BlockIq4Xs {
    type Values = [f32; 256];

    #[inline]
    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.to_f32();
        let scales = self.scales();
        let (out, _) = out.as_chunks_mut::<32>();
        let (qs, _) = self.qs.as_chunks::<16>();
        for ((out, qs), scale) in out.iter_mut().zip(qs).zip(scales) {
            let scale = d * f32::from(scale);
            for j in 0..16 {
                out[j] = scale * f32::from(CODEBOOK[usize::from(qs[j] & 15)]);
                out[16 + j] = scale * f32::from(CODEBOOK[usize::from(qs[j] >> 4)]);
            }
        }
    }
}
