//! The softmax of a tile.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::cpu::attention::kernels::{COLUMNS, LANES, Softmax};
use crate::cpu::avx512::lanes::{first, load_tail, store_tail, sum as sum_lanes};
use crate::cpu::avx512::vector::exp;

/// Scores to weights. Lanes count from the first score of `range`, so that a sum does not depend on its column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn weigh(
    scores: &mut [[f32; COLUMNS]],
    range: Range<usize>,
    scale: f32,
    softcap: Option<f32>,
    softmax: &mut Softmax,
) {
    let masks: [__mmask16; 4] = std::array::from_fn(|c| first(range.len().saturating_sub(LANES * c)));
    let scale_of_all = _mm512_set1_ps(if softcap.is_some() { 1.0 } else { scale });
    for (query, scores) in scores.iter_mut().enumerate() {
        let scores = &mut scores[range.clone()];
        if let Some(cap) = softcap {
            for s in scores.iter_mut() {
                *s = cap * (*s * scale / cap).tanh();
            }
        }
        let mut scaled = [_mm512_setzero_ps(); 4];
        let mut most = [_mm512_set1_ps(softmax.max[query]); 4];
        for (c, scores) in scores.chunks(LANES).enumerate().take(4) {
            scaled[c] = _mm512_mul_ps(load_tail(scores), scale_of_all);
            // Where either is NaN, the maximum is the second.
            most[c] = _mm512_mask_max_ps(most[c], masks[c], scaled[c], most[c]);
        }
        let most = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
        let max = _mm512_reduce_max_ps(most);
        softmax.raise(query, max);
        let most = _mm512_set1_ps(max);
        let mut sums = [_mm512_setzero_ps(); 4];
        for (c, scores) in scores.chunks_mut(LANES).enumerate().take(4) {
            sums[c] = _mm512_maskz_mov_ps(masks[c], exp(_mm512_sub_ps(scaled[c], most)));
            store_tail(scores, sums[c]);
        }
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        softmax.add(query, sum_lanes(sum));
    }
}
