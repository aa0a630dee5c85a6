//! Q6_K: 6-bit signed integers in 16 sub-blocks of 16, 8-bit signed scales (6.5625 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-127 | `ql` | byte `64 h + l`: bits 3-0 of value `128 h + l` in bits 3-0, of `128 h + 64 + l` in bits 7-4 |
//! | 128-191 | `qh` | byte `32 h + l`: bits 5-4 of values `128 h + 32 j + l`, j = 0-3, in bits `2j + 1`-`2j` |
//! | 192-207 | `scales` | byte `s`: scale of sub-block `s`, `i8` |
//! | 208-209 | `d` | scale of the scales, binary16 |
//!
//! `value = (d * sc) * (q - 32)` with `sc` of sub-block `index / 16`. Source: `block_q6_K` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, fit_blocks, lanes, rounding, search};

/// 256 values. Size: 210 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// The low four bits, two quants per byte, 64 apart.
    pub ql: [u8; 128],
    /// The high two bits, four quants per byte, 32 apart.
    pub qh: [u8; 64],
    /// The scales of the sub-blocks.
    pub scales: [i8; 16],
    /// The scale of the scales.
    pub d: F16Le,
}

const _: () = assert!(size_of::<BlockQ6K>() == 210);

impl Block for BlockQ6K {
    type Values = [f32; 256];
    const LAYOUT: Option<&'static Layout> = Some(&Layout {
        len: 256,
        group: 16,
        levels: &const { parts::range::<64>(-32) },
        scales: (-128, 127),
        mins: (0, 0),
    });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.scales = self.scales;
        for (s, codes) in parts.codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let low = &self.ql.as_chunks::<16>().0[s / 8 * 4 + s % 4];
            let high = &self.qh.as_chunks::<16>().0[s / 8 * 2 + s % 2];
            for (j, code) in codes.iter_mut().enumerate() {
                *code = low[j] >> (s / 4 % 2 * 4) & 15 | (high[j] >> (s / 2 % 4 * 2) & 3) << 4;
            }
        }
    }

    fn join(parts: &Parts) -> Self {
        let mut quants = [[0; 16]; 16];
        quants.copy_from_slice(parts.codes.as_chunks::<16>().0);
        pack(F16Le::from_f32(parts.d), parts.scales, &quants)
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.to_f32();
        let (out, _) = out.as_chunks_mut::<16>();
        let (ql, _) = self.ql.as_chunks::<16>();
        let (qh, _) = self.qh.as_chunks::<16>();
        for (s, out) in out.iter_mut().enumerate() {
            let scale = d * f32::from(self.scales[s]);
            // Sub-block s: half s / 8; its nibble is s / 4 % 2 and its bit pair s / 2 % 4.
            let (ql, low) = (&ql[s / 8 * 4 + s % 4], s / 4 % 2 * 4);
            let (qh, high) = (&qh[s / 8 * 2 + s % 2], s / 2 % 4 * 2);
            for j in 0..16 {
                let q = ((ql[j] >> low) & 15) | ((qh[j] >> high) & 3) << 4;
                out[j] = scale * (i32::from(q) - 32) as f32;
            }
        }
    }

    /// Scales by a search for the least weighted error, then the quants for the rounded ones (ggml's
    /// `quantize_row_q6_K_ref`).
    fn encode(values: &[f32; 256]) -> Self {
        let (sub_blocks, _) = values.as_chunks::<16>();
        let mut quants = [[0; 16]; 16];
        let mut fit = [0.0; 16];
        for (s, x) in sub_blocks.iter().enumerate() {
            (fit[s], quants[s]) = search::symmetric(x, &rounding::each(x, |x| x * x), 32);
        }
        let Some((d, scales)) = round_scales(&fit) else { return BlockQ6K::zeroed() };
        for (s, x) in sub_blocks.iter().enumerate() {
            search::requantize_symmetric(x, d.to_f32() * f32::from(scales[s]), 32, &mut quants[s]);
        }
        pack(d, scales, &quants)
    }

    /// The same blocks, or with importances ggml's `quantize_row_q6_K_impl`.
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ6K]) = quantize_each
}

#[inline(always)]
fn quantize_each<V: Lanes>(values: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [BlockQ6K]) {
    for (i, (values, out)) in values.iter().zip(out).enumerate() {
        let x: [V; 16] = gather(values);
        // Six bits are enough for importances to count as they are, without regard to the values.
        let w: [V; 16] = if let Some(importance) = importance {
            gather(&importance[i])
        } else {
            let mut w = x;
            for w in &mut w {
                *w = *w * *w;
            }
            w
        };
        let (fit, mut quants) = fit::symmetric(&x, &w, 32);
        let Some((d, scales)) = round_scales(&fit.get()) else {
            *out = BlockQ6K::zeroed();
            continue;
        };
        let mut scale = [0.0; 16];
        for s in 0..16 {
            scale[s] = d.to_f32() * f32::from(scales[s]);
        }
        fit_blocks::requantize_symmetric(&x, V::new(scale), 32, &mut quants);
        *out = pack(d, scales, &fit_blocks::bytes(&quants));
    }
}

/// The scales in 8 bits, and their scale; none where all are as good as 0.
#[inline(always)]
fn round_scales(fit: &[f32; 16]) -> Option<(F16Le, [i8; 16])> {
    let max = rounding::signed_absmax(fit);
    if max.abs() < search::EPSILON {
        return None;
    }
    let iscale = -128.0 / max;
    Some((F16Le::from_f32(1.0 / iscale), fit.map(|v| rounding::nearest(iscale * v).min(127) as i8)))
}

/// The block of these scales and quants.
#[inline(always)]
fn pack(d: F16Le, scales: [i8; 16], quants: &[[u8; 16]; 16]) -> BlockQ6K {
    let mut block = BlockQ6K { ql: [0; 128], qh: [0; 64], scales, d };
    let (ql, _) = block.ql.as_chunks_mut::<16>();
    let (qh, _) = block.qh.as_chunks_mut::<16>();
    for (s, quants) in quants.iter().enumerate() {
        for (j, q) in quants.iter().enumerate() {
            ql[s / 8 * 4 + s % 4][j] |= (q & 15) << (s / 4 % 2 * 4);
            qh[s / 8 * 2 + s % 2][j] |= (q >> 4) << (s / 2 % 4 * 2);
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
        golden::check::<BlockQ6K>(
            "45df28bc069f137cf08ad367f14ade285ed67df56c138b02aa12c931b85fd74e26ac058d037bf179d258d048ce\
             27af2583fc741d960eb62fd840b961da53fb74d158bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d95\
             1ea72fc841c9bf35ad169c048cf26be069d147cf38bd1a922c840d85ed77ff57d038b04aa22b6cb11b6cc61b71\
             c61cb1cb6cb21b6cc6e74d3ad04d37904ae7913ae44d3a904d18b1c66cb11b6c861b71c61cb1c76cb22453f924\
             8ef9138ef4538d2452f9248e1733489d77e831b9668018cf499e7c180910",
            &[
                -0.305_887_7,
                -0.251_212_12,
                0.177_326_2,
                0.926_529_4,
                -1.875_717_2,
                -0.200_969_7,
                -0.024_136_066,
                0.489_617_35,
                1.356_545_4,
                -1.324_035_6,
                -0.082_752_23,
                0.193_088_53,
                0.827_029_7,
                -1.351_619_7,
                -0.794_027_3,
                0.023_643_494,
            ],
        );
    }
}
