//! How encoders round, and what they measure in a block first. NaN is passed over wherever ggml's comparisons
//! pass it over.

/// Adding 1.5 * 2^23 to a magnitude up to 2^22 rounds it to an integer (half to even) and leaves that integer in
/// the low bits. Conversions by this trick vectorize on every machine; `as i32`, which saturates, does not.
const MAGIC: f32 = 12_582_912.0;
/// Magnitudes below this can be rounded by [`MAGIC`].
const LIMIT: f32 = 4_194_304.0;

/// `f` of every value, in a loop that vectorizes: `array::map` is compiled as a call for each.
#[inline(always)]
pub(crate) fn each<T: Copy, U: Copy + Default, const N: usize>(
    values: &[T; N],
    f: impl Fn(T) -> U,
) -> [U; N] {
    let mut out = [U::default(); N];
    for (out, value) in out.iter_mut().zip(values) {
        *out = f(*value);
    }
    out
}

/// The largest integer not above `x`; `0 <= x < LIMIT`.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let even = (x + MAGIC) - MAGIC;
    if even > x { even - 1.0 } else { even }
}

/// Round half away from zero as C's `roundf`; 0 for NaN and for magnitudes from 2^22, of which no scaled value is.
#[inline(always)]
pub(crate) fn round(x: f32) -> i32 {
    let magnitude = if x.abs() < LIMIT { x.abs() } else { 0.0 };
    let whole = floor(magnitude);
    // Exact: a fraction of a magnitude below 2^23 is representable.
    let rounded = if magnitude - whole >= 0.5 { whole + 1.0 } else { whole };
    nearest(rounded.copysign(x))
}

/// Truncate a value that is not negative; 0 for NaN, for negative values and from 2^22.
///
/// ggml leaves those to the machine (in C they are undefined); on x86 their low byte is 0 as well. They happen in
/// blocks whose scale is below 2^-128, which decode to zeros in any case.
#[inline(always)]
pub(crate) fn truncate(x: f32) -> i32 {
    nearest(floor(if (0.0..LIMIT).contains(&x) { x } else { 0.0 }))
}

/// Round half to even, for magnitudes up to 2^22.
///
/// Larger magnitudes and NaN give some integer of 23 bits, the same one that ggml's `nearest_int` gives.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    ((x + MAGIC).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// `1 / d`, or 0 for the block of zeros.
#[inline(always)]
pub(crate) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Independent running extremes, so that the loops below vectorize.
const LANES: usize = 8;

/// The smallest and the largest value, of zeros the first (their signs differ). NaN is passed over.
#[inline(always)]
pub(crate) fn min_max(values: &[f32; 32]) -> (f32, f32) {
    let (mut min, mut max) = ([f32::MAX; LANES], [-f32::MAX; LANES]);
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            min[lane] = lesser(min[lane], values[lane]);
            max[lane] = greater(max[lane], values[lane]);
        }
    }
    let first =
        |v: f32| if v == 0.0 { values.iter().copied().find(|zero| *zero == 0.0).unwrap_or(v) } else { v };
    (first(min.into_iter().fold(f32::MAX, lesser)), first(max.into_iter().fold(-f32::MAX, greater)))
}

/// The largest magnitude. NaN is passed over.
#[inline(always)]
pub(crate) fn absmax(values: &[f32; 32]) -> f32 {
    let mut max = [0.0; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            max[lane] = greater(max[lane], values[lane].abs());
        }
    }
    max.into_iter().fold(0.0, greater)
}

/// The value of the largest magnitude, with its sign; the first of equals.
#[inline(always)]
pub(crate) fn signed_absmax<const N: usize>(values: &[f32; N]) -> f32 {
    let (mut min, mut max) = ([0.0; LANES], [0.0; LANES]);
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            min[lane] = lesser(min[lane], values[lane]);
            max[lane] = greater(max[lane], values[lane]);
        }
    }
    const { assert!(N.is_multiple_of(LANES)) };
    let (min, max) = (min.into_iter().fold(0.0, lesser), max.into_iter().fold(0.0, greater));
    if max > -min {
        max
    } else if max < -min {
        min
    } else {
        values.iter().copied().find(|v| v.abs() == max && max > 0.0).unwrap_or(0.0)
    }
}

/// The lesser of two, the first where one is NaN.
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The greater of two, the first where one is NaN.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
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
        assert_eq!([round(f32::NAN), round(1e30), round(-4_194_303.0)], [0, 0, -4_194_303]);
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
    fn truncation_is_toward_zero() {
        for i in 0..600_000 {
            let x = i as f32 * 0.000_5;
            for x in [x, x.next_up(), x.next_down()] {
                assert_eq!(truncate(x), (x as i32).max(0), "{x}");
            }
        }
        for x in [4_194_304.0, -3e9, f32::INFINITY, f32::NAN] {
            assert_eq!(truncate(x), 0);
        }
    }

    #[test]
    fn extremes_are_found_wherever_they_are() {
        for i in 0..32 {
            let mut values = std::array::from_fn(|j| (j as f32 * 0.7).sin());
            values[i] = 5.0;
            values[(i + 9) % 32] = -4.0;
            assert_eq!((min_max(&values), absmax(&values), signed_absmax(&values)), ((-4.0, 5.0), 5.0, 5.0));
            values[(i + 9) % 32] = -6.0;
            assert_eq!((min_max(&values), absmax(&values), signed_absmax(&values)), ((-6.0, 5.0), 6.0, -6.0));
            // Of equal magnitudes the first decides the sign.
            values[(i + 9) % 32] = -5.0;
            assert_eq!(signed_absmax(&values), if i < (i + 9) % 32 { 5.0 } else { -5.0 });
        }
        let mut values = [1.0; 32];
        (values[7], values[9]) = (-0.0, 0.0);
        assert!(min_max(&values).0.is_sign_negative());
        values.swap(7, 9);
        assert!(min_max(&values).0.is_sign_positive());
        assert_eq!([absmax(&[0.0; 32]), signed_absmax(&[0.0; 32]), signed_absmax(&[f32::NAN; 32])], [0.0; 3]);
    }
}
