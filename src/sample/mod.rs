//! From logits to the next token: the sampling chain, with the stages, the order and the defaults of llama.cpp.
//!
//! A [`Sampler`] is made once per conversation and asked once per token:
//!
//! ```
//! use chaski::sample::{Breakers, Params, Sampler};
//!
//! let params = Params { seed: Some(42), ..Params::default() };
//! let mut sampler = Sampler::with_breakers(params, 4, Breakers::default())?;
//! sampler.set_history(&[0, 1]); // the prompt: what the penalties look back at
//! let token = sampler.sample(&[0.1, 2.5, 0.3, 1.0])?;
//! sampler.accept(token);
//! # Ok::<(), chaski::sample::Error>(())
//! ```
//!
//! The chain is: logit bias, then the stages of [`Params::samplers`] in their order, then a draw from what is
//! left. Mirostat replaces the stages by the temperature and its own truncation, as in llama.cpp.
//!
//! Two things are decided differently from llama.cpp, on purpose:
//! * A temperature of zero or less means the most probable token after logit bias and penalties, always. There,
//!   XTC or typical sampling may throw that token away before the temperature stage sees it.
//! * The draws come from ChaCha12 and the exponentials from a software `libm`, so that a seed gives the same
//!   tokens on every platform that computes the same logits. They are not llama.cpp's tokens for that seed.

mod candidates;
mod chain;
mod dry;
mod history;
mod mirostat;
mod params;
mod penalties;
mod rng;
mod stage;
mod temperature;
mod truncate;
mod xtc;

pub use candidates::Candidate;
pub use chain::Sampler;
pub use dry::{Breakers, Pieces};
pub use params::{Mirostat, Params, parse_logit_bias};
pub use stage::Stage;

/// What kept a sampler from being made, or a token from being chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter has a value that means nothing.
    #[error("{field}: {value} is not allowed: {rule}")]
    Param {
        /// The field of [`Params`].
        field: &'static str,
        /// The value that was given.
        value: String,
        /// What would be allowed.
        rule: String,
    },
    /// The order of the stages could not be read.
    #[error("samplers: {0}")]
    Order(String),
    /// A logit bias could not be read.
    #[error("logit_bias: {0:?} is not of the form TOKEN+BIAS or TOKEN-BIAS, such as 15043+1.5 or 15043-inf")]
    LogitBias(String),
    /// A logit bias names a token that the vocabulary lacks.
    #[error("logit_bias: token {token} is outside the vocabulary of {n_vocab} tokens")]
    BiasedToken {
        /// The token's id.
        token: u32,
        /// The vocabulary's size in tokens.
        n_vocab: usize,
    },
    /// There is no token to choose from, or more of them than a token id can count.
    #[error("a vocabulary of {n_vocab} tokens cannot be sampled from")]
    Vocabulary {
        /// The vocabulary's size in tokens.
        n_vocab: usize,
    },
    /// The row of logits is not of the vocabulary's length.
    #[error("{got} logits for a vocabulary of {n_vocab} tokens")]
    Length {
        /// Logits given.
        got: usize,
        /// The vocabulary's size in tokens.
        n_vocab: usize,
    },
    /// A logit is NaN or plus infinity: the model's computation went wrong.
    #[error("the logit of token {token} is {value}")]
    Logit {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token has a logit of minus infinity.
    #[error("no token can be chosen: every logit is -inf (the model's own, or after the logit bias)")]
    NothingLeft,
}
