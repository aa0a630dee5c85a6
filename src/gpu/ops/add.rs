//! `a + b`, or a bias added to every row.

use super::{Dispatch, Planner, Query, Result, WG, kernel};
use crate::gpu::shader::Immediates;
use crate::graph::Op;

pub(super) fn supports(q: &Query) -> Result<()> {
    let (a, b) = (q.input(0)?, q.input(1)?);
    match b.op {
        Op::Weight(_) => q.vector(1),
        _ if a.shape == b.shape => Ok(()),
        _ => Err("no kernel adds a computed row to many".into()),
    }
}

pub(super) fn dispatches(p: &Planner) -> Result<Vec<Dispatch>> {
    let shape = p.shape(0)?;
    let at = Immediates::default().u(p.src(0)?);
    let groups = shape.len().div_ceil(WG);
    let b = p.segment.graph.node(p.input(1)?);
    if !matches!(b.op, Op::Weight(_)) {
        let at = at.u(p.src(1)?).u(p.dst()?).u(shape.len());
        return Ok(vec![Dispatch::new(kernel("add"), at, groups)]);
    }
    let bias = p.vector(1)?;
    let at = at.u(bias.at as usize).u(p.dst()?).u(shape.len()).u(shape.row());
    Ok(vec![Dispatch { vectors: Some(bias.buffer), ..Dispatch::new(kernel("add_row"), at, groups) }])
}
