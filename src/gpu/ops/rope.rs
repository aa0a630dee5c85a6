//! Rotary embedding: the host computes the table of angles, in double precision; the device brings it to its place.

use super::{Dispatch, Planner, Query, Result, WG, kernel};
use crate::gpu::shader::Immediates;
use crate::graph::RopePairs;

pub(super) fn supports_table(q: &Query) -> Result<()> {
    if q.node().inputs.len() > 1 { q.vector(1) } else { Ok(()) }
}

pub(super) fn table(p: &Planner) -> Result<Vec<Dispatch>> {
    let from = p.inputs.angles(p.id).ok_or("its angles are not of the batch")?;
    let len = p.node().shape.len();
    let at = Immediates::default().u(from).u(p.dst()?).u(len);
    Ok(vec![Dispatch::new(kernel("copy_in"), at, len.div_ceil(WG))])
}

pub(super) fn turn(p: &Planner, pairs: RopePairs) -> Result<Vec<Dispatch>> {
    let shape = p.node().shape;
    let lib = match pairs {
        RopePairs::Adjacent => "rope_adjacent",
        RopePairs::Halves => "rope_halves",
    };
    let at = Immediates::default().u(p.src(0)?).u(p.src(1)?).u(p.dst()?);
    let at = at.u(shape.len()).u(shape.row()).u(shape.0[1]).u(p.shape(1)?.row());
    Ok(vec![Dispatch::new(kernel("rope").lib(lib), at, shape.len().div_ceil(WG))])
}
