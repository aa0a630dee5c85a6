//! Rows of 8-bit floats: the E4M3 encoding of "FP8 Formats for Deep Learning" (arXiv 2209.05433) under one f32
//! scale for the row.
//!
//! A code is a sign, 4 exponent bits (bias 7) and 3 mantissa bits. There are no infinities; 0x7F and 0xFF are NaN,
//! so the largest number is 448. The scale of a row is its largest magnitude / 448, which uses the whole range.
//!
//! The scale is an f32 and not an f16: rows start at words, so two bytes saved would be padding for every head
//! size that is a multiple of four, and no row is too large or too small for an f32.

/// The largest finite number.
pub const MAX: f32 = 448.0;

/// The number of every code.
pub static DECODED: [f32; 256] = decoded();

const fn decoded() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = (code >> 3 & 15, (code & 7) as f32);
        let magnitude = if exponent == 0 {
            mantissa / 512.0
        } else if code & 0x7F == 0x7F {
            f32::NAN
        } else {
            // 2^(exponent - 7), built from its binary32 fields.
            (1.0 + mantissa / 8.0) * f32::from_bits((exponent as u32 + 120) << 23)
        };
        table[code] = if code & 0x80 == 0 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

/// The code of the nearest number, ties to the even code; magnitudes above 448 (infinity too) become 448.
#[inline]
pub fn encode(value: f32) -> u8 {
    let bits = value.to_bits();
    let sign = (bits >> 24) as u8 & 0x80;
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude > 0x7F80_0000 {
        return sign | 0x7F;
    }
    let code = if magnitude < 121 << 23 {
        // Below the smallest normal number 2^-6: adding 2^14, whose last place is 2^-9, rounds to steps of 2^-9.
        let shifted = f32::from_bits(magnitude) + 16384.0;
        (shifted.to_bits() - 16384f32.to_bits()) as u8
    } else if magnitude >= MAX.to_bits() {
        0x7E
    } else {
        // Twenty bits of the mantissa fall away; a carry into the exponent is right as it is.
        let rounded = magnitude + 0x7_FFFF + (magnitude >> 20 & 1);
        ((rounded >> 20) - (120 << 3)) as u8
    };
    sign | code
}

/// Write a row: its scale in four little-endian bytes, then a byte a value. `out.len()` is `values.len() + 4`.
/// What is not finite becomes NaN, so that a broken value stays visible, and leaves its neighbours alone.
pub(super) fn encode_row(values: &[f32], out: &mut [u8]) {
    let largest = values.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max);
    let scale = largest / MAX;
    let (header, codes) = out.split_at_mut(size_of::<f32>());
    header.copy_from_slice(&scale.to_le_bytes());
    for (code, value) in codes.iter_mut().zip(values) {
        *code = if !value.is_finite() {
            encode(f32::NAN)
        } else if scale > 0.0 {
            // A division, since the inverse of the scale of a very small row is infinite.
            encode(value / scale)
        } else {
            0
        };
    }
}

/// Read a row: `bytes.len()` is `out.len() + 4`.
pub(super) fn decode_row(bytes: &[u8], out: &mut [f32]) {
    let (header, codes) = bytes.split_at(size_of::<f32>());
    let scale = header.try_into().map_or(f32::NAN, f32::from_le_bytes);
    for (value, code) in out.iter_mut().zip(codes) {
        *value = scale * DECODED[usize::from(*code)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::random::Random;

    #[test]
    fn codes_mean_what_the_paper_says() {
        for (code, number) in
            [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x07, 0.875 * 2f32.powi(-6)), (0x08, 2f32.powi(-6))]
        {
            assert_eq!(DECODED[code], number);
        }
        assert_eq!(DECODED[0x7E], 448.0);
        assert_eq!(DECODED[0x38], 1.0);
        assert_eq!(DECODED[0xB9], -1.125);
        assert!(DECODED[0x7F].is_nan() && DECODED[0xFF].is_nan());
        assert!(DECODED[0x80] == 0.0 && DECODED[0x80].is_sign_negative());
        assert!((1..0x7F).all(|code| DECODED[code] > DECODED[code - 1]));
    }

    #[test]
    fn every_code_is_its_own_nearest() {
        for code in 0..=255u8 {
            if DECODED[usize::from(code)].is_nan() {
                assert_eq!(encode(DECODED[usize::from(code)]) & 0x7F, 0x7F);
            } else {
                assert_eq!(encode(DECODED[usize::from(code)]), code);
            }
        }
    }

    /// The nearest code by trying all of one sign, ties to the even one: exact, since f64 holds every difference.
    fn nearest(value: f32) -> u8 {
        let distance = |code: u8| (f64::from(DECODED[usize::from(code)]) - f64::from(value.abs())).abs();
        let best = (0..0x7F)
            .min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then_with(|| (a & 1).cmp(&(b & 1))));
        best.unwrap() | if value.is_sign_negative() { 0x80 } else { 0 }
    }

    #[test]
    fn rounding_agrees_with_an_exact_search() {
        let mut random = Random::new(3);
        let check = |value: f32| assert_eq!(encode(value), nearest(value), "{value:e}");
        // Every number, every tie between neighbours and the floats beside the tie.
        for code in 0..0x7Eu8 {
            let tie = f32::midpoint(DECODED[usize::from(code)], DECODED[usize::from(code) + 1]);
            for value in [tie, tie.next_up(), tie.next_down(), DECODED[usize::from(code)].next_up()] {
                check(value);
                check(-value);
            }
        }
        for value in [448.0, 464.0, 1e6, 0.0, -0.0, f32::MIN_POSITIVE, 1e-44] {
            check(value);
        }
        for _ in 0..100_000 {
            let exponent = random.below(24) as i32 - 14;
            check((random.uniform() * 2.0 - 1.0) * 2f32.powi(exponent));
        }
        // Past what f64 tells apart in the search.
        assert_eq!([1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY].map(encode), [0x7E, 0x7E, 0x7E, 0xFE]);
    }

    fn round_trip(values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; values.len() + 4];
        encode_row(values, &mut bytes);
        let mut out = vec![f32::NAN; values.len()];
        decode_row(&bytes, &mut out);
        out
    }

    #[test]
    fn the_largest_value_of_a_row_survives_at_any_magnitude() {
        for factor in [1.0, 1e-30, 1e30, 1e-37] {
            let out = round_trip(&[0.5 * factor, -3.0 * factor, 0.0]);
            assert!((out[1] / factor + 3.0).abs() < 1e-6, "{out:?} at {factor:e}");
            assert!((out[0] / factor - 0.5).abs() < 0.02, "{out:?} at {factor:e}");
            assert_eq!(out[2], 0.0);
        }
        assert_eq!(round_trip(&[0.0; 5]), [0.0; 5]);
        assert_eq!(round_trip(&[f32::from_bits(1); 2]), [0.0; 2], "a scale that underflows loses the row");
    }

    #[test]
    fn what_is_not_finite_does_not_touch_its_neighbours() {
        let out = round_trip(&[f32::INFINITY, f32::NAN, 2.0, -1.0]);
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_eq!(out[2..], [2.0, -1.0]);
        assert!(round_trip(&[f32::NAN, 0.0])[0].is_nan());
    }
}
