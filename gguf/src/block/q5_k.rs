//! Q5_K: 5-bit unsigned integers in 8 sub-blocks of 32, 6-bit scales and minima (5.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale of the scales, binary16 |
//! | 2-3 | `dmin` | scale of the minima, binary16 |
//! | 4-15 | `scales` | 8 scales and 8 minima of 6 bits, see [`scales`] |
//! | 16-47 | `qh` | byte `l`, bit `s`: bit 4 of value `32 s + l` |
//! | 48-175 | `qs` | byte `32 i + l`: bits 3-0 of value `64 i + l` in bits 3-0, of `64 i + 32 + l` in bits 7-4 |
//!
//! `value = (d * sc) * q - (dmin * m)` with `sc`, `m` of sub-block `index / 32`.
//! Source: `block_q5_K` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::fit::Affine;
use super::lanes::Lanes;
use super::parts::{self, Layout, Parts};
use super::{Block, fit_blocks, lanes, scales, search};

/// 256 values. Size: 176 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// The scale of the scales.
    pub d: F16Le,
    /// The scale of the minima.
    pub dmin: F16Le,
    /// The packed scales and minima of the sub-blocks.
    pub scales: [u8; scales::BYTES],
    /// The fifth bit of every quant: one bit per sub-block.
    pub qh: [u8; 32],
    /// The low four bits, two quants per byte, 32 apart.
    pub qs: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ5K>() == 176);

impl Block for BlockQ5K {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> = Some(&Layout {
        len: 256,
        group: 32,
        levels: &const { parts::range::<32>(0) },
        scales: (0, 63),
        mins: (0, 63),
    });

    fn split(&self, parts: &mut Parts) {
        (parts.d, parts.dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = scales::unpack(&self.scales);
        parts.scales[..8].copy_from_slice(&scales.map(|s| s as i8));
        parts.mins[..8].copy_from_slice(&mins);
        let qs = self.qs.as_chunks::<32>().0;
        for (i, (codes, qs)) in parts.codes.as_chunks_mut::<64>().0.iter_mut().zip(qs).enumerate() {
            for j in 0..32 {
                let qh = self.qh[j] >> (2 * i);
                codes[j] = (qs[j] & 15) | (qh & 1) << 4;
                codes[32 + j] = (qs[j] >> 4) | (qh & 2) << 3;
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
                let qh = self.qh[j] >> (2 * i);
                out[j] = scale[0] * f32::from((qs[j] & 15) | (qh & 1) << 4) - min[0];
                out[32 + j] = scale[1] * f32::from((qs[j] >> 4) | (qh & 2) << 3) - min[1];
            }
        }
    }

    /// Scales and minima by a search for the least weighted error, then the quants for the rounded ones (ggml's
    /// `quantize_row_q5_K_ref`).
    fn encode(values: &[f32; 256]) -> Self {
        let candidates = search::Candidates { nmax: 31, first: -0.5, steps: 15, absolute: false };
        pack(&search::super_block(values, &candidates))
    }

    /// The same blocks, or with importances ggml's `quantize_row_q5_K_impl`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ5K]) = quantize_pairs
}

#[inline(always)]
fn quantize_pairs<V: Lanes>(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ5K]) {
    const PLAIN: Affine = Affine { nmax: 31, first: -0.5, delta: 0.1, steps: 15, absolute: false };
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
fn pack(block: &search::SuperBlock) -> BlockQ5K {
    let &search::SuperBlock { d, dmin, scales, ref quants } = block;
    let (mut qh, mut qs) = ([0; 32], [0; 128]);
    let chunks = qs.as_chunks_mut::<32>().0.iter_mut().zip(quants.as_chunks::<64>().0);
    for (i, (qs, quants)) in chunks.enumerate() {
        for j in 0..32 {
            let (low, high) = (quants[j], quants[32 + j]);
            qs[j] = (low & 15) | ((high & 15) << 4);
            qh[j] |= ((low >> 4) | ((high >> 4) << 1)) << (2 * i);
        }
    }
    BlockQ5K { d, dmin, scales, qh, qs }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockQ5K>(
            "b217fc27da72ffe4d96cbce07f79e3ff26cd9366c933649932cc9926cd9366c933e49936cc9b26cdb366c932ec\
             9936cc7a7006aba1373dc3595ff48a8016aca25f0bc7923e0ac5713df9a4601cd8a34fa22e39c5506ce8738f1c\
             97a33f4ad6512ff2ce6032fe91630fd19d3f02de7043318bf554ae0767c02a79d3429cf655be2bf6926e09d590\
             4c08c37f3cf7a37f1a6e27e790590ac3933c05c57e38f8a16ad90520ec1833ff1b46f32fea0631ed19",
            &[
                -0.291_252_14,
                -0.242_404_94,
                0.130_676_27,
                0.976_108_55,
                -1.871_337_9,
                -0.214_290_62,
                -0.051_162_72,
                0.489_913_94,
                1.361_980_4,
                -1.360_311_5,
                -0.106_756_21,
                0.175_054_55,
                0.864_883_4,
                -1.338_876_7,
                -0.781_299_6,
                0.047_224_045,
            ],
        );
    }
}
