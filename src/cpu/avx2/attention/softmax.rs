//! The softmax of a tile.

use std::ops::Range;

use crate::cpu::attention::kernels::{COLUMNS, Softmax};
use crate::cpu::avx2::vector::{exp_sum, max as max_of, scale as scale_by};

/// Scores to weights.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn weigh(
    scores: &mut [[f32; COLUMNS]],
    range: Range<usize>,
    scale: f32,
    softcap: Option<f32>,
    softmax: &mut Softmax,
) {
    for (query, scores) in scores.iter_mut().enumerate() {
        let scores = &mut scores[range.clone()];
        scale_by(scores, scale);
        if let Some(cap) = softcap {
            for s in scores.iter_mut() {
                *s = cap * (*s / cap).tanh();
            }
        }
        let max = softmax.max[query].max(max_of(scores));
        softmax.raise(query, max);
        softmax.add(query, exp_sum(scores, max));
    }
}
