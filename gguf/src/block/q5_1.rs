//! Q5_1: 5-bit unsigned integers, one f16 scale and one f16 minimum for 32 values (6 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-3 | `m` | minimum, binary16 |
//! | 4-7 | `qh` | little-endian `u32`, bit `i`: bit 4 of value `i` |
//! | 8-23 | `qs` | byte `j`: bits 3-0 of value `j` in bits 3-0, of value `16 + j` in bits 7-4 |
//!
//! `value = (d * q) + m`. Source: `block_q5_1` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fifth_bit, fit, fit_blocks, lanes, rounding};

/// 32 values. Size: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// The scale.
    pub d: F16Le,
    /// The minimum.
    pub m: F16Le,
    /// The fifth bit of every quant, a little-endian `u32`.
    pub qh: [u8; 4],
    /// The low four bits, two quants per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_1>() == 24);

impl Block for BlockQ5_1 {
    type Values = [f32; 32];
    const LAYOUT: Option<&'static Layout> =
        Some(&const { Layout { mins: (1, 1), ..parts::one_scale(&const { parts::range::<32>(0) }) } });

    fn split(&self, parts: &mut Parts) {
        (parts.d, parts.dmin) = (self.d.to_f32(), -self.m.to_f32());
        parts.codes[..32].copy_from_slice(&fifth_bit::unpack(&self.qh, &self.qs));
    }

    fn join(parts: &Parts) -> Self {
        let (qh, qs) = fifth_bit::pack(&parts::first(&parts.codes));
        BlockQ5_1 { d: F16Le::from_f32(parts.d), m: F16Le::from_f32(-parts.dmin), qh, qs }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let q = fifth_bit::unpack(&self.qh, &self.qs);
        for j in 0..32 {
            out[j] = d * f32::from(q[j]) + m;
        }
    }

    /// The smallest value becomes 0, the largest 31.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let (min, max) = rounding::min_max(values);
        let d = (max - min) / 31.0;
        let id = rounding::reciprocal(d);
        let (qh, qs) =
            fifth_bit::pack(&rounding::each(values, |x| rounding::truncate((x - min) * id + 0.5) as u8));
        BlockQ5_1 { d: F16Le::from_f32(d), m: F16Le::from_f32(min), qh, qs }
    }
    /// The same blocks, or with importances ggml's `quantize_row_q5_1_impl`: 37 scales are tried.
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [Self]) {
        match importance {
            None => Self::encode_all(values, out),
            Some(importance) => quantize(values, importance, out),
        }
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ5_1]) = quantize_sixteens
}

#[inline(always)]
fn quantize_sixteens<V: Lanes>(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ5_1]) {
    let sigma2 = fit_blocks::row_mean_square(values.as_flattened());
    let chunks = values.chunks(16).zip(importance.chunks(16));
    for ((values, importance), out) in chunks.zip(out.chunks_mut(16)) {
        let x: [V; 32] = gather(values.as_flattened());
        let w = fit_blocks::row_weights(&x, importance.as_flattened(), sigma2);
        let found = fit::affine(&x, &w, &fit_blocks::weighted_candidates(31));
        let quants = fit_blocks::bytes(&found.quants);
        for (s, out) in out.iter_mut().enumerate() {
            let (d, m) = (F16Le::from_f32(found.scale.get()[s]), F16Le::from_f32(-found.min.get()[s]));
            let (qh, qs) = fifth_bit::pack(&quants[s]);
            *out = BlockQ5_1 { d, m, qh, qs };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ5_1>(
            "532a40bab6b4a525fab0652be1a75d13d99e440ac0763cf2",
            &[
                -0.287_170_4,
                0.009_277_344,
                0.256_317_14,
                -0.237_762_45,
                0.058_685_303,
                0.355_133_06,
                -0.138_946_53,
                0.157_501_22,
                -0.336_578_37,
                -0.089_538_574,
                0.206_909_18,
                -0.287_170_4,
                0.009_277_344,
                0.305_725_1,
                -0.188_354_49,
                0.108_093_26,
                0.750_396_7,
                -0.237_762_45,
                0.305_725_1,
                -0.682_434_1,
                -0.089_538_574,
                0.503_356_93,
                -0.534_210_2,
                0.058_685_303,
                0.651_580_8,
                -0.336_578_37,
                0.206_909_18,
                -0.78125,
                -0.188_354_49,
                0.355_133_06,
                -0.633_026_1,
                -0.040_130_615,
            ],
        );
    }
}
