//! The softmax of a tile.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::cpu::attention::kernels::{COLUMNS, LANES, Weighed};
use crate::cpu::avx512::lanes::{load_f32, sum as sum_lanes};
use crate::cpu::avx512::vector::exp;

/// The mask of the columns of `range` among the sixteen from `16 * c` on.
#[inline]
fn mask(range: &Range<usize>, c: usize) -> __mmask16 {
    let columns = ((1u128 << range.end) - 1) & !((1u128 << range.start) - 1);
    (columns >> (LANES * c)) as __mmask16
}

/// Scores to weights.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn weigh(
    scores: &mut [f32; COLUMNS],
    range: Range<usize>,
    scale: f32,
    softcap: Option<f32>,
    max: f32,
) -> Weighed {
    let masks: [__mmask16; 4] = std::array::from_fn(|c| mask(&range, c));
    if let Some(cap) = softcap {
        for s in &mut scores[range] {
            *s = cap * (*s * scale / cap).tanh();
        }
    }
    let scale = _mm512_set1_ps(if softcap.is_some() { 1.0 } else { scale });
    let scores = scores.as_chunks_mut::<LANES>().0;
    let mut scaled = [_mm512_setzero_ps(); 4];
    let mut most = _mm512_set1_ps(max);
    for c in 0..4 {
        scaled[c] = _mm512_mul_ps(load_f32(&scores[c]), scale);
        // Where either is NaN, the maximum is the second.
        most = _mm512_mask_max_ps(most, masks[c], scaled[c], most);
    }
    let max = _mm512_reduce_max_ps(most);
    let most = _mm512_set1_ps(max);
    let mut sum = _mm512_setzero_ps();
    for c in 0..4 {
        if masks[c] != 0 {
            let weights = _mm512_maskz_mov_ps(masks[c], exp(_mm512_sub_ps(scaled[c], most)));
            // SAFETY: sixteen writable floats.
            unsafe { _mm512_storeu_ps(scores[c].as_mut_ptr(), weights) };
            sum = _mm512_add_ps(sum, weights);
        }
    }
    Weighed { max, sum: sum_lanes(sum) }
}
