//! Values of each row at indices.

use super::rows::Rows;
use super::{Planner, Result, Step, row};

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (used, from) = (shape.row(), p.shape(0)?.row());
    let (x, ids, out) = (p.src(0)?, p.ids(1)?, p.dst()?);
    Ok(Rows::step(used, shape.rows(), out, move |range, out, inputs| {
        let ids = ids.get(inputs);
        for (r, out) in range.zip(out.chunks_exact_mut(used)) {
            let x = row(x.slice::<f32>(), from, r);
            for (out, id) in out.iter_mut().zip(row(ids, used, r)) {
                *out = x[*id as usize];
            }
        }
    }))
}
