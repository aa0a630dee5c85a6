//! What the formats with 8 sub-blocks of 32 and those with 16 of 16 have in common when they are fitted sixteen at once.

use super::f16::F16Le;
use super::fit::{self, Affine};
use super::lanes::{LANES, Lanes, gather};
use super::scales;
use super::search::{self, SuperBlock};

/// The candidates that ggml tries where importances are given.
pub(crate) const fn weighted_candidates(nmax: i32) -> Affine {
    Affine { nmax, first: -0.9, delta: 0.05, steps: 36, absolute: false }
}

/// The factors of each lane, from what its block has: lanes `16 / B * b` and so on belong to block `b`.
#[inline(always)]
pub(crate) fn of_blocks<V: Lanes, const B: usize>(blocks: [f32; B]) -> V {
    let mut out = [0.0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = blocks[lane * B / LANES];
    }
    V::new(out)
}

/// Mean squares of `B` blocks of 256 values, times `factor`, for the lanes of their sub-blocks.
#[inline(always)]
pub(crate) fn mean_squares<V: Lanes, const B: usize>(values: &[f32], factor: f32) -> V {
    let mut sigma2 = [0.0; B];
    for (sigma2, values) in sigma2.iter_mut().zip(values.chunks(256)) {
        *sigma2 = factor * fit::sum_of_squares(values) / 256.0;
    }
    of_blocks(sigma2)
}

/// Sums over the values of each lane, one after the other.
#[inline(always)]
pub(crate) fn sum<V: Lanes, const N: usize>(w: &[V; N]) -> V {
    let mut sum = V::all(0.0);
    for w in w {
        sum = sum + *w;
    }
    sum
}

/// Choose quants for scales and minima that have been rounded. A scale of 0 leaves them be.
#[inline(always)]
pub(crate) fn requantize<V: Lanes, const N: usize>(
    x: &[V; N],
    scale: V,
    min: V,
    range: (i32, i32),
    quants: &mut [V; N],
) {
    let none = scale.eq(V::all(0.0));
    for j in 0..N {
        let q = ((x[j] + min) / scale).nearest(range.0, range.1);
        quants[j] = V::select(none, quants[j], q);
    }
}

/// Two super-blocks of Q4_K or Q5_K (or one, if there are only 256 values): [`search::super_block`] with the same bits, or
/// with errors weighted by importances.
#[inline(always)]
pub(crate) fn super_blocks<V: Lanes>(
    values: &[f32],
    importance: Option<&[f32]>,
    plain: &Affine,
) -> [SuperBlock; 2] {
    let x: [V; 32] = gather(values);
    let nmax = plain.nmax;
    let (w, how) = match importance {
        None => {
            let mut squares = V::all(0.0);
            for x in &x {
                squares = squares + *x * *x;
            }
            let rms = (squares / V::all(32.0)).sqrt();
            let mut w = x;
            for w in &mut w {
                *w = rms + w.abs();
            }
            (w, *plain)
        }
        Some(importance) => {
            let sigma2 = mean_squares::<V, 2>(values, 2.0);
            (fit::weights(&x, &gather(importance), sigma2), weighted_candidates(nmax))
        }
    };
    let found = fit::affine(&x, &w, &how);
    let (fit_scale, fit_min, total) = (found.scale.get(), found.min.get(), sum(&w).get());
    let (mut scale, mut min) = ([0.0; LANES], [0.0; LANES]);
    let mut blocks = [SuperBlock::EMPTY; 2];
    for (b, block) in blocks.iter_mut().enumerate() {
        let eight = |v: &[f32; LANES]| -> [f32; 8] { std::array::from_fn(|s| v[8 * b + s]) };
        let (fit_scales, fit_mins) = (eight(&fit_scale), eight(&fit_min));
        let ((d, sc), (dmin, m)) = if importance.is_some() {
            let w = eight(&total);
            let (d, sc) = fit::positive(&fit_scales, &w, 63);
            let (dmin, m) = fit::positive(&fit_mins, &w, 63);
            ((F16Le::from_f32(d), sc), (F16Le::from_f32(dmin), m))
        } else {
            (search::positive_scales(&fit_scales, 63), search::positive_scales(&fit_mins, 63))
        };
        for s in 0..8 {
            scale[8 * b + s] = d.to_f32() * f32::from(sc[s]);
            min[8 * b + s] = dmin.to_f32() * f32::from(m[s]);
        }
        (block.d, block.dmin, block.scales) = (d, dmin, scales::pack(&sc, &m));
    }
    let mut quants = found.quants;
    requantize(&x, V::new(scale), V::new(min), (0, nmax), &mut quants);
    let quants = bytes(&quants);
    for (block, quants) in blocks.iter_mut().zip(quants.as_chunks::<8>().0) {
        block.quants.copy_from_slice(quants.as_flattened());
    }
    blocks
}

/// The quants of sixteen lanes as bytes, lane by lane.
#[inline(always)]
pub(crate) fn bytes<V: Lanes, const N: usize>(quants: &[V; N]) -> [[u8; N]; LANES] {
    let mut out = [[0; N]; LANES];
    for (j, quants) in quants.iter().enumerate() {
        let quants = quants.bytes();
        for s in 0..LANES {
            out[s][j] = quants[s];
        }
    }
    out
}

/// The weights of up to sixteen blocks of 32 of one row: importances with the mean square of the row.
#[inline(always)]
pub(crate) fn row_weights<V: Lanes>(x: &[V; 32], importance: &[f32], sigma2: f32) -> [V; 32] {
    fit::weights(x, &gather(importance), V::all(sigma2))
}

/// The mean square of a row.
#[inline(always)]
pub(crate) fn row_mean_square(values: &[f32]) -> f32 {
    fit::sum_of_squares(values) / values.len() as f32
}

/// [`requantize`] for `x' = scale * q` with `q` from `-nmax` to `nmax - 1`, kept as `q + nmax`.
#[inline(always)]
pub(crate) fn requantize_symmetric<V: Lanes, const N: usize>(
    x: &[V; N],
    scale: V,
    nmax: i32,
    quants: &mut [V; N],
) {
    let none = scale.eq(V::all(0.0));
    for j in 0..N {
        let q = (x[j] / scale).nearest(-nmax, nmax - 1) + V::all(nmax as f32);
        quants[j] = V::select(none, quants[j], q);
    }
}
