//! One sequence: its tokens, and the evaluation of what is new.

use std::ops::ControlFlow;

use super::{BatchToken, Engine, Result};

/// The sequence number that a session uses.
const SEQUENCE: u32 = 0;

/// A sequence in an engine's cache.
pub struct Session {
    engine: Engine,
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

/// Whether reading a prompt was stopped by its watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted(pub bool);

impl Session {
    /// An empty sequence.
    pub fn new(engine: Engine) -> Session {
        Session { engine, tokens: Vec::new(), logits: Vec::new() }
    }
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The tokens that the cache holds.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Tokens that the cache can hold.
    pub fn n_ctx(&self) -> usize {
        self.engine.options().n_ctx
    }
    /// The logits after the last token: `n_vocab` values; none before anything was evaluated.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
    /// How many of these tokens the cache holds already, from the first on.
    pub fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
    /// Forget what comes after the first `len` tokens.
    ///
    /// # Errors
    /// As [`crate::kv::Cells::truncate`].
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len < self.tokens.len() {
            self.engine.cells().truncate(SEQUENCE, len as u32)?;
            self.tokens.truncate(len);
            self.logits.clear();
        }
        Ok(())
    }
    /// Make the cache hold exactly `tokens`, evaluating only what follows the longest prefix that it
    /// holds already (at least the last token, whose logits are wanted). `watch` is called with the
    /// tokens done and to do before every micro-batch and may stop the reading; what was read stays.
    ///
    /// # Errors
    /// As [`Engine::decode`]; what was read before the error stays.
    pub fn set_tokens(
        &mut self,
        tokens: &[u32],
        watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Interrupted> {
        let mut keep = self.common_prefix(tokens);
        if keep == tokens.len() && (keep < self.tokens.len() || self.logits.is_empty()) {
            keep = keep.saturating_sub(1);
        }
        self.truncate(keep)?;
        let (start, n_ubatch) = (keep, self.engine.options().n_ubatch);
        let mut at = start;
        while at < tokens.len() {
            if watch(at - start, tokens.len() - start).is_break() {
                return Ok(Interrupted(true));
            }
            let end = (at + n_ubatch).min(tokens.len());
            self.extend(&tokens[at..end], end == tokens.len())?;
            at = end;
        }
        Ok(Interrupted(false))
    }
    /// Evaluate one more token.
    ///
    /// # Errors
    /// As [`Engine::decode`].
    pub fn push(&mut self, token: u32) -> Result<&[f32]> {
        self.extend(&[token], true)?;
        Ok(&self.logits)
    }

    fn extend(&mut self, tokens: &[u32], last_wanted: bool) -> Result<()> {
        let first = self.tokens.len();
        let batch: Vec<BatchToken> = tokens
            .iter()
            .enumerate()
            .map(|(i, id)| BatchToken {
                id: *id,
                position: (first + i) as u32,
                sequence: SEQUENCE,
                logits: last_wanted && i + 1 == tokens.len(),
            })
            .collect();
        self.logits.clear();
        self.engine.decode(&batch, &mut self.logits)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
}
