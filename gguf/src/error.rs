//! One error type: what is wrong, in which field or tensor, at which byte offset.

use std::path::PathBuf;

/// The result of reading or writing a GGUF file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong with a file, where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes break a rule of the format.
    #[error("{what}: {why} (byte offset {offset})")]
    Malformed {
        /// The field, key or tensor.
        what: String,
        /// The rule that is broken, with the figures.
        why: String,
        /// Where in the file, in bytes from its start.
        offset: u64,
    },
    /// Well formed as far as can be seen, but nothing this reader can use.
    #[error("{what}: {why}")]
    Unsupported {
        /// The field, key, tensor or file.
        what: String,
        /// What was found and what would do.
        why: String,
    },
    /// A metadata key that is needed is not there.
    #[error("metadata key {key}: missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A tensor that is needed is not there.
    #[error("tensor {name}: missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A metadata value is of another type than the one asked for, or does not fit into it.
    #[error("metadata key {key}: wanted {wanted}, found {found}{}", Place(*.offset))]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        wanted: &'static str,
        /// The type that is there, and the value if it is that which does not fit.
        found: String,
        /// Where the value lies in the file; none if it was given by an override.
        offset: Option<u64>,
    },
    /// Something is wrong with one file of a split set.
    #[error("{path}: {source}")]
    Shard {
        /// The file of the set.
        path: PathBuf,
        /// What is wrong with it; offsets count from the start of that file.
        source: Box<Error>,
    },
    /// What was asked to be written cannot be a valid file.
    #[error("cannot write {what}: {why}")]
    Write {
        /// The key or tensor.
        what: String,
        /// The rule that it would break.
        why: String,
    },
    /// The one who was to deliver a tensor's bytes failed.
    #[error("cannot write tensor {tensor}: {source}")]
    Producer {
        /// The tensor.
        tensor: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }

    pub(crate) fn write(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Write { what: what.into(), why: why.into() }
    }
}

/// How a place is told at the end of a message.
struct Place(Option<u64>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " (byte offset {offset})"),
            None => f.write_str(" (given by an override)"),
        }
    }
}
