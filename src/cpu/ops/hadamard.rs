//! The normalised Walsh-Hadamard transform of each row.

use super::rows::Rows;
use super::{Planner, Result, Step};
use crate::cpu::vector::vector;

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (x, out, row) = (p.src(0)?, p.dst()?, shape.row());
    let vector = vector(p.backend.isa());
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        out.copy_from_slice(&x.slice()[range.start * row..range.end * row]);
        for row in out.chunks_exact_mut(row) {
            vector.hadamard(row);
        }
    }))
}
