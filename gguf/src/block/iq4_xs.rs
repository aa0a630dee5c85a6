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

use super::f16::F16Le;
use super::iq4_nl::{self, CODEBOOK};
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, fit_blocks, lanes, nibbles, rounding, search};

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

/// The scale of a sub-block before it is rounded to 6 bits.
fn fit_scale(x: &[f32; 32]) -> f32 {
    let max = rounding::signed_absmax(x);
    if max.abs() < search::EPSILON {
        return 0.0;
    }
    let sums = |id: f32| iq4_nl::weighted_sums(x, &iq4_nl::nearest_indices(x, id));
    let (xq, qq) = sums(1.0 / (-max / f32::from(CODEBOOK[0])));
    let mut scale = if qq > 0.0 { xq / qq } else { 0.0 };
    let mut best = scale * xq;
    for step in -7..=7 {
        let (xq, qq) = sums((step + i32::from(CODEBOOK[0])) as f32 / max);
        if qq > 0.0 && xq * xq > best * qq {
            scale = xq / qq;
            best = scale * xq;
        }
    }
    scale
}

impl Block for BlockIq4Xs {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> =
        Some(&const { Layout { len: 256, scales: (-32, 31), ..parts::one_scale(&CODEBOOK) } });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.scales[..8].copy_from_slice(&self.scales());
        for (codes, qs) in parts.codes.as_chunks_mut::<32>().0.iter_mut().zip(self.qs.as_chunks::<16>().0) {
            *codes = nibbles::unpack(qs);
        }
    }

    fn join(parts: &Parts) -> Self {
        let mut block = BlockIq4Xs::zeroed();
        block.d = F16Le::from_f32(parts.d);
        let mut high = 0u16;
        for (s, codes) in parts.codes.as_chunks::<32>().0.iter().enumerate() {
            block.qs.as_chunks_mut::<16>().0[s] = nibbles::pack(codes);
            let scale = (parts.scales[s] + 32) as u8;
            block.scales_l[s / 2] |= (scale & 15) << (s % 2 * 4);
            high |= u16::from(scale >> 4 & 3) << (2 * s);
        }
        block.scales_h = high.to_le_bytes();
        block
    }

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

    /// Sub-block scales by the least weighted error among fifteen candidates around the one that maps the
    /// largest magnitude to an end of the codebook; then the indices for the rounded scales.
    fn encode(values: &[f32; 256]) -> Self {
        let (sub_blocks, _) = values.as_chunks::<32>();
        let mut fit = [0.0; 8];
        for (fit, x) in fit.iter_mut().zip(sub_blocks) {
            *fit = fit_scale(x);
        }
        pack(values, &fit)
    }

    /// The same blocks, or with importances ggml's `quantize_iq4_xs`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockIq4Xs]) = quantize_pairs
}

#[inline(always)]
fn quantize_pairs<V: Lanes>(
    values: &[[f32; 256]],
    importance: Option<&[[f32; 256]]>,
    out: &mut [BlockIq4Xs],
) {
    for (i, (values, out)) in values.chunks(2).zip(out.chunks_mut(2)).enumerate() {
        let flat = values.as_flattened();
        let x: [V; 32] = gather(flat);
        let w: [V; 32] = if let Some(row) = importance {
            let row = row[2 * i..2 * i + values.len()].as_flattened();
            fit::weights(&x, &gather(row), fit_blocks::mean_squares::<V, 2>(flat, 2.0))
        } else {
            let mut w = x;
            for w in &mut w {
                *w = *w * *w;
            }
            w
        };
        let fit = fit::codebook(&x, &w).get();
        for ((values, out), fit) in values.iter().zip(out).zip(fit.as_chunks::<8>().0) {
            *out = pack(values, fit);
        }
    }
}

/// The block of these scales before they are rounded.
#[inline(always)]
fn pack(values: &[f32; 256], fit: &[f32; 8]) -> BlockIq4Xs {
    let (sub_blocks, _) = values.as_chunks::<32>();
    let d = -rounding::signed_absmax(fit) / 32.0;
    let id = rounding::reciprocal(d);
    let mut block = BlockIq4Xs::zeroed();
    block.d = F16Le::from_f32(d);
    let (qs, _) = block.qs.as_chunks_mut::<16>();
    let mut high = 0u16;
    for (s, x) in sub_blocks.iter().enumerate() {
        let scale = rounding::nearest(id * fit[s]).clamp(-32, 31);
        let iscale = rounding::reciprocal(d * scale as f32);
        qs[s] = nibbles::pack(&iq4_nl::nearest_indices(x, iscale));
        let scale = (scale + 32) as u8;
        block.scales_l[s / 2] |= (scale & 15) << (s % 2 * 4);
        high |= u16::from(scale >> 4) << (2 * s);
    }
    block.scales_h = high.to_le_bytes();
    block
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockIq4Xs>(
            "aa8fcd3ba330df0af458cb1579ec269af337bb0458dc157943fc9722eb751eda540db833fc9622eb899f648ba0\
             758da1789e638a9f648ca0eb861eda540db843fc9722eb751ec9541fda640ec843fd9721eb751fda530eb8650c\
             c844fba724ea761dd9550cb844fbc943fda732eb851eda640db843fc972262799f638ba0758da1779e62899f64\
             8b",
            &[
                -0.297_974_1,
                -0.212_838_65,
                0.121_622_086,
                1.009_463_3,
                -1.901_046_8,
                -0.149_688_72,
                -0.008_887_768,
                0.435_500_62,
                1.508_113_9,
                -1.290_597_4,
                -0.079_054_356,
                0.212_838_65,
                0.790_543_56,
                -1.374_329_6,
                -0.733_474_73,
                0.014_968_872,
            ],
        );
    }
}
