//! Rows of a weight (decoded) or of a computed matrix, by number.

use super::rows::Rows;
use super::{Planner, Result, Step, row};

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (k, ids, out) = (shape.row(), p.ids(1)?, p.dst()?);
    if p.is_weight(0) {
        let table = p.weight(0)?;
        let (bytes, decode) = (table.row_bytes(), table.format.info().decode);
        return Ok(Rows::step(k, shape.rows(), out, move |range, out, inputs| {
            let ids = &ids.get(inputs)[range];
            for (out, id) in out.chunks_exact_mut(k).zip(ids) {
                decode(row(table.src.slice(), bytes, *id as usize), out);
            }
        }));
    }
    let table = p.src(0)?;
    Ok(Rows::step(k, shape.rows(), out, move |range, out, inputs| {
        let ids = &ids.get(inputs)[range];
        for (out, id) in out.chunks_exact_mut(k).zip(ids) {
            out.copy_from_slice(row(table.slice::<f32>(), k, *id as usize));
        }
    }))
}
