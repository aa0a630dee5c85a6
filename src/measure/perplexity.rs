//! Perplexity by llama.cpp's definition, so that figures can be compared.
//!
//! The whole text is tokenized once (with BOS where the model adds one) and cut into windows of `ctx` tokens; the
//! tail that fills no window is dropped. The first token of each window is replaced by BOS where the model adds
//! one. Of each window the second half is scored: tokens `ctx / 2 + 1` to `ctx - 1`, each by the logits of the token before
//! it. With negative log likelihoods l_1 .. l_n: `PPL = exp(mean l)`, standard error `PPL * sqrt(var l / (n - 1))`.

use std::ops::ControlFlow;

use crate::engine::{BatchToken, Engine, EngineError, Result};

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
    let n_vocab = engine.model().hparams().n_vocab;
    if let Some((index, id)) = tokens.iter().copied().enumerate().find(|(_, id)| *id as usize >= n_vocab) {
        return Err(EngineError::Token { id, index, n_vocab });
    }
    if ctx < 2 {
        return Ok(None);
    }
    let total = windows(tokens.len(), ctx, most);
    let first = ctx / 2;
    let (mut sum, mut squares, mut scored, mut done) = (0f64, 0f64, 0usize, 0usize);
    let mut logits = Vec::new();
    for window in tokens.chunks_exact(ctx).take(total) {
        let so_far = Window { done, total, perplexity: (sum / scored as f64).exp() };
        if watch(so_far).is_break() {
            break;
        }
        engine.cells().clear();
        let batch: Vec<BatchToken> = window
            .iter()
            .enumerate()
            .map(|(i, id)| BatchToken {
                id: if i == 0 { bos.unwrap_or(*id) } else { *id },
                position: i as u32,
                sequence: 0,
                logits: (first..ctx - 1).contains(&i),
            })
            .collect();
        let mut row = first;
        let n_ubatch = engine.options().n_ubatch.max(1);
        for part in batch.chunks(n_ubatch) {
            // Scored as they come: the logits of a window and a large vocabulary are hundreds of megabytes.
            logits.clear();
            engine.decode(part, &mut logits)?;
            for of_token in logits.chunks_exact(n_vocab) {
                let loss = negative_log_likelihood(of_token, window[row + 1]);
                sum += loss;
                squares += loss * loss;
                scored += 1;
                row += 1;
            }
        }
        done += 1;
    }
    engine.cells().clear();
    if scored == 0 {
        return Ok(None);
    }
    let n = scored as f64;
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    let perplexity = mean.exp();
    let stderr = if scored > 1 { perplexity * (variance / (n - 1.0)).sqrt() } else { f64::NAN };
    Ok(Some(Perplexity { perplexity, stderr, tokens: scored, windows: done }))
}

/// log(sum exp(logits)) - logits\[target\], in double precision.
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from((x - max).exp())).sum();
    sum.ln() + f64::from(max) - f64::from(logits[target as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let loss = negative_log_likelihood(&[3.0; 8], 5);
        assert!((loss - 8f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_tail_that_fills_no_window_is_dropped() {
        assert_eq!(windows(1535, 512, None), 2);
        assert_eq!(windows(1536, 512, None), 3);
        assert_eq!(windows(1536, 512, Some(2)), 2);
        assert_eq!(windows(100, 512, None), 0);
    }
}
