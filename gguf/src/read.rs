//! Open a file: its metadata and its tensors, borrowed from where the bytes lie.

use std::path::{Path, PathBuf};

use crate::header::{self, Header};
use crate::metadata::Override;
use crate::source::Source;
use crate::{Aligned, Error, Format, Result, keys, split};

/// An open file (or a whole split set).
pub struct Gguf {
    /// The first shard. It holds the metadata.
    first: Shard,
    /// The other shards of a split set, in order.
    others: Vec<Shard>,
    /// The tensors of all shards, in order.
    tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, ordered by name.
    by_name: Vec<u32>,
    pub(crate) overrides: Vec<Override>,
}

/// One file with its header. `header.tensors` has moved into the set.
pub(crate) struct Shard {
    pub source: Source,
    pub header: Header,
    pub path: Option<PathBuf>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Map the file (true, the default), or read it into memory at once.
    pub mmap: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mmap: true }
    }
}

/// What the header says of a tensor.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Its name, unique in the file.
    pub name: String,
    /// Four dimensions in ggml's order: the row length first, absent ones are 1.
    pub shape: [u64; 4],
    /// How many dimensions the file gives (0 to 4).
    pub n_dims: usize,
    /// The format of its blocks.
    pub format: Format,
    /// Offset from the start of the data section of its shard, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The shard that holds it (0 for a file that is not split).
    pub shard: usize,
}

impl TensorInfo {
    /// How many values it has: the product of its shape, which was checked not to overflow.
    pub fn n_values(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A tensor: its description and its blocks, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// What the header says.
    pub info: &'a TensorInfo,
    /// The blocks, `info.bytes` of them.
    pub bytes: &'a [u8],
}

/// The bytes of a tensor without any: aligned, so that they can be cast like all others.
static EMPTY: Aligned<[u8; 0]> = Aligned([]);

impl Shard {
    fn new(source: Source, path: Option<PathBuf>, index: usize) -> Result<Self> {
        let header = Header::read(source.bytes(), index)?;
        Ok(Self { source, header, path })
    }

    pub fn open(path: &Path, options: OpenOptions, index: usize) -> Result<Self> {
        Self::new(Source::open(path, options.mmap)?, Some(path.to_owned()), index)
    }
}

impl Gguf {
    /// Map and parse the file at `path`. Any file of a split set opens the whole set.
    ///
    /// # Errors
    /// The file cannot be read, is something else than a GGUF file, or breaks a rule of the format.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// As [`Gguf::open`], with a choice of how.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Gguf> {
        let path = path.as_ref();
        let shard = Shard::open(path, *options, 0)?;
        let file = Self::assemble(shard, Vec::new())?;
        match split::Place::of(&file)? {
            Some(place) => place.open_set(file, path, *options),
            None => Ok(file),
        }
    }

    /// Parse a copy of `bytes`.
    ///
    /// # Errors
    /// The bytes are no GGUF file, break a rule of the format, or are one file of a split set.
    pub fn from_bytes(bytes: &[u8]) -> Result<Gguf> {
        Self::whole(Source::copied(bytes)?)
    }

    /// Parse bytes that are part of the program, without a copy. They must begin at an address that 8
    /// divides, which `include_bytes!` does not see to: wrap them in [`crate::Aligned`].
    ///
    /// # Errors
    /// As [`Gguf::from_bytes`]; or the bytes are not aligned.
    pub fn from_static(bytes: &'static [u8]) -> Result<Gguf> {
        Self::whole(Source::fixed(bytes)?)
    }

    /// Parse a copy of the bytes before the data section alone ([`crate::FileLayout::head`]): the metadata and the
    /// descriptions of tensors whose bytes are elsewhere, or still to be made. Asking for those bytes is an error.
    ///
    /// # Errors
    /// As [`Gguf::from_bytes`], but that no tensor need lie in the bytes.
    pub fn from_head(bytes: &[u8]) -> Result<Gguf> {
        let source = Source::copied(bytes)?;
        let header = Header::read_for(source.bytes(), 0, u64::MAX)?;
        Self::assemble(Shard { source, header, path: None }, Vec::new())
    }

    fn whole(source: Source) -> Result<Gguf> {
        let file = Self::assemble(Shard::new(source, None, 0)?, Vec::new())?;
        if split::Place::of(&file)?.is_some() {
            return Err(
                file.bad_key(keys::SPLIT_COUNT, "says that this is one file of several; open it by its path")
            );
        }
        Ok(file)
    }

    /// Put shards together: the first holds the metadata, all hold tensors.
    pub(crate) fn assemble(mut first: Shard, mut others: Vec<Shard>) -> Result<Gguf> {
        let mut tensors = std::mem::take(&mut first.header.tensors);
        for shard in &mut others {
            tensors.append(&mut shard.header.tensors);
        }
        if let Some((twice, _)) = header::duplicate(&tensors) {
            let why = "is in two files of the split set";
            return Err(Error::unsupported(format!("tensor {}", twice.name), why));
        }
        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_unstable_by_key(|i| tensors.get(*i as usize).map(|t: &TensorInfo| t.name.as_str()));
        Ok(Gguf { first, others, tensors, by_name, overrides: Vec::new() })
    }

    pub(crate) fn first(&self) -> &Shard {
        &self.first
    }

    /// Take the shard out again, with its tensors.
    pub(crate) fn into_first(self) -> Shard {
        let mut first = self.first;
        first.header.tensors = self.tensors;
        first
    }

    pub(crate) fn shard(&self, index: usize) -> Option<&Shard> {
        match index.checked_sub(1) {
            None => Some(&self.first),
            Some(i) => self.others.get(i),
        }
    }

    /// The version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.first.header.version
    }

    /// How many files it is made of: 1, or more for a split set.
    pub fn n_shards(&self) -> usize {
        1 + self.others.len()
    }

    /// The files that it is made of, in order; none if it was not opened by a path.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.first).chain(&self.others).filter_map(|shard| shard.path.as_deref())
    }

    /// The size of all its files in bytes.
    pub fn file_bytes(&self) -> u64 {
        std::iter::once(&self.first).chain(&self.others).map(|s| s.source.bytes().len() as u64).sum()
    }

    /// Every tensor's description, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The description of the tensor of this name, if the file has it.
    pub fn tensor_info(&self, name: &str) -> Option<&TensorInfo> {
        let info = |i: u32| self.tensors.get(i as usize);
        let found = self.by_name.binary_search_by(|i| info(*i).map_or("", |t| &t.name).cmp(name)).ok()?;
        info(*self.by_name.get(found)?)
    }

    /// The tensor of this name; none if the file has no such tensor or was cut since it was opened
    /// ([`Gguf::require_tensor`] tells which).
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        self.require_tensor(name).ok()
    }

    /// The tensor of this name. Asks the system for the file's length, so that a file that was cut since it
    /// was opened is an error here and not a fault at the first read.
    ///
    /// # Errors
    /// There is no such tensor, or the file does not hold its bytes any more.
    pub fn require_tensor(&self, name: &str) -> Result<TensorRef<'_>> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let info = self.tensor_info(name).ok_or_else(missing)?;
        let shard = self.shard(info.shard).ok_or_else(missing)?;
        if info.bytes == 0 {
            return Ok(TensorRef { info, bytes: &EMPTY.0 });
        }
        let start = shard.header.data_start + info.offset;
        let end = start + info.bytes;
        let path = || shard.path.clone().unwrap_or_default();
        let len = shard.source.len_now().map_err(|e| Error::io(path(), e))?;
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let bytes =
            range.filter(|_| end <= len).and_then(|(start, end)| shard.source.bytes().get(start..end));
        let bytes = bytes.ok_or_else(|| {
            let why = format!(
                "takes the bytes {start} to {end}, but the file was cut to {len} since it was opened"
            );
            self.in_shard(info.shard, Error::Malformed { what: format!("tensor {name}"), why, offset: len })
        })?;
        Ok(TensorRef { info, bytes })
    }

    /// Read all mapped files into memory and keep them there (`mlock`). Bytes that are not mapped are in memory
    /// already, but may be swapped out: for them this is an error, so that the wish is not passed over.
    ///
    /// # Errors
    /// The system refuses (its limit on locked memory, `ulimit -l`, may be lower), or a file is not mapped.
    pub fn lock(&self) -> Result<()> {
        for shard in std::iter::once(&self.first).chain(&self.others) {
            let path = shard.path.clone().unwrap_or_default();
            if !shard.source.lock().map_err(|e| Error::io(&path, e))? {
                let why = "only a mapped file can be locked into memory, on Unix";
                return Err(Error::unsupported(path.display().to_string(), why));
            }
        }
        Ok(())
    }

    /// Where a tensor's first byte lies in its file.
    pub fn file_offset(&self, info: &TensorInfo) -> u64 {
        self.shard(info.shard).map_or(0, |shard| shard.header.data_start.saturating_add(info.offset))
    }

    /// The error, with the file's name where there are several.
    pub(crate) fn in_shard(&self, index: usize, error: Error) -> Error {
        match self.shard(index).and_then(|shard| shard.path.clone()) {
            Some(path) if self.n_shards() > 1 => Error::Shard { path, source: Box::new(error) },
            _ => error,
        }
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version())
            .field("shards", &self.n_shards())
            .field("keys", &self.first.header.entries.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
