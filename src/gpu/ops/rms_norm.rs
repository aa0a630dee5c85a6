//! x / sqrt(mean(x^2) + eps) * weight, row by row: a workgroup a row.

use super::{Dispatch, Planner, Query, Result, kernel};
use crate::gpu::shader::Immediates;

pub(super) fn supports(q: &Query) -> Result<()> {
    q.vector(1)
}

pub(super) fn dispatches(p: &Planner, eps: f32) -> Result<Vec<Dispatch>> {
    let shape = p.shape(0)?;
    let weight = p.vector(1)?;
    let at = Immediates::default().u(p.src(0)?).u(weight.at as usize).u(p.dst()?);
    let at = at.u(shape.rows()).u(shape.row()).f(eps);
    let dispatch = Dispatch::new(kernel("rms_norm"), at, shape.rows());
    Ok(vec![Dispatch { vectors: Some(weight.buffer), ..dispatch }])
}
