//! MXFP4: 4-bit floats (E2M1) with one power-of-two scale (E8M0) for 32 values (4.25 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0 | `e` | exponent of the scale, biased by 127 |
//! | 1-16 | `qs` | byte `j`: value `j` in bits 3-0, value `16 + j` in bits 7-4; bit 3 of a nibble is the sign |
//!
//! `value = 2^(e - 128) * E2M1_DOUBLED[q]`. The exponent 255 is not NaN, as the OCP specification has it, but
//! 2^127: ggml gives it no special meaning. Source: `block_mxfp4` in ggml-common.h; OCP Microscaling Formats
//! (MX) Specification 1.0.

use bytemuck::{Pod, Zeroable};

use super::{Block, nibbles, rounding};

/// The sixteen E2M1 values, doubled so that they are integers.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 values. Size: 17 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// The exponent of the scale, biased by 127.
    pub e: u8,
    /// Two 4-bit floats per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockMxfp4>() == 17);

/// `2^(e - 128)`: half the scale, since the table is doubled. Below `e = 2` it is a subnormal number.
#[inline(always)]
pub fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

impl Block for BlockMxfp4 {
    type Values = [f32; 32];

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = half_scale(self.e);
        for j in 0..16 {
            out[j] = d * f32::from(E2M1_DOUBLED[usize::from(self.qs[j] & 15)]);
            out[16 + j] = d * f32::from(E2M1_DOUBLED[usize::from(self.qs[j] >> 4)]);
        }
    }

    /// The scale is the power of two that puts the largest magnitude between 4 and 8 (values above 6 round
    /// down to it); each value takes the nearest code, the lower one of equals.
    fn encode(values: &[f32; 32]) -> Self {
        let max = rounding::absmax(values);
        // Saturating: below 2^-125 the smallest scale there is.
        let e = if max > 0.0 { (max.log2().floor() - 2.0 + 127.0) as u8 } else { 0 };
        let d = half_scale(e);
        let quants = rounding::each(values, |x| {
            let (mut nearest, mut least) = (0, f32::INFINITY);
            for (code, v) in E2M1_DOUBLED.iter().enumerate() {
                let error = (d * f32::from(*v) - x).abs();
                if error < least {
                    (nearest, least) = (code as u8, error);
                }
            }
            nearest
        });
        BlockMxfp4 { e, qs: nibbles::pack(&quants) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockMxfp4>(
            "7c7cc054fc9165ea127dd933fcb054eb91",
            &[
                -0.25, 0.0, 0.25, -0.25, 0.0625, 0.375, -0.125, 0.125, -0.375, -0.0625, 0.1875, -0.25, 0.0,
                0.25, -0.1875, 0.0625, 0.75, -0.25, 0.375, -0.75, -0.0625, 0.5, -0.5, 0.0625, 0.75, -0.375,
                0.1875, -0.75, -0.1875, 0.375, -0.5, -0.0625,
            ],
        );
    }

    #[test]
    fn half_scale_is_a_power_of_two() {
        for e in 0..=255u8 {
            assert_eq!(f64::from(half_scale(e)), 2f64.powi(i32::from(e) - 128));
        }
    }
}
