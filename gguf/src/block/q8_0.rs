//! Q8_0: 8-bit signed integers, one f16 scale for 32 values (8.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-33 | `qs` | byte `j`: value `j`, `i8` |
//!
//! `value = d * q`. Source: `block_q8_0` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::parts::{self, Layout, Parts};
use super::{Block, rounding};

/// 32 values. Size: 34 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale.
    pub d: F16Le,
    /// The quants.
    pub qs: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34);

impl Block for BlockQ8_0 {
    type Values = [f32; 32];
    // Without -128, as the encoder: kernels take magnitudes of bytes.
    const LAYOUT: Option<&'static Layout> =
        Some(&const { parts::one_scale(&const { parts::range::<255>(-127) }) });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        for (code, q) in parts.codes.iter_mut().zip(self.qs) {
            *code = (i16::from(q) + 127).max(0) as u8;
        }
    }

    fn join(parts: &Parts) -> Self {
        let qs = parts::first(&parts.codes).map(|code: u8| (i16::from(code) - 127) as i8);
        BlockQ8_0 { d: F16Le::from_f32(parts.d), qs }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }

    /// The largest magnitude becomes 127; rounding is half away from zero.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let d = rounding::absmax(values) / 127.0;
        let id = rounding::reciprocal(d);
        // A scale below 2^-128 has no finite reciprocal; its block decodes to zeros, so store zeros.
        let id = if id.is_finite() { id } else { 0.0 };
        BlockQ8_0 { d: F16Le::from_f32(d), qs: rounding::each(values, |x| rounding::round(x * id) as i8) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ8_0>(
            "4d1ecefd2cdb0a39e817c6f524d20130df0e7ad73593f14fac0a68c62481df3d9af8",
            &[
                -0.307_655_33,
                -0.018_459_32,
                0.270_736_7,
                -0.227_664_95,
                0.061_531_067,
                0.350_727_08,
                -0.147_674_56,
                0.141_521_45,
                -0.356_880_2,
                -0.067_684_17,
                0.221_511_84,
                -0.283_042_9,
                0.006_153_106_7,
                0.295_349_12,
                -0.203_052_52,
                0.086_143_49,
                0.750_679,
                -0.252_277_37,
                0.326_114_65,
                -0.670_688_6,
                -0.092_296_6,
                0.486_095_43,
                -0.516_860_96,
                0.061_531_067,
                0.639_923_1,
                -0.356_880_2,
                0.221_511_84,
                -0.781_444_55,
                -0.203_052_52,
                0.375_339_5,
                -0.627_616_9,
                -0.049_224_854,
            ],
        );
    }
}
