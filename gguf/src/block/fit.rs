//! The searches of [`super::search`] for sixteen sub-blocks at once, and those that weigh errors by the importance of columns.
//!
//! All of them look for the scale `S` (and minimum `m`) that make `sum w_i (x_i - x'_i)^2` least, `x'_i = S q_i` or
//! `S q_i - m`. For fixed quants `q` that is a linear least-squares problem with a closed solution:
//!
//! ```text
//! symmetric:  S = sum w x q / sum w q^2
//! affine:     S = (W sum w x q - sum w x sum w q) / D,   m = -(sum w q^2 sum w x - sum w q sum w x q) / D,
//!             W = sum w,   D = W sum w q^2 - (sum w q)^2
//! ```
//!
//! The candidates differ in the scale by which the quants are first chosen. These are the searches of ggml
//! (`make_qx_quants`, `make_q3_quants`, `make_qkx2_quants`, `make_qkx3_quants`, `make_qp_quants` in ggml-quants.c).

use super::iq4_nl::CODEBOOK;
use super::lanes::Lanes;
use super::rounding;
use super::search::EPSILON;

/// The candidates of [`affine`]: quants are chosen by `(nmax + first + delta * step) / (max - min)`, `step` to `steps`.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    /// The largest quant; the smallest is 0.
    pub(crate) nmax: i32,
    pub(crate) first: f32,
    pub(crate) delta: f32,
    /// The last step.
    pub(crate) steps: i32,
    /// What is summed: absolute (`true`) or squared errors.
    pub(crate) absolute: bool,
}

/// What [`affine`] finds for `x' = scale * q - min`.
pub(crate) struct AffineFit<V, const N: usize> {
    pub(crate) scale: V,
    pub(crate) min: V,
    pub(crate) quants: [V; N],
}

#[inline(always)]
pub(crate) fn affine<V: Lanes, const N: usize>(x: &[V; N], w: &[V; N], how: &Affine) -> AffineFit<V, N> {
    let nmax = how.nmax;
    let zero = V::all(0.0);
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (w[0], w[0] * x[0]);
    for j in 1..N {
        min = V::select(x[j].lt(min), x[j], min);
        max = V::select(x[j].gt(max), x[j], max);
        sum_w = sum_w + w[j];
        sum_x = sum_x + w[j] * x[j];
    }
    min = V::select(min.gt(zero), zero, min);
    let flat = max.eq(min);
    let flat_min = min.neg();

    // The quants of a candidate are kept as the factor and the minimum that give them.
    let iscale = V::all(nmax as f32) / (max - min);
    let mut scale = V::all(1.0) / iscale;
    let (mut best_iscale, mut best_min) = (iscale, min);
    let mut best = zero;
    for j in 0..N {
        let q = (iscale * (x[j] - min)).nearest(0, nmax);
        best = best + error(w[j], x[j], scale * q + min, how.absolute);
    }
    let mut tried = [zero; N];
    for step in 0..=how.steps {
        // The range ends at the minimum that is the best so far.
        let iscale = V::all(how.first + how.delta * step as f32 + nmax as f32) / (max - min);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (zero, zero, zero);
        for j in 0..N {
            let q = (iscale * (x[j] - min)).nearest(0, nmax);
            tried[j] = q;
            let wq = w[j] * q;
            sum_q = sum_q + wq;
            sum_qq = sum_qq + wq * q;
            sum_xq = sum_xq + wq * x[j];
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        let tried_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
        let tried_min = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
        let above = tried_min.gt(zero);
        let tried_scale = V::select(above, sum_xq / sum_qq, tried_scale);
        let tried_min = V::select(above, zero, tried_min);
        let mut tried_error = zero;
        for j in 0..N {
            tried_error = tried_error + error(w[j], x[j], tried_scale * tried[j] + tried_min, how.absolute);
        }
        let better = V::and(determinant.gt(zero), tried_error.lt(best));
        if V::any(better) {
            best = V::select(better, tried_error, best);
            best_iscale = V::select(better, iscale, best_iscale);
            best_min = V::select(better, min, best_min);
            scale = V::select(better, tried_scale, scale);
            min = V::select(better, tried_min, min);
        }
    }
    let mut quants = [zero; N];
    for j in 0..N {
        quants[j] = V::select(flat, zero, (best_iscale * (x[j] - best_min)).nearest(0, nmax));
    }
    AffineFit { scale: V::select(flat, zero, scale), min: V::select(flat, flat_min, min.neg()), quants }
}

#[inline(always)]
fn error<V: Lanes>(w: V, x: V, decoded: V, absolute: bool) -> V {
    let diff = decoded - x;
    w * if absolute { diff.abs() } else { diff * diff }
}

/// The value of the largest magnitude in each lane, with its sign; the first of equals.
#[inline(always)]
fn signed_absmax<V: Lanes, const N: usize>(x: &[V; N]) -> V {
    let (mut max, mut magnitude) = (V::all(0.0), V::all(0.0));
    for x in x {
        let larger = x.abs().gt(magnitude);
        magnitude = V::select(larger, x.abs(), magnitude);
        max = V::select(larger, *x, max);
    }
    max
}

/// `sum w x q` and `sum w q^2` for quants chosen by this factor. (No closure: those need not be inlined.)
#[inline(always)]
fn symmetric_sums<V: Lanes, const N: usize>(x: &[V; N], w: &[V; N], nmax: i32, iscale: V) -> (V, V) {
    let (mut xq, mut qq) = (V::all(0.0), V::all(0.0));
    for j in 0..N {
        let q = (iscale * x[j]).nearest(-nmax, nmax - 1);
        xq = xq + w[j] * x[j] * q;
        qq = qq + w[j] * q * q;
    }
    (xq, qq)
}

/// Nineteen scales around the one that maps the largest magnitude to `-nmax`, each refitted: `x' = scale * q`, with `q` from
/// `-nmax` to `nmax - 1`; the quants are given with `nmax` added.
#[inline(always)]
pub(crate) fn symmetric<V: Lanes, const N: usize>(x: &[V; N], w: &[V; N], nmax: i32) -> (V, [V; N]) {
    let zero = V::all(0.0);
    let max = signed_absmax(x);
    let empty = max.abs().lt(V::all(EPSILON));
    let mut best_iscale = V::all(-nmax as f32) / max;
    let (xq, qq) = symmetric_sums(x, w, nmax, best_iscale);
    let mut scale = V::select(qq.eq(zero), zero, xq / qq);
    let mut best = scale * xq;
    for step in (-9..=9).filter(|step| *step != 0) {
        let iscale = V::all(-(nmax as f32 + 0.1 * step as f32)) / max;
        let (xq, qq) = symmetric_sums(x, w, nmax, iscale);
        let better = V::and(qq.gt(zero), (xq * xq).gt(best * qq));
        scale = V::select(better, xq / qq, scale);
        best = V::select(better, scale * xq, best);
        best_iscale = V::select(better, iscale, best_iscale);
    }
    let mut quants = [zero; N];
    for j in 0..N {
        let q = (best_iscale * x[j]).nearest(-nmax, nmax - 1) + V::all(nmax as f32);
        quants[j] = V::select(empty, zero, q);
    }
    (V::select(empty, zero, scale), quants)
}

/// As [`symmetric`] with `w = x^2`, by up to five rounds in which each quant moves to where the refitted scale wants it.
#[inline(always)]
pub(crate) fn symmetric_descent<V: Lanes, const N: usize>(x: &[V; N], nmax: i32) -> (V, [V; N]) {
    let zero = V::all(0.0);
    let max = signed_absmax(x);
    let empty = max.abs().lt(V::all(EPSILON));
    let iscale = V::all(-nmax as f32) / max;
    let mut quants = [zero; N];
    let (mut xq, mut qq) = (zero, zero);
    for j in 0..N {
        let q = (iscale * x[j]).nearest(-nmax, nmax - 1);
        quants[j] = q;
        let w = x[j] * x[j];
        xq = xq + w * x[j] * q;
        qq = qq + w * q * q;
    }
    // A lane in which a round changes nothing is done: another round would change nothing either.
    for _ in 0..5 {
        let mut changed = false;
        for j in 0..N {
            let (w, q) = (x[j] * x[j], quants[j]);
            let rest_xq = xq - w * x[j] * q;
            let rest_qq = qq - w * q * q;
            let new = (x[j] * rest_qq / rest_xq).nearest(-nmax, nmax - 1);
            let new_xq = rest_xq + w * x[j] * new;
            let new_qq = rest_qq + w * new * new;
            let moves = V::and(rest_xq.gt(zero), V::not(new.eq(q)));
            let gains = V::and(new_qq.gt(zero), (new_xq * new_xq * qq).gt(xq * xq * new_qq));
            let better = V::and(moves, gains);
            if V::any(better) {
                quants[j] = V::select(better, new, q);
                xq = V::select(better, new_xq, xq);
                qq = V::select(better, new_qq, qq);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let scale = V::select(qq.gt(zero), xq / qq, zero);
    for quant in &mut quants {
        *quant = V::select(empty, zero, *quant + V::all(nmax as f32));
    }
    (V::select(empty, zero, scale), quants)
}

/// The entry of the codebook nearest to `x * id`; the upper one half-way between two, the lowest for NaN.
#[inline(always)]
fn nearest_entry<V: Lanes>(x: V, id: V) -> V {
    let doubled = id * x + id * x;
    let mut entry = V::all(f32::from(CODEBOOK[0]));
    for pair in CODEBOOK.windows(2) {
        let midpoint = V::all(f32::from(i16::from(pair[0]) + i16::from(pair[1])));
        entry = V::select(doubled.ge(midpoint), V::all(f32::from(pair[1])), entry);
    }
    entry
}

/// As [`symmetric_sums`], with `q` from the codebook.
#[inline(always)]
fn codebook_sums<V: Lanes, const N: usize>(x: &[V; N], w: &[V; N], id: V) -> (V, V) {
    let (mut xq, mut qq) = (V::all(0.0), V::all(0.0));
    for j in 0..N {
        let q = nearest_entry(x[j], id);
        xq = xq + w[j] * q * x[j];
        qq = qq + w[j] * q * q;
    }
    (xq, qq)
}

/// The best scale for `x' = scale * CODEBOOK[q]` of fifteen candidates around the one that maps the largest magnitude to an
/// end of the codebook.
#[inline(always)]
pub(crate) fn codebook<V: Lanes, const N: usize>(x: &[V; N], w: &[V; N]) -> V {
    let zero = V::all(0.0);
    let max = signed_absmax(x);
    let empty = max.abs().lt(V::all(EPSILON));
    let lowest = f32::from(CODEBOOK[0]);
    let (xq, qq) = codebook_sums(x, w, V::all(1.0) / (max.neg() / V::all(lowest)));
    let mut scale = V::select(qq.gt(zero), xq / qq, zero);
    let mut best = scale * xq;
    for step in -7..=7 {
        let (xq, qq) = codebook_sums(x, w, V::all(step as f32 + lowest) / max);
        let better = V::and(qq.gt(zero), (xq * xq).gt(best * qq));
        scale = V::select(better, xq / qq, scale);
        best = V::select(better, scale * xq, best);
    }
    V::select(empty, zero, scale)
}

/// Round scales (or minima) that are not negative to `0..=nmax` with errors weighted by `w`: the unit, and the rounded.
pub(crate) fn positive<const N: usize>(x: &[f32; N], w: &[f32; N], nmax: i32) -> (f32, [u8; N]) {
    let max = x.iter().fold(0.0f32, |max, v| if *v > max { *v } else { max });
    if max < EPSILON {
        return (0.0, [0; N]);
    }
    let squared = |iscale: f32, clamp: i32| {
        let scale = 1.0 / iscale;
        let mut sum = 0.0;
        for (x, w) in x.iter().zip(w) {
            let diff = x - scale * rounding::nearest(iscale * x).min(clamp) as f32;
            sum += w * diff * diff;
        }
        sum
    };
    let mut iscale = nmax as f32 / max;
    let mut best = squared(iscale, i32::MAX);
    for step in (-4..=4).filter(|step| *step != 0) {
        let tried = (0.1 * step as f32 + nmax as f32) / max;
        let error = squared(tried, nmax);
        if error < best {
            (best, iscale) = (error, tried);
        }
    }
    let mut quants = [0i32; N];
    let (mut xq, mut qq) = (0.0, 0.0);
    for ((x, w), quant) in x.iter().zip(w).zip(&mut quants) {
        *quant = rounding::nearest(iscale * x).min(nmax);
        let q = *quant as f32;
        xq += w * x * q;
        qq += w * q * q;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((x, w), quant) in x.iter().zip(w).zip(&mut quants) {
            let q = *quant as f32;
            let (mut rest_xq, mut rest_qq) = (xq - w * x * q, qq - w * q * q);
            if rest_xq > 0.0 && rest_qq > 0.0 {
                let new = rounding::nearest(x * rest_qq / rest_xq).min(nmax);
                if new != *quant {
                    let q = new as f32;
                    rest_xq += w * x * q;
                    rest_qq += w * q * q;
                    if rest_xq * rest_xq * qq > xq * xq * rest_qq {
                        (*quant, xq, qq) = (new, rest_xq, rest_qq);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if qq > 0.0 { xq / qq } else { 0.0 }, quants.map(|q| q as u8))
}

/// The weights of values whose columns have these importances: `importance * sqrt(sigma2 + x^2)`, where `sigma2` is a mean
/// square of the neighbourhood. Large values count more, as in the searches without importances.
#[inline(always)]
pub(crate) fn weights<V: Lanes, const N: usize>(x: &[V; N], importance: &[V; N], sigma2: V) -> [V; N] {
    let mut w = [sigma2; N];
    for j in 0..N {
        w[j] = importance[j] * (sigma2 + x[j] * x[j]).sqrt();
    }
    w
}

/// `sum x^2`, one after the other.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{LANES, Plain, gather};
    use super::super::search;
    use super::*;

    /// Sub-blocks of all kinds: noise of several magnitudes, constants, zeros, one outlier, all of one sign.
    fn sub_blocks<const N: usize>() -> [[f32; N]; LANES] {
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        std::array::from_fn(|s| {
            std::array::from_fn(|j| match s {
                0 => 0.0,
                1 => 0.25,
                2 => -0.25,
                3 => next() * 1e-20,
                4 => next() * 1e20,
                5 => next().abs(),
                6 => -next().abs(),
                7 if j == 3 => 100.0,
                8 if j > 0 => 0.0,
                _ => next() * s as f32,
            })
        })
    }

    fn same<V: Lanes, const N: usize>(got: (V, [V; N]), s: usize, want: (f32, [u8; N])) {
        assert_eq!(got.0.get()[s].to_bits(), want.0.to_bits(), "lane {s}: {} {}", got.0.get()[s], want.0);
        assert_eq!(got.1.map(|q| q.bytes()[s]), want.1, "lane {s}");
    }

    #[test]
    fn each_lane_is_the_search_for_one_sub_block() {
        check::<Plain>();
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::lanes_x86::{Avx2, Avx512};
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512() {
                check::<Avx512>();
            }
            #[target_feature(enable = "avx2")]
            fn avx2() {
                check::<Avx2>();
            }
            if Avx512::is_here() {
                // SAFETY: the machine has the instructions.
                unsafe { avx512() };
            }
            if Avx2::is_here() {
                // SAFETY: as above.
                unsafe { avx2() };
            }
        }
    }

    #[inline(always)]
    fn check<V: Lanes>() {
        fn lanes<V: Lanes, const N: usize>(x: &[[f32; N]; LANES]) -> [V; N] {
            gather(x.as_flattened())
        }
        let x = sub_blocks::<16>();
        let w = x.map(|x| x.map(|x| x * x));
        for nmax in [4, 32] {
            let (fit, descent) = (
                symmetric::<V, 16>(&lanes(&x), &lanes(&w), nmax),
                symmetric_descent::<V, 16>(&lanes(&x), nmax),
            );
            for s in 0..LANES {
                same(fit, s, search::symmetric(&x[s], &w[s], nmax));
                same(descent, s, search::symmetric_descent(&x[s], nmax));
            }
        }
        let x = sub_blocks::<32>();
        let w = x.map(|x| x.map(f32::abs));
        for absolute in [false, true] {
            for (nmax, first, steps) in [(3, -0.5, 15), (15, -1.0, 20), (31, -0.5, 15)] {
                let how = Affine { nmax, first, delta: 0.1, steps, absolute };
                let found = affine::<V, 32>(&lanes(&x), &lanes(&w), &how);
                for s in 0..LANES {
                    let want =
                        search::affine(&x[s], &w[s], &search::Candidates { nmax, first, steps, absolute });
                    same((found.scale, found.quants), s, (want.scale, want.quants));
                    assert_eq!(found.min.get()[s].to_bits(), want.min.to_bits(), "lane {s}");
                }
            }
        }
    }
}
