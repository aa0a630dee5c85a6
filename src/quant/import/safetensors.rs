//! Tensors in safetensors files, one or many, mapped and never copied.
//!
//! A file is the length of a header (u64, little-endian), the header in JSON, and the bytes of the tensors. The header maps
//! each name to `dtype`, `shape` (the row length last) and `data_offsets`, counted from the end of the header. Of many files
//! `model.safetensors.index.json` says which tensor lies in which. Source: <https://github.com/huggingface/safetensors>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use chaski_gguf::Format;
use memmap2::Mmap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::ImportError;
use super::json::Json;

/// The longest header, as the reference reader has it.
const MAX_HEADER: u64 = 100_000_000;
/// The name of the file that says where each tensor lies.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The name of the file where there is only one.
pub(super) const SINGLE: &str = "model.safetensors";

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    /// One that is a format of the table too.
    Plain(Format),
    /// 8 bits: 1 sign, 4 exponent, 3 mantissa, no infinities.
    F8E4M3,
    /// 8 bits: 1 sign, 5 exponent, 2 mantissa, the upper byte of binary16.
    F8E5M2,
    /// Bytes that are no numbers of a weight: unsigned integers and truth values, by their size.
    Other(u64),
}

/// The types by their names in the header.
const DTYPES: &[(&str, Dtype)] = &[
    ("F64", Dtype::Plain(Format::F64)),
    ("F32", Dtype::Plain(Format::F32)),
    ("F16", Dtype::Plain(Format::F16)),
    ("BF16", Dtype::Plain(Format::BF16)),
    ("I64", Dtype::Plain(Format::I64)),
    ("I32", Dtype::Plain(Format::I32)),
    ("I16", Dtype::Plain(Format::I16)),
    ("I8", Dtype::Plain(Format::I8)),
    ("F8_E4M3", Dtype::F8E4M3),
    ("F8_E5M2", Dtype::F8E5M2),
    ("U64", Dtype::Other(8)),
    ("U32", Dtype::Other(4)),
    ("U16", Dtype::Other(2)),
    ("U8", Dtype::Other(1)),
    ("BOOL", Dtype::Other(1)),
];

impl Dtype {
    fn bytes(self) -> u64 {
        match self {
            Dtype::Plain(format) => format.info().block_bytes as u64,
            Dtype::F8E4M3 | Dtype::F8E5M2 => 1,
            Dtype::Other(bytes) => bytes,
        }
    }

    /// The format of the table, if it is floats.
    pub(super) fn float(self) -> Option<Format> {
        match self {
            Dtype::Plain(f @ (Format::F64 | Format::F32 | Format::F16 | Format::BF16)) => Some(f),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DTYPES.iter().find(|(_, dtype)| dtype == self).map_or("?", |(name, _)| name))
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    /// Its dimensions, the row length last.
    pub shape: Vec<u64>,
    /// Which of the files holds it.
    file: usize,
    /// Its first byte in that file.
    begin: u64,
    bytes: u64,
}

/// A file, mapped.
struct Shard {
    path: PathBuf,
    file: File,
    map: Mmap,
}

/// All tensors of a folder.
pub(super) struct Checkpoint {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Map and check the files of a folder.
    pub(super) fn open(folder: &Path) -> Result<Checkpoint, ImportError> {
        let index_path = folder.join(INDEX);
        let mut checkpoint = Checkpoint { shards: Vec::new(), tensors: BTreeMap::new() };
        let Some(index) = Json::read_if_there(&index_path)? else {
            let single = folder.join(SINGLE);
            if !single.exists() {
                return Err(ImportError::bad(folder, "the folder", nothing_to_read(folder)));
            }
            checkpoint.add(&single)?;
            return Ok(checkpoint);
        };
        let map = index.get("weight_map");
        let entries =
            map.value().and_then(serde_json::Value::as_object).ok_or_else(|| map.bad("is no object"))?;
        let mut places = Vec::with_capacity(entries.len());
        for name in entries.keys() {
            places.push((name.as_str(), map.get(name).need_text()?));
        }
        let files: BTreeSet<&str> = places.iter().map(|(_, file)| *file).collect();
        for file in files {
            let plain = Path::new(file).file_name().is_some_and(|name| name == file);
            if !plain || file.contains(['/', '\\']) {
                return Err(map.bad(format!("names {file:?}, which is no file of the folder")));
            }
            checkpoint.add(&folder.join(file))?;
        }
        for (name, file) in places {
            let there = checkpoint.get(name).and_then(|t| checkpoint.shards.get(t.file));
            if there.is_none_or(|shard| !shard.path.ends_with(file)) {
                let why = format!("says that tensor {name} is in {file}, where it is not");
                return Err(map.bad(why));
            }
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path) -> Result<(), ImportError> {
        let io = |source| ImportError::Io { path: path.to_owned(), source };
        let bad = |what: &str, why: String| ImportError::bad(path, what, why);
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if !about.is_file() {
            return Err(bad("the file", "is no plain file".into()));
        }
        if about.len() < 8 {
            return Err(bad(
                "the file",
                format!("has {} bytes, fewer than the 8 of a header's length", about.len()),
            ));
        }
        // SAFETY: the map is read-only and private to this value. That nobody shortens the file while it is mapped cannot be
        // enforced; `Checkpoint::bytes` asks for its length again before a tensor is read.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let shard = self.shards.len();
        for tensor in read_header(path, &map, shard)? {
            if let Some(other) = self.tensors.get(&tensor.name) {
                let first = self.shards.get(other.file).map_or(path, |s| &s.path);
                let why = format!("is in {} as well", first.display());
                return Err(bad(&format!("tensor {}", tensor.name), why));
            }
            self.tensors.insert(tensor.name.clone(), tensor);
        }
        self.shards.push(Shard { path: path.to_owned(), file, map });
        Ok(())
    }

    /// The tensor of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All names, in their order as text.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|s| s.path.clone()).collect()
    }

    /// The error that this tensor is wrong.
    pub(super) fn bad(&self, tensor: &Tensor, why: impl Into<String>) -> ImportError {
        let path = self.shards.get(tensor.file).map_or(Path::new(""), |s| &s.path);
        let why = format!("{} (byte offset {})", why.into(), tensor.begin);
        ImportError::bad(path, format!("tensor {}", tensor.name), why)
    }

    /// The bytes of a tensor. Asks for the file's length, so that a file that was cut since is an error here.
    pub(super) fn bytes(&self, tensor: &Tensor) -> Result<&[u8], ImportError> {
        let shard = self.shards.get(tensor.file).ok_or_else(|| self.bad(tensor, "is in no file"))?;
        let io = |source| ImportError::Io { path: shard.path.clone(), source };
        let len = shard.file.metadata().map_err(io)?.len();
        let end = tensor.begin + tensor.bytes;
        let range = usize::try_from(tensor.begin).ok().zip(usize::try_from(end).ok());
        let bytes = range.filter(|_| end <= len).and_then(|(begin, end)| shard.map.get(begin..end));
        bytes.ok_or_else(|| self.bad(tensor, format!("ends at byte {end}, but the file was cut to {len}")))
    }
}

/// What to say of a folder that has no safetensors.
fn nothing_to_read(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    let found = |ending: &str| names.iter().find(|name| name.ends_with(ending));
    let has = if let Some(name) = found(".gguf") {
        format!("; it has {name}: name that file instead")
    } else if let Some(name) = found(".bin").or_else(|| found(".pt")).or_else(|| found(".pth")) {
        format!(
            "; it has {name}, a PyTorch checkpoint, which is a program and is not read: save it as safetensors"
        )
    } else if let Some(name) = found(".safetensors") {
        format!("; it has {name}, but no {INDEX} that says what it is a part of")
    } else {
        String::new()
    };
    format!("has neither {SINGLE} nor {INDEX}{has}")
}

/// Names with what is said of each, in the order of the header, so that a name that is there twice shows.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The tensors of a file: every number checked against the file, no two of them sharing a byte.
fn read_header(path: &Path, data: &[u8], file: usize) -> Result<Vec<Tensor>, ImportError> {
    let bad = |what: &str, why: String| ImportError::bad(path, what, why);
    let len = data.len() as u64;
    let first: [u8; 8] = data.get(..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
    let n = u64::from_le_bytes(first);
    if n > MAX_HEADER || n > len.saturating_sub(8) {
        let text = String::from_utf8_lossy(data.get(..64).unwrap_or(data)).into_owned();
        let pointer = text.starts_with("version https://git-lfs");
        let why = if pointer {
            "is a Git LFS pointer; fetch the file itself (`git lfs pull`)".to_owned()
        } else {
            format!(
                "says it has {n} bytes (byte offset 0), the file has {len}: it was cut, or is no safetensors file"
            )
        };
        return Err(bad(if pointer { "the file" } else { "the header" }, why));
    }
    let start = 8 + n;
    let json = data.get(8..start as usize).unwrap_or_default();
    let entries: Entries = serde_json::from_slice(json)
        .map_err(|error| bad("the header", format!("is no JSON object: {error} (byte offset 8)")))?;
    let mut tensors = Vec::with_capacity(entries.0.len());
    for (name, about) in entries.0 {
        if name == "__metadata__" {
            continue;
        }
        let what = format!("tensor {name}");
        let field = |key: &str, wanted: &str| bad(&what, format!("its {key} is no {wanted}"));
        let text =
            about.get("dtype").and_then(serde_json::Value::as_str).ok_or_else(|| field("dtype", "text"))?;
        let dtype = DTYPES.iter().find(|(known, _)| *known == text).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| bad(&what, format!("its dtype {text} is not known")))?;
        let numbers = |key: &str| -> Result<Vec<u64>, ImportError> {
            let list = about
                .get(key)
                .and_then(serde_json::Value::as_array)
                .ok_or_else(|| field(key, "list of counts"))?;
            list.iter().map(|v| v.as_u64().ok_or_else(|| field(key, "list of counts"))).collect()
        };
        let shape = numbers("shape")?;
        let [begin, end] = numbers("data_offsets")?[..] else { return Err(field("data_offsets", "pair")) };
        let values = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let bytes = values.and_then(|n| n.checked_mul(dtype.bytes()));
        if end < begin || bytes != Some(end - begin) {
            let why = format!("its data_offsets {begin} to {end} do not hold {text} of shape {shape:?}");
            return Err(bad(&what, why));
        }
        if end > len - start {
            let why = format!(
                "ends at byte {} of the file, which ends at {len}: it was cut, or its header is wrong",
                end.saturating_add(start)
            );
            return Err(bad(&what, why));
        }
        tensors.push(Tensor { name, dtype, shape, file, begin: start + begin, bytes: end - begin });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in tensors.windows(2) {
        if let [a, b] = pair
            && a.name == b.name
        {
            return Err(bad(&format!("tensor {}", a.name), "is there twice".into()));
        }
    }
    let mut places: Vec<&Tensor> = tensors.iter().filter(|t| t.bytes > 0).collect();
    places.sort_by_key(|t| t.begin);
    for pair in places.windows(2) {
        if let [a, b] = pair
            && b.begin < a.begin + a.bytes
        {
            let why = format!("begins at byte {}, inside tensor {}", b.begin, a.name);
            return Err(bad(&format!("tensor {}", b.name), why));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, data: usize) -> Result<Vec<Tensor>, String> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        read_header(Path::new("m.safetensors"), &bytes, 0).map_err(|e| e.to_string())
    }

    #[test]
    fn a_header_is_read_and_what_cannot_be_true_is_named() {
        let good = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F8_E4M3","shape":[],"data_offsets":[8,9]}}"#;
        let tensors = read(good, 9).unwrap();
        assert_eq!((tensors[0].bytes, tensors[1].bytes, tensors[1].dtype), (8, 1, Dtype::F8E4M3));
        for (header, data, says) in [
            (good, 8, "tensor b: ends at byte"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 8, "do not hold F32 of shape [2]"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "do not hold"),
            (
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
                8,
                "do not hold",
            ),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 8, "shape is no list of counts"),
            (r#"{"a":{"dtype":"F32","shape":[1]}}"#, 8, "data_offsets is no list"),
            (r#"{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}"#, 8, "dtype Q9"),
            (
                r#"{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}"#,
                8,
                "there twice",
            ),
            (
                r#"{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]}}"#,
                8,
                "inside tensor a",
            ),
            ("[]", 0, "no JSON object"),
            (r#"{"a":"#, 0, "no JSON object"),
        ] {
            let said = read(header, data).unwrap_err();
            assert!(said.contains(says), "{said} should say {says}");
        }
        let long = read_header(Path::new("m"), &[255; 64], 0).unwrap_err().to_string();
        assert!(long.contains("the header: says it has"), "{long}");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        assert!(read_header(Path::new("m"), pointer, 0).unwrap_err().to_string().contains("git lfs pull"));
    }
}
