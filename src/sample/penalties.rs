//! Repeat, presence and frequency penalties on the tokens of the last few.

use rustc_hash::FxHashMap;

use super::Params;
use super::candidates::{Candidates, clamp_finite};
use super::history::Window;

/// With `n` the count of a token among the last `repeat_last_n`, and only where `n` > 0:
///
/// logit <- (logit > 0 ? logit / repeat : logit * repeat) - n * frequency - presence
///
/// The repeat penalty is that of CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1), which divides; on a
/// negative logit that would be a reward, hence the product there, as in llama.cpp and transformers. Presence and
/// frequency are those of the OpenAI completions interface.
#[derive(Debug)]
pub(super) struct Penalties {
    window: Window,
    counts: FxHashMap<u32, u32>,
}

impl Penalties {
    pub(super) fn new(params: &Params) -> Self {
        // Off, they need not remember anything.
        let last_n = if is_off(params) { 0 } else { params.repeat_last_n };
        Penalties { window: Window::new(last_n), counts: FxHashMap::default() }
    }

    pub(super) fn accept(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1;
        if let Some(gone) = self.window.push(token)
            && let Some(n) = self.counts.get_mut(&gone)
        {
            *n -= 1;
            if *n == 0 {
                self.counts.remove(&gone);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
        self.counts.clear();
    }

    pub(super) fn apply(&self, params: &Params, candidates: &mut Candidates) {
        let Params {
            repeat_penalty: repeat, presence_penalty: presence, frequency_penalty: frequency, ..
        } = *params;
        if is_off(params) {
            return;
        }
        candidates.adjust(&self.counts, |logit, &n| {
            let scaled = if logit > 0.0 { logit / repeat } else { logit * repeat };
            // Clamped before the difference too: infinity minus infinity is no number.
            clamp_finite(clamp_finite(scaled) - clamp_finite(n as f32 * frequency + presence))
        });
    }
}

fn is_off(params: &Params) -> bool {
    params.repeat_penalty == 1.0 && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{assert_close, from_probs, probs};
    use super::*;

    fn penalised(params: &Params, history: &[u32], given: &[f32]) -> Vec<f32> {
        let mut penalties = Penalties::new(params);
        for &t in history {
            penalties.accept(t);
        }
        let mut c = from_probs(given);
        penalties.apply(params, &mut c);
        probs(c)
    }

    #[test]
    fn a_repeat_penalty_does_not_count_occurrences() {
        let p = Params { repeat_penalty: 50.0, ..Params::default() };
        let fifths = [0.2; 5];
        assert_close(&penalised(&p, &[0], &fifths), &[0.0, 0.25, 0.25, 0.25, 0.25]);
        assert_close(&penalised(&p, &[0, 1, 2], &fifths), &[0.0, 0.0, 0.0, 0.5, 0.5]);
        assert_close(&penalised(&p, &[0, 1, 2, 0, 0], &fifths), &[0.0, 0.0, 0.0, 0.5, 0.5]);
    }

    #[test]
    fn presence_counts_once_and_frequency_every_time() {
        let p = Params { presence_penalty: 5.0, frequency_penalty: 5.0, ..Params::default() };
        let fifths = [0.2; 5];
        // exp(-10) / (4 + exp(-10)) = 0.0000113
        assert_close(&penalised(&p, &[0], &fifths), &[0.000_011, 0.249_997, 0.249_997, 0.249_997, 0.249_997]);
        let once = penalised(&p, &[0, 1, 2], &fifths);
        assert_close(&once, &[0.000_023, 0.000_023, 0.000_023, 0.499_966, 0.499_966]);
        let thrice = penalised(&p, &[0, 1, 2, 0, 0], &fifths);
        assert!((thrice[0] / thrice[1] - (-10.0f32).exp()).abs() < 1e-7, "two more occurrences cost 10 more");
    }

    #[test]
    fn positive_logits_are_divided_and_negative_ones_multiplied() {
        let p = Params { repeat_penalty: 2.0, ..Params::default() };
        let mut penalties = Penalties::new(&p);
        (0..3).for_each(|t| penalties.accept(t));
        let mut c = Candidates::default();
        c.fill(&[4.0, -4.0, 0.0, 4.0]).unwrap();
        penalties.apply(&p, &mut c);
        let logits: Vec<f32> = c.as_slice().iter().map(|c| c.logit).collect();
        assert_eq!(logits, [2.0, -8.0, 0.0, 4.0]);
    }

    #[test]
    fn a_token_is_forgiven_when_it_leaves_the_window() {
        let p = Params { presence_penalty: 3.0, repeat_last_n: 2, ..Params::default() };
        assert_close(&penalised(&p, &[0, 0, 1, 1], &[0.5, 0.5]), &penalised(&p, &[1], &[0.5, 0.5]));
        let off = Params { repeat_last_n: 0, ..p.clone() };
        assert_close(&penalised(&off, &[0, 1], &[0.3, 0.7]), &[0.3, 0.7]);
        let all = Params { repeat_last_n: -1, ..p };
        let mut long = vec![0];
        long.extend([9; 500]);
        assert!(penalised(&all, &long, &[0.5, 0.5])[0] < 0.05);
    }

    #[test]
    fn penalties_never_make_a_logit_infinite() {
        for repeat in [1e-38, 1e38] {
            let p = Params { repeat_penalty: repeat, frequency_penalty: -3e38, ..Params::default() };
            let mut penalties = Penalties::new(&p);
            for t in [0, 0, 1, 1, 2] {
                penalties.accept(t);
            }
            let mut c = Candidates::default();
            c.fill(&[3e38, -3e38, f32::NEG_INFINITY]).unwrap();
            penalties.apply(&p, &mut c);
            let logits: Vec<f32> = c.as_slice().iter().map(|c| c.logit).collect();
            assert!(logits[0].is_finite() && logits[1].is_finite(), "{logits:?}");
            assert_eq!(logits[2], f32::NEG_INFINITY);
        }
    }
}
