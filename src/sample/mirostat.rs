//! Mirostat: truncation that steers the surprise of the text towards a target.

use super::candidates::{Candidates, more_than};
use super::params::{self, Params};
use super::rng::Rng;
use super::{Error, chain};

/// How many of the most probable tokens version 1 estimates the Zipf exponent from.
const ZIPF_TOKENS: usize = 100;

/// The state of mirostat: mu, twice the target at first. After each draw of a token with probability p among the
/// tokens left, mu <- mu - eta * (-log2 p - tau).
///
/// Basu et al. 2020, arXiv:2007.14966: version 1 is its algorithm 1; version 2 is the authors' later, simpler one,
/// which cuts at a surprise of mu without an estimate.
#[derive(Debug)]
pub(super) struct State {
    mu: f32,
}

impl State {
    pub(super) fn new(params: &Params) -> Self {
        State { mu: 2.0 * params.mirostat_tau }
    }

    /// Truncates, draws a token and updates mu. The temperature has been applied already.
    pub(super) fn draw(
        &mut self,
        params: &Params,
        n_vocab: usize,
        candidates: &mut Candidates,
        rng: &mut Rng,
    ) -> Result<u32, Error> {
        match params.mirostat {
            params::Mirostat::V1 => {
                candidates.sort_to(ZIPF_TOKENS);
                let k = zipf_k(candidates, n_vocab, self.mu);
                candidates.keep_top(k);
            }
            params::Mirostat::V2 => cut_at(self.mu, candidates),
            params::Mirostat::Off => {}
        }
        let drawn = chain::draw(candidates, rng)?;
        self.mu -= params.mirostat_eta * (surprise(drawn.p) - params.mirostat_tau);
        Ok(drawn.id)
    }
}

/// In bits.
fn surprise(p: f32) -> f32 {
    -libm::log2f(p)
}

/// With the exponent s = sum(t b) / sum(t^2), t = ln((i+2)/(i+1)), b = ln(p_i / p_(i+1)) over the sorted tokens,
/// and e = s - 1: k = (e * 2^mu / (1 - N^-e)) ^ (1/s), cut to a whole number, at least 1.
fn zipf_k(candidates: &Candidates, n_vocab: usize, mu: f32) -> usize {
    let top = &candidates.as_slice()[..candidates.len().min(ZIPF_TOKENS)];
    let (mut tb, mut tt) = (0.0, 0.0);
    for (i, pair) in top.windows(2).enumerate().filter(|(_, pair)| pair[1].logit.is_finite()) {
        let t = libm::log((i + 2) as f64 / (i + 1) as f64);
        tb += t * (f64::from(pair[0].logit) - f64::from(pair[1].logit));
        tt += t * t;
    }
    if tt == 0.0 {
        return 1;
    }
    let s = tb / tt;
    let e = s - 1.0;
    let n = n_vocab as f64;
    // e / (1 - N^-e) tends to 1 / ln N.
    let factor = if e.abs() < 1e-9 { 1.0 / libm::log(n) } else { e / (1.0 - libm::pow(n, -e)) };
    // The cast takes NaN to 0 and what is too large to the greatest number.
    (libm::pow(factor * libm::exp2(f64::from(mu)), 1.0 / s) as usize).max(1)
}

/// Keeps the tokens with a surprise of at most mu, or the most probable one.
fn cut_at(mu: f32, candidates: &mut Candidates) {
    if candidates.softmax().is_none() {
        return;
    }
    let mut sorted = 0;
    for i in 0..candidates.len() {
        if i >= sorted {
            sorted = more_than(sorted);
            candidates.sort_to(sorted);
        }
        if surprise(candidates.as_slice()[i].p) > mu {
            candidates.truncate(i.max(1));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{assert_close, from_probs, ids, probs};
    use super::*;

    #[test]
    fn version_2_cuts_at_the_surprise() {
        // Surprises: 1, 2, 3, 3 bits.
        let given = [0.125, 0.5, 0.25, 0.125];
        for (mu, want) in [(0.5, vec![1]), (1.5, vec![1]), (2.5, vec![1, 2]), (3.5, vec![1, 2, 0, 3])] {
            let mut c = from_probs(&given);
            cut_at(mu, &mut c);
            assert_eq!(ids(&c), want, "mu {mu}");
        }
        let mut c = from_probs(&given);
        cut_at(2.5, &mut c);
        assert_close(&probs(c), &[2.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn version_1_recovers_the_exponent_of_a_zipf_law() {
        // p_i proportional to 1 / i^2 has s = 2, e = 1: k = (2^mu / (1 - 1/N)) ^ (1/2).
        let n = 1000;
        let given: Vec<f32> = (1..=n).map(|i| 1.0 / (i * i) as f32).collect();
        let mut c = from_probs(&given);
        c.sort_to(ZIPF_TOKENS);
        assert_eq!(zipf_k(&c, n, 10.0), 32); // sqrt(1024 * 1.001) = 32.02
        assert_eq!(zipf_k(&c, n, 0.0), 1);
        assert_eq!(zipf_k(&c, n, 1e9), usize::MAX);
        // A single candidate, and equal ones, give a number all the same.
        let mut one = from_probs(&[1.0]);
        one.sort_to(1);
        assert_eq!(zipf_k(&one, 1, 10.0), 1);
        let mut equal = from_probs(&[0.25; 4]);
        equal.sort_to(4);
        assert!(zipf_k(&equal, 4, 10.0) >= 1);
    }

    #[test]
    fn mu_moves_by_the_error_of_the_surprise() {
        let params = Params {
            mirostat: params::Mirostat::V2,
            mirostat_tau: 3.0,
            mirostat_eta: 0.1,
            ..Params::default()
        };
        let mut state = State::new(&params);
        assert_eq!(state.mu, 6.0);
        // Four equal tokens: whichever is drawn has a surprise of 2 bits, 1 below the target.
        state.draw(&params, 4, &mut from_probs(&[0.25; 4]), &mut Rng::new(1, 0)).unwrap();
        assert!((state.mu - 6.1).abs() < 1e-5, "{}", state.mu);
    }

    #[test]
    fn the_mean_surprise_approaches_the_target() {
        let given: Vec<f32> = (1..=2000).map(|i| 1.0 / i as f32).collect();
        for version in [params::Mirostat::V1, params::Mirostat::V2] {
            let params = Params { mirostat: version, mirostat_tau: 4.0, ..Params::default() };
            let (mut state, mut rng) = (State::new(&params), Rng::new(9, 0));
            let mut total = 0.0;
            for step in 0..600 {
                let mut c = from_probs(&given);
                let id = state.draw(&params, given.len(), &mut c, &mut rng).unwrap();
                let drawn = c.as_slice().iter().find(|c| c.id == id).unwrap();
                if step >= 100 {
                    total += surprise(drawn.p);
                }
            }
            let mean = total / 500.0;
            assert!((mean - 4.0).abs() < 0.3, "{version:?}: {mean} bits");
        }
    }
}
