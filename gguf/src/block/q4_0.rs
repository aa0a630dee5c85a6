//! Q4_0: 4-bit signed integers, one f16 scale for 32 values (4.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-17 | `qs` | byte `j`: value `j` in bits 3-0, value `16 + j` in bits 7-4, both offset by 8 |
//!
//! `value = d * (q - 8)`. Source: `block_q4_0` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, fit_blocks, lanes, nibbles, rounding};

/// 32 values. Size: 18 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// The scale.
    pub d: F16Le,
    /// Two 4-bit quants per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);

impl Block for BlockQ4_0 {
    type Values = [f32; 32];
    const LAYOUT: Option<&'static Layout> =
        Some(&const { parts::one_scale(&const { parts::range::<16>(-8) }) });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.codes[..32].copy_from_slice(&nibbles::unpack(&self.qs));
    }

    fn join(parts: &Parts) -> Self {
        BlockQ4_0 { d: F16Le::from_f32(parts.d), qs: nibbles::pack(&parts::first(&parts.codes)) }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for j in 0..16 {
            out[j] = d * (i32::from(self.qs[j] & 15) - 8) as f32;
            out[16 + j] = d * (i32::from(self.qs[j] >> 4) - 8) as f32;
        }
    }

    /// The value of the largest magnitude becomes -8, so that the scale has its sign and 4 bits are used whole.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let d = rounding::signed_absmax(values) / -8.0;
        let id = rounding::reciprocal(d);
        let quants = rounding::each(values, |x| rounding::truncate(x * id + 8.5).min(15) as u8);
        BlockQ4_0 { d: F16Le::from_f32(d), qs: nibbles::pack(&quants) }
    }
    /// The same blocks, or with importances ggml's `quantize_row_q4_0_impl`: nineteen scales are tried.
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [Self]) {
        match importance {
            None => Self::encode_all(values, out),
            Some(importance) => quantize(values, importance, out),
        }
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ4_0]) = quantize_sixteens
}

#[inline(always)]
fn quantize_sixteens<V: Lanes>(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ4_0]) {
    let sigma2 = fit_blocks::row_mean_square(values.as_flattened());
    let chunks = values.chunks(16).zip(importance.chunks(16));
    for ((values, importance), out) in chunks.zip(out.chunks_mut(16)) {
        let x: [V; 32] = gather(values.as_flattened());
        let w = fit_blocks::row_weights(&x, importance.as_flattened(), sigma2);
        let (fit, quants) = fit::symmetric(&x, &w, 8);
        for ((out, d), quants) in out.iter_mut().zip(fit.get()).zip(&fit_blocks::bytes(&quants)) {
            *out = BlockQ4_0 { d: F16Le::from_f32(d), qs: nibbles::pack(quants) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ4_0>(
            "402ef558bb1679dc3699f447aa0568cb2689",
            &[
                -0.292_968_75,
                0.0,
                0.292_968_75,
                -0.195_312_5,
                0.097_656_25,
                0.390_625,
                -0.195_312_5,
                0.097_656_25,
                -0.390_625,
                -0.097_656_25,
                0.195_312_5,
                -0.292_968_75,
                0.0,
                0.292_968_75,
                -0.195_312_5,
                0.097_656_25,
                0.683_593_75,
                -0.292_968_75,
                0.292_968_75,
                -0.683_593_75,
                -0.097_656_25,
                0.488_281_25,
                -0.488_281_25,
                0.097_656_25,
                0.683_593_75,
                -0.390_625,
                0.195_312_5,
                -0.78125,
                -0.195_312_5,
                0.390_625,
                -0.585_937_5,
                0.0,
            ],
        );
    }
}
