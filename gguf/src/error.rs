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
}
