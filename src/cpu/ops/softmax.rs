//! Rows that sum to one: softmax, and plain division by the sum.

use super::rows::Rows;
use super::{Planner, Result, Step};

/// exp(x - max) / sum.
pub(super) fn softmax(p: &Planner) -> Result<Box<dyn Step>> {
    each_row(p, |row| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in row.iter_mut() {
            *x = (*x - max).exp();
        }
        sum_to_one_row(row);
    })
}

/// x / sum.
pub(super) fn sum_to_one(p: &Planner) -> Result<Box<dyn Step>> {
    each_row(p, sum_to_one_row)
}

fn sum_to_one_row(row: &mut [f32]) {
    let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
    let scale = (1.0 / sum) as f32;
    for x in row {
        *x *= scale;
    }
}

fn each_row(p: &Planner, f: fn(&mut [f32])) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (x, out, row) = (p.src(0)?, p.dst()?, shape.row());
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        out.copy_from_slice(&x.slice()[range.start * row..range.end * row]);
        out.chunks_exact_mut(row).for_each(f);
    }))
}
