//! Generation: a prompt is read, then token after token is sampled until the answer ends.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::text::{Outgoing, Piece, Reasoning, Stops};
use crate::engine::{EngineError, Interrupted, Session};
use crate::sample::{self, Pieces, Sampler};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// When an answer ends, other than by the model's own word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerateOptions {
    /// At most this many tokens.
    pub max_tokens: Option<usize>,
    /// At any of these texts, which are not part of the answer.
    pub stops: Vec<String>,
    /// The marks around reasoning, as [`Reasoning`] takes them, and whether the prompt has opened it.
    pub reasoning: Option<(String, String)>,
    /// The prompt ends inside of reasoning.
    pub in_reasoning: bool,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string was complete.
    StopString,
    /// As many tokens as were asked for.
    Limit,
    /// The context is full.
    ContextFull,
    /// Whoever watches said so.
    Interrupted,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The answer's text, without reasoning.
    pub text: String,
    /// The reasoning's text; empty where there was none.
    pub reasoning: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// Tokens of the prompt that were evaluated now.
    pub prompt_evaluated: usize,
    /// Tokens of the prompt that the cache held already.
    pub prompt_reused: usize,
    /// How long reading the prompt took.
    pub prompt_time: Duration,
    /// How long the answer took, from the end of the prompt.
    pub time: Duration,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Evaluating.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// Sampling.
    #[error("{0}")]
    Sample(#[from] sample::Error),
    /// No room even for the prompt.
    #[error("the prompt has {tokens} tokens, the context holds {n_ctx}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        n_ctx: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
}

/// A prompt being read: tokens done, and tokens to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Evaluated so far, without those that the cache held.
    pub done: usize,
    /// To be evaluated in all.
    pub total: usize,
}

/// A tokenizer as the sampler's breakers need it.
pub struct TokenizerPieces<'a>(pub &'a Tokenizer);

impl Pieces for TokenizerPieces<'_> {
    fn piece(&self, token: u32, text: &mut Vec<u8>) {
        text.extend_from_slice(self.0.token_bytes(token));
    }
    fn tokenize(&self, text: &[u8]) -> Option<Vec<u32>> {
        let text = std::str::from_utf8(text).ok()?;
        Some(self.0.encode(text, EncodeOptions { add_special: false, parse_special: false }))
    }
}

/// Read `prompt` into the session and generate what follows. `watch` sees the reading, `emit` every
/// piece of text as it becomes certain (an empty one for a token that completes none); either may end
/// the answer, whose tokens so far stay in the session.
///
/// # Errors
/// The prompt does not fit the context, evaluating fails, or the logits cannot be sampled.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &GenerateOptions,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    emit: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
) -> Result<Outcome, GenerateError> {
    let n_ctx = session.n_ctx();
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt.len() > n_ctx {
        return Err(GenerateError::PromptTooLong { tokens: prompt.len(), n_ctx });
    }
    let started = Instant::now();
    let mut to_do = 0;
    let read = session.set_tokens(prompt, &mut |done, total| {
        to_do = total;
        watch(Progress { done, total })
    })?;
    let reused = prompt.len() - to_do;
    let mut outcome = Outcome {
        text: String::new(),
        reasoning: String::new(),
        tokens: Vec::new(),
        ended: Ended::Interrupted,
        prompt_evaluated: session.tokens().len().saturating_sub(reused),
        prompt_reused: reused,
        prompt_time: started.elapsed(),
        time: Duration::ZERO,
    };
    if read == Interrupted(true) {
        return Ok(outcome);
    }
    let started = Instant::now();
    sampler.set_history(prompt);
    let mut detokenizer = tokenizer.detokenizer(false);
    let marks = options.reasoning.as_ref().map(|(open, close)| (open.as_str(), close.as_str()));
    // Marks may be control tokens, which have no text of their own in an answer.
    let mark_of = |token: u32| {
        let (open, close) = marks?;
        let text = tokenizer.token_bytes(token);
        let control = tokenizer.token_kind(token).is_special();
        [open, close].into_iter().find(|mark| control && mark.as_bytes() == text)
    };
    let reasoning = Reasoning::new(marks, options.in_reasoning);
    let mut outgoing = Outgoing::new(Stops::new(&options.stops), reasoning);
    let mut deliver = |pieces: Vec<Piece>, outcome: &mut Outcome| {
        let mut flow = ControlFlow::Continue(());
        for piece in pieces {
            let text = if piece.reasoning { &mut outcome.reasoning } else { &mut outcome.text };
            text.push_str(&piece.text);
            if emit(&piece).is_break() {
                flow = ControlFlow::Break(());
            }
        }
        flow
    };
    let silent = || vec![Piece { text: String::new(), reasoning: false }];
    outcome.ended = loop {
        if options.max_tokens == Some(0) {
            break Ended::Limit;
        }
        let token = sampler.sample(session.logits())?;
        if tokenizer.is_end_of_generation(token) {
            break Ended::EndOfTurn;
        }
        sampler.accept(token);
        outcome.tokens.push(token);
        let text = match mark_of(token) {
            Some(mark) => mark.to_owned(),
            None => detokenizer.push(token).to_owned(),
        };
        let (mut pieces, stopped) = outgoing.push(&text);
        if pieces.is_empty() {
            pieces = silent();
        }
        let flow = deliver(pieces, &mut outcome);
        if stopped {
            break Ended::StopString;
        }
        if flow.is_break() {
            break Ended::Interrupted;
        }
        if options.max_tokens.is_some_and(|most| outcome.tokens.len() >= most) {
            break Ended::Limit;
        }
        if session.tokens().len() >= n_ctx {
            break Ended::ContextFull;
        }
        session.push(token)?;
    };
    if outcome.ended != Ended::StopString {
        let (mut pieces, _) = outgoing.push(detokenizer.finish());
        pieces.extend(outgoing.finish());
        pieces.retain(|p| !p.text.is_empty());
        // The answer is over: whether to go on is no question any more.
        let _ = deliver(pieces, &mut outcome);
    }
    outcome.time = started.elapsed();
    Ok(outcome)
}
