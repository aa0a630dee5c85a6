//! Measures of a model: how fast it is, and how well it predicts a text.

pub mod bench;
mod perplexity;

pub use perplexity::{Perplexity, Window, perplexity, windows};
