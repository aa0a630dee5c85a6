//! Q4_K: 4-bit unsigned integers in 8 sub-blocks of 32, 6-bit scales and minima (4.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale of the scales, binary16 |
//! | 2-3 | `dmin` | scale of the minima, binary16 |
//! | 4-15 | `scales` | 8 scales and 8 minima of 6 bits, see [`scales`] |
//! | 16-143 | `qs` | byte `32 i + l`: value `64 i + l` in bits 3-0, value `64 i + 32 + l` in bits 7-4 |
//!
//! `value = (d * sc) * q - (dmin * m)` with `sc`, `m` of sub-block `index / 32`.
//! Source: `block_q4_K` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::fit::Affine;
use super::lanes::Lanes;
use super::parts::{self, Layout, Parts};
use super::{Block, fit_blocks, lanes, scales, search};

/// 256 values. Size: 144 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// The scale of the scales.
    pub d: F16Le,
    /// The scale of the minima.
    pub dmin: F16Le,
    /// The packed scales and minima of the sub-blocks.
    pub scales: [u8; scales::BYTES],
    /// Two 4-bit quants per byte, 32 apart.
    pub qs: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ4K>() == 144);

impl Block for BlockQ4K {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> = Some(&Layout {
        len: 256,
        group: 32,
        levels: &const { parts::range::<16>(0) },
        scales: (0, 63),
        mins: (0, 63),
    });

    fn split(&self, parts: &mut Parts) {
        (parts.d, parts.dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = scales::unpack(&self.scales);
        parts.scales[..8].copy_from_slice(&scales.map(|s| s as i8));
        parts.mins[..8].copy_from_slice(&mins);
        let qs = self.qs.as_chunks::<32>().0;
        for (codes, qs) in parts.codes.as_chunks_mut::<64>().0.iter_mut().zip(qs) {
            for j in 0..32 {
                codes[j] = qs[j] & 15;
                codes[32 + j] = qs[j] >> 4;
            }
        }
    }

    fn join(parts: &Parts) -> Self {
        let scales = parts::first::<i8, 8>(&parts.scales).map(|s| s as u8);
        pack(&search::SuperBlock {
            d: F16Le::from_f32(parts.d),
            dmin: F16Le::from_f32(parts.dmin),
            scales: scales::pack(&scales, &parts::first(&parts.mins)),
            quants: parts.codes,
        })
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = scales::unpack(&self.scales);
        let (out, _) = out.as_chunks_mut::<64>();
        let (qs, _) = self.qs.as_chunks::<32>();
        for (i, (out, qs)) in out.iter_mut().zip(qs).enumerate() {
            let scale = [2 * i, 2 * i + 1].map(|s| d * f32::from(scales[s]));
            let min = [2 * i, 2 * i + 1].map(|s| dmin * f32::from(mins[s]));
            for j in 0..32 {
                out[j] = scale[0] * f32::from(qs[j] & 15) - min[0];
                out[32 + j] = scale[1] * f32::from(qs[j] >> 4) - min[1];
            }
        }
    }

    /// Scales and minima by a search for the least weighted error, then the quants for the rounded ones (ggml's
    /// `quantize_row_q4_K_ref`).
    fn encode(values: &[f32; 256]) -> Self {
        let candidates = search::Candidates { nmax: 15, first: -1.0, steps: 20, absolute: false };
        pack(&search::super_block(values, &candidates))
    }

    /// The same blocks, or with importances ggml's `quantize_row_q4_K_impl`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ4K]) = quantize_pairs
}

#[inline(always)]
fn quantize_pairs<V: Lanes>(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ4K]) {
    const PLAIN: Affine = Affine { nmax: 15, first: -1.0, delta: 0.1, steps: 20, absolute: false };
    for (i, (values, out)) in values.chunks(2).zip(out.chunks_mut(2)).enumerate() {
        let importance = importance.map(|row| row[2 * i..2 * i + values.len()].as_flattened());
        for (out, block) in
            out.iter_mut().zip(fit_blocks::super_blocks::<V>(values.as_flattened(), importance, &PLAIN))
        {
            *out = pack(&block);
        }
    }
}

#[inline(always)]
fn pack(block: &search::SuperBlock) -> BlockQ4K {
    let &search::SuperBlock { d, dmin, scales, ref quants } = block;
    let mut qs = [0; 128];
    for (qs, quants) in qs.as_chunks_mut::<32>().0.iter_mut().zip(quants.as_chunks::<64>().0) {
        for j in 0..32 {
            qs[j] = quants[j] | (quants[32 + j] << 4);
        }
    }
    BlockQ4K { d, dmin, scales, qs }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ4K>(
            "381cfb27d970b9e3da6cbae18f67cffab5388bc6589b1669a4377ab5488bd659af056bc1277dd3389ef45ab006\
             6cc227599f246aa0367cb1488ec3599f256ba01779d73899f758b90768c62889e7389991457aa2568bb3689c34\
             6991467aa2579cf348ae046ac0168be2379df359be05369bf348bc0469c1268ae2379bf458bd748a90768c9177\
             9da3899f758a90768c",
            &[
                -0.295_532_23,
                -0.295_532_23,
                0.210_388_18,
                1.001_403_8,
                -1.808_075,
                -0.164_245_6,
                -0.019_363_403,
                0.557_418_8,
                1.368_896_5,
                -1.226_623_5,
                -0.117_279_05,
                0.166_992_19,
                0.758_331_3,
                -1.371_643_1,
                -0.769_180_3,
                -0.052_322_388,
            ],
        );
    }
}
