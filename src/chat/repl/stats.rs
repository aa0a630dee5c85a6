//! Speed, and how full the context is.

use std::time::Duration;

use crate::chat::generate::Outcome;

/// Warnings are given when the context passes these shares, in percent.
const WARN_AT: [usize; 2] = [80, 95];

/// The numbers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stats {
    evaluated: usize,
    reused: usize,
    prompt_time: Duration,
    tokens: usize,
    time: Duration,
}

impl From<&Outcome> for Stats {
    fn from(outcome: &Outcome) -> Stats {
        Stats {
            evaluated: outcome.prompt_evaluated,
            reused: outcome.prompt_reused,
            prompt_time: outcome.prompt_time,
            tokens: outcome.tokens.len(),
            time: outcome.time,
        }
    }
}

impl Stats {
    pub fn line(&self) -> String {
        let Stats { evaluated, reused, prompt_time, tokens, time } = *self;
        format!(
            "prompt: {evaluated} tokens in {}{}, {reused} reused; answer: {tokens} tokens in {}{}",
            seconds(prompt_time),
            rate(evaluated, prompt_time),
            seconds(time),
            rate(tokens, time)
        )
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn rate(tokens: usize, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if tokens == 0 || seconds <= 0.0 {
        String::new()
    } else {
        format!(" ({:.1} tokens/s)", tokens as f64 / seconds)
    }
}

/// How full the context is, with a bar.
pub(super) fn meter(used: usize, n_ctx: usize) -> String {
    const WIDTH: usize = 20;
    let full = (used * WIDTH).div_ceil(n_ctx.max(1)).min(WIDTH);
    let bar = "#".repeat(full) + &".".repeat(WIDTH - full);
    format!("context: [{bar}] {used} of {n_ctx} tokens ({}%)", percent(used, n_ctx))
}

pub(super) fn percent(used: usize, n_ctx: usize) -> usize {
    used * 100 / n_ctx.max(1)
}

/// Remembers which warnings about the context have been given.
#[derive(Debug, Default)]
pub(super) struct Watermark(usize);

impl Watermark {
    /// The share in percent to warn about now: each once, and again after the context was emptier.
    pub fn passed(&mut self, used: usize, n_ctx: usize) -> Option<usize> {
        let reached = WARN_AT.into_iter().rev().find(|share| used * 100 >= share * n_ctx).unwrap_or(0);
        let before = std::mem::replace(&mut self.0, reached);
        (reached > before).then_some(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_is_warned_about_once() {
        let mut mark = Watermark::default();
        let told: Vec<_> = [10, 79, 80, 90, 95, 99, 50, 81, 100].map(|n| mark.passed(n, 100)).to_vec();
        assert_eq!(told, [None, None, Some(80), None, Some(95), None, None, Some(80), Some(95)]);
    }

    #[test]
    fn the_meter_is_empty_only_where_nothing_is_used() {
        assert_eq!(meter(0, 100), "context: [....................] 0 of 100 tokens (0%)");
        assert_eq!(meter(1, 100), "context: [#...................] 1 of 100 tokens (1%)");
        assert_eq!(meter(100, 100), "context: [####################] 100 of 100 tokens (100%)");
    }
}
