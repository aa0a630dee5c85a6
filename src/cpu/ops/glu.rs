//! Gated activations: act(gate) * up.

use super::rows::Rows;
use super::{Planner, Result, Step};
use crate::cpu::math::exp;
use crate::graph::Activation;

pub(super) fn step(p: &Planner, act: Activation) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (gate, up, out) = (p.src(0)?, p.src(1)?, p.dst()?);
    let row = shape.row();
    let each = match act {
        Activation::Silu => glu::<false>,
        Activation::GeluTanh => glu::<true>,
    };
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        let at = range.start * row..range.end * row;
        each(&gate.slice()[at.clone()], &up.slice()[at], out);
    }))
}

fn glu<const GELU: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
        // tanh-GELU is x * sigmoid(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3).
        let z = if GELU { 1.595_769_2 * g * (1.0 + 0.044_715 * g * g) } else { g };
        *out = g / (1.0 + exp(-z)) * u;
    }
}
