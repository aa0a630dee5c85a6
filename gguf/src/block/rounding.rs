//! How encoders round, and what they measure in a block first. NaN is passed over wherever ggml's comparisons
//! pass it over.

/// Round half away from zero as C's `roundf`, in a form that vectorizes; 0 for NaN.
///
/// Beyond 2^31 the result is some integer.
#[inline(always)]
pub(crate) fn round(x: f32) -> i32 {
    let t = x as i32;
    // Exact: below 2^23 the fraction is representable, above there is none.
    let fraction = x - t as f32;
    t.wrapping_add(i32::from(fraction >= 0.5) - i32::from(fraction <= -0.5))
}

/// Truncate toward zero; what does not fit (and NaN) becomes `i32::MIN`.
///
/// ggml leaves this case to the machine (in C it is undefined); this is what x86 does, whose low byte is 0. It
/// happens only in blocks whose scale is below 2^-128, which decode to zeros in any case.
#[inline(always)]
pub(crate) fn truncate(x: f32) -> i32 {
    if x.abs() < 2_147_483_648.0 { x as i32 } else { i32::MIN }
}

/// Round half to even, for magnitudes up to 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
///
/// Larger magnitudes and NaN give some integer of 23 bits, the same one that ggml's `nearest_int` gives.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// `1 / d`, or 0 for the block of zeros.
#[inline(always)]
pub(crate) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The smallest and the largest value. NaN is passed over where the comparison is false.
#[inline(always)]
pub(crate) fn min_max(values: &[f32; 32]) -> (f32, f32) {
    let (mut min, mut max) = (f32::MAX, -f32::MAX);
    for &v in values {
        min = if v < min { v } else { min };
        max = if v > max { v } else { max };
    }
    (min, max)
}

/// The largest magnitude.
#[inline(always)]
pub(crate) fn absmax(values: &[f32; 32]) -> f32 {
    let mut max = 0.0;
    for v in values {
        max = if max > v.abs() { max } else { v.abs() };
    }
    max
}

/// The value of the largest magnitude, with its sign; the first of equals.
#[inline(always)]
pub(crate) fn signed_absmax(values: &[f32]) -> f32 {
    let (mut max, mut value) = (0.0, 0.0);
    for &v in values {
        if v.abs() > max {
            (max, value) = (v.abs(), v);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_is_half_away_from_zero() {
        for i in -600_000..600_000 {
            let x = i as f32 * 0.000_5;
            assert_eq!(round(x), x.round() as i32, "{x}");
            for x in [x.next_up(), x.next_down()] {
                assert_eq!(round(x), x.round() as i32, "{x}");
            }
        }
        assert_eq!([round(f32::NAN), round(16_777_215.0), round(-2e9)], [0, 16_777_215, -2_000_000_000]);
    }

    #[test]
    fn nearest_is_half_to_even() {
        for i in -40_000..40_000 {
            let x = i as f32 * 0.125;
            assert_eq!(nearest(x), x.round_ties_even() as i32, "{x}");
        }
        assert_eq!([nearest(4_194_303.0), nearest(-4_194_303.0)], [4_194_303, -4_194_303]);
    }

    #[test]
    fn truncation_marks_what_does_not_fit() {
        assert_eq!([truncate(-1.9), truncate(255.9), truncate(2e9)], [-1, 255, 2_000_000_000]);
        for x in [3e9, -3e9, f32::INFINITY, f32::NAN] {
            assert_eq!(truncate(x), i32::MIN);
        }
    }
}
