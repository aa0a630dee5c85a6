//! Rounding of activations.

use crate::cpu::act::{BlockQ8x32, BlockQ8x256, Quantize, scales};

/// What the table holds.
pub(super) static QUANTIZE: Quantize = Quantize { q8x32, q8x256 };

fn q8x32(x: &[f32], out: &mut [BlockQ8x32]) {
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
        out.d = round(x, &mut out.q);
        let sum: i32 = out.q.iter().map(|&q| i32::from(q)).sum();
        out.s = out.d * sum as f32;
    }
}

fn q8x256(x: &[f32], out: &mut [BlockQ8x256]) {
    for (x, out) in x.as_chunks::<256>().0.iter().zip(out) {
        out.d = round(x, &mut out.q);
        for (sum, q) in out.sums.iter_mut().zip(out.q.as_chunks::<16>().0) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
        out.pad = [0; 28];
    }
}

/// Round a block and give its scale.
fn round<const N: usize>(x: &[f32; N], q: &mut [i8; N]) -> f32 {
    let max = x.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7fff_ffff));
    let (d, inverse) = scales(max);
    if d.is_nan() {
        *q = [0; N];
        return d;
    }
    for (q, x) in q.iter_mut().zip(x) {
        *q = nearest(x * inverse);
    }
    d
}

/// The nearest integer, ties to even, for magnitudes up to 127: the float unit rounds as it aligns the sum with
/// 1.5 * 2^23, whose last place is 1, and the low byte of the sum is the integer.
fn nearest(x: f32) -> i8 {
    (x + 12_582_912.0).to_bits() as i8
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn ties_round_to_even() {
        for tenths in -1275i32..=1275 {
            let x = tenths as f32 / 10.0;
            let nearest = i32::from(nearest(x));
            if x.abs() < 127.5 {
                assert_eq!(nearest as f32, x.round_ties_even(), "{x}");
            }
        }
    }
}
