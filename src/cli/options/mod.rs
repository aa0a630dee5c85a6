//! What the flags mean together: ready-made values, and a word about every flag that has no effect in this run.

mod conversation;
mod engine;
mod gpu;
mod sampling;

use std::path::PathBuf;

pub use conversation::{Conversation, TemplateChoice};
pub use engine::{Context, EngineOptions, cache_format, context};
pub use gpu::{check_no_gpu, parse_size};
pub use sampling::Generation;

use super::args::ModelArgs;
use super::exit::Failure;

/// The path of the model, from wherever it was given.
///
/// # Errors
/// No model, or the embedded one, which this build does not have.
pub fn model_path(model: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let path = model.ok_or_else(|| Failure::usage("which model? Name a GGUF file: MODEL, or -m MODEL"))?;
    if path.as_os_str() == "demo" {
        return Err(Failure::usage(
            "the embedded model `demo` is not built yet (a file of that name is ./demo)",
        ));
    }
    Ok(path)
}

impl ModelArgs {
    /// The path of the model.
    ///
    /// # Errors
    /// No model, or the embedded one, which this build does not have.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        model_path(self.model.clone().or_else(|| self.model_flag.clone()))
    }
}
