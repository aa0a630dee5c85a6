//! Attention, written to be read.

use std::ops::Range;

use crate::cpu::attention::kernels::{COLUMNS, Kernels, Keys, Packed, Rows, Softmax, Values, width};
use crate::cpu::math::exp;

/// What the table holds.
pub(super) static KERNELS: Kernels = Kernels {
    keys: |_| &Keys { queries, pack, scores },
    values: |_| &Values { decode, add: None },
    weigh,
    add,
};

/// As they are.
fn queries(q: &[f32], _: usize, out: &mut Packed) {
    out.floats.reserve(q.len());
    out.floats.floats_mut()[..q.len()].copy_from_slice(q);
}

/// Value `i` of row `r` goes to `out[i][r]`.
fn pack(rows: &Rows, out: &mut Packed) {
    out.floats.reserve(rows.d * COLUMNS);
    let columns = out.floats.floats_mut().as_chunks_mut::<COLUMNS>().0;
    let mut row = vec![0.0; rows.d];
    for r in 0..rows.n {
        rows.format.decode_row(rows.row(r), &mut row);
        for (column, x) in columns.iter_mut().zip(&row) {
            column[r] = *x;
        }
    }
}

/// A score is one sum, over the values in their order.
fn scores(q: &Packed, queries: Range<usize>, d: usize, k: &Packed, columns: Range<usize>, out: &mut [f32]) {
    let k = k.floats.floats().as_chunks::<COLUMNS>().0;
    for (query, out) in queries.zip(out.chunks_exact_mut(COLUMNS)) {
        let out = &mut out[columns.clone()];
        out.fill(0.0);
        for (x, k) in q.floats.floats()[query * d..][..d].iter().zip(k) {
            for (sum, k) in out.iter_mut().zip(&k[columns.clone()]) {
                *sum += x * k;
            }
        }
    }
}

fn decode(rows: &Rows, out: &mut [f32]) {
    for (r, out) in out.chunks_exact_mut(width(rows.d)).take(rows.n).enumerate() {
        rows.format.decode_row(rows.row(r), &mut out[..rows.d]);
    }
}

fn weigh(
    scores: &mut [[f32; COLUMNS]],
    range: Range<usize>,
    scale: f32,
    softcap: Option<f32>,
    softmax: &mut Softmax,
) {
    for (query, scores) in scores.iter_mut().enumerate() {
        let scores = &mut scores[range.clone()];
        for s in scores.iter_mut() {
            *s *= scale;
            if let Some(cap) = softcap {
                *s = cap * (*s / cap).tanh();
            }
        }
        // A comparison passes over NaN; the exponential does not.
        let max = scores.iter().fold(softmax.max[query], |max, &s| if s > max { s } else { max });
        softmax.raise(query, max);
        for s in scores.iter_mut() {
            *s = exp(*s - max);
        }
        softmax.add(query, scores.iter().sum());
    }
}

fn add(
    weights: &[[f32; COLUMNS]],
    range: Range<usize>,
    values: &[f32],
    width: usize,
    factor: &[f32],
    acc: &mut [f32],
) {
    for ((weights, factor), acc) in weights.iter().zip(factor).zip(acc.chunks_exact_mut(width)) {
        for sum in acc.iter_mut() {
            *sum *= factor;
        }
        for r in range.clone() {
            for (sum, x) in acc.iter_mut().zip(&values[r * width..][..width]) {
                *sum += weights[r] * x;
            }
        }
    }
}
