//! Rounding activations to 8-bit integers.
//!
//! Both formats are symmetric: with `m` the largest magnitude of a block, `d = m / 127`, `q = x * (127 / m)` rounded
//! to nearest, ties to even. Every instruction set gives the same bytes.
//!
//! A block that holds a NaN or an infinity has `d = NaN`, so that it shows in every product. A block whose largest
//! magnitude is less than [`TINY`] is rounded to zeros: `127 / m` would not be finite.

use bytemuck::{Pod, Zeroable};

use super::isa::Isa;
use super::table::table;
use crate::tensor::Act;

/// 32 activations, the partner of 32-value weight blocks.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8x32 {
    /// The scale.
    pub d: f32,
    /// `d` times the sum of the quants: what a weight block's minimum is multiplied by.
    pub s: f32,
    /// The quants, -127 to 127.
    pub q: [i8; 32],
}

/// 256 activations, the partner of super-blocks. The quants come first so that they fill whole cache lines
/// where the row is aligned to 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8x256 {
    /// The quants, -127 to 127.
    pub q: [i8; 256],
    /// Sums of 16 quants each.
    pub sums: [i16; 16],
    /// The scale.
    pub d: f32,
    /// Zeros, up to a multiple of 64 bytes.
    pub pad: [u8; 28],
}

const _: () = assert!(size_of::<BlockQ8x32>() == Act::Q8x32.block_bytes());
const _: () = assert!(size_of::<BlockQ8x256>() == Act::Q8x256.block_bytes());

/// Blocks whose largest magnitude is less are rounded to zeros.
pub const TINY: f32 = 1e-36;

/// The rounding functions of an instruction set; lengths are checked before they are called.
pub(super) struct Quantize {
    pub q8x32: unsafe fn(&[f32], &mut [BlockQ8x32]),
    pub q8x256: unsafe fn(&[f32], &mut [BlockQ8x256]),
}

/// The scale of a block and what its values are multiplied by, from the bits of its largest magnitude: taken as
/// integers, magnitudes order as floats do, with infinity above and NaN at the top.
#[inline]
pub(super) fn scales(max_bits: u32) -> (f32, f32) {
    let max = f32::from_bits(max_bits);
    if max_bits >= f32::INFINITY.to_bits() {
        (f32::NAN, 0.0)
    } else if max < TINY {
        (0.0, 0.0)
    } else {
        (max / 127.0, 127.0 / max)
    }
}

/// Round one row into `out`, which holds [`Act::row_bytes`] bytes, aligned to 4.
///
/// # Panics
/// Where `x` is no whole number of blocks, or `out` has another length or alignment, or this machine does not have
/// `isa`: all of it is decided by the caller.
pub fn quantize(isa: Isa, act: Act, x: &[f32], out: &mut [u8]) {
    assert!(x.len().is_multiple_of(act.block_len()), "{} values are no whole number of blocks", x.len());
    assert_eq!(out.len(), act.row_bytes(x.len()), "bytes of the rounded row");
    let table = table(isa).quantize;
    match act {
        Act::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(x),
        // SAFETY: `table` has checked that the machine has the instruction set; lengths are checked above.
        Act::Q8x32 => unsafe { (table.q8x32)(x, bytemuck::cast_slice_mut(out)) },
        // SAFETY: as above.
        Act::Q8x256 => unsafe { (table.q8x256)(x, bytemuck::cast_slice_mut(out)) },
    }
}

/// The values of a row of activations, in f64 where nothing is lost, for tests and dumps: `out` holds `k` values.
///
/// # Panics
/// Where lengths differ or `bytes` is not aligned to 4.
pub fn decode(act: Act, bytes: &[u8], out: &mut [f64]) {
    assert_eq!(bytes.len(), act.row_bytes(out.len()), "bytes of the row");
    fn block(d: f32, q: &[i8], out: &mut [f64]) {
        for (out, &q) in out.iter_mut().zip(q) {
            *out = f64::from(d) * f64::from(q);
        }
    }
    match act {
        Act::F32 => {
            for (out, &x) in out.iter_mut().zip(bytemuck::cast_slice::<u8, f32>(bytes)) {
                *out = f64::from(x);
            }
        }
        Act::Q8x32 => {
            for (out, b) in out.chunks_exact_mut(32).zip(bytemuck::cast_slice::<u8, BlockQ8x32>(bytes)) {
                block(b.d, &b.q, out);
            }
        }
        Act::Q8x256 => {
            for (out, b) in out.chunks_exact_mut(256).zip(bytemuck::cast_slice::<u8, BlockQ8x256>(bytes)) {
                block(b.d, &b.q, out);
            }
        }
    }
}
