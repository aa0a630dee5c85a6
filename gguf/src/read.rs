//! Open a file: its metadata and its tensors, borrowed from the map.

use std::path::Path;

use crate::value::parse;
use crate::{Error, Format, Result, Value, ValueType};

/// An open file (or a whole split set).
pub struct Gguf {
    data: memmap2::Mmap,
    version: u32,
    keys: Vec<(String, ValueType, usize)>,
    tensors: Vec<TensorInfo>,
    data_start: usize,
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

/// A tensor: its description and its blocks, borrowed.
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    /// What the header says.
    pub info: &'a TensorInfo,
    /// The blocks, `info.bytes` of them.
    pub bytes: &'a [u8],
}

impl Gguf {
    /// Map and parse the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read or breaks a rule of the format.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; a file that another process shrinks is this project's point 16.
        let data = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        let bad = |what: &str, offset: usize| Error::Malformed { what: what.into(), why: "cannot be read".into(), offset: offset as u64 };
        let mut at = 4;
        let version = u32_at(&data, &mut at).ok_or_else(|| bad("version", 4))?;
        let n_tensors = u_at(&data, &mut at, version).ok_or_else(|| bad("n_tensors", at))?;
        let n_kv = u_at(&data, &mut at, version).ok_or_else(|| bad("n_kv", at))?;
        if version == 1 {
            return Err(Error::Unsupported { what: "version".into(), why: "1".into() });
        }
        let mut keys = Vec::new();
        for _ in 0..n_kv {
            let (key, used) = parse(ValueType::String, &data[at..]).ok_or_else(|| bad("key", at))?;
            let key = key.as_str().unwrap_or_default().to_owned();
            at += used;
            let ty = u32_at(&data, &mut at).and_then(ValueType::from_id).ok_or_else(|| bad(&key, at))?;
            let (_, used) = parse(ty, &data[at..]).ok_or_else(|| bad(&key, at))?;
            keys.push((key, ty, at));
            at += used;
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            let (name, used) = parse(ValueType::String, &data[at..]).ok_or_else(|| bad("tensor name", at))?;
            let name = name.as_str().unwrap_or_default().to_owned();
            at += used;
            let n_dims = u32_at(&data, &mut at).filter(|n| *n <= 4).ok_or_else(|| bad(&name, at))? as usize;
            let mut shape = [1u64; 4];
            for d in &mut shape[..n_dims] {
                *d = u_at(&data, &mut at, version).ok_or_else(|| bad(&name, at))?;
            }
            let format = u32_at(&data, &mut at).and_then(Format::from_id).ok_or_else(|| bad(&name, at))?;
            let offset = u_at(&data, &mut at, 3).ok_or_else(|| bad(&name, at))?;
            let bytes = format.bytes_of(shape.iter().product()).ok_or_else(|| bad(&name, at))?;
            tensors.push(TensorInfo { name, shape, n_dims, format, offset, bytes, shard: 0 });
        }
        let mut file = Gguf { data, version, keys, tensors, data_start: 0 };
        let align = file.get("general.alignment").and_then(|v| v.as_u64()).unwrap_or(32) as usize;
        file.data_start = at.next_multiple_of(align);
        Ok(file)
    }
    /// The version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }
    /// The value of a metadata key, if the file has it.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let (_, ty, at) = self.keys.iter().find(|(k, ..)| k == key)?;
        parse(*ty, &self.data[*at..]).map(|(v, _)| v)
    }
    /// Every key with its value, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.keys.iter().filter_map(|(k, ty, at)| Some((k.as_str(), parse(*ty, &self.data[*at..])?.0)))
    }
    /// Every tensor's description, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    /// The tensor of this name, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let info = self.tensors.iter().find(|t| t.name == name)?;
        let start = self.data_start + info.offset as usize;
        Some(TensorRef { info, bytes: self.data.get(start..start + info.bytes as usize)? })
    }
}

fn u32_at(data: &[u8], at: &mut usize) -> Option<u32> {
    let v = u32::from_le_bytes(*data.get(*at..)?.first_chunk()?);
    *at += 4;
    Some(v)
}

fn u_at(data: &[u8], at: &mut usize, version: u32) -> Option<u64> {
    if version == 1 {
        return u32_at(data, at).map(u64::from);
    }
    let v = u64::from_le_bytes(*data.get(*at..)?.first_chunk()?);
    *at += 8;
    Some(v)
}
