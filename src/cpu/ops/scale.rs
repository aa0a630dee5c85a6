//! x by a constant.

use super::rows::Rows;
use super::{Planner, Result, Step};

pub(super) fn step(p: &Planner, factor: f32) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (x, out, row) = (p.src(0)?, p.dst()?, shape.row());
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        for (out, x) in out.iter_mut().zip(&x.slice::<f32>()[range.start * row..range.end * row]) {
            *out = x * factor;
        }
    }))
}
