//! Measures of a model: how well it predicts a text.

mod perplexity;

pub use perplexity::{Perplexity, Window, perplexity, windows};
