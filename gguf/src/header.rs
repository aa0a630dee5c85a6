//! One file's header: read once from front to back, every count and length checked before it is used.

use crate::cursor::{Cursor, Fault};
use crate::source::MIN_ALIGNMENT;
use crate::value::{Value, ValueType, parse_whole};
use crate::{Error, Format, Result, TensorInfo, keys, sniff, type_ids};

/// The longest key, by the specification of the format.
pub(crate) const MAX_KEY: u64 = 65_535;
/// The longest name of a tensor: ggml keeps 64 bytes with a closing zero.
pub(crate) const MAX_NAME: u64 = 63;
/// Where `general.alignment` says nothing.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The largest `general.alignment` that is accepted.
pub(crate) const MAX_ALIGNMENT: u64 = 1 << 20;
/// Dimensions of a tensor at most.
pub(crate) const MAX_DIMS: usize = 4;

/// A metadata entry: where its key and its value lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    key_at: usize,
    key_len: u32,
    pub ty: ValueType,
    pub at: usize,
    /// Bytes of the value.
    pub len: usize,
}

impl Entry {
    /// The key, from the bytes of the file; it was checked to be UTF-8 when the header was read.
    pub fn key<'a>(&self, data: &'a [u8]) -> &'a str {
        let bytes = data.get(self.key_at..self.key_at.saturating_add(self.key_len as usize));
        bytes.and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }

    /// The value, from the bytes of the file.
    pub fn value<'a>(&self, data: &'a [u8], narrow: bool) -> Option<Value<'a>> {
        parse_whole(self.ty, data.get(self.at..self.at.checked_add(self.len)?)?, narrow)
    }
}

/// What one file says of itself.
pub(crate) struct Header {
    pub version: u32,
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// Positions in `entries`, ordered by key.
    pub by_key: Vec<u32>,
    pub tensors: Vec<TensorInfo>,
    /// Offset of the data section.
    pub data_start: u64,
}

impl Header {
    /// Version 1: counts and lengths have 32 bits.
    pub fn narrow(&self) -> bool {
        self.version == 1
    }

    /// Read and check everything before the data section, and that the tensors lie in the file.
    pub fn read(data: &[u8], shard: usize) -> Result<Header> {
        Self::read_for(data, shard, data.len() as u64)
    }

    /// As [`Header::read`], for a file of `len` bytes, of which `data` holds at least those before the data section.
    pub fn read_for(data: &[u8], shard: usize, len: u64) -> Result<Header> {
        let mut cursor = Cursor::new(data, sniff::MAGIC.len(), false);
        let version = read_version(&mut cursor)?;
        let mut cursor = Cursor::new(data, cursor.at(), version == 1);
        // A name, no dimensions, a type and an offset; a key, its type and a value of one byte.
        let (min_tensor, min_entry) = (cursor.count_size() + 1 + 16, cursor.count_size() + 1 + 5);
        let n_tensors = cursor.count_of(min_tensor).map_err(|f| f.of("tensor count"))?;
        let n_entries = cursor.count_of(min_entry).map_err(|f| f.of("metadata count"))?;
        let (entries, by_key) = read_entries(&mut cursor, data, n_entries)?;
        let alignment = alignment(data, &entries, &by_key, version == 1)?;
        let mut tensors = Vec::with_capacity(n_tensors.min(cursor.left() / min_tensor));
        let mut places = Vec::with_capacity(tensors.capacity());
        for i in 0..n_tensors {
            places.push(cursor.at() as u64);
            tensors.push(read_tensor(&mut cursor, i, alignment, shard)?);
        }
        let data_start = (cursor.at() as u64).next_multiple_of(alignment);
        check_names(&tensors, &places)?;
        check_extents(&tensors, &places, data_start, len)?;
        Ok(Header { version, entries, by_key, tensors, data_start })
    }
}

fn read_version(cursor: &mut Cursor) -> Result<u32> {
    let at = cursor.at();
    let version = cursor.u32().map_err(|f| f.of("version"))?;
    match version {
        1..=3 => Ok(version),
        _ if version != 0 && version.trailing_zeros() >= 16 => Err(Error::unsupported(
            "version",
            format!(
                "is {} with its bytes swapped (byte offset {at}): a big-endian file, of which this reader reads none; \
                 convert it to little-endian",
                version.swap_bytes()
            ),
        )),
        _ => Err(Error::unsupported(
            "version",
            format!("is {version} (byte offset {at}); 1, 2 and 3 are read"),
        )),
    }
}

fn read_entries(cursor: &mut Cursor, data: &[u8], n: usize) -> Result<(Vec<Entry>, Vec<u32>)> {
    let mut entries = Vec::with_capacity(n);
    for i in 0..n {
        let at = cursor.at();
        let key = cursor.string_up_to(MAX_KEY).map_err(|f| f.of(format!("key {i} of {n}")))?;
        if key.is_empty() {
            return Err(Fault::new(at, "is empty").of(format!("key {i} of {n}")));
        }
        let (key_at, key_len) = (cursor.at() - key.len(), key.len() as u32);
        let of = |fault: Fault| fault.of(format!("metadata key {key}"));
        let ty = cursor.value_type().map_err(of)?;
        let at = cursor.at();
        cursor.skip(ty).map_err(of)?;
        entries.push(Entry { key_at, key_len, ty, at, len: cursor.at() - at });
    }
    let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
    let key = |i: u32| entries.get(i as usize).map_or("", |e| e.key(data));
    // A stable sort, so that of two equal keys the second is the one that is named.
    by_key.sort_by_key(|i| key(*i));
    for pair in by_key.windows(2) {
        if let [a, b] = *pair
            && key(a) == key(b)
        {
            let at = entries.get(b as usize).map_or(0, |e| e.key_at);
            return Err(Fault::new(at, "is there twice").of(format!("metadata key {}", key(b))));
        }
    }
    Ok((entries, by_key))
}

/// `general.alignment`, checked.
fn alignment(data: &[u8], entries: &[Entry], by_key: &[u32], narrow: bool) -> Result<u64> {
    let Some(entry) = find(data, entries, by_key, keys::GENERAL_ALIGNMENT) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let refuse =
        |why: String| Fault::new(entry.at, why).of(format!("metadata key {}", keys::GENERAL_ALIGNMENT));
    let value =
        crate::value::parse(entry.ty, data.get(entry.at..).unwrap_or_default(), narrow).map(|(v, _)| v);
    let Some(n) = value.and_then(|v| v.as_u64()) else {
        return Err(refuse(format!("is of type {}, not an integer", entry.ty)));
    };
    check_alignment(n).map_err(refuse)?;
    Ok(n)
}

/// The rules for `general.alignment`: a power of two, so that offsets can be rounded; at least 8, as the
/// specification asks, so that every block can be borrowed in place; bounded, so that padding is too.
pub(crate) fn check_alignment(n: u64) -> Result<(), String> {
    if n.is_power_of_two() && (MIN_ALIGNMENT as u64..=MAX_ALIGNMENT).contains(&n) {
        return Ok(());
    }
    Err(format!("is {n}, not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}"))
}

/// The entry of a key.
pub(crate) fn find(data: &[u8], entries: &[Entry], by_key: &[u32], key: &str) -> Option<Entry> {
    let at = |i: u32| entries.get(i as usize);
    let found = by_key.binary_search_by(|i| at(*i).map_or("", |e| e.key(data)).cmp(key)).ok()?;
    at(*by_key.get(found)?).copied()
}

fn read_tensor(cursor: &mut Cursor, i: usize, alignment: u64, shard: usize) -> Result<TensorInfo> {
    let at = cursor.at();
    let name = cursor.string_up_to(MAX_NAME).map_err(|f| f.of(format!("name of tensor {i}")))?;
    if name.is_empty() {
        return Err(Fault::new(at, "is empty").of(format!("name of tensor {i}")));
    }
    let of = |fault: Fault| fault.of(format!("tensor {name}"));
    let at = cursor.at();
    let n_dims = cursor.u32().map_err(of)? as usize;
    if n_dims > MAX_DIMS {
        return Err(of(Fault::new(at, format!("has {n_dims} dimensions, more than {MAX_DIMS}"))));
    }
    let dims_at = cursor.at();
    let mut shape = [1u64; MAX_DIMS];
    for (d, size) in shape.iter_mut().enumerate().take(n_dims) {
        *size = cursor.count().map_err(|f| of(Fault::new(f.at, format!("its dimension {d} {}", f.why))))?;
    }
    let at = cursor.at();
    let id = cursor.u32().map_err(of)?;
    let Some(format) = Format::from_id(id) else {
        let why = format!("{} (byte offset {at})", type_ids::refusal(id));
        return Err(Error::unsupported(format!("tensor {name}"), why));
    };
    let bytes = size_of_tensor(&shape, format).map_err(|why| of(Fault::new(dims_at, why)))?;
    let at = cursor.at();
    let offset = cursor.u64().map_err(of)?;
    if offset % alignment != 0 {
        return Err(of(Fault::new(
            at,
            format!("lies at {offset} of the data section, not a multiple of {alignment}"),
        )));
    }
    Ok(TensorInfo { name: name.to_owned(), shape, n_dims, format, offset, bytes, shard })
}

/// Bytes of a tensor: whole blocks to the row, no overflow on the way. A dimension of 0 makes an empty
/// tensor, which is well formed; whether a model can use it is for the model to say.
pub(crate) fn size_of_tensor(shape: &[u64; MAX_DIMS], format: Format) -> Result<u64, String> {
    let block = format.info().block_len as u64;
    let [row, ..] = *shape;
    if !row.is_multiple_of(block) {
        return Err(format!("has rows of {row} values, which {format} cannot cut into blocks of {block}"));
    }
    let product = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| i64::try_from(*n).is_ok());
    product
        .and_then(|n| format.bytes_of(n))
        .filter(|n| i64::try_from(*n).is_ok())
        .ok_or_else(|| format!("has a shape of {shape:?}, whose size overflows"))
}

fn check_names(tensors: &[TensorInfo], places: &[u64]) -> Result<()> {
    match duplicate(tensors) {
        Some((info, i)) => Err(Error::Malformed {
            what: format!("tensor {}", info.name),
            why: "is there twice".into(),
            offset: places.get(i).copied().unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

/// A tensor whose name an earlier one has, with its position.
pub(crate) fn duplicate(tensors: &[TensorInfo]) -> Option<(&TensorInfo, usize)> {
    let mut by_name: Vec<(&TensorInfo, usize)> = tensors.iter().zip(0..).collect();
    by_name.sort_by_key(|(t, _)| t.name.as_str());
    by_name.windows(2).find_map(|pair| match pair {
        [(a, _), (b, i)] if a.name == b.name => Some((*b, *i)),
        _ => None,
    })
}

/// Every tensor lies in the file and no two share a byte.
///
/// llama.cpp also wants each offset to be the padded end of the tensor before it. Gaps and another order
/// do no harm to a reader that borrows, and the specification allows them, so they are accepted here.
fn check_extents(tensors: &[TensorInfo], places: &[u64], data_start: u64, len: u64) -> Result<()> {
    let place = |i: usize| places.get(i).copied().unwrap_or_default();
    let mut extents: Vec<(u64, u64, usize)> = Vec::with_capacity(tensors.len());
    for (i, t) in tensors.iter().enumerate() {
        let of = |why| Error::Malformed { what: format!("tensor {}", t.name), why, offset: place(i) };
        let start = data_start.checked_add(t.offset);
        let Some((start, end)) = start.and_then(|s| Some((s, s.checked_add(t.bytes)?))) else {
            return Err(of(format!("its offset {} overflows", t.offset)));
        };
        if t.bytes == 0 {
            continue;
        }
        if end > len {
            return Err(of(format!(
                "takes the bytes {start} to {end}, but the file ends at {len}: it was cut, or its header is wrong"
            )));
        }
        extents.push((start, end, i));
    }
    extents.sort_unstable();
    for pair in extents.windows(2) {
        if let [(_, end, a), (start, _, b)] = *pair
            && start < end
        {
            let name = |i: usize| tensors.get(i).map_or("", |t| t.name.as_str());
            return Err(Error::Malformed {
                what: format!("tensor {}", name(b)),
                why: format!("begins at byte {start}, inside tensor {}, which ends at {end}", name(a)),
                offset: place(b),
            });
        }
    }
    Ok(())
}
