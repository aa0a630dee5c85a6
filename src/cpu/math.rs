//! Functions that the compiler can vectorize, where the library's are calls.

/// e^x, within 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN for NaN.
///
/// Cody-Waite reduction to [-ln 2 / 2, ln 2 / 2], then a polynomial of degree 6 (Taylor's
/// coefficients, whose remainder there is below 2^-24 relative).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_145_75;
    const LN2_LO: f32 = 1.428_606_8e-6;
    let y = x.clamp(-104.0, 89.0);
    let n = (y * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (y - n * LN2_HI) - n * LN2_LO;
    let p = 1.0
        + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    // 2^n in two factors, so that results near both ends are right.
    let half = (n * 0.5).trunc();
    let power = |n: f32| f32::from_bits(((n as i32 + 127) as u32) << 23);
    let e = p * power(half) * power(n - half);
    if x < -87.3 {
        0.0
    } else if x > 88.72 {
        f32::INFINITY
    } else {
        e
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
