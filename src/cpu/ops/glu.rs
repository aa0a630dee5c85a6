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

#[cfg(test)]
mod tests {
    use super::glu;

    /// In double precision, by the functions' own definitions.
    #[test]
    fn activations_are_what_they_are_called() {
        let gate: Vec<f32> = (-400..=400).map(|i| i as f32 / 20.0).collect();
        let up = vec![1.5; gate.len()];
        let (mut silu, mut gelu) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
        glu::<false>(&gate, &up, &mut silu);
        glu::<true>(&gate, &up, &mut gelu);
        for (i, x) in gate.iter().map(|x| f64::from(*x)).enumerate() {
            let want_silu = 1.5 * x / (1.0 + (-x).exp());
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            let want_gelu = 1.5 * 0.5 * x * (1.0 + inner.tanh());
            for (got, want) in [(silu[i], want_silu), (gelu[i], want_gelu)] {
                assert!(
                    (f64::from(got) - want).abs() <= 1e-6 * (1.0 + want.abs()),
                    "{x}: {got}, want {want}"
                );
            }
        }
    }
}
