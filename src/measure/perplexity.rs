//! Perplexity by llama.cpp's definition, so that figures can be compared.
//!
//! The whole text is tokenized once (with BOS where the model adds one) and cut into windows of `ctx` tokens; the
//! tail that fills no window is dropped. The first token of each window is replaced by BOS where the model adds
//! one. Of each window the second half is scored: tokens `ctx / 2 + 1` to `ctx - 1`, each by the logits of the token before
//! it. With negative log likelihoods l_1 .. l_n: `PPL = exp(mean l)`, standard error `PPL * sqrt(var l / (n - 1))`.

use std::ops::ControlFlow;

use super::spread::Estimate;
use super::text::{Scorer, Text, of_rows, score};
use crate::engine::{Engine, EngineError, Result};

/// The result over some windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp(mean negative log likelihood).
    pub perplexity: f64,
    /// Its standard error.
    pub stderr: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Windows read.
    pub windows: usize,
}

/// What was found so far, window by window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Windows read.
    pub done: usize,
    /// Windows to be read in all.
    pub total: usize,
    /// The perplexity so far; NaN before the first window.
    pub perplexity: f64,
}

/// How many windows of `ctx` tokens a text of `tokens` tokens gives, at most `most`.
pub fn windows(tokens: usize, ctx: usize, most: Option<usize>) -> usize {
    (tokens / ctx.max(1)).min(most.unwrap_or(usize::MAX))
}

/// Score `tokens` in windows of `ctx`. `bos` replaces the first token of each window. `watch` is called before every
/// window and may end the measurement; the result is then that of the windows read, if there are any. A window of fewer
/// than three tokens has nothing to score.
///
/// # Errors
/// As [`Engine::decode`]; a token that the vocabulary does not hold is refused before anything is evaluated.
pub fn perplexity(
    engine: &mut Engine,
    tokens: &[u32],
    bos: Option<u32>,
    ctx: usize,
    most: Option<usize>,
    watch: &mut dyn FnMut(Window) -> ControlFlow<()>,
) -> Result<Option<Perplexity>> {
    struct Plain {
        losses: Losses,
        threads: usize,
    }
    impl Scorer for Plain {
        type Error = EngineError;
        fn take(&mut self, rows: &[f32], targets: &[u32]) -> Result<()> {
            let losses = of_rows(rows, targets, self.threads, |_, row, target| {
                SumExp::of(row).ln() - f64::from(row[target as usize])
            });
            for loss in losses {
                self.losses.add(loss);
            }
            Ok(())
        }
        fn perplexity(&self) -> f64 {
            self.losses.perplexity()
        }
    }
    let mut plain = Plain { losses: Losses::default(), threads: engine.options().cpu.threads_batch };
    let done = score(engine, &Text { tokens, bos, ctx, most }, watch, &mut plain)?;
    Ok(plain.losses.over(done))
}

/// Sums of negative log likelihoods.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    sum: f64,
    squares: f64,
    n: usize,
}

impl Losses {
    pub(super) fn add(&mut self, loss: f64) {
        self.sum += loss;
        self.squares += loss * loss;
        self.n += 1;
    }

    /// Of what was added; NaN of nothing.
    pub(super) fn perplexity(&self) -> f64 {
        (self.sum / self.n as f64).exp()
    }

    /// The result over so many windows; none where nothing was scored.
    pub(super) fn over(&self, windows: usize) -> Option<Perplexity> {
        if self.n == 0 {
            return None;
        }
        let mean = Estimate::mean(self.n, self.sum, self.squares);
        let perplexity = mean.value.exp();
        let stderr = mean.stderr.map_or(f64::NAN, |stderr| perplexity * stderr);
        Some(Perplexity { perplexity, stderr, tokens: self.n, windows })
    }
}

/// The sum of exp(logits), as the largest logit `max` and `sum exp(logit - max)` in double precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct SumExp {
    max: f32,
    sum: f64,
}

impl SumExp {
    pub(super) fn of(logits: &[f32]) -> SumExp {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        SumExp { max, sum: logits.iter().map(|x| f64::from((x - max).exp())).sum() }
    }

    /// The logarithm of the sum.
    pub(super) fn ln(self) -> f64 {
        self.sum.ln() + f64::from(self.max)
    }

    /// The share of the sum that is left without these logits. Every term is the very one that was summed up, so that little is
    /// lost where little is left.
    pub(super) fn without(self, logits: impl Iterator<Item = f32>) -> f64 {
        let taken: f64 = logits.map(|x| f64::from((x - self.max).exp())).sum();
        ((self.sum - taken) / self.sum).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let loss = SumExp::of(&[3.0; 8]).ln() - 3.0;
        assert!((loss - 8f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn what_is_left_of_a_sum_is_as_exact_as_its_terms() {
        let logits = [0.0, -1.0, -30.0];
        let left = SumExp::of(&logits).without(logits[..2].iter().copied());
        let expected = f64::from((-30f32).exp()) / (1.0 + f64::from((-1f32).exp()));
        assert!((left / expected - 1.0).abs() < 1e-2, "{left} {expected}");
    }

    #[test]
    fn the_tail_that_fills_no_window_is_dropped() {
        assert_eq!(windows(1535, 512, None), 2);
        assert_eq!(windows(1536, 512, None), 3);
        assert_eq!(windows(1536, 512, Some(2)), 2);
        assert_eq!(windows(100, 512, None), 0);
    }
}
