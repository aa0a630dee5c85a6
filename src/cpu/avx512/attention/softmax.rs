//! The softmax of a tile.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::cpu::attention::kernels::{COLUMNS, LANES, Softmax};
use crate::cpu::avx512::lanes::{first, load_tail, store_tail, sum as sum_lanes};
use crate::cpu::avx512::vector::exp;

/// Scores to weights.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn weigh(
    scores: &mut [[f32; COLUMNS]],
    range: Range<usize>,
    mut scale: f32,
    softcap: Option<f32>,
    softmax: &mut Softmax,
) {
    if let Some(cap) = softcap {
        for scores in scores.iter_mut() {
            for s in &mut scores[range.clone()] {
                *s = cap * (*s * scale / cap).tanh();
            }
        }
        scale = 1.0;
    }
    let scale = _mm512_set1_ps(scale);
    for (query, scores) in scores.iter_mut().enumerate() {
        if range.len() == COLUMNS {
            weigh_one(query, scores, scale, softmax);
        } else {
            weigh_one(query, &mut scores[range.clone()], scale, softmax);
        }
    }
}

/// The scores that a query sees, up to [`COLUMNS`]. Lanes count from the first of them, so that a sum does not depend on the
/// column where it stands.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn weigh_one(query: usize, scores: &mut [f32], scale: __m512, softmax: &mut Softmax) {
    let n = scores.len();
    let lanes = |c: usize| if n == COLUMNS { !0 } else { first(n.saturating_sub(LANES * c)) };
    let part = |c: usize| (LANES * c).min(n)..(LANES * (c + 1)).min(n);
    let mut scaled = [_mm512_setzero_ps(); 4];
    let mut most = [_mm512_set1_ps(softmax.max[query]); 4];
    for c in 0..4 {
        scaled[c] = _mm512_mul_ps(load_tail(&scores[part(c)]), scale);
        // Where either is NaN, the maximum is the second.
        most[c] = _mm512_mask_max_ps(most[c], lanes(c), scaled[c], most[c]);
    }
    let most = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
    let max = _mm512_reduce_max_ps(most);
    softmax.raise(query, max);
    let most = _mm512_set1_ps(max);
    let mut sums = [_mm512_setzero_ps(); 4];
    for c in 0..4 {
        sums[c] = _mm512_maskz_mov_ps(lanes(c), exp(_mm512_sub_ps(scaled[c], most)));
        store_tail(&mut scores[part(c)], sums[c]);
    }
    let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
    softmax.add(query, sum_lanes(sum));
}
