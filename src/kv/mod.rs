//! The KV cache.

pub mod cells;
pub mod f8e4m3;
pub mod format;
#[cfg(test)]
pub(crate) mod random;
pub mod visible;

pub use cells::{Cells, CellsError, SeqPos};
pub use format::KvFormat;
pub use visible::{Span, View, Visible};
