//! Gated activations: act(gate) * up.

use super::rows::Rows;
use super::{Planner, Result, Step};
use crate::cpu::isa::Isa;
use crate::cpu::math::exp;
use crate::graph::Activation;

pub(super) fn step(p: &Planner, act: Activation) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (gate, up, out) = (p.src(0)?, p.src(1)?, p.dst()?);
    let row = shape.row();
    let each = match act {
        Activation::Silu => of_isa::<false>(p.backend.isa()),
        Activation::GeluTanh => of_isa::<true>(p.backend.isa()),
    };
    Ok(Rows::step(row, shape.rows(), out, move |range, out, _| {
        let at = range.start * row..range.end * row;
        each(&gate.slice()[at.clone()], &up.slice()[at], out);
    }))
}

/// Compiled once for every width of vectors; the operations of a value are the same in all of them.
#[inline(always)]
fn glu<const GELU: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
        // tanh-GELU is x * sigmoid(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3).
        let z = if GELU { 1.595_769_2 * g * (1.0 + 0.044_715 * g * g) } else { g };
        *out = g / (1.0 + exp(-z)) * u;
    }
}

type Glu = fn(&[f32], &[f32], &mut [f32]);

#[cfg(target_arch = "x86_64")]
fn of_isa<const GELU: bool>(isa: Isa) -> Glu {
    #[target_feature(enable = "avx2")]
    fn avx2<const GELU: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        glu::<GELU>(gate, up, out);
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
    fn avx512<const GELU: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        glu::<GELU>(gate, up, out);
    }
    match isa {
        Isa::Avx512 | Isa::Avx512Vnni if isa.is_available() => {
            // SAFETY: the machine has the instruction set.
            |gate, up, out| unsafe { avx512::<GELU>(gate, up, out) }
        }
        Isa::Avx2 | Isa::AvxVnni if isa.is_available() => {
            // SAFETY: the machine has the instruction set.
            |gate, up, out| unsafe { avx2::<GELU>(gate, up, out) }
        }
        _ => glu::<GELU>,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn of_isa<const GELU: bool>(_: Isa) -> Glu {
    glu::<GELU>
}

#[cfg(test)]
mod tests {
    use super::of_isa;
    use crate::cpu::isa::Isa;

    /// In double precision, by the functions' own definitions.
    #[test]
    fn activations_are_what_they_are_called() {
        let gate: Vec<f32> = (-400..=400).map(|i| i as f32 / 20.0).collect();
        let up = vec![1.5; gate.len()];
        let (mut silu, mut gelu) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
        of_isa::<false>(Isa::Reference)(&gate, &up, &mut silu);
        of_isa::<true>(Isa::Reference)(&gate, &up, &mut gelu);
        for isa in Isa::all_available() {
            let mut same = vec![0.0; gate.len()];
            of_isa::<false>(isa)(&gate, &up, &mut same);
            assert_eq!(same, silu, "{isa}");
            of_isa::<true>(isa)(&gate, &up, &mut same);
            assert_eq!(same, gelu, "{isa}");
        }
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
