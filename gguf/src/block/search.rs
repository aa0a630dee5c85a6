//! How the encoders of the 256-value formats choose scales: small searches for the least weighted error.
//!
//! These follow ggml's reference (`make_qx_quants`, `make_q3_quants`, `make_qkx2_quants` in ggml-quants.c)
//! operation by operation, since the order of the float operations decides which candidate wins.

use super::f16::F16Le;
use super::{rounding, scales};

/// Below this magnitude a sub-block counts as zeros.
pub(crate) const EPSILON: f32 = 1e-15;

/// The best scale for `value = scale * q` with `q` from `-nmax` to `nmax - 1`, and each `q + nmax`.
///
/// Errors are weighted by `w`. Nineteen scales around the one that maps the largest
/// magnitude to `-nmax` are tried, each refitted by least squares.
pub(crate) fn symmetric<const N: usize>(x: &[f32; N], w: &[f32; N], nmax: i32) -> (f32, [u8; N]) {
    let max = rounding::signed_absmax(x);
    if max.abs() < EPSILON {
        return (0.0, [0; N]);
    }
    let quant = |iscale: f32, x: f32| rounding::nearest(iscale * x).clamp(-nmax, nmax - 1);
    let sums = |iscale: f32| {
        let (mut xq, mut qq) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(w) {
            let q = quant(iscale, x) as f32;
            xq += w * x * q;
            qq += w * q * q;
        }
        (xq, qq)
    };
    let mut best_iscale = -nmax as f32 / max;
    let (xq, qq) = sums(best_iscale);
    let mut scale = if qq == 0.0 { 0.0 } else { xq / qq };
    let mut best = scale * xq;
    for step in (-9..=9).filter(|step| *step != 0) {
        let iscale = -(nmax as f32 + 0.1 * step as f32) / max;
        let (xq, qq) = sums(iscale);
        if qq > 0.0 && xq * xq > best * qq {
            scale = xq / qq;
            best = scale * xq;
            best_iscale = iscale;
        }
    }
    (scale, rounding::each(x, |x| (quant(best_iscale, x) + nmax) as u8))
}

/// As [`symmetric`] with the squares of the values as weights, by up to five rounds in which each `q` moves to where the refitted scale wants it.
pub(crate) fn symmetric_descent<const N: usize>(x: &[f32; N], nmax: i32) -> (f32, [u8; N]) {
    let max = rounding::signed_absmax(x);
    if max.abs() < EPSILON {
        return (0.0, [0; N]);
    }
    let iscale = -nmax as f32 / max;
    let mut quants = rounding::each(x, |x| rounding::nearest(iscale * x).clamp(-nmax, nmax - 1));
    let (mut xq, mut qq) = (0.0, 0.0);
    for (&x, &q) in x.iter().zip(&quants) {
        let (w, q) = (x * x, q as f32);
        xq += w * x * q;
        qq += w * q * q;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (&x, quant) in x.iter().zip(&mut quants) {
            let (w, q) = (x * x, *quant as f32);
            let mut rest_xq = xq - w * x * q;
            if rest_xq > 0.0 {
                let mut rest_qq = qq - w * q * q;
                let new = rounding::nearest(x * rest_qq / rest_xq).clamp(-nmax, nmax - 1);
                if new != *quant {
                    let q = new as f32;
                    rest_xq += w * x * q;
                    rest_qq += w * q * q;
                    if rest_qq > 0.0 && rest_xq * rest_xq * qq > xq * xq * rest_qq {
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
    let scale = if qq > 0.0 { xq / qq } else { 0.0 };
    (scale, quants.map(|q| (q + nmax) as u8))
}

/// The candidates of [`affine`]: `nmax + first + 0.1 * step` over the range of the values, `step` to `steps`.
pub(crate) struct Candidates {
    /// The largest quant; the smallest is 0.
    pub(crate) nmax: i32,
    /// Where the candidates start, relative to `nmax`.
    pub(crate) first: f32,
    /// The last step.
    pub(crate) steps: i32,
    /// What is summed: absolute (`true`) or squared errors.
    pub(crate) absolute: bool,
}

/// The best fit of `value = scale * q - min`, `min >= 0`.
pub(crate) struct Affine<const N: usize> {
    pub(crate) scale: f32,
    pub(crate) min: f32,
    pub(crate) quants: [u8; N],
}

/// The best scale and minimum for `value = scale * q - min` with `q` from 0 to `nmax`, errors weighted by `w`.
pub(crate) fn affine<const N: usize>(x: &[f32; N], w: &[f32; N], candidates: &Candidates) -> Affine<N> {
    let nmax = candidates.nmax;
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (w[0], w[0] * x[0]);
    for (&x, &w) in x.iter().zip(w).skip(1) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += w;
        sum_x += w * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max == min {
        return Affine { scale: 0.0, min: -min, quants: [0; N] };
    }
    let quant = |iscale: f32, min: f32| {
        rounding::each(x, |x| rounding::nearest(iscale * (x - min)).clamp(0, nmax) as u8)
    };
    let error = |quants: &[u8; N], scale: f32, min: f32| {
        let mut error = 0.0;
        for i in 0..N {
            let diff = scale * f32::from(quants[i]) + min - x[i];
            error += w[i] * if candidates.absolute { diff.abs() } else { diff * diff };
        }
        error
    };
    let iscale = nmax as f32 / (max - min);
    let mut scale = 1.0 / iscale;
    let mut quants = quant(iscale, min);
    let mut best = error(&quants, scale, min);
    for step in 0..=candidates.steps {
        let iscale = (candidates.first + 0.1 * step as f32 + nmax as f32) / (max - min);
        let tried = quant(iscale, min);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
        for i in 0..N {
            let q = f32::from(tried[i]);
            sum_q += w[i] * q;
            sum_qq += w[i] * q * q;
            sum_xq += w[i] * q * x[i];
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            let mut tried_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let mut tried_min = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
            if tried_min > 0.0 {
                tried_min = 0.0;
                tried_scale = sum_xq / sum_qq;
            }
            let tried_error = error(&tried, tried_scale, tried_min);
            if tried_error < best {
                (best, quants, scale, min) = (tried_error, tried, tried_scale, tried_min);
            }
        }
    }
    Affine { scale, min: -min, quants }
}

/// What Q4_K and Q5_K have in common.
pub(crate) struct SuperBlock {
    pub(crate) d: F16Le,
    pub(crate) dmin: F16Le,
    pub(crate) scales: [u8; scales::BYTES],
    pub(crate) quants: [u8; 256],
}

impl SuperBlock {
    /// Zeros.
    pub(crate) const EMPTY: SuperBlock =
        SuperBlock { d: F16Le([0; 2]), dmin: F16Le([0; 2]), scales: [0; scales::BYTES], quants: [0; 256] };
}

/// Eight sub-blocks of 32 with 6-bit scales and minima: the quants of Q4_K and Q5_K, one per byte.
pub(crate) fn super_block(values: &[f32; 256], candidates: &Candidates) -> SuperBlock {
    let (sub_blocks, _) = values.as_chunks::<32>();
    let mut quants = [0; 256];
    let (sub_quants, _) = quants.as_chunks_mut::<32>();
    let (mut fit_scales, mut fit_mins) = ([0.0; 8], [0.0; 8]);
    for (s, x) in sub_blocks.iter().enumerate() {
        let mean_square = x.iter().fold(0.0, |sum, x| sum + x * x) / 32.0;
        let rms = mean_square.sqrt();
        let fit = affine(x, &rounding::each(x, |x| rms + x.abs()), candidates);
        (fit_scales[s], fit_mins[s], sub_quants[s]) = (fit.scale, fit.min, fit.quants);
    }
    let (d, sc) = positive_scales(&fit_scales, 63);
    let (dmin, m) = positive_scales(&fit_mins, 63);
    for (s, x) in sub_blocks.iter().enumerate() {
        requantize(
            x,
            d.to_f32() * f32::from(sc[s]),
            dmin.to_f32() * f32::from(m[s]),
            candidates.nmax,
            &mut sub_quants[s],
        );
    }
    SuperBlock { d, dmin, scales: scales::pack(&sc, &m), quants }
}

/// Round scales (or minima) that are not negative: the largest becomes `nmax`.
pub(crate) fn positive_scales<const N: usize>(fit: &[f32; N], nmax: u8) -> (F16Le, [u8; N]) {
    let max = fit.iter().fold(0.0, |max, v| if *v > max { *v } else { max });
    if max > 0.0 {
        let iscale = f32::from(nmax) / max;
        let rounded = fit.map(|v| (rounding::nearest(iscale * v) as u8).min(nmax));
        (F16Le::from_f32(max / f32::from(nmax)), rounded)
    } else {
        (F16Le::from_f32(0.0), [0; N])
    }
}

/// Choose the quants anew for a scale and a minimum that have been rounded. A scale of 0 leaves them be.
pub(crate) fn requantize<const N: usize>(
    x: &[f32; N],
    scale: f32,
    min: f32,
    nmax: i32,
    quants: &mut [u8; N],
) {
    if scale != 0.0 {
        *quants = rounding::each(x, |x| rounding::nearest((x + min) / scale).clamp(0, nmax) as u8);
    }
}

/// [`requantize`] for `value = scale * q` with `q` from `-nmax` to `nmax - 1`, stored as `q + nmax`.
pub(crate) fn requantize_symmetric<const N: usize>(
    x: &[f32; N],
    scale: f32,
    nmax: i32,
    quants: &mut [u8; N],
) {
    if scale != 0.0 {
        *quants = rounding::each(x, |x| (rounding::nearest(x / scale).clamp(-nmax, nmax - 1) + nmax) as u8);
    }
}
