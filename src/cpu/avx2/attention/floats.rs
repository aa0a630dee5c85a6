//! Keys as columns of floats, and sums of rows of floats.

use std::arch::x86_64::*;
use std::ops::Range;

use super::columns::transpose;
use super::rows::{Row, decode, prefetch};
use crate::cpu::attention::kernels::{BLOCK, COLUMNS, Keys, Packed, Rows, Values};
use crate::cpu::avx2::lanes::{load_f32, store_f32};

/// Floats of a vector.
const LANES: usize = 8;

/// The values of a format.
pub(super) const fn values<R: Row>() -> Values {
    Values { decode: decode::<R>, add: None }
}

/// The keys of a format.
pub(super) const fn keys<R: Row>() -> Keys {
    Keys { queries, pack: pack::<R>, scores }
}

/// As they are.
fn queries(q: &[f32], _: usize, out: &mut Packed) {
    out.floats.reserve(q.len());
    out.floats.floats_mut()[..q.len()].copy_from_slice(q);
}

/// Value `i` of row `r` goes to `out[i][r]`; rows are filled up with zeros to blocks, columns to eights.
#[target_feature(enable = "avx2,fma,f16c")]
fn pack<R: Row>(rows: &Rows, out: &mut Packed) {
    let blocks = rows.d.div_ceil(BLOCK);
    out.floats.reserve(blocks * BLOCK * COLUMNS);
    let out = out.floats.floats_mut().as_chunks_mut::<COLUMNS>().0;
    for first in (0..rows.n).step_by(8) {
        let n = 8.min(rows.n - first);
        for (i, out) in out.as_chunks_mut::<BLOCK>().0[..blocks].iter_mut().enumerate() {
            let mut values = [[_mm256_setzero_ps(); 8]; 4];
            for r in 0..n {
                if i == 0 {
                    prefetch(rows.row(first + r), rows.row_bytes * COLUMNS);
                }
                // SAFETY: the machine has the features of this function.
                let row = unsafe { R::load(rows.row(first + r), i) };
                for (values, x) in values.iter_mut().zip(row) {
                    values[r] = x;
                }
            }
            for (values, out) in values.iter().zip(out.as_chunks_mut::<8>().0) {
                transpose(*values, out, first);
            }
        }
    }
}

/// A score is one sum over the values in their order.
#[target_feature(enable = "avx2,fma,f16c")]
fn scores(q: &Packed, queries: Range<usize>, d: usize, k: &Packed, columns: Range<usize>, out: &mut [f32]) {
    let k = &k.floats.floats().as_chunks::<COLUMNS>().0[..d];
    let q = &q.floats.floats()[queries.start * d..queries.end * d];
    let out = out.as_chunks_mut::<COLUMNS>().0;
    for c in (columns.start / 16..columns.end.div_ceil(16)).map(|c| 2 * c) {
        all_scores::<2>(q, d, k, c, out);
    }
}

/// The scores of all queries with `8 * C` columns from `8 * c` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn all_scores<const C: usize>(
    q: &[f32],
    d: usize,
    k: &[[f32; COLUMNS]],
    c: usize,
    out: &mut [[f32; COLUMNS]],
) {
    let (sixes, rest) = out.as_chunks_mut::<6>();
    let (q_sixes, q_rest) = q.split_at(sixes.len() * 6 * d);
    for (q, out) in q_sixes.chunks_exact(6 * d).zip(sixes) {
        some_scores::<6, C>(q, d, k, c, out);
    }
    match rest.len() {
        1 => some_scores::<1, C>(q_rest, d, k, c, rest),
        2 => some_scores::<2, C>(q_rest, d, k, c, rest),
        3 => some_scores::<3, C>(q_rest, d, k, c, rest),
        4 => some_scores::<4, C>(q_rest, d, k, c, rest),
        5 => some_scores::<5, C>(q_rest, d, k, c, rest),
        _ => {}
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_scores<const R: usize, const C: usize>(
    q: &[f32],
    d: usize,
    k: &[[f32; COLUMNS]],
    c: usize,
    out: &mut [[f32; COLUMNS]],
) {
    let q: [&[f32]; R] = std::array::from_fn(|r| &q[r * d..][..k.len()]);
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    for (i, k) in k.iter().enumerate() {
        let k = &k.as_chunks::<LANES>().0[c..][..C];
        for r in 0..R {
            let x = _mm256_set1_ps(q[r][i]);
            for j in 0..C {
                sums[r][j] = _mm256_fmadd_ps(x, load_f32(&k[j]), sums[r][j]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<LANES>().0[c..].iter_mut().zip(sums) {
            store_f32(out, sum);
        }
    }
}

/// `acc = acc * factor + sum(weights[r] * values[r])`: each sum in the order of the rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    values: &[f32],
    width: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    let values = &values[range.start * width..range.end * width];
    for from in (0..width).step_by(2 * LANES) {
        all_sums::<2>(weights, range.clone(), values, width, from, factor, acc);
    }
}

/// The sums of all queries, `8 * C` of their values from `from` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn all_sums<const C: usize>(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    values: &[f32],
    width: usize,
    from: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    let (sixes, rest) = weights.as_chunks::<6>();
    let (factor_sixes, factor_rest) = factor.split_at(sixes.len() * 6);
    let (acc_sixes, acc_rest) = acc.split_at_mut(sixes.len() * 6 * width);
    let factors = factor_sixes.chunks_exact(6);
    for ((weights, factor), acc) in sixes.iter().zip(factors).zip(acc_sixes.chunks_exact_mut(6 * width)) {
        some_sums::<6, C>(weights, range.clone(), values, width, from, factor, acc);
    }
    match rest.len() {
        1 => some_sums::<1, C>(rest, range, values, width, from, factor_rest, acc_rest),
        2 => some_sums::<2, C>(rest, range, values, width, from, factor_rest, acc_rest),
        3 => some_sums::<3, C>(rest, range, values, width, from, factor_rest, acc_rest),
        4 => some_sums::<4, C>(rest, range, values, width, from, factor_rest, acc_rest),
        5 => some_sums::<5, C>(rest, range, values, width, from, factor_rest, acc_rest),
        _ => {}
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_sums<const R: usize, const C: usize>(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    values: &[f32],
    width: usize,
    from: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    let n = range.len();
    let weights: [&[f32]; R] = std::array::from_fn(|q| &weights[q][range.start..][..n]);
    let acc = &mut acc[..R * width];
    // Loops over indices: what is lent out as a slice would not stay in registers.
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    for q in 0..R {
        let factor = _mm256_set1_ps(factor[q]);
        let acc = &acc[q * width + from..].as_chunks::<LANES>().0[..C];
        for j in 0..C {
            sums[q][j] = _mm256_mul_ps(load_f32(&acc[j]), factor);
        }
    }
    for i in 0..n {
        let row = &values[i * width + from..].as_chunks::<LANES>().0[..C];
        for q in 0..R {
            let w = _mm256_set1_ps(weights[q][i]);
            for j in 0..C {
                sums[q][j] = _mm256_fmadd_ps(w, load_f32(&row[j]), sums[q][j]);
            }
        }
    }
    for q in 0..R {
        let acc = &mut acc[q * width + from..].as_chunks_mut::<LANES>().0[..C];
        for j in 0..C {
            store_f32(&mut acc[j], sums[q][j]);
        }
    }
}
