//! Functions that the compiler can vectorize, where the library's are calls.

/// The exponential: `2^n * e^r` with `n` the integer nearest to `x / ln 2`, and `e^r` by its Taylor polynomial of
/// degree 7, whose next term is below the last place for `|r| <= ln(2) / 2`. 0 below -87.3, infinity above 88.72, NaN
/// for NaN. The vector forms of the instruction sets share its constants.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    use crate::cpu::vector::exp::{COEFFICIENTS, LN2_HIGH, LN2_LOW, MAX, MIN};
    // Adding 1.5 * 2^23 leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(MIN, MAX);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let polynomial = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    // 2^n in two factors: 2^128, for the largest `x`, is no f32.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let value = polynomial * power(half) * power(n - half);
    if x < MIN {
        0.0
    } else if x > MAX {
        f32::INFINITY
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_within_two_units_of_the_library() {
        for i in -87_000..88_700 {
            let x = i as f32 / 1000.0;
            let (got, want) = (exp(x), (f64::from(x)).exp());
            let err = (f64::from(got) - want).abs() / want;
            assert!(err < 2.5e-7, "exp({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn exp_keeps_the_ends_and_nan() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
