//! The weighted sum over a token's slots: what its experts give, by the router's weights.

use super::rows::Rows;
use super::{Planner, Result, Step, row};

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (m, used) = (shape.row(), p.shape(1)?.row());
    let (x, weights, out) = (p.src(0)?, p.src(1)?, p.dst()?);
    Ok(Rows::step(m, shape.rows(), out, move |range, out, _| {
        for (t, out) in range.zip(out.chunks_exact_mut(m)) {
            out.fill(0.0);
            for (s, w) in row(weights.slice::<f32>(), used, t).iter().enumerate() {
                for (out, x) in out.iter_mut().zip(row(x.slice::<f32>(), m, t * used + s)) {
                    *out += w * x;
                }
            }
        }
    }))
}
