//! A text that a model is measured by: read, tokenized, and known to fill windows.

use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::file;
use super::options::{Context, EngineOptions};
use crate::measure::{self, Text};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Tokens of a window where `--ctx-size` does not say.
const WINDOW: usize = 512;

/// The context that a measurement by windows is loaded with: the window; none is the model's own.
pub(super) fn window(options: &EngineOptions) -> Option<usize> {
    match options.context {
        Context::Tokens(n) => Some(n as usize),
        Context::Default => Some(WINDOW),
        Context::Model => None,
    }
}

/// A text to be scored.
pub(super) struct Measured {
    /// The file.
    pub(super) path: PathBuf,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    tokens: Vec<u32>,
    bos: Option<u32>,
    ctx: usize,
    most: Option<usize>,
}

impl Measured {
    /// Read a text in windows of `ctx` tokens.
    ///
    /// # Errors
    /// It cannot be read, or does not fill a window.
    pub(super) fn read(
        path: &Path,
        tokenizer: &Tokenizer,
        ctx: usize,
        most: Option<usize>,
    ) -> Result<Measured, Failure> {
        if ctx < 4 {
            return Err(Failure::usage(format!("a window of {ctx} tokens has nothing to score")));
        }
        let bytes = file::read_text(path)?;
        let tokens = tokenizer.encode(&bytes, EncodeOptions { add_special: true, parse_special: false });
        let total = measure::windows(tokens.len(), ctx, most);
        if total == 0 {
            let (text, n) = (path.display(), tokens.len());
            let why = format!("{text}: {n} tokens do not fill a window of {ctx} (-c makes it smaller)");
            return Err(Failure::input(why));
        }
        if most.is_some_and(|n| n > total) {
            tracing::warn!("the text gives only {total} windows of {ctx} tokens");
        }
        let bos = tokenizer.special().bos.filter(|_| tokenizer.adds_bos());
        Ok(Measured { path: path.to_owned(), bytes, tokens, bos, ctx, most })
    }

    /// Its windows.
    pub(super) fn text(&self) -> Text<'_> {
        Text { tokens: &self.tokens, bos: self.bos, ctx: self.ctx, most: self.most }
    }

    /// Its name without folders.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}
