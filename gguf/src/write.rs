//! Write a file: metadata in the order in which it is set, then tensors, streamed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::header::{DEFAULT_ALIGNMENT, MAX_DIMS, MAX_NAME, check_alignment, size_of_tensor};
use crate::metadata::check_key;
use crate::value::parse_whole;
use crate::{Error, Format, Gguf, OwnedValue, Result, Value, ValueType, encode, keys, sniff};

/// What a producer of tensor bytes may fail with.
pub type ProducerError = Box<dyn std::error::Error + Send + Sync>;

/// Delivers a tensor's bytes when their turn comes.
type Producer<'a> = Box<dyn FnOnce(&mut dyn Write) -> Result<(), ProducerError> + 'a>;

/// A file to be written, version 3, little-endian.
///
/// ```
/// use chaski_gguf::{Format, Gguf, Writer};
/// let weights: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
/// let mut writer = Writer::new();
/// writer.set("general.architecture", "llama")?.set("llama.block_count", 1u32)?;
/// writer.tensor("output_norm.weight", &[2], Format::F32, &weights)?;
/// let mut bytes = Vec::new();
/// writer.write_to(&mut bytes)?;
/// let file = Gguf::from_bytes(&bytes)?;
/// assert_eq!(file.require_tensor("output_norm.weight")?.bytes, weights);
/// # Ok::<(), chaski_gguf::Error>(())
/// ```
pub struct Writer<'a> {
    entries: Vec<Entry>,
    /// Position in `entries` by key.
    by_key: HashMap<String, usize>,
    tensors: Vec<Tensor<'a>>,
    names: HashSet<String>,
    alignment: u64,
}

/// What a file to be looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayout {
    /// Everything before the first tensor, padding included.
    pub head: Vec<u8>,
    /// Where each tensor lies in the file, the padding after it included.
    pub tensors: Vec<std::ops::Range<u64>>,
}

struct Entry {
    key: String,
    ty: ValueType,
    bytes: Vec<u8>,
}

struct Tensor<'a> {
    name: String,
    shape: Vec<u64>,
    format: Format,
    bytes: u64,
    data: Data<'a>,
}

enum Data<'a> {
    Slice(&'a [u8]),
    Producer(Producer<'a>),
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    /// A file without metadata or tensors.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            by_key: HashMap::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
            alignment: DEFAULT_ALIGNMENT,
        }
    }

    /// A copy of `file`: all its metadata and tensors in its order, overrides included. A split set becomes
    /// one file.
    ///
    /// # Errors
    /// The file was cut since it was opened.
    pub fn copy_of(file: &'a Gguf) -> Result<Self> {
        let mut writer = Self::new();
        writer.copy_metadata(file, |_| true)?;
        for info in file.tensors() {
            let data = file.require_tensor(&info.name)?.bytes;
            writer.tensor(
                &info.name,
                info.shape.get(..info.n_dims).unwrap_or(&info.shape),
                info.format,
                data,
            )?;
        }
        Ok(writer)
    }

    /// Set every key of `file` that `keep` says yes to; what tells of a split set is left out where the
    /// file is one of several.
    ///
    /// # Errors
    /// Cannot happen with the metadata of an open file, which was checked by the same rules.
    pub fn copy_metadata(&mut self, file: &Gguf, keep: impl Fn(&str) -> bool) -> Result<&mut Self> {
        for (key, value) in file.metadata() {
            if keep(key) && !(file.n_shards() > 1 && key.starts_with("split.")) {
                self.set_value(key, value)?;
            }
        }
        Ok(self)
    }

    /// Set a key. One that is set already keeps its place and gets the new value.
    ///
    /// # Errors
    /// The key is empty or too long; an array holds elements of several types or is nested too deep;
    /// `general.alignment` is none that a reader accepts.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) -> Result<&mut Self> {
        let value = value.into();
        let mut bytes = Vec::new();
        encode::owned(&mut bytes, &value).map_err(|why| key_error(key, why))?;
        self.put(key, value.ty(), bytes)
    }

    /// As [`Writer::set`], from a borrowed value.
    ///
    /// # Errors
    /// As [`Writer::set`].
    pub fn set_value(&mut self, key: &str, value: Value<'_>) -> Result<&mut Self> {
        let mut bytes = Vec::new();
        encode::borrowed(&mut bytes, &value).map_err(|why| key_error(key, why))?;
        self.put(key, value.ty(), bytes)
    }

    fn put(&mut self, key: &str, ty: ValueType, bytes: Vec<u8>) -> Result<&mut Self> {
        check_key(key).map_err(|why| key_error(key, why))?;
        if key == keys::GENERAL_ALIGNMENT {
            let value = parse_whole(ty, &bytes, false);
            let n =
                value.and_then(|v| v.as_u64()).ok_or_else(|| key_error(key, format!("is of type {ty}")))?;
            check_alignment(n).map_err(|why| key_error(key, why))?;
            self.alignment = n;
        }
        let entry = Entry { key: key.to_owned(), ty, bytes };
        if let Some(known) = self.by_key.get(key).and_then(|i| self.entries.get_mut(*i)) {
            *known = entry;
        } else {
            self.by_key.insert(key.to_owned(), self.entries.len());
            self.entries.push(entry);
        }
        Ok(self)
    }

    /// Add a tensor whose blocks are at hand. `shape` has the row length first, as in [`crate::TensorInfo`].
    ///
    /// # Errors
    /// The name is empty, too long or there already; the shape does not fit the format or `data`.
    pub fn tensor(&mut self, name: &str, shape: &[u64], format: Format, data: &'a [u8]) -> Result<&mut Self> {
        self.add(name, shape, format, Data::Slice(data))?;
        let wanted = self.tensors.last().map_or(0, |t| t.bytes);
        if data.len() as u64 != wanted {
            let why =
                format!("its data has {} bytes, its shape {shape:?} as {format} takes {wanted}", data.len());
            self.tensors.pop();
            self.names.remove(name);
            return Err(tensor_error(name, why));
        }
        Ok(self)
    }

    /// Add a tensor whose blocks `producer` will write when its turn comes, exactly as many bytes as the
    /// shape takes. One tensor is asked for at a time, in the order in which they were added.
    ///
    /// # Errors
    /// As [`Writer::tensor`].
    pub fn tensor_with(
        &mut self,
        name: &str,
        shape: &[u64],
        format: Format,
        producer: impl FnOnce(&mut dyn Write) -> Result<(), ProducerError> + 'a,
    ) -> Result<&mut Self> {
        self.add(name, shape, format, Data::Producer(Box::new(producer)))
    }

    fn add(&mut self, name: &str, shape: &[u64], format: Format, data: Data<'a>) -> Result<&mut Self> {
        match name.len() as u64 {
            0 => return Err(tensor_error(name, "its name is empty")),
            n if n > MAX_NAME => {
                return Err(tensor_error(name, format!("its name has {n} bytes, more than {MAX_NAME}")));
            }
            _ => {}
        }
        let mut full = [1u64; MAX_DIMS];
        let Some(dims) = full.get_mut(..shape.len()) else {
            return Err(tensor_error(name, format!("has {} dimensions, more than {MAX_DIMS}", shape.len())));
        };
        dims.copy_from_slice(shape);
        let bytes = size_of_tensor(&full, format).map_err(|why| tensor_error(name, why))?;
        if !self.names.insert(name.to_owned()) {
            return Err(tensor_error(name, "is there already"));
        }
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_owned(), format, bytes, data });
        Ok(self)
    }

    /// The size of the file to be.
    ///
    /// # Errors
    /// The sizes add up to more than a file can have.
    pub fn file_bytes(&self) -> Result<u64> {
        let (header, offsets) = self.header()?;
        let data = offsets.last().zip(self.tensors.last());
        Ok(header.len() as u64
            + data.map_or(0, |(offset, t)| offset + t.bytes.next_multiple_of(self.alignment)))
    }

    /// Take a key away again, if it is set.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.entries.retain(|entry| entry.key != key);
        self.by_key = self.entries.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        self
    }

    /// What the file will look like, for those who write it by themselves.
    ///
    /// # Errors
    /// The sizes add up to more than a file can have.
    pub fn layout(&self) -> Result<FileLayout> {
        let (head, offsets) = self.header()?;
        let data = head.len() as u64;
        let range = |(offset, tensor): (&u64, &Tensor<'_>)| {
            data + offset..data + offset + tensor.bytes.next_multiple_of(self.alignment)
        };
        let tensors = offsets.iter().zip(&self.tensors).map(range).collect();
        Ok(FileLayout { head, tensors })
    }

    /// The bytes before the data section, padding included, and each tensor's offset.
    fn header(&self) -> Result<(Vec<u8>, Vec<u64>)> {
        let mut out = Vec::new();
        out.extend(sniff::MAGIC);
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            encode::string(&mut out, &entry.key);
            out.extend((entry.ty as u32).to_le_bytes());
            out.extend(&entry.bytes);
        }
        let mut offsets = Vec::with_capacity(self.tensors.len());
        let mut offset = 0u64;
        for tensor in &self.tensors {
            encode::string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.format.info().id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offsets.push(offset);
            let next =
                tensor.bytes.checked_next_multiple_of(self.alignment).and_then(|n| offset.checked_add(n));
            // A quarter of the range leaves room for the header and for every later sum.
            offset = next
                .filter(|n| *n <= u64::MAX / 4)
                .ok_or_else(|| tensor_error(&tensor.name, "the file would be too large"))?;
        }
        if !self.tensors.is_empty() {
            pad(&mut out, self.alignment);
        }
        Ok((out, offsets))
    }

    /// Write the file to `out`, which is not flushed. Tells the number of bytes.
    ///
    /// # Errors
    /// `out` or a producer fails, or a producer writes another number of bytes than its tensor takes.
    pub fn write_to(self, out: &mut dyn Write) -> Result<u64> {
        let io = |e| Error::io("output", e);
        let (header, _) = self.header()?;
        out.write_all(&header).map_err(io)?;
        let mut written = header.len() as u64;
        for tensor in self.tensors {
            let mut sink = Sink { out: &mut *out, left: tensor.bytes };
            match tensor.data {
                Data::Slice(data) => sink.write_all(data).map_err(io)?,
                Data::Producer(producer) => producer(&mut sink)
                    .map_err(|source| Error::Producer { tensor: tensor.name.clone(), source })?,
            }
            if sink.left > 0 {
                let why =
                    format!("its producer wrote {} of {} bytes", tensor.bytes - sink.left, tensor.bytes);
                return Err(tensor_error(&tensor.name, why));
            }
            let padded = tensor.bytes.next_multiple_of(self.alignment);
            let padding = vec![0; (padded - tensor.bytes) as usize];
            out.write_all(&padding).map_err(io)?;
            written += padded;
        }
        Ok(written)
    }

    /// Write the file at `path`: into a temporary file beside it, which takes its name when it is complete.
    /// Whatever was there stays whole until then, and stays if the writing fails. Tells the number of bytes.
    ///
    /// # Errors
    /// As [`Writer::write_to`]; or the folder cannot be written to.
    pub fn save(self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let temporary = Temporary::beside(path)?;
        let io = |e| Error::io(path, e);
        let mut out = BufWriter::with_capacity(1 << 20, &temporary.file);
        let written = self.write_to(&mut out).map_err(|error| match error {
            Error::Io { source, .. } => io(source),
            error => error,
        })?;
        out.flush().map_err(io)?;
        drop(out);
        temporary.file.sync_all().map_err(io)?;
        temporary.rename_to(path).map_err(io)?;
        Ok(written)
    }
}

fn key_error(key: &str, why: impl Into<String>) -> Error {
    Error::write(format!("metadata key {key}"), why)
}

fn tensor_error(name: &str, why: impl Into<String>) -> Error {
    Error::write(format!("tensor {name}"), why)
}

fn pad(out: &mut Vec<u8>, alignment: u64) {
    out.resize((out.len() as u64).next_multiple_of(alignment) as usize, 0);
}

/// Passes on at most so many bytes.
struct Sink<'w> {
    out: &'w mut dyn Write,
    left: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() as u64 > self.left {
            let why = format!("{} bytes more than the tensor takes", bytes.len() as u64 - self.left);
            return Err(std::io::Error::other(why));
        }
        let n = self.out.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A file that is removed unless it gets its name.
struct Temporary {
    file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    fn beside(path: &Path) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let path = path.with_file_name(name);
        let file =
            File::options().write(true).create_new(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self { file, path: Some(path) })
    }

    fn rename_to(mut self, path: &Path) -> std::io::Result<()> {
        let Some(own) = self.path.take() else { return Ok(()) };
        std::fs::rename(&own, path).inspect_err(|_| self.path = Some(own))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing can be done about a temporary file that cannot be removed.
            let _ = std::fs::remove_file(path);
        }
    }
}
