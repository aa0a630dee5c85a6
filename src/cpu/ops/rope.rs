//! Rotary embedding: the table of angles once a batch, then every head of q and k by it.

use super::rows::Rows;
use super::{Planner, Result, Step, row};
use crate::graph::{RopePairs, RopeParams};

/// Cosine and sine of every pair's angle at the positions of the batch.
pub(super) fn table(p: &Planner, params: &RopeParams) -> Result<Box<dyn Step>> {
    let factors = if p.node().inputs.len() > 1 { Some(p.vector(1)?) } else { None };
    let (freqs, magnitude) = params.frequencies(factors.as_deref());
    let (positions, out) = (p.ids(0)?, p.dst()?);
    let shape = p.node().shape;
    let row = shape.row();
    Ok(Rows::step(row, shape.rows(), out, move |range, out, inputs| {
        let positions = &positions.get(inputs)[range];
        for (out, &position) in out.chunks_exact_mut(row).zip(positions) {
            for (pair, freq) in out.as_chunks_mut::<2>().0.iter_mut().zip(&freqs) {
                // In double precision: floats near 100,000 are 0.0078 radians apart, almost half a degree.
                let (sin, cos) = (f64::from(position) * freq).sin_cos();
                *pair = [(cos * magnitude) as f32, (sin * magnitude) as f32];
            }
        }
    }))
}

/// Turn the first values of every head.
pub(super) fn turn(p: &Planner, pairs: RopePairs) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (d, heads) = (shape.row(), shape.0[1]);
    let n_rot = p.shape(1)?.row();
    let (x, table, out) = (p.src(0)?, p.src(1)?, p.dst()?);
    Ok(Rows::step(d, shape.rows(), out, move |range, out, _| {
        for (r, out) in range.zip(out.chunks_exact_mut(d)) {
            let x = row(x.slice::<f32>(), d, r);
            let table = row(table.slice::<f32>(), n_rot, r / heads).as_chunks::<2>().0;
            out.copy_from_slice(x);
            match pairs {
                RopePairs::Adjacent => {
                    for (pair, [cos, sin]) in out.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                        let [a, b] = *pair;
                        *pair = [a * cos - b * sin, a * sin + b * cos];
                    }
                }
                RopePairs::Halves => {
                    let (first, second) = out[..n_rot].split_at_mut(n_rot / 2);
                    for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(table) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
            }
        }
    }))
}
