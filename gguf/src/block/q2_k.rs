//! Q2_K: 2-bit unsigned integers in 16 sub-blocks of 16, 4-bit scales and minima (2.625 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-15 | `scales` | byte `s`: scale of sub-block `s` in bits 3-0, its minimum in bits 7-4 |
//! | 16-79 | `qs` | byte `32 h + l`: values `128 h + 32 j + l`, j = 0-3, in bits `2j + 1`-`2j` |
//! | 80-81 | `d` | scale of the scales, binary16 |
//! | 82-83 | `dmin` | scale of the minima, binary16 |
//!
//! `value = (d * sc) * q - (dmin * m)` with `sc`, `m` of sub-block `index / 16`.
//! Source: `block_q2_K` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::fit::{self, Affine};
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit_blocks, lanes, search};

/// 256 values. Size: 84 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and minimum (high nibble) of each sub-block of 16.
    pub scales: [u8; 16],
    /// Four 2-bit quants per byte, 32 apart.
    pub qs: [u8; 64],
    /// The scale of the scales.
    pub d: F16Le,
    /// The scale of the minima.
    pub dmin: F16Le,
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);

impl Block for BlockQ2K {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> = Some(&Layout {
        len: 256,
        group: 16,
        levels: &const { parts::range::<4>(0) },
        scales: (0, 15),
        mins: (0, 15),
    });

    fn split(&self, parts: &mut Parts) {
        (parts.d, parts.dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (s, codes) in parts.codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            (parts.scales[s], parts.mins[s]) = ((self.scales[s] & 15) as i8, self.scales[s] >> 4);
            let qs = &self.qs.as_chunks::<16>().0[s / 8 * 2 + s % 2];
            *codes = qs.map(|byte| byte >> (s / 2 % 4 * 2) & 3);
        }
    }

    fn join(parts: &Parts) -> Self {
        let (d, dmin) = (F16Le::from_f32(parts.d), F16Le::from_f32(parts.dmin));
        let mut quants = [[0; 16]; 16];
        quants.copy_from_slice(parts.codes.as_chunks::<16>().0);
        pack((d, parts.scales.map(|s| s as u8)), (dmin, parts.mins), &quants)
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (out, _) = out.as_chunks_mut::<16>();
        let (qs, _) = self.qs.as_chunks::<16>();
        for (s, out) in out.iter_mut().enumerate() {
            let scale = d * f32::from(self.scales[s] & 15);
            let min = dmin * f32::from(self.scales[s] >> 4);
            // Sub-block s: half s / 8, bit pair (s / 2) % 4, byte run s % 2.
            let (qs, shift) = (&qs[s / 8 * 2 + s % 2], s / 2 % 4 * 2);
            for j in 0..16 {
                out[j] = scale * f32::from((qs[j] >> shift) & 3) - min;
            }
        }
    }

    /// Scales and minima by a search for the least error weighted by magnitude, then the quants for the rounded
    /// ones (ggml's `quantize_row_q2_K_ref`).
    fn encode(values: &[f32; 256]) -> Self {
        const CANDIDATES: search::Candidates =
            search::Candidates { nmax: 3, first: -0.5, steps: 15, absolute: true };
        let (sub_blocks, _) = values.as_chunks::<16>();
        let mut quants = [[0; 16]; 16];
        let (mut fit_scales, mut fit_mins) = ([0.0; 16], [0.0; 16]);
        for (s, x) in sub_blocks.iter().enumerate() {
            let fit = search::affine(x, &x.map(f32::abs), &CANDIDATES);
            (fit_scales[s], fit_mins[s], quants[s]) = (fit.scale, fit.min, fit.quants);
        }
        let (d, sc) = search::positive_scales(&fit_scales, 15);
        let (dmin, m) = search::positive_scales(&fit_mins, 15);
        for (s, x) in sub_blocks.iter().enumerate() {
            let (scale, min) = (d.to_f32() * f32::from(sc[s]), dmin.to_f32() * f32::from(m[s]));
            search::requantize(x, scale, min, CANDIDATES.nmax, &mut quants[s]);
        }
        pack((d, sc), (dmin, m), &quants)
    }

    /// The same blocks, or with importances ggml's `quantize_row_q2_K_impl`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ2K]) = quantize_each
}

#[inline(always)]
fn quantize_each<V: Lanes>(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ2K]) {
    const PLAIN: Affine = Affine { nmax: 3, first: -0.5, delta: 0.1, steps: 15, absolute: true };
    for (i, (values, out)) in values.iter().zip(out).enumerate() {
        let x: [V; 16] = gather(values);
        let (found, parts) = if let Some(importance) = importance {
            let w = fit::weights(&x, &gather(&importance[i]), fit_blocks::mean_squares::<V, 1>(values, 1.0));
            let found = fit::affine(&x, &w, &fit_blocks::weighted_candidates(3));
            let total = fit_blocks::sum(&w).get();
            let (d, sc) = fit::positive(&found.scale.get(), &total, 15);
            let (dmin, m) = fit::positive(&found.min.get(), &total, 15);
            (found, ((F16Le::from_f32(d), sc), (F16Le::from_f32(dmin), m)))
        } else {
            let mut w = x;
            for w in &mut w {
                *w = w.abs();
            }
            let found = fit::affine(&x, &w, &PLAIN);
            let parts = (
                search::positive_scales(&found.scale.get(), 15),
                search::positive_scales(&found.min.get(), 15),
            );
            (found, parts)
        };
        let ((d, sc), (dmin, m)) = parts;
        let (mut scale, mut min) = ([0.0; 16], [0.0; 16]);
        for s in 0..16 {
            scale[s] = d.to_f32() * f32::from(sc[s]);
            min[s] = dmin.to_f32() * f32::from(m[s]);
        }
        let mut quants = found.quants;
        fit_blocks::requantize(&x, V::new(scale), V::new(min), (0, 3), &mut quants);
        *out = pack((d, sc), (dmin, m), &fit_blocks::bytes(&quants));
    }
}

/// The block of these scales, minima and quants.
#[inline(always)]
fn pack((d, sc): (F16Le, [u8; 16]), (dmin, m): (F16Le, [u8; 16]), quants: &[[u8; 16]; 16]) -> BlockQ2K {
    let mut block = BlockQ2K { scales: [0; 16], qs: [0; 64], d, dmin };
    let (qs, _) = block.qs.as_chunks_mut::<16>();
    for (s, quants) in quants.iter().enumerate() {
        block.scales[s] = sc[s] | (m[s] << 4);
        for (byte, q) in qs[s / 8 * 2 + s % 2].iter_mut().zip(quants) {
            *byte |= q << (s / 2 % 4 * 2);
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
        golden::check::<BlockQ2K>(
            "2256899bef226567abde235699abff236cf21bacc61ba1c768b1d76cf61bacc61b71c628b1c66cb21b7dc618b1\
             c62cb158b1d668b1176c821ba1c668b1d668b21b6d861b71862871d76cb61b6d861b71fe2c2230",
            &[
                -0.258_300_78,
                -0.177_734_38,
                0.370_849_6,
                0.553_710_94,
                -1.808_105_5,
                -0.258_300_78,
                0.005_126_953,
                0.317_138_67,
                1.282_592_8,
                -1.678_955_1,
                -0.024_291_992,
                0.290_283_2,
                0.943_725_6,
                -1.291_503_9,
                -0.767_211_9,
                -0.024_291_992,
            ],
        );
    }
}
