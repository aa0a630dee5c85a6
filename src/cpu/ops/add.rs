//! `a + b`, or a bias added to every row.

use super::rows::Rows;
use super::{Planner, Result, Step};

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let (row, rows) = (p.shape(0)?.row(), p.shape(0)?.rows());
    let (a, out) = (p.src(0)?, p.dst()?);
    if p.is_weight(1) {
        let bias = p.vector(1)?;
        return Ok(Rows::step(row, rows, out, move |range, out, _| {
            let a = &a.slice::<f32>()[range.start * row..range.end * row];
            for (out, a) in out.chunks_exact_mut(row).zip(a.chunks_exact(row)) {
                for ((out, a), b) in out.iter_mut().zip(a).zip(&bias) {
                    *out = a + b;
                }
            }
        }));
    }
    let b = p.src(1)?;
    if p.shape(1)? != p.shape(0)? {
        return Err("adds a computed row to many, which nothing needs yet".into());
    }
    Ok(Rows::step(row, rows, out, move |range, out, _| {
        let at = range.start * row..range.end * row;
        for ((out, a), b) in out.iter_mut().zip(&a.slice::<f32>()[at.clone()]).zip(&b.slice::<f32>()[at]) {
            *out = a + b;
        }
    }))
}
