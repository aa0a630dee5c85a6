//! IQ4_NL: 4-bit indices into a table of unevenly spaced integers, one f16 scale for 32 values (4.5 bits per
//! value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-17 | `qs` | byte `j`: index of value `j` in bits 3-0, of value `16 + j` in bits 7-4 |
//!
//! `value = d * CODEBOOK[q]`. Source: `block_iq4_nl` and `kvalues_iq4nl` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::lanes::{Lanes, gather};
use super::parts::{self, Layout, Parts};
use super::{Block, fit, lanes, nibbles, rounding, search};

/// The table that IQ4_NL and IQ4_XS share: denser near zero, where most weights are.
pub const CODEBOOK: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 values. Size: 18 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// The scale.
    pub d: F16Le,
    /// Two 4-bit indices per byte, 16 apart.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);

/// For each value, scaled by `id`, the index of the nearest entry of [`CODEBOOK`]; the upper one half-way between
/// two, 0 for NaN.
#[inline(always)]
pub(crate) fn nearest_indices(x: &[f32; 32], id: f32) -> [u8; 32] {
    // Doubled, so that the midpoints are exact.
    let doubled = rounding::each(x, |x| id * x + id * x);
    let mut indices = [0i32; 32];
    // Counting the midpoints not above each value vectorizes; a binary search does not.
    for pair in CODEBOOK.windows(2) {
        let midpoint = f32::from(i16::from(pair[0]) + i16::from(pair[1]));
        for (index, x) in indices.iter_mut().zip(&doubled) {
            *index += i32::from(*x >= midpoint);
        }
    }
    rounding::each(&indices, |index| index as u8)
}

/// Sums over the values of `w * q * x` and `w * q * q`, with `q` from the codebook and `w = x * x`.
#[inline(always)]
pub(crate) fn weighted_sums(x: &[f32; 32], indices: &[u8; 32]) -> (f32, f32) {
    let (mut xq, mut qq) = (0.0, 0.0);
    for (&x, &index) in x.iter().zip(indices) {
        let q = f32::from(CODEBOOK[usize::from(index & 15)]);
        let w = x * x;
        xq += w * q * x;
        qq += w * q * q;
    }
    (xq, qq)
}

impl Block for BlockIq4Nl {
    type Values = [f32; 32];
    const LAYOUT: Option<&'static Layout> = Some(&const { parts::one_scale(&CODEBOOK) });

    fn split(&self, parts: &mut Parts) {
        parts.d = self.d.to_f32();
        parts.codes[..32].copy_from_slice(&nibbles::unpack(&self.qs));
    }

    fn join(parts: &Parts) -> Self {
        BlockIq4Nl { d: F16Le::from_f32(parts.d), qs: nibbles::pack(&parts::first(&parts.codes)) }
    }

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for j in 0..16 {
            out[j] = d * f32::from(CODEBOOK[usize::from(self.qs[j] & 15)]);
            out[16 + j] = d * f32::from(CODEBOOK[usize::from(self.qs[j] >> 4)]);
        }
    }

    /// The value of the largest magnitude becomes -127; then the scale is refitted to the indices by least
    /// squares, weighted by the square of the value.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let max = rounding::signed_absmax(values);
        if max.abs() < search::EPSILON {
            return BlockIq4Nl::zeroed();
        }
        let id = 1.0 / (max / f32::from(CODEBOOK[0]));
        let quants = nearest_indices(values, id);
        let (xq, qq) = weighted_sums(values, &quants);
        let d = if qq > 0.0 { xq / qq } else { 0.0 };
        BlockIq4Nl { d: F16Le::from_f32(d), qs: nibbles::pack(&quants) }
    }

    /// Better blocks than [`Block::encode`] gives: fifteen scales are tried, as ggml's `quantize_iq4_nl` does for files.
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [Self]) {
        quantize(values, importance, out);
    }
}

lanes::widest! {
    fn quantize(values: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [BlockIq4Nl]) = quantize_sixteens
}

#[inline(always)]
fn quantize_sixteens<V: Lanes>(
    values: &[[f32; 32]],
    importance: Option<&[[f32; 32]]>,
    out: &mut [BlockIq4Nl],
) {
    for (i, (values, out)) in values.chunks(16).zip(out.chunks_mut(16)).enumerate() {
        let x: [V; 32] = gather(values.as_flattened());
        let w: [V; 32] = if let Some(row) = importance {
            let mut squares = V::all(0.0);
            for x in &x {
                squares = squares + *x * *x;
            }
            let row = &row[16 * i..16 * i + values.len()];
            fit::weights(&x, &gather(row.as_flattened()), squares * V::all(2.0 / 32.0))
        } else {
            let mut w = x;
            for w in &mut w {
                *w = *w * *w;
            }
            w
        };
        let fit = fit::codebook(&x, &w).get();
        for ((values, out), d) in values.iter().zip(out).zip(fit) {
            let quants = nearest_indices(values, rounding::reciprocal(d));
            *out = BlockIq4Nl { d: F16Le::from_f32(d), qs: nibbles::pack(&quants) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::check::<BlockIq4Nl>(
            "601ef458cb1579dc269af337bb0458cc1579",
            &[
                -0.305_053_7,
                0.006_225_586,
                0.236_572_27,
                -0.217_895_51,
                0.080_932_62,
                0.329_956_05,
                -0.136_962_89,
                0.155_639_65,
                -0.404_663_1,
                -0.062_255_86,
                0.236_572_27,
                -0.305_053_7,
                0.006_225_586,
                0.329_956_05,
                -0.217_895_51,
                0.080_932_62,
                0.703_491_2,
                -0.217_895_51,
                0.329_956_05,
                -0.647_460_94,
                -0.062_255_86,
                0.429_565_43,
                -0.516_723_63,
                0.080_932_62,
                0.703_491_2,
                -0.404_663_1,
                0.236_572_27,
                -0.790_649_4,
                -0.217_895_51,
                0.329_956_05,
                -0.647_460_94,
                -0.062_255_86,
            ],
        );
    }

    #[test]
    fn the_nearest_entry_is_found() {
        for i in -2000i32..2000 {
            let x = i as f32 * 0.0625;
            let distance = |q: &i8| (f32::from(*q) - x).abs();
            // The last of the nearest: the upper one half-way between two.
            let nearest =
                (0..16).rev().min_by(|a, b| distance(&CODEBOOK[*a]).total_cmp(&distance(&CODEBOOK[*b])));
            assert_eq!(
                Some(usize::from(nearest_indices(&[x; 32], 1.0)[i.unsigned_abs() as usize % 32])),
                nearest,
                "{x}"
            );
        }
        let extremes = [f32::MIN, f32::MAX, f32::NAN].map(|x| nearest_indices(&[x; 32], 1.0)[31]);
        assert_eq!(extremes, [0, 15, 0]);
    }
}
