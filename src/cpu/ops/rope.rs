//! Rotary embedding: the table of angles once a batch, then every head of q and k by it.

use std::f64::consts::PI;

use super::rows::Rows;
use super::{Planner, Result, Step, row};
use crate::graph::{RopePairs, RopeParams};

/// The inverse wavelength of every pair and the factor on cosine and sine, by ggml's definition of
/// RoPE with linear scaling and YaRN; `factors` divide the frequencies (Llama 3).
pub(crate) fn frequencies(p: &RopeParams, factors: Option<&[f32]>) -> (Vec<f64>, f64) {
    let base = f64::from(p.freq_base);
    // The pair whose wave turns `beta` times over the original context.
    let corrected = |beta: f32| {
        let turns = f64::from(p.n_ctx_orig) / (f64::from(beta) * 2.0 * PI);
        p.n_rot as f64 * turns.ln() / (2.0 * base.ln())
    };
    let low = corrected(p.beta_fast).floor().max(0.0);
    let high = corrected(p.beta_slow).ceil().min(p.n_rot as f64 - 1.0);
    let yarn = p.ext_factor != 0.0;
    let of_pair = |i: usize| {
        let freq = base.powf(-2.0 * i as f64 / p.n_rot as f64);
        let freq = freq / factors.map_or(1.0, |f| f64::from(f[i]));
        let stretched = freq * f64::from(p.freq_scale);
        if !yarn {
            return stretched;
        }
        let ramp = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        let mix = ramp * f64::from(p.ext_factor);
        stretched * (1.0 - mix) + freq * mix
    };
    let mut magnitude = f64::from(p.attn_factor);
    if yarn {
        magnitude *= 1.0 + 0.1 * (1.0 / f64::from(p.freq_scale)).ln();
    }
    ((0..p.n_rot / 2).map(of_pair).collect(), magnitude)
}

/// Cosine and sine of every pair's angle at the positions of the batch.
pub(super) fn table(p: &Planner, params: &RopeParams) -> Result<Box<dyn Step>> {
    let factors = if p.node().inputs.len() > 1 { Some(p.vector(1)?) } else { None };
    let (freqs, magnitude) = frequencies(params, factors.as_deref());
    let (positions, out) = (p.ids(0)?, p.dst()?);
    let shape = p.node().shape;
    let row = shape.row();
    Ok(Rows::step(row, shape.rows(), out, move |range, out, inputs| {
        let positions = &positions.get(inputs)[range];
        for (out, &position) in out.chunks_exact_mut(row).zip(positions) {
            for (pair, freq) in out.as_chunks_mut::<2>().0.iter_mut().zip(&freqs) {
                // In double precision: at position 100,000 a float's angle is off by a degree.
                let (sin, cos) = (f64::from(position) * freq).sin_cos();
                *pair = [(cos * magnitude) as f32, (sin * magnitude) as f32];
            }
        }
    }))
}

/// Turn the first values of every head.
pub(super) fn turn(p: &Planner, pairs: RopePairs) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (d, heads) = (shape.row(), shape.0[1]);
    let n_rot = p.shape(1)?.row();
    let (x, table, out) = (p.src(0)?, p.src(1)?, p.dst()?);
    Ok(Rows::step(d, shape.rows(), out, move |range, out, _| {
        for (r, out) in range.zip(out.chunks_exact_mut(d)) {
            let x = row(x.slice::<f32>(), d, r);
            let table = row(table.slice::<f32>(), n_rot, r / heads).as_chunks::<2>().0;
            out.copy_from_slice(x);
            match pairs {
                RopePairs::Adjacent => {
                    for (pair, [cos, sin]) in out.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                        let [a, b] = *pair;
                        *pair = [a * cos - b * sin, a * sin + b * cos];
                    }
                }
                RopePairs::Halves => {
                    let (first, second) = out[..n_rot].split_at_mut(n_rot / 2);
                    for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(table) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
            }
        }
    }))
}
