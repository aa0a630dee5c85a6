//! GGUF files: a checked, memory-mapped reader, a writer, and the one table of block formats.
//!
//! ```
//! use chaski_gguf::{Format, Gguf, Writer, keys};
//!
//! # fn main() -> chaski_gguf::Result<()> {
//! # let folder = std::env::temp_dir();
//! # let path = folder.join(format!("chaski-gguf-example-{}.gguf", std::process::id()));
//! let weights = [0u8; 34];
//! let mut writer = Writer::new();
//! writer.set(keys::GENERAL_ARCHITECTURE, "llama")?.set(&keys::block_count("llama"), 1u32)?;
//! writer.tensor("output.weight", &[32, 1], Format::Q8_0, &weights)?;
//! writer.save(&path)?;
//!
//! let file = Gguf::open(&path)?;
//! let arch = file.require_str(keys::GENERAL_ARCHITECTURE)?;
//! assert_eq!(file.require_u32(&keys::block_count(arch))?, 1);
//! let tensor = file.require_tensor("output.weight")?;
//! let mut values = [0.0; 32];
//! (tensor.info.format.info().decode)(tensor.bytes, &mut values);
//! # assert_eq!(values, [0.0; 32]);
//! # std::fs::remove_file(&path).ok();
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//!
//! Versions 1, 2 and 3 of the format, little-endian; every metadata type, arrays nested up to four deep; split
//! sets, from any of their files; tensors of every format in [`Format::ALL`]. Byte-swapped files, tensor types
//! that are not in the table, and things that are no GGUF file at all (a folder, a web page, a Git LFS pointer,
//! a safetensors or PyTorch file, models of before GGUF) are refused by name.
//!
//! # What is guaranteed
//!
//! * **Nothing is copied at open.** Metadata values and tensors are borrowed from the mapped file, the static
//!   slice or the buffer. Opening walks over the metadata once and never touches the tensors' bytes.
//! * **A file that opens is whole.** Every count, length and offset was checked against the file before it was
//!   used; strings are UTF-8 and bools 0 or 1; keys and tensor names are unique; shapes are whole rows of blocks
//!   whose sizes do not overflow; every tensor lies in its file, at a multiple of `general.alignment` (a power of
//!   two from 8 to 1 MiB), and no two share a byte. What the values mean is for the reader of a model to check:
//!   a dimension may be 0, token ids may be anything; [`Gguf::check_payload`] looks for NaN and infinity.
//! * **A hostile file does no harm.** No panic, no recursion deeper than the nesting that is allowed, no more than
//!   `n log n` time, and no allocation from an unchecked number: opening takes less than six times the size of
//!   the file in any one allocation (that is a file of nothing but the smallest tensors; for a model it is some
//!   100 bytes for each tensor).
//! * **Errors say where.** Each names the field, key or tensor and the byte offset; in a split set the file too.
//! * **Alignment.** The first byte of a file lies at a page (mapped), at 64 bytes (owned) or at 8 (static, which is
//!   checked), and a tensor at a multiple of `general.alignment`, at least 8, from there: every block and every
//!   plain number can be borrowed with `bytemuck::try_cast_slice`. A tensor without values gives an empty slice
//!   that is aligned too.
//!
//! # Where it is lenient, on purpose
//!
//! Gaps between tensors and tensors in another order than their descriptions, which llama.cpp refuses and the
//! specification allows; integers of another width than expected, where the value fits; a token id of all ones,
//! which means that there is none; a data section that would begin past the end, where no tensor has a byte.
//!
//! # A mapped file that changes
//!
//! A file that someone else shortens while it is mapped makes the system stop the program (SIGBUS) where a lost
//! page is touched. [`Gguf::tensor`] and [`Gguf::require_tensor`] ask for the file's length each time and
//! refuse a tensor that is not all there any more. What remains: a file that is cut while a borrowed slice is
//! being read, or between open and a look at the metadata; and one that is written over in place, whose bytes
//! then change under the reader. [`Writer::save`] does neither: it renames a new file into place.
//! [`OpenOptions`] with `mmap: false` reads everything at once and is safe from all of it.

pub mod block;
mod cursor;
mod encode;
mod error;
mod format;
mod header;
pub mod keys;
mod kind;
mod metadata;
mod pages;
mod payload;
mod read;
mod read_ahead;
mod sniff;
mod source;
mod split;
mod type_ids;
mod value;
mod write;

pub use error::{Error, Result};
pub use format::{Format, FormatInfo, Integers};
pub use kind::FileKind;
pub use metadata::parse_override;
pub use read::{Gguf, OpenOptions, TensorInfo, TensorRef};
pub use source::Aligned;
pub use value::{Array, OwnedValue, Value, ValueType};
pub use write::{FileLayout, ProducerError, Writer};
