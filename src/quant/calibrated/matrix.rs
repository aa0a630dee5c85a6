//! One matrix: its channels scaled, its values rounded by what meets it.

use std::collections::HashMap;

use super::cholesky;
use super::compensate::{self, Metric};
use super::layers::Settings;
use super::moments::Moments;
use crate::quant::{Planned, QuantError};

/// Scales of tensors by name.
#[derive(Default)]
pub(super) struct Scales {
    /// Columns are multiplied by these.
    pub(super) columns: HashMap<String, Vec<f32>>,
    /// Rows (or the values of a vector) are divided by these.
    pub(super) rows: HashMap<String, Vec<f32>>,
}

/// Multiply columns, divide rows.
pub(super) fn scale(values: &mut [f32], row: usize, columns: Option<&Vec<f32>>, rows: Option<&Vec<f32>>) {
    if let Some(columns) = columns {
        values.chunks_exact_mut(row).for_each(|w| w.iter_mut().zip(columns).for_each(|(w, s)| *w *= s));
    }
    if let Some(rows) = rows {
        // A vector's values are rows of their own.
        let row = if values.len() == rows.len() { 1 } else { row };
        values.chunks_exact_mut(row).zip(rows).for_each(|(w, s)| w.iter_mut().for_each(|w| *w /= s));
    }
}

/// The inverse of [`scale`].
pub(super) fn unscale(values: &mut [f32], row: usize, columns: Option<&Vec<f32>>, rows: Option<&Vec<f32>>) {
    let inverse = |s: Option<&Vec<f32>>| s.map(|s| s.iter().map(|s| 1.0 / s).collect::<Vec<f32>>());
    scale(values, row, inverse(columns).as_ref(), inverse(rows).as_ref());
}

/// Round a matrix whose input has these moments; what its output loses, and what it is in all.
pub(super) fn round_matrix(
    t: &Planned,
    values: &mut [f32],
    m: &Moments,
    settings: &Settings,
    factors: &mut HashMap<usize, (f32, Vec<f32>)>,
    expert: usize,
    out: &mut [u8],
) -> Result<(f64, f64), QuantError> {
    let diagonal = m.diagonal();
    let n = m.columns;
    let whole = quadratic(values, m);
    let metric = settings.compensate && t.to.info().integers.is_some();
    if !metric || diagonal.iter().all(|d| *d == 0.0) {
        let silent = diagonal.iter().all(|d| *d == 0.0);
        (t.to.info().quantize)(values, (!silent).then_some(diagonal.as_slice()), out);
        let mut difference = vec![0.0f32; values.len()];
        (t.to.info().decode)(out, &mut difference);
        difference.iter_mut().zip(&*values).for_each(|(q, w)| *q = w - *q);
        return Ok((quadratic(&difference, m), whole));
    }
    let (ridge, u) = match factors.remove(&expert) {
        Some(found) => found,
        None => factor(t, m, &diagonal, settings)?,
    };
    if let Some(cross) = &m.cross {
        compensate::redirect(values, n, cross, &u);
    }
    let singular = || QuantError::Singular { tensor: t.name.clone(), why: "a group of its columns".into() };
    let metric = Metric::new(t.to, &m.second, u, n, ridge, settings.effort).ok_or_else(singular)?;
    let lost = metric.round(values, out);
    // Experts' inputs are not shared.
    if t.shape.len() < 3 {
        factors.insert(expert, (ridge, metric.into_factor()));
    }
    Ok((lost, whole))
}

/// The factor of the damped inverse, with more damping where the first does not do.
fn factor(
    t: &Planned,
    m: &Moments,
    diagonal: &[f32],
    settings: &Settings,
) -> Result<(f32, Vec<f32>), QuantError> {
    let mean = diagonal.iter().map(|d| f64::from(*d)).sum::<f64>() / diagonal.len().max(1) as f64;
    let mut ridge = settings.effort.damping * mean as f32;
    for _ in 0..3 {
        if let Some(u) = cholesky::inverse_factor(&m.second, m.columns, ridge) {
            return Ok((ridge, u));
        }
        ridge = (ridge * 10.0).max(1e-6 * mean as f32);
        tracing::warn!(
            "tensor {}: what meets it in {} activations does not tell its {} columns apart; damping {:.3e} of the mean",
            t.name,
            m.count,
            m.columns,
            f64::from(ridge) / mean
        );
    }
    let why = format!("the moments of {} activations of {} columns", m.count, m.columns);
    Err(QuantError::Singular { tensor: t.name.clone(), why })
}

/// `sum_r w_r^T H w_r`.
fn quadratic(rows: &[f32], m: &Moments) -> f64 {
    use rayon::prelude::*;
    let n = m.columns.max(1);
    let parts: Vec<f64> = rows
        .par_chunks(n)
        .map(|w| {
            let product = m.second.chunks_exact(n).zip(w);
            product.map(|(h, w_c)| f64::from(*w_c) * f64::from(super::vector::dot(h, w))).sum()
        })
        .collect();
    parts.iter().sum()
}
