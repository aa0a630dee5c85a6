//! Q8_0: 8-bit signed integers, one f16 scale for 32 values (8.5 bits per value).
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0-1 | `d` | scale, binary16 |
//! | 2-33 | `qs` | byte `j`: value `j`, `i8` |
//!
//! `value = d * q`. Source: `block_q8_0` in ggml-common.h.

use bytemuck::{Pod, Zeroable};

use super::f16::F16Le;
use super::{Block, rounding};

/// 32 values. Size: 34 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale.
    pub d: F16Le,
    /// The quants.
    pub qs: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34);

impl Block for BlockQ8_0 {
    type Values = [f32; 32];

    #[inline]
    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }

    /// The largest magnitude becomes 127; rounding is half away from zero.
    #[inline]
    fn encode(values: &[f32; 32]) -> Self {
        let d = rounding::absmax(values) / 127.0;
        let id = rounding::reciprocal(d);
        // A scale below 2^-128 has no finite reciprocal; its block decodes to zeros, so store zeros.
        let id = if id.is_finite() { id } else { 0.0 };
        BlockQ8_0 { d: F16Le::from_f32(d), qs: values.map(|x| rounding::round(x * id) as i8) }
    }
}
