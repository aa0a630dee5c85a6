//! x / sqrt(mean(x^2) + eps) * weight, row by row.

use super::rows::Rows;
use super::{Planner, Result, Step};

pub(super) fn step(p: &Planner, eps: f32) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (x, weight, out, row) = (p.src(0)?, p.vector(1)?, p.dst()?, shape.row());
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        let x = &x.slice::<f32>()[range.start * row..range.end * row];
        for (out, x) in out.chunks_exact_mut(row).zip(x.chunks_exact(row)) {
            let scale = 1.0 / (sum_of_squares(x) / row as f64 + f64::from(eps)).sqrt() as f32;
            for ((out, x), w) in out.iter_mut().zip(x).zip(&weight) {
                *out = x * scale * w;
            }
        }
    }))
}

/// In double precision as ggml's, in eight lanes so that it vectorizes.
fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x * x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(x * x)).sum::<f64>()
}
