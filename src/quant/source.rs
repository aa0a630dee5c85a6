//! Where the tensors that are quantized come from: a GGUF file, or something that is read as if it were one.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use chaski_gguf::Gguf;

use super::QuantError;
use super::measures::Sums;

/// A model whose tensors are read a piece at a time, so that none need be in memory.
pub trait Source: Sync {
    /// The metadata, and the names, shapes and formats of the tensors. Their bytes need not be in it.
    fn head(&self) -> &Gguf;

    /// The bytes `range` of a tensor in the format that the head says: whole rows of one of its matrices. Runs in the pool
    /// of threads of the caller.
    ///
    /// # Errors
    /// There is no such tensor, or its bytes cannot be had any more.
    fn read(&self, tensor: &str, range: Range<u64>) -> Result<Piece<'_>, QuantError>;

    /// The files that it is made of.
    fn files(&self) -> Vec<PathBuf>;
}

/// A piece of a tensor.
pub struct Piece<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// What these bytes lost against what the source says exactly; none where they are what the source says.
    pub lost: Option<Sums>,
}

impl Source for Gguf {
    fn head(&self) -> &Gguf {
        self
    }

    fn read(&self, tensor: &str, range: Range<u64>) -> Result<Piece<'_>, QuantError> {
        let bytes = self.require_tensor(tensor)?.bytes;
        let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let part = part.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(|| {
            let why = format!("has {} bytes, not those from {} to {}", bytes.len(), range.start, range.end);
            chaski_gguf::Error::Unsupported { what: format!("tensor {tensor}"), why }
        })?;
        Ok(Piece { bytes: Cow::Borrowed(part), lost: None })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.paths().map(Path::to_owned).collect()
    }
}
