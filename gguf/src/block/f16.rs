//! IEEE binary16: the F16 format, and the scale of most other formats.

use bytemuck::{Pod, Zeroable};
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::Block;

/// A binary16 number as two little-endian bytes (alignment 1). Size: 2 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct F16Le(pub [u8; 2]);

const _: () = assert!(size_of::<F16Le>() == 2);

impl F16Le {
    /// The number, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }
    /// The nearest binary16 number, ties to even; infinite above 65504.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        F16Le(f16::from_f32(value).to_le_bytes())
    }
}

impl std::fmt::Debug for F16Le {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_f32())
    }
}

/// Numbers converted per call of `half`, whose conversions want aligned memory.
const RUN: usize = 128;

impl Block for F16Le {
    type Values = [f32; 1];

    fn decode(&self, out: &mut [f32; 1]) {
        out[0] = self.to_f32();
    }

    fn decode_all(blocks: &[Self], out: &mut [[f32; 1]]) {
        let mut run = [f16::ZERO; RUN];
        for (blocks, out) in blocks.chunks(RUN).zip(out.as_flattened_mut().chunks_mut(RUN)) {
            let n = blocks.len().min(out.len());
            for (number, block) in run.iter_mut().zip(blocks) {
                *number = f16::from_le_bytes(block.0);
            }
            run[..n].convert_to_f32_slice(&mut out[..n]);
        }
    }

    fn encode(values: &[f32; 1]) -> Self {
        F16Le::from_f32(values[0])
    }

    fn encode_all(values: &[[f32; 1]], out: &mut [Self]) {
        let mut run = [f16::ZERO; RUN];
        for (values, out) in values.as_flattened().chunks(RUN).zip(out.chunks_mut(RUN)) {
            let n = values.len().min(out.len());
            run[..n].convert_from_f32_slice(&values[..n]);
            for (block, number) in out.iter_mut().zip(&run) {
                *block = F16Le(number.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::decodes::<F16Le>(&[0x00, 0x3c], 1.0);
        golden::decodes::<F16Le>(&[0x01, 0x80], -5.960_464_5e-8);
        golden::encodes::<F16Le>(65504.0, &[0xff, 0x7b]);
        golden::encodes::<F16Le>(65520.0, &[0x00, 0x7c]);
        // A tie: 1 + 2^-11 lies between 1 and 1 + 2^-10, and 1 is the even one.
        golden::encodes::<F16Le>(1.000_488_3, &[0x00, 0x3c]);
    }

    #[test]
    fn runs_agree_with_single_numbers() {
        for n in [1, 3, RUN - 1, RUN, RUN + 1, 3 * RUN + 5] {
            let values: Vec<f32> = (0..n).map(|i| (i as f32 - 77.0) * 1.37).collect();
            let mut blocks = vec![F16Le([0; 2]); n];
            F16Le::encode_all(bytemuck::cast_slice(&values), &mut blocks);
            let mut out = vec![[0f32]; n];
            F16Le::decode_all(&blocks, &mut out);
            for i in 0..n {
                assert_eq!(blocks[i], F16Le::from_f32(values[i]));
                assert_eq!(out[i][0], blocks[i].to_f32());
            }
        }
    }
}
