//! What the flags mean together: ready-made values, and a word about every flag that has no effect in this run.

mod conversation;
mod engine;
mod gpu;
mod sampling;

use std::path::PathBuf;

pub use conversation::{Conversation, TemplateChoice};
pub use engine::{Context, EngineOptions, cache_format, context};
pub use gpu::{GpuOptions, Place, parse_size};
pub use sampling::Generation;

use super::args::ModelArgs;
use super::exit::Failure;
use super::source::ModelSource;

impl ModelArgs {
    /// What was typed for MODEL, wherever it stood.
    fn typed(&self) -> Option<PathBuf> {
        self.model.clone().or_else(|| self.model_flag.clone())
    }
    /// The model.
    ///
    /// # Errors
    /// None is named, or the embedded one in a build that has none.
    pub fn source(&self) -> Result<ModelSource, Failure> {
        ModelSource::new(self.typed())
    }
    /// The model; where none is named, the embedded one.
    ///
    /// # Errors
    /// The embedded one is meant, and this build has none.
    pub fn source_or_embedded(&self) -> Result<ModelSource, Failure> {
        ModelSource::or_embedded(self.typed())
    }
}
