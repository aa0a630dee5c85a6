//! BF16: the upper half of IEEE binary32.

use bytemuck::{Pod, Zeroable};

use super::Block;

/// A number as the upper 16 bits of its binary32 form, two little-endian bytes. Size: 2 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bf16Le(pub [u8; 2]);

const _: () = assert!(size_of::<Bf16Le>() == 2);

impl Bf16Le {
    /// The number, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16)
    }
    /// The nearest number, ties to even; a NaN keeps its sign and upper payload and becomes quiet
    /// (`ggml_compute_fp32_to_bf16`).
    #[inline(always)]
    pub fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = if value.is_nan() { bits | (64 << 16) } else { bits + 0x7fff + ((bits >> 16) & 1) };
        Bf16Le(((rounded >> 16) as u16).to_le_bytes())
    }
}

impl Block for Bf16Le {
    type Values = [f32; 1];

    #[inline]
    fn decode(&self, out: &mut [f32; 1]) {
        out[0] = self.to_f32();
    }

    #[inline]
    fn encode(values: &[f32; 1]) -> Self {
        Bf16Le::from_f32(values[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::decodes::<Bf16Le>(&[0x49, 0x40], 3.140_625);
        golden::encodes::<Bf16Le>(std::f32::consts::PI, &[0x49, 0x40]);
        golden::encodes::<Bf16Le>(f32::MAX, &[0x80, 0x7f]);
        golden::encodes::<Bf16Le>(f32::from_bits(0xff80_0001), &[0xc0, 0xff]);
        golden::encodes::<Bf16Le>(f32::from_bits(0x7fff_ffff), &[0xff, 0x7f]);
    }
}
