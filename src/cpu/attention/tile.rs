//! The arithmetic of a tile: a query against a few decoded K rows, weights times a few decoded V rows, exponentials.
//!
//! Every function fixes the order of its sums: lanes of [`LANES`] partial sums, folded by halves. A table per
//! instruction set may take other orders, as long as a row's result does not depend on its neighbours.

/// Partial sums of a dot product.
const LANES: usize = 16;

/// The functions of an instruction set.
pub(super) struct Kernels {
    /// `out[r] = sum(q * rows[r])` for rows of `q.len()` values.
    pub scores: fn(q: &[f32], rows: &[f32], out: &mut [f32]),
    /// `acc += sum(weights[r] * rows[r])` for rows of `acc.len()` values, in order of `r`.
    pub accumulate: fn(weights: &[f32], rows: &[f32], acc: &mut [f32]),
    /// `x = exp(x - max)`; the sum of them.
    pub exp_sum: fn(x: &mut [f32], max: f32) -> f32,
}

/// Plain Rust, in the order that the others are tested against.
pub(super) static REFERENCE: Kernels = Kernels { scores, accumulate, exp_sum };

fn scores(q: &[f32], rows: &[f32], out: &mut [f32]) {
    let d = q.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (rows4, rows1) = rows.split_at(fours.len() * 4 * d);
    for (out, rows) in fours.iter_mut().zip(rows4.chunks_exact(4 * d)) {
        *out = dots::<4>(q, rows);
    }
    for (out, row) in rest.iter_mut().zip(rows1.chunks_exact(d)) {
        [*out] = dots::<1>(q, row);
    }
}

/// Dot products with `R` rows, side by side so that their sums overlap in time; each is the same for any `R`.
fn dots<const R: usize>(q: &[f32], rows: &[f32]) -> [f32; R] {
    let d = q.len();
    let mut sums = [[0.0f32; LANES]; R];
    let (chunks, tail) = q.as_chunks::<LANES>();
    for (i, q) in chunks.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(d)) {
            let row = &row[i * LANES..][..LANES];
            for lane in 0..LANES {
                sums[lane] += q[lane] * row[lane];
            }
        }
    }
    for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(d)) {
        for (lane, (q, x)) in tail.iter().zip(&row[d - tail.len()..]).enumerate() {
            sums[lane] += q * x;
        }
    }
    sums.map(fold)
}

/// The sum of the lanes, by halves.
fn fold(mut sums: [f32; LANES]) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for lane in 0..n {
            sums[lane] += sums[lane + n];
        }
        n /= 2;
    }
    sums[0]
}

fn accumulate(weights: &[f32], rows: &[f32], acc: &mut [f32]) {
    let d = acc.len();
    // Columns that stay in registers while all rows pass.
    const COLUMNS: usize = 32;
    let (blocks, tail) = acc.as_chunks_mut::<COLUMNS>();
    let tail_at = blocks.len() * COLUMNS;
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut sums = *block;
        for (w, row) in weights.iter().zip(rows.chunks_exact(d)) {
            let row = &row[i * COLUMNS..][..COLUMNS];
            for column in 0..COLUMNS {
                sums[column] += w * row[column];
            }
        }
        *block = sums;
    }
    for (w, row) in weights.iter().zip(rows.chunks_exact(d)) {
        for (acc, x) in tail.iter_mut().zip(&row[tail_at..]) {
            *acc += w * x;
        }
    }
}

fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - max);
            sums[lane] += chunk[lane];
        }
    }
    for (lane, x) in tail.iter_mut().enumerate() {
        *x = exp(*x - max);
        sums[lane] += *x;
    }
    fold(sums)
}

/// e^x for x <= 0, within 2 units in the last place; 0 where the result would be subnormal, NaN where x is.
///
/// 2^n e^r with |r| <= ln(2) / 2 and the polynomial of Cephes' `expf`. Written without branches, so that the compiler
/// makes vectors of it, and without a call, so that it rounds the same everywhere.
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two parts; the first has so few bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // ln(2^-126), rounded up.
    const LEAST: f32 = -87.336_54;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let e_r = (p * r * r + r) + 1.0;
    let two_n = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < LEAST { 0.0 } else { e_r * two_n }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::random::Random;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        let check = |x: f32, worst: &mut f64| {
            let (ours, exact) = (exp(x), f64::from(x).exp());
            if exact >= f64::from(f32::MIN_POSITIVE) * 1.001 {
                let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
                *worst = worst.max((f64::from(ours) - exact).abs() / ulp);
            } else {
                assert!(f64::from(ours) <= f64::from(f32::MIN_POSITIVE) * 1.01, "{x} gives {ours:e}");
            }
        };
        for i in 0..200_000 {
            check(-(i as f32) * 5e-4, &mut worst);
        }
        let mut random = Random::new(1);
        for _ in 0..200_000 {
            check(-random.uniform() * 2f32.powi(random.below(20) as i32 - 12), &mut worst);
        }
        assert!(worst <= 2.0, "{worst} units");
        assert!(worst > 0.4, "the measurement sees nothing: {worst}");
        assert_eq!((exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-1e30)), (1.0, 1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let mut random = Random::new(2);
        for d in [1, 15, 16, 40, 72, 80, 128] {
            let (q, rows) = (random.normals(d), random.normals(11 * d));
            let mut all = [0.0; 11];
            (REFERENCE.scores)(&q, &rows, &mut all);
            for r in 0..11 {
                let mut one = [0.0];
                (REFERENCE.scores)(&q, &rows[r * d..][..d], &mut one);
                assert_eq!(one[0].to_bits(), all[r].to_bits());
                let exact: f64 =
                    q.iter().zip(&rows[r * d..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(one[0]) - exact).abs() < 1e-5 * d as f64);
            }
        }
    }

    #[test]
    fn rows_may_be_added_in_one_call_or_one_by_one() {
        let mut random = Random::new(3);
        for d in [1, 31, 32, 40, 72, 80, 128] {
            let (weights, rows, start) = (random.normals(9), random.normals(9 * d), random.normals(d));
            let (mut all, mut single) = (start.clone(), start);
            (REFERENCE.accumulate)(&weights, &rows, &mut all);
            for r in 0..9 {
                (REFERENCE.accumulate)(&weights[r..=r], &rows[r * d..][..d], &mut single);
            }
            assert!(all.iter().zip(&single).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn sums_of_exponentials_agree_with_f64() {
        let mut random = Random::new(4);
        for n in [0, 1, 15, 16, 17, 64] {
            let x = random.normals(n);
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut p = x.clone();
            let sum = (REFERENCE.exp_sum)(&mut p, max);
            let exact: f64 = x.iter().map(|x| f64::from(x - max).exp()).sum();
            assert!((f64::from(sum) - exact).abs() <= 1e-5 * exact);
            assert!(p.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
