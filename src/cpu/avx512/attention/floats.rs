//! Keys as columns of floats, and sums of rows of floats.

use std::arch::x86_64::*;
use std::ops::Range;

use super::columns::{Square, transpose};
use super::rows::{AHEAD, Row, decode, prefetch, row};
use crate::cpu::attention::kernels::{BLOCK, COLUMNS, Keys, LANES, Packed, Rows, Values, width};
use crate::cpu::avx512::lanes::{load_f32, store_f32};

/// The values of a format.
pub(super) const fn values<R: Row>() -> Values {
    Values { decode: decode::<R>, add: Some(add_stored::<R>) }
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

/// Value `i` of row `r` goes to `out[i][r]`; rows are filled up with zeros to blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack<R: Row>(rows: &Rows, out: &mut Packed) {
    match rows.d {
        64 => pack_of::<R, 2>(rows, out),
        128 => pack_of::<R, 4>(rows, out),
        _ => pack_of::<R, 0>(rows, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack_of<R: Row, const BLOCKS: usize>(rows: &Rows, out: &mut Packed) {
    let blocks = if BLOCKS == 0 { rows.d.div_ceil(BLOCK) } else { BLOCKS };
    out.floats.reserve(blocks * BLOCK * COLUMNS);
    let out = &mut out.floats.floats_mut().as_chunks_mut::<COLUMNS>().0.as_chunks_mut::<BLOCK>().0[..blocks];
    // Rows past the last are zeros, or whatever was there before: nobody looks at their columns.
    let mut squares = [const { [Square::ZERO; 2] }; 4];
    for first in (0..rows.n).step_by(16) {
        let n = 16.min(rows.n - first);
        // Up to four blocks at a time.
        for (part, out) in out.chunks_mut(4).enumerate() {
            let here = if BLOCKS == 0 { out.len() } else { BLOCKS };
            for r in 0..n {
                let row = row::<R, BLOCKS>(rows, first + r);
                if part == 0 {
                    prefetch(row, rows.row_bytes * AHEAD);
                }
                for i in 0..here {
                    // SAFETY: the machine has the features of this function.
                    let [low, high] = unsafe { R::load(row, 4 * part + i) };
                    store_f32(&mut squares[i][0].0[r], low);
                    store_f32(&mut squares[i][1].0[r], high);
                }
            }
            for (squares, out) in squares.iter().zip(out) {
                let (to_low, to_high) = out.split_at_mut(16);
                transpose(&squares[0], to_low, first);
                transpose(&squares[1], to_high, first);
            }
        }
    }
}

/// A score is one sum over the values in their order.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scores(q: &Packed, queries: Range<usize>, d: usize, k: &Packed, columns: Range<usize>, out: &mut [f32]) {
    let k = &k.floats.floats().as_chunks::<COLUMNS>().0[..d];
    let q = &q.floats.floats()[queries.start * d..queries.end * d];
    let out = out.as_chunks_mut::<COLUMNS>().0;
    // Where all columns are wanted they pass together.
    let (from, to) = (columns.start / 16, columns.end.div_ceil(16));
    if to - from == 4 {
        all_scores::<4>(q, d, k, 0, out);
    } else {
        for c in from..to {
            all_scores::<1>(q, d, k, c, out);
        }
    }
}

/// The scores of all queries with `16 * C` columns from `16 * c` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn some_scores<const R: usize, const C: usize>(
    q: &[f32],
    d: usize,
    k: &[[f32; COLUMNS]],
    c: usize,
    out: &mut [[f32; COLUMNS]],
) {
    let q: [&[f32]; R] = std::array::from_fn(|r| &q[r * d..][..k.len()]);
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for (i, k) in k.iter().enumerate() {
        let k = &k.as_chunks::<LANES>().0[c..][..C];
        for r in 0..R {
            let x = _mm512_set1_ps(q[r][i]);
            for j in 0..C {
                sums[r][j] = _mm512_fmadd_ps(x, load_f32(&k[j]), sums[r][j]);
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn add(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    values: &[f32],
    width: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    let values = &values[range.start * width..range.end * width];
    for from in (0..width).step_by(4 * LANES) {
        match (width - from) / LANES {
            1 => all_sums::<1>(weights, range.clone(), values, width, from, factor, acc),
            2 => all_sums::<2>(weights, range.clone(), values, width, from, factor, acc),
            3 => all_sums::<3>(weights, range.clone(), values, width, from, factor, acc),
            _ => all_sums::<4>(weights, range.clone(), values, width, from, factor, acc),
        }
    }
}

/// The sums of all queries, `16 * C` of their values from `from` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for q in 0..R {
        let factor = _mm512_set1_ps(factor[q]);
        let acc = &acc[q * width + from..].as_chunks::<LANES>().0[..C];
        for j in 0..C {
            sums[q][j] = _mm512_mul_ps(load_f32(&acc[j]), factor);
        }
    }
    for i in 0..n {
        let row = &values[i * width + from..].as_chunks::<LANES>().0[..C];
        for q in 0..R {
            let w = _mm512_set1_ps(weights[q][i]);
            for j in 0..C {
                sums[q][j] = _mm512_fmadd_ps(w, load_f32(&row[j]), sums[q][j]);
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

/// As [`add`], for up to six queries and rows as they are stored: each row is decoded in registers, once for all queries.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn add_stored<V: Row>(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    rows: &Rows,
    factor: &[f32],
    acc: &mut [f32],
) {
    match weights.len() {
        1 => few_sums::<V, 1>(weights, range, rows, factor, acc),
        2 => few_sums::<V, 2>(weights, range, rows, factor, acc),
        3 => few_sums::<V, 3>(weights, range, rows, factor, acc),
        4 => few_sums::<V, 4>(weights, range, rows, factor, acc),
        5 => few_sums::<V, 5>(weights, range, rows, factor, acc),
        6 => few_sums::<V, 6>(weights, range, rows, factor, acc),
        _ => {}
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn few_sums<V: Row, const R: usize>(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    rows: &Rows,
    factor: &[f32],
    acc: &mut [f32],
) {
    let width = width(rows.d);
    for from in (0..width).step_by(64) {
        match (rows.d, width - from) {
            (64, _) => few_sums_of::<V, R, 4, 2>(weights, range.clone(), rows, from, factor, acc),
            (128, _) => few_sums_of::<V, R, 4, 4>(weights, range.clone(), rows, from, factor, acc),
            (_, 16) => few_sums_of::<V, R, 1, 0>(weights, range.clone(), rows, from, factor, acc),
            (_, 32) => few_sums_of::<V, R, 2, 0>(weights, range.clone(), rows, from, factor, acc),
            (_, 48) => few_sums_of::<V, R, 3, 0>(weights, range.clone(), rows, from, factor, acc),
            _ => few_sums_of::<V, R, 4, 0>(weights, range.clone(), rows, from, factor, acc),
        }
    }
}

/// `16 * C` values from `from` on, a multiple of 64, of the sums of `R` queries; a row has `BLOCKS` blocks, if that is not 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn few_sums_of<V: Row, const R: usize, const C: usize, const BLOCKS: usize>(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    rows: &Rows,
    from: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    let width = width(rows.d);
    let n = range.len();
    let weights: [&[f32]; R] = std::array::from_fn(|q| &weights[q][range.start..][..n]);
    let acc = &mut acc[..R * width];
    // Loops over indices: what is lent out as a slice would not stay in registers.
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for q in 0..R {
        let factor = _mm512_set1_ps(factor[q]);
        let acc = &acc[q * width + from..].as_chunks::<LANES>().0[..C];
        for j in 0..C {
            sums[q][j] = _mm512_mul_ps(load_f32(&acc[j]), factor);
        }
    }
    for i in 0..n {
        let row = row::<V, BLOCKS>(rows, range.start + i);
        if from == 0 {
            prefetch(row, rows.row_bytes * AHEAD);
        }
        let mut x = [_mm512_setzero_ps(); C];
        for j in 0..C.div_ceil(2) {
            // SAFETY: the machine has the features of this function.
            let [low, high] = unsafe { V::load(row, from / BLOCK + j) };
            x[2 * j] = low;
            if 2 * j + 1 < C {
                x[2 * j + 1] = high;
            }
        }
        for q in 0..R {
            let w = _mm512_set1_ps(weights[q][i]);
            for j in 0..C {
                sums[q][j] = _mm512_fmadd_ps(w, x[j], sums[q][j]);
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
