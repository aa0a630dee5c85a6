//! GGUF files: a checked, memory-mapped reader, a writer, and the one table of block formats.
//!
//! Nothing is copied at open: metadata values and tensors are borrowed from the mapped file.

pub mod block;
mod cursor;
mod encode;
mod error;
mod format;
mod header;
pub mod keys;
mod kind;
mod metadata;
mod payload;
mod read;
mod sniff;
mod source;
mod split;
mod type_ids;
mod value;
mod write;

pub use error::{Error, Result};
pub use format::{Format, FormatInfo};
pub use kind::FileKind;
pub use metadata::parse_override;
pub use read::{Gguf, OpenOptions, TensorInfo, TensorRef};
pub use source::Aligned;
pub use value::{Array, OwnedValue, Value, ValueType};
pub use write::{ProducerError, Writer};
