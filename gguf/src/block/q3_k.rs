//! Q3_K: 3-bit signed integers in 16 sub-blocks of 16, 6-bit signed scales (3.4375 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-31 | `hmask` | byte `l`, bit `4 h + j`: bit 2 of value `128 h + 32 j + l` |
//! | 32-95 | `qs` | byte `32 h + l`: bits 1-0 of values `128 h + 32 j + l`, j = 0-3, in bits `2j + 1`-`2j` |
//! | 96-107 | `scales` | 16 scales of 6 bits, offset by 32, see [`unpack_scales`] |
//! | 108-109 | `d` | scale of the scales, binary16 |
//!
//! `value = (d * (sc - 32)) * (q - 4)` with `sc` of sub-block `index / 16`.
//! Source: `block_q3_K` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, fit_blocks, lanes, rounding, search};

/// 256 values. Size: 110 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// The third bit of every quant.
    pub hmask: [u8; 32],
    /// The low two bits, four quants per byte, 32 apart.
    pub qs: [u8; 64],
    /// The packed scales of the sub-blocks.
    pub scales: [u8; 12],
    /// The scale of the scales.
    pub d: F16Le,
}

const _: () = assert!(size_of::<BlockQ3K>() == 110);

/// The 16 scales, -32 to 31.
///
/// Of scale `s`, bits 3-0 lie in byte `s % 8` (bits 3-0 for `s < 8`, else 7-4), bits 5-4 in byte `8 + s % 4`
/// (from bit `s / 4 * 2`).
#[inline(always)]
pub fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    let mut scales = [0; 16];
    for (s, scale) in scales.iter_mut().enumerate() {
        let low = (packed[s % 8] >> (s / 8 * 4)) & 15;
        let high = (packed[8 + s % 4] >> (s / 4 * 2)) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    scales
}

/// The inverse of [`unpack_scales`]; `scales` lie within -32 to 31.
#[inline(always)]
pub fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (s, scale) in scales.iter().enumerate() {
        let scale = scale.wrapping_add(32) as u8;
        packed[s % 8] |= (scale & 15) << (s / 8 * 4);
        packed[8 + s % 4] |= ((scale >> 4) & 3) << (s / 4 * 2);
    }
    packed
}

impl Block for BlockQ3K {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> = Some(&Layout {
        len: 256,
        group: 16,
        levels: &const { parts::range::<8>(-4) },
        scales: (-32, 31),
        mins: (0, 0),
    });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.scales = unpack_scales(&self.scales);
        for (s, codes) in parts.codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let qs = &self.qs.as_chunks::<16>().0[s / 8 * 2 + s % 2];
            let high = &self.hmask.as_chunks::<16>().0[s % 2];
            for (j, code) in codes.iter_mut().enumerate() {
                *code = qs[j] >> (s / 2 % 4 * 2) & 3 | (high[j] >> (s / 2) & 1) << 2;
            }
        }
    }

    fn join(parts: &Parts) -> Self {
        let mut quants = [[0; 16]; 16];
        quants.copy_from_slice(parts.codes.as_chunks::<16>().0);
        pack(F16Le::from_f32(parts.d), &parts.scales, &quants)
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.to_f32();
        let scales = unpack_scales(&self.scales);
        let (out, _) = out.as_chunks_mut::<16>();
        let (qs, _) = self.qs.as_chunks::<16>();
        let (hmask, _) = self.hmask.as_chunks::<16>();
        for (s, out) in out.iter_mut().enumerate() {
            let scale = d * f32::from(scales[s]);
            // Sub-block s: half s / 8, bit pair (s / 2) % 4, byte run s % 2; its third bit is bit s / 2.
            let (qs, shift) = (&qs[s / 8 * 2 + s % 2], s / 2 % 4 * 2);
            let (hmask, bit) = (&hmask[s % 2], s / 2);
            for j in 0..16 {
                let q = ((qs[j] >> shift) & 3) | ((hmask[j] >> bit) & 1) << 2;
                out[j] = scale * (i32::from(q) - 4) as f32;
            }
        }
    }

    /// Scales by coordinate descent on the weighted error, then the quants for the rounded ones (ggml's
    /// `quantize_row_q3_K_ref`).
    fn encode(values: &[f32; 256]) -> Self {
        let (sub_blocks, _) = values.as_chunks::<16>();
        let mut quants = [[0; 16]; 16];
        let mut fit = [0.0; 16];
        for (s, x) in sub_blocks.iter().enumerate() {
            (fit[s], quants[s]) = search::symmetric_descent(x, 4);
        }
        let (d, scales) = round_scales(&fit);
        for (s, x) in sub_blocks.iter().enumerate() {
            search::requantize_symmetric(x, d.to_f32() * f32::from(scales[s]), 4, &mut quants[s]);
        }
        pack(d, &scales, &quants)
    }

    /// The same blocks, or with importances ggml's `quantize_row_q3_K_impl`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ3K]) = quantize_each
}

#[inline(always)]
fn quantize_each<V: Lanes>(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ3K]) {
    for (i, (values, out)) in values.iter().zip(out).enumerate() {
        let x: [V; 16] = gather(values);
        let ((d, scales), mut quants) = if let Some(importance) = importance {
            let w = fit::weights(&x, &gather(&importance[i]), fit_blocks::mean_squares::<V, 1>(values, 2.0));
            let (fit, quants) = fit::symmetric(&x, &w, 4);
            // The scales are fitted as values are, each weighted by all of its sub-block.
            let (d, scales) = search::symmetric(&fit.get(), &fit_blocks::sum(&w).get(), 32);
            ((F16Le::from_f32(d), scales.map(|s| s as i8 - 32)), quants)
        } else {
            let (fit, quants) = fit::symmetric_descent(&x, 4);
            (round_scales(&fit.get()), quants)
        };
        let mut scale = [0.0; 16];
        for s in 0..16 {
            scale[s] = d.to_f32() * f32::from(scales[s]);
        }
        fit_blocks::requantize_symmetric(&x, V::new(scale), 4, &mut quants);
        *out = pack(d, &scales, &fit_blocks::bytes(&quants));
    }
}

/// The scales in 6 bits, and their scale.
#[inline(always)]
fn round_scales(fit: &[f32; 16]) -> (F16Le, [i8; 16]) {
    let max = rounding::signed_absmax(fit);
    if max == 0.0 {
        return (F16Le::from_f32(0.0), [-32; 16]);
    }
    let iscale = -32.0 / max;
    let scales = fit.map(|v| (rounding::nearest(iscale * v) as i8).clamp(-32, 31));
    (F16Le::from_f32(1.0 / iscale), scales)
}

/// The block of these scales and quants.
#[inline(always)]
fn pack(d: F16Le, scales: &[i8; 16], quants: &[[u8; 16]; 16]) -> BlockQ3K {
    let mut block = BlockQ3K { hmask: [0; 32], qs: [0; 64], scales: pack_scales(scales), d };
    let (qs, _) = block.qs.as_chunks_mut::<16>();
    let (hmask, _) = block.hmask.as_chunks_mut::<16>();
    for (s, quants) in quants.iter().enumerate() {
        for (j, q) in quants.iter().enumerate() {
            qs[s / 8 * 2 + s % 2][j] |= (q & 3) << (s / 2 % 4 * 2);
            hmask[s % 2][j] |= (q >> 2) << (s / 2);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ3K>(
            "66cdb366d9336c9936cc9b66cdb366d94d1ae74cb3e758b3ed18b74c9ae74cb3897833de9d7726ed886be29978\
             37de9ddb2f7589dc227688df2275c91f7285d84827e28d7423de897722dd8877e29d785df2b7582df68b5de2f7\
             485d22b7882dbba4bda5005556af41f9146bdba4",
            &[
                -0.284_500_12,
                -0.227_600_1,
                0.0,
                0.796_600_34,
                -1.820_800_8,
                -0.189_666_75,
                0.0,
                0.569_000_24,
                1.194_900_5,
                -1.479_400_6,
                -0.094_833_374,
                0.189_666_75,
                0.910_400_4,
                -1.194_900_5,
                -1.024_200_4,
                0.0,
            ],
        );
    }

    #[test]
    fn scales_survive_packing() {
        let scales = std::array::from_fn(|s| (s * 37 % 64) as i8 - 32);
        assert_eq!(unpack_scales(&pack_scales(&scales)), scales);
    }
}
