//! GGUF files: a checked, memory-mapped reader, a writer, and the one table of block formats.
//!
//! Nothing is copied at open: metadata values and tensors are borrowed from the mapped file.

pub mod block;
mod error;
mod format;
mod read;
mod value;

pub use error::{Error, Result};
pub use format::{Format, FormatInfo};
pub use read::{Gguf, TensorInfo, TensorRef};
pub use value::{Array, OwnedValue, Value, ValueType};
