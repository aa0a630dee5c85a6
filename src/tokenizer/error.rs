//! What can be wrong with a file's tokenizer.

/// Why a tokenizer could not be built from a file's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key that this kind of tokenizer needs is not in the file.
    #[error("{key}: missing from the file's metadata")]
    Missing {
        /// The metadata key.
        key: &'static str,
    },
    /// A key holds a value of a type that cannot be used.
    #[error("{key}: expected {expected}")]
    Type {
        /// The metadata key.
        key: &'static str,
        /// What would do.
        expected: &'static str,
    },
    /// Two arrays that describe the same tokens differ in length.
    #[error("{key}: {len} elements for {tokens} tokens")]
    Length {
        /// The metadata key of the array that does not fit.
        key: &'static str,
        /// Its length.
        len: usize,
        /// The number of tokens.
        tokens: usize,
    },
    /// A token id that the vocabulary does not have.
    #[error("{key}: token {id} of a vocabulary of {tokens}")]
    Id {
        /// The metadata key.
        key: &'static str,
        /// The id in the file.
        id: i64,
        /// The number of tokens.
        tokens: usize,
    },
    /// An element of an array breaks a rule.
    #[error("{key}[{index}]: {why}")]
    Element {
        /// The metadata key.
        key: &'static str,
        /// The element, counted from 0.
        index: usize,
        /// The rule and what was found.
        why: String,
    },
    /// More text than this tokenizer handles.
    #[error("{key}: {why}")]
    TooLarge {
        /// The metadata key.
        key: &'static str,
        /// The limit and what was found.
        why: String,
    },
    /// A kind of tokenizer that is known by name and not built yet.
    #[error("tokenizer.ggml.model: the {name} tokenizer ('{kind}') comes later; now there are {supported}")]
    LaterKind {
        /// The value of `tokenizer.ggml.model`.
        kind: String,
        /// The algorithm's name.
        name: &'static str,
        /// The kinds that work.
        supported: &'static str,
    },
    /// A kind of tokenizer that nobody has heard of.
    #[error("tokenizer.ggml.model: unknown kind '{kind}'; known are {supported}")]
    UnknownKind {
        /// The value of `tokenizer.ggml.model`.
        kind: String,
        /// The kinds that work.
        supported: &'static str,
    },
    /// Any of the others, with its place in the file.
    #[error("{error} (byte offset {offset})")]
    At {
        /// What is wrong.
        error: Box<Error>,
        /// Where the key's value begins in the file, in bytes.
        offset: u64,
    },
    /// A pre-tokenizer that is not in the table.
    #[error("tokenizer.ggml.pre: unknown pre-tokenizer '{pre}'; known are {known}")]
    UnknownPre {
        /// The value of `tokenizer.ggml.pre`.
        pre: String,
        /// Every name in the table.
        known: String,
    },
}

impl Error {
    /// The metadata key that it speaks of.
    pub fn key(&self) -> &'static str {
        match self {
            Error::Missing { key }
            | Error::Type { key, .. }
            | Error::Length { key, .. }
            | Error::Id { key, .. }
            | Error::Element { key, .. }
            | Error::TooLarge { key, .. } => key,
            Error::LaterKind { .. } | Error::UnknownKind { .. } => "tokenizer.ggml.model",
            Error::UnknownPre { .. } => "tokenizer.ggml.pre",
            Error::At { error, .. } => error.key(),
        }
    }
}
