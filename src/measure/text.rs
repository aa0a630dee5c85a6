//! A text cut into windows, and every scored token of it with the logits that predict it.

use std::ops::ControlFlow;

use super::perplexity::{Window, windows};
use crate::engine::{BatchToken, Engine, EngineError};

/// A text to be scored, in windows as [`perplexity`](super::perplexity()) cuts them.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// What replaces the first token of each window.
    pub bos: Option<u32>,
    /// Tokens of a window.
    pub ctx: usize,
    /// At most this many windows.
    pub most: Option<usize>,
}

impl Text<'_> {
    /// Windows that it gives.
    pub fn windows(&self) -> usize {
        windows(self.tokens.len(), self.ctx, self.most)
    }

    /// The place in a window of the first token whose logits are used.
    pub fn first(&self) -> usize {
        self.ctx / 2
    }

    /// Tokens of each window that are scored.
    pub fn scored(&self) -> usize {
        self.ctx.saturating_sub(1 + self.first())
    }

    /// The FNV-1a hash (64 bits) of the ids of the first `windows` windows as they are evaluated, BOS included. The same text
    /// by another tokenizer has another hash.
    pub fn hash(&self, windows: usize) -> u64 {
        let mut hash = Fnv::default();
        for window in self.tokens.chunks_exact(self.ctx.max(1)).take(windows) {
            for (i, id) in window.iter().enumerate() {
                let id = if i == 0 { self.bos.unwrap_or(*id) } else { *id };
                hash.add(&id.to_le_bytes());
            }
        }
        hash.0
    }
}

/// The FNV-1a hash of 64 bits: the same on every machine and in every version, which the standard library's is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// What is done with the logits of scored tokens.
pub(super) trait Scorer {
    /// What can go wrong.
    type Error: From<EngineError>;
    /// Take in some rows of logits, `n_vocab` values each, with the token that follows each.
    fn take(&mut self, rows: &[f32], targets: &[u32]) -> Result<(), Self::Error>;
    /// The perplexity so far.
    fn perplexity(&self) -> f64;
}

/// Evaluate the windows of `text` one after another and hand every scored row to `scorer`, in order. `watch` is called before
/// every window and may end it. Gives the windows read.
pub(super) fn score<S: Scorer>(
    engine: &mut Engine,
    text: &Text<'_>,
    watch: &mut dyn FnMut(Window) -> ControlFlow<()>,
    scorer: &mut S,
) -> Result<usize, S::Error> {
    let n_vocab = engine.model().hparams().n_vocab;
    let unknown = text.tokens.iter().copied().enumerate().find(|(_, id)| *id as usize >= n_vocab);
    if let Some((index, id)) = unknown {
        return Err(EngineError::Token { id, index, n_vocab }.into());
    }
    if text.ctx < 2 {
        return Ok(0);
    }
    let (total, first) = (text.windows(), text.first());
    let mut done = 0;
    let mut logits = Vec::new();
    for window in text.tokens.chunks_exact(text.ctx).take(total) {
        if watch(Window { done, total, perplexity: scorer.perplexity() }).is_break() {
            break;
        }
        engine.cells().clear();
        let batch: Vec<BatchToken> = window
            .iter()
            .enumerate()
            .map(|(i, id)| BatchToken {
                id: if i == 0 { text.bos.unwrap_or(*id) } else { *id },
                position: i as u32,
                sequence: 0,
                logits: (first..text.ctx - 1).contains(&i),
            })
            .collect();
        let mut row = first;
        let n_ubatch = engine.options().n_ubatch.max(1);
        for part in batch.chunks(n_ubatch) {
            // Scored as they come: the logits of a window and a large vocabulary are hundreds of megabytes.
            logits.clear();
            engine.decode(part, &mut logits)?;
            let n = logits.len() / n_vocab.max(1);
            scorer.take(&logits, window.get(row + 1..row + 1 + n).unwrap_or_default())?;
            row += n;
        }
        done += 1;
    }
    engine.cells().clear();
    Ok(done)
}

/// `f` of every row and its target, on `threads` threads, in order. What `f` gives depends on its row alone, so the result does
/// not depend on the threads.
pub(super) fn of_rows<T: Send>(
    rows: &[f32],
    targets: &[u32],
    threads: usize,
    f: impl Fn(usize, &[f32], u32) -> T + Sync,
) -> Vec<T> {
    let n_vocab = rows.len() / targets.len().max(1);
    let each = targets.len().div_ceil(threads.max(1)).max(1);
    if rows.is_empty() {
        return Vec::new();
    }
    let part = |(at, (rows, targets)): (usize, (&[f32], &[u32]))| -> Vec<T> {
        let pairs = rows.chunks_exact(n_vocab).zip(targets);
        pairs.enumerate().map(|(i, (row, target))| f(at * each + i, row, *target)).collect()
    };
    let parts = rows.chunks(each * n_vocab).zip(targets.chunks(each)).enumerate();
    if each >= targets.len() {
        return parts.flat_map(part).collect();
    }
    let part = &part;
    std::thread::scope(|scope| {
        let running: Vec<_> = parts.map(|p| scope.spawn(move || part(p))).collect();
        let joined = running.into_iter().map(|thread| match thread.join() {
            Ok(values) => values,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_knows_order_and_bos_and_no_more_windows_than_it_is_asked_for() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8];
        let text = Text { tokens: &tokens, bos: None, ctx: 4, most: None };
        let longer = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(text.hash(2), Text { tokens: &longer, ..text }.hash(2));
        assert_ne!(text.hash(2), text.hash(1));
        assert_ne!(text.hash(2), Text { bos: Some(0), ..text }.hash(2));
        assert_ne!(text.hash(1), Text { tokens: &[2, 1, 3, 4], ..text }.hash(1));
        assert_eq!((text.first(), text.scored()), (2, 1));
        // The reference value of the empty text and of "a".
        let mut fnv = Fnv::default();
        assert_eq!(fnv.0, 0xCBF2_9CE4_8422_2325);
        fnv.add(b"a");
        assert_eq!(fnv.0, 0xAF63_DC4C_8601_EC8C);
    }

    #[test]
    fn rows_are_taken_in_order_whatever_the_threads() {
        let rows: Vec<f32> = (0..21).map(|i| i as f32).collect();
        let targets = [0, 1, 2, 0, 1, 2, 0];
        let f = |i: usize, row: &[f32], target: u32| (i, row[target as usize]);
        let one = of_rows(&rows, &targets, 1, f);
        assert_eq!(one[5], (5, 17.0));
        for threads in [2, 3, 7, 50] {
            assert_eq!(of_rows(&rows, &targets, threads, f), one, "{threads}");
        }
        assert!(of_rows(&[], &[], 2, f).is_empty());
    }
}
