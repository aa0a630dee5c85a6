//! Measures of a model: how fast it is, how well it predicts a text, and how far its predictions are from another's.

pub mod bench;
pub mod kl;
mod kl_base;
mod perplexity;
mod spread;
mod text;

pub use kl::{Divergence, KlError, divergence, save_base};
pub use kl_base::{About, Base, BaseWriter, Header};
pub use perplexity::{Perplexity, Window, perplexity, windows};
pub use spread::{Estimate, Spread};
pub use text::Text;
