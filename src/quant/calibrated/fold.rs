//! Scales of channels, folded into what comes before a matrix product.
//!
//! For any positive scales `s_c`, `W x = (W diag(s)) (x / s)`: the product stays the same, but both factors change, and so does
//! what is lost when they are rounded. `x / s` costs nothing at run time where `x` is a norm's output (its weights are divided
//! by `s`), or a matrix product's (its rows and bias are), so the file stays an ordinary one:
//!
//! | matrices that share `x` | `x` comes from |
//! |---|---|
//! | `attn_q`, `attn_k`, `attn_v` | `attn_norm` |
//! | `attn_output` | rows of `attn_v`: each belongs to the columns of all query heads that share its key-value head |
//! | `ffn_gate`, `ffn_up` (and a router and its experts) | `ffn_norm` |
//! | `ffn_down` | rows of `ffn_up`, by which the activated gate is multiplied |
//!
//! **Smoothing** (SmoothQuant, Xiao et al., arXiv 2211.10438) evens out activations, which the kernels round to 8 bits with
//! one scale for 32 or 256 channels, at the cost of the weights: `s_c = max|x_c|^alpha / max_r |W_rc|^(1 - alpha)`.
//!
//! **Activation-aware scaling** (AWQ, Lin et al., arXiv 2306.00978) evens out what rounding the weights costs:
//! `s_c = (E[x_c^2]^(1/2))^beta`, `beta` from a grid of 0 to 1, chosen for the least error of the output,
//! `sum_r (w_r - q_r / s)^T H (w_r - q_r / s)`. (The paper takes the mean magnitude instead of the root of the mean square.)
//! Scales are divided by their geometric mean: a common factor means nothing.

use chaski_gguf::Format;

use super::moments::Moments;
use super::vector;

/// Architectures whose layers are built as the table says.
pub(super) const FOLDABLE: &[&str] = &["llama", "qwen2", "qwen3", "qwen3moe"];

/// Where the input of a group of matrices comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The weights of a norm.
    Norm(&'static str),
    /// The rows of a matrix (and its bias).
    Rows(&'static str),
}

/// Matrices that share their input.
pub(super) struct Group {
    pub(super) members: &'static [&'static str],
    pub(super) source: Source,
}

/// The groups of a layer, by the names of tensors without layer and `.weight`.
pub(super) const GROUPS: &[Group] = &[
    Group { members: &["attn_q", "attn_k", "attn_v"], source: Source::Norm("attn_norm") },
    Group { members: &["attn_output"], source: Source::Rows("attn_v") },
    Group {
        members: &["ffn_gate", "ffn_up", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps"],
        source: Source::Norm("ffn_norm"),
    },
    Group { members: &["ffn_down"], source: Source::Rows("ffn_up") },
];

/// Exponents of the grid.
const GRID: usize = 20;

/// Scales without a common factor. What is not finite or not positive becomes 1.
fn normal(mut scales: Vec<f32>) -> Vec<f32> {
    let mean = scales.iter().filter(|s| s.is_finite() && **s > 0.0).map(|s| f64::from(s.ln())).sum::<f64>()
        / scales.len().max(1) as f64;
    let mean = mean.exp() as f32;
    for s in &mut scales {
        let scaled = *s / mean;
        // Beyond this binary16 norms and scales of blocks lose digits.
        *s = if scaled.is_finite() && scaled > 0.0 { scaled.clamp(1e-3, 1e3) } else { 1.0 };
    }
    scales
}

/// Values that belong together get their geometric mean: columns of heads that share rows.
pub(super) fn tie(scales: &mut [f32], rows: usize, head: usize) {
    if rows == 0 || head == 0 || rows == scales.len() {
        return;
    }
    let shared = (scales.len() / rows).max(1);
    for row in 0..rows {
        let at = |k: usize| (row / head * shared + k) * head + row % head;
        let sum: f64 = (0..shared).map(|k| f64::from(scales[at(k)].ln())).sum();
        for k in 0..shared {
            scales[at(k)] = (sum / shared as f64).exp() as f32;
        }
    }
}

/// The row of the source that a column belongs to.
pub(super) fn row_of(column: usize, columns: usize, rows: usize, head: usize) -> usize {
    if rows == 0 || head == 0 || rows == columns {
        return column;
    }
    let shared = (columns / rows).max(1);
    column / head / shared * head + column % head
}

/// SmoothQuant's scales for matrices of rows of so many columns.
pub(super) fn smooth(largest: &[f32], matrices: &[&[f32]], alpha: f32) -> Vec<f32> {
    let mut weights = vec![0.0f32; largest.len()];
    for row in matrices.iter().flat_map(|m| m.chunks_exact(largest.len().max(1))) {
        for (most, w) in weights.iter_mut().zip(row) {
            *most = most.max(w.abs());
        }
    }
    normal(largest.iter().zip(&weights).map(|(x, w)| x.powf(alpha) / w.powf(1.0 - alpha)).collect())
}

/// AWQ's scales for matrices with the formats that they will have; the exponent chosen and the errors without and with them.
pub(super) fn activation_aware(
    moments: &Moments,
    matrices: &[(&[f32], Format)],
    tie_up: &dyn Fn(&mut [f32]),
) -> (Vec<f32>, f32, (f64, f64)) {
    let n = moments.columns;
    let diagonal = moments.diagonal();
    let mut best = (vec![1.0; n], 0.0, (0.0, f64::INFINITY));
    for step in 0..=GRID {
        let beta = step as f32 / GRID as f32;
        let mut scales = normal(diagonal.iter().map(|d| d.max(1e-12).sqrt().powf(beta)).collect());
        tie_up(&mut scales);
        let loss: f64 =
            matrices.iter().map(|(w, format)| scaled_loss(w, *format, &scales, moments, &diagonal)).sum();
        if step == 0 {
            best.2.0 = loss;
        }
        if loss < best.2.1 {
            best = (scales, beta, (best.2.0, loss));
        }
    }
    best
}

/// What a matrix's output loses when it is rounded after its columns were scaled.
fn scaled_loss(w: &[f32], format: Format, scales: &[f32], moments: &Moments, diagonal: &[f32]) -> f64 {
    use rayon::prelude::*;
    let n = scales.len();
    let info = format.info();
    let importance: Vec<f32> = diagonal.iter().zip(scales).map(|(d, s)| d / (s * s)).collect();
    let losses: Vec<f64> = w
        .par_chunks(n)
        .map(|row| {
            let mut scaled: Vec<f32> = row.iter().zip(scales).map(|(w, s)| w * s).collect();
            let mut bytes = vec![0; n / info.block_len * info.block_bytes];
            (info.quantize)(&scaled, Some(&importance), &mut bytes);
            (info.decode)(&bytes, &mut scaled);
            let e: Vec<f32> = scaled.iter().zip(scales).zip(row).map(|((q, s), w)| q / s - w).collect();
            let rows = moments.second.chunks_exact(n).zip(&e);
            rows.map(|(h, e_c)| f64::from(*e_c) * f64::from(vector::dot(h, &e))).sum()
        })
        .collect();
    losses.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_columns_share_their_scale_and_their_row() {
        // Two key-value heads of 2 rows, 4 query heads: columns of heads 0 and 1 belong to rows 0 and 1.
        let mut scales = vec![1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 9.0, 9.0];
        tie(&mut scales, 4, 2);
        let rows: Vec<usize> = (0..8).map(|c| row_of(c, 8, 4, 2)).collect();
        assert_eq!(rows, [0, 1, 0, 1, 2, 3, 2, 3]);
        for (c, row) in rows.iter().enumerate() {
            let first = rows.iter().position(|r| r == row).unwrap();
            assert_eq!(scales[c], scales[first]);
        }
        assert!((scales[0] - 2.0).abs() < 1e-6 && (scales[4] - 3.0).abs() < 1e-6);
    }

    #[test]
    fn smoothing_moves_a_loud_channel_to_the_weights() {
        let scales = smooth(&[1.0, 100.0, 1.0, 0.0], &[&[1.0, 1.0, 1.0, 1.0]], 0.5);
        assert!(scales[1] > 5.0 * scales[0] && scales[3] == 1.0, "{scales:?}");
        assert!(scales.iter().all(|s| s.is_finite() && *s > 0.0));
    }
}
