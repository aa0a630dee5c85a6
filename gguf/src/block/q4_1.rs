//! Q4_1: 4-bit unsigned integers, one f16 scale and one f16 minimum for 32 values (5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-3 | `m` | minimum, binary16 |
//! | 4-19 | `qs` | byte `j`: value `j` in bits 3-0, value `16 + j` in bits 7-4 |
//!
//! `value = (d * q) + m`. Source: `block_q4_1` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, fit_blocks, lanes, nibbles, rounding};

/// 32 values. Size: 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// The scale.
    pub d: F16Le,
    /// The minimum.
    pub m: F16Le,
    /// Two 4-bit quants per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_1>() == 20);

impl Block for BlockQ4_1 {
    type Values = [f32; 32];
    const LAYOUT: Option<&'static Layout> =
        Some(&const { Layout { mins: (1, 1), ..parts::one_scale(&const { parts::range::<16>(0) }) } });

    fn split(&self, parts: &mut Parts) {
        (parts.d, parts.dmin) = (self.d.to_f32(), -self.m.to_f32());
        parts.codes[..32].copy_from_slice(&nibbles::unpack(&self.qs));
    }

    fn join(parts: &Parts) -> Self {
        let (d, m) = (F16Le::from_f32(parts.d), F16Le::from_f32(-parts.dmin));
        BlockQ4_1 { d, m, qs: nibbles::pack(&parts::first(&parts.codes)) }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for j in 0..16 {
            out[j] = d * f32::from(self.qs[j] & 15) + m;
            out[16 + j] = d * f32::from(self.qs[j] >> 4) + m;
        }
    }

    /// The smallest value becomes 0, the largest 15.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let (min, max) = rounding::min_max(values);
        let d = (max - min) / 15.0;
        let id = rounding::reciprocal(d);
        let quants = rounding::each(values, |x| rounding::truncate((x - min) * id + 0.5).min(15) as u8);
        BlockQ4_1 { d: F16Le::from_f32(d), m: F16Le::from_f32(min), qs: nibbles::pack(&quants) }
    }
    /// The same blocks, or with importances ggml's `quantize_row_q4_1_impl`: 37 scales are tried.
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [Self]) {
        match importance {
            None => Self::encode_all(values, out),
            Some(importance) => quantize(values, importance, out),
        }
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ4_1]) = quantize_sixteens
}

#[inline(always)]
fn quantize_sixteens<V: Lanes>(values: &[[f32; 32]], importance: &[[f32; 32]], out: &mut [BlockQ4_1]) {
    let sigma2 = fit_blocks::row_mean_square(values.as_flattened());
    let chunks = values.chunks(16).zip(importance.chunks(16));
    for ((values, importance), out) in chunks.zip(out.chunks_mut(16)) {
        let x: [V; 32] = gather(values.as_flattened());
        let w = fit_blocks::row_weights(&x, importance.as_flattened(), sigma2);
        let found = fit::affine(&x, &w, &fit_blocks::weighted_candidates(15));
        let quants = fit_blocks::bytes(&found.quants);
        for (s, out) in out.iter_mut().enumerate() {
            let (d, m) = (F16Le::from_f32(found.scale.get()[s]), F16Le::from_f32(-found.min.get()[s]));
            *out = BlockQ4_1 { d, m, qs: nibbles::pack(&quants[s]) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ4_1>(
            "892e40baf558ba1578cb3689e447aa0568bb2678",
            &[
                -0.270_690_92,
                0.035_644_53,
                0.239_868_16,
                -0.270_690_92,
                0.035_644_53,
                0.341_979_98,
                -0.168_579_1,
                0.137_756_35,
                -0.372_802_73,
                -0.066_467_285,
                0.239_868_16,
                -0.270_690_92,
                0.035_644_53,
                0.341_979_98,
                -0.168_579_1,
                0.035_644_53,
                0.750_427_25,
                -0.270_690_92,
                0.341_979_98,
                -0.679_138_2,
                -0.066_467_285,
                0.444_091_8,
                -0.474_914_55,
                0.035_644_53,
                0.648_315_4,
                -0.372_802_73,
                0.239_868_16,
                -0.78125,
                -0.168_579_1,
                0.341_979_98,
                -0.577_026_37,
                -0.066_467_285,
            ],
        );
    }
}
