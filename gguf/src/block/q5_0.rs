//! Q5_0: 5-bit signed integers, one f16 scale for 32 values (5.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-5 | `qh` | little-endian `u32`, bit `i`: bit 4 of value `i` |
//! | 6-21 | `qs` | byte `j`: bits 3-0 of value `j` in bits 3-0, of value `16 + j` in bits 7-4 |
//!
//! `value = d * (q - 16)`. Source: `block_q5_0` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fifth_bit, fit, fit_blocks, lanes, rounding};

/// 32 values. Size: 22 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// The scale.
    pub d: F16Le,
    /// The fifth bit of every quant, a little-endian `u32`.
    pub qh: [u8; 4],
    /// The low four bits, two quants per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_0>() == 22);

impl Block for BlockQ5_0 {
    type Values = [f32; 32];
    const LAYOUT: Option<&'static Layout> =
        Some(&const { parts::one_scale(&const { parts::range::<32>(-16) }) });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.codes[..32].copy_from_slice(&fifth_bit::unpack(&self.qh, &self.qs));
    }

    fn join(parts: &Parts) -> Self {
        let (qh, qs) = fifth_bit::pack(&parts::first(&parts.codes));
        BlockQ5_0 { d: F16Le::from_f32(parts.d), qh, qs }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        let q = fifth_bit::unpack(&self.qh, &self.qs);
        for j in 0..32 {
            out[j] = d * (i32::from(q[j]) - 16) as f32;
        }
    }

    /// The value of the largest magnitude becomes -16, so that the scale has its sign.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let d = rounding::signed_absmax(values) / -16.0;
        let id = rounding::reciprocal(d);
        let (qh, qs) =
            fifth_bit::pack(&rounding::each(values, |x| rounding::truncate(x * id + 16.5).min(31) as u8));
        BlockQ5_0 { d: F16Le::from_f32(d), qh, qs }
    }
    /// The same blocks, or with importances ggml's `quantize_row_q5_0_impl`: nineteen scales are tried.
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [Self]) {
        match importance {
            None => Self::encode_all(values, out),
            Some(importance) => quantize(values, importance, out),
        }
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ5_0]) = quantize_sixteens
}

#[inline(always)]
fn quantize_sixteens<V: Lanes>(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ5_0]) {
    let sigma2 = fit_blocks::row_mean_square(values.as_flattened());
    let chunks = values.chunks(16).zip(importance.chunks(16));
    for ((values, importance), out) in chunks.zip(out.chunks_mut(16)) {
        let x: [V; 32] = gather(values.as_flattened());
        let w = fit_blocks::row_weights(&x, importance.as_flattened(), sigma2);
        let (fit, quants) = fit::symmetric(&x, &w, 16);
        for ((out, d), quants) in out.iter_mut().zip(fit.get()).zip(&fit_blocks::bytes(&quants)) {
            let (qh, qs) = fifth_bit::pack(quants);
            *out = BlockQ5_0 { d: F16Le::from_f32(d), qh, qs };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ5_0>(
            "402ab6b4a525fab0762be1a75d13d99f440ac0863cf2",
            &[
                -0.292_968_75,
                0.0,
                0.292_968_75,
                -0.244_140_62,
                0.048_828_125,
                0.341_796_88,
                -0.146_484_38,
                0.146_484_38,
                -0.341_796_88,
                -0.048_828_125,
                0.195_312_5,
                -0.292_968_75,
                0.0,
                0.292_968_75,
                -0.195_312_5,
                0.097_656_25,
                0.732_421_9,
                -0.244_140_62,
                0.341_796_88,
                -0.683_593_75,
                -0.097_656_25,
                0.488_281_25,
                -0.537_109_4,
                0.048_828_125,
                0.634_765_6,
                -0.341_796_88,
                0.195_312_5,
                -0.78125,
                -0.195_312_5,
                0.390_625,
                -0.634_765_6,
                -0.048_828_125,
            ],
        );
    }
}
