//! Metadata by key: values as they are, typed getters, and overrides.

use crate::header::{self, Header, MAX_KEY};
use crate::value::parse_whole;
use crate::{Array, Error, Gguf, OwnedValue, Result, Value, ValueType, encode, keys};

/// A value that stands in for what the file says. It is kept as it would lie in a file of version 3, so
/// that it can be borrowed like every other.
pub(crate) struct Override {
    key: String,
    ty: ValueType,
    bytes: Vec<u8>,
}

impl Override {
    fn value(&self) -> Option<Value<'_>> {
        parse_whole(self.ty, &self.bytes, false)
    }
}

/// An id of all ones means that there is no such token: files carry it for padding and separators.
const NO_TOKEN: u32 = u32::MAX;

/// A value with its place in the file; none if it was given by an override.
type Placed<'a> = (Value<'a>, Option<u64>);

impl Gguf {
    fn header_and_data(&self) -> (&Header, &[u8]) {
        let shard = self.first();
        (&shard.header, shard.source.bytes())
    }

    fn overridden(&self, key: &str) -> Option<&Override> {
        self.overrides.iter().find(|o| o.key == key)
    }

    fn find(&self, key: &str) -> Option<Placed<'_>> {
        if let Some(found) = self.overridden(key) {
            return Some((found.value()?, None));
        }
        let (header, data) = self.header_and_data();
        let entry = header::find(data, &header.entries, &header.by_key, key)?;
        Some((entry.value(data, header.narrow())?, Some(entry.at as u64)))
    }

    /// The value of a metadata key, if the file has it or an override gives it.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.find(key).map(|(value, _)| value)
    }

    /// Where a key's value begins in the file, in bytes; none if the file does not have it or an override replaced it.
    pub fn key_offset(&self, key: &str) -> Option<u64> {
        self.find(key)?.1
    }

    /// Every key with its value, in the order of the file; keys that only overrides give come last.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let (header, data) = self.header_and_data();
        let of_file = move |key: &str| header::find(data, &header.entries, &header.by_key, key).is_some();
        let in_file = header.entries.iter().filter_map(move |entry| {
            let key = entry.key(data);
            let value = match self.overridden(key) {
                Some(found) => found.value(),
                None => entry.value(data, header.narrow()),
            };
            Some((key, value?))
        });
        let added = self.overrides.iter().filter(move |o| !of_file(&o.key));
        in_file.chain(added.filter_map(|o| Some((o.key.as_str(), o.value()?))))
    }

    /// Let `key` have `value`, whatever the file says; the getters and [`Gguf::metadata`] show it.
    ///
    /// # Errors
    /// The value is no valid metadata, or the key is one that had its effect when the file was opened
    /// (`general.alignment`, `split.*`).
    pub fn override_value(&mut self, key: &str, value: impl Into<OwnedValue>) -> Result<()> {
        let value = value.into();
        if key == keys::GENERAL_ALIGNMENT || key.starts_with("split.") {
            return Err(Error::unsupported(
                format!("metadata key {key}"),
                "says where the tensors lie and cannot be overridden",
            ));
        }
        check_key(key).map_err(|why| Error::unsupported(format!("metadata key {key}"), why))?;
        let mut bytes = Vec::new();
        encode::owned(&mut bytes, &value)
            .map_err(|why| Error::unsupported(format!("metadata key {key}"), why))?;
        self.overrides.retain(|o| o.key != key);
        self.overrides.push(Override { key: key.to_owned(), ty: value.ty(), bytes });
        Ok(())
    }

    /// The error of a key whose value breaks a rule.
    pub(crate) fn bad_key(&self, key: &str, why: impl Into<String>) -> Error {
        let offset = self.find(key).and_then(|(_, offset)| offset).unwrap_or_default();
        Error::Malformed { what: format!("metadata key {key}"), why: why.into(), offset }
    }

    /// A value through `convert`, which gives none if the value is of another type or does not fit.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((value, offset)) = self.find(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Error::WrongType { key: key.to_owned(), wanted, found: describe(&value), offset }),
        }
    }

    /// An integer of any width that fits into a `u32`; none if the key is absent.
    ///
    /// # Errors
    /// The value is no integer or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "u32", |v| v.as_u64()?.try_into().ok())
    }

    /// An integer of any width that is not negative; none if the key is absent.
    ///
    /// # Errors
    /// The value is no integer or is negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "u64", |v| v.as_u64())
    }

    /// An integer of any width that fits into an `i64`; none if the key is absent.
    ///
    /// # Errors
    /// The value is no integer or does not fit.
    pub fn i64(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "i64", |v| v.as_i64())
    }

    /// A float of either width; none if the key is absent.
    ///
    /// # Errors
    /// The value is no float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "f32", |v| v.as_f32())
    }

    /// A bool; none if the key is absent.
    ///
    /// # Errors
    /// The value is no bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "bool", |v| v.as_bool())
    }

    /// A string; none if the key is absent.
    ///
    /// # Errors
    /// The value is no string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "string", |v| v.as_str())
    }

    /// An array of any type; none if the key is absent.
    ///
    /// # Errors
    /// The value is no array.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, "array", |v| v.as_array())
    }

    /// An array of strings; none if the key is absent.
    ///
    /// # Errors
    /// The value is no array, or an array of something else.
    pub fn string_array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, "array of string", |v| v.as_array().filter(|a| a.ty == ValueType::String))
    }

    /// Integers that fit into `i64`, from an array of any integer type or from one integer (which gives one
    /// element): hyper-parameters that some files give for each layer. None if the key is absent.
    ///
    /// # Errors
    /// The value is neither, or an element does not fit.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "integer or array of integers", |v| match v.as_array() {
            Some(array) => array.iter().map(|v| v.as_i64()).collect(),
            None => v.as_i64().map(|n| vec![n]),
        })
    }

    /// Floats from an array of either width; none if the key is absent.
    ///
    /// # Errors
    /// The value is no array of floats.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "array of floats", |v| v.as_array()?.iter().map(|v| v.as_f32()).collect())
    }

    /// A token's id; none if the key is absent or says that there is no such token (all bits set, or -1).
    ///
    /// # Errors
    /// The value is no integer or no possible id.
    pub fn token_id(&self, key: &str) -> Result<Option<u32>> {
        let id = self.typed(key, "token id (u32)", |v| match v.as_i64()? {
            -1 => Some(NO_TOKEN),
            id => id.try_into().ok(),
        })?;
        Ok(id.filter(|id| *id != NO_TOKEN))
    }

    /// As [`Gguf::u32`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::u32`].
    pub fn require_u32(&self, key: &str) -> Result<u32> {
        required(key, self.u32(key)?)
    }

    /// As [`Gguf::u64`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::u64`].
    pub fn require_u64(&self, key: &str) -> Result<u64> {
        required(key, self.u64(key)?)
    }

    /// As [`Gguf::f32`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::f32`].
    pub fn require_f32(&self, key: &str) -> Result<f32> {
        required(key, self.f32(key)?)
    }

    /// As [`Gguf::bool`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::bool`].
    pub fn require_bool(&self, key: &str) -> Result<bool> {
        required(key, self.bool(key)?)
    }

    /// As [`Gguf::str`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::str`].
    pub fn require_str(&self, key: &str) -> Result<&str> {
        required(key, self.str(key)?)
    }

    /// As [`Gguf::array`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::array`].
    pub fn require_array(&self, key: &str) -> Result<Array<'_>> {
        required(key, self.array(key)?)
    }

    /// As [`Gguf::string_array`], but the key must be there.
    ///
    /// # Errors
    /// The key is absent, or as [`Gguf::string_array`].
    pub fn require_string_array(&self, key: &str) -> Result<Array<'_>> {
        required(key, self.string_array(key)?)
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
}

/// The rules for a key.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    match key.len() as u64 {
        0 => Err("is empty".into()),
        n if n > MAX_KEY => Err(format!("has {n} bytes, more than {MAX_KEY}")),
        _ => Ok(()),
    }
}

/// A value as an error message tells it: its type, and the value where it is short.
fn describe(value: &Value<'_>) -> String {
    let ty = value.ty();
    match value {
        Value::Array(a) => format!("array of {} {}", a.len, a.ty),
        Value::String(s) if s.len() > 40 => format!("string of {} bytes", s.len()),
        Value::String(s) => format!("string {s:?}"),
        Value::Bool(v) => format!("bool {v}"),
        Value::F32(v) => format!("{ty} {v}"),
        Value::F64(v) => format!("{ty} {v}"),
        _ => match (value.as_i64(), value.as_u64()) {
            (Some(v), _) => format!("{ty} {v}"),
            (_, Some(v)) => format!("{ty} {v}"),
            _ => ty.to_string(),
        },
    }
}

/// Parse `KEY=TYPE:VALUE`, as llama.cpp's `--override-kv` has it: the type is `int`, `float`, `bool` or `str`.
///
/// ```
/// use chaski_gguf::{OwnedValue, parse_override};
/// let (key, value) = parse_override("tokenizer.ggml.add_bos_token=bool:false").unwrap();
/// assert_eq!((key.as_str(), value), ("tokenizer.ggml.add_bos_token", OwnedValue::Bool(false)));
/// ```
///
/// # Errors
/// Says which part is wrong.
pub fn parse_override(text: &str) -> Result<(String, OwnedValue)> {
    let refuse = |why: String| Error::unsupported(format!("override {text:?}"), why);
    let Some((key, rest)) = text.split_once('=') else {
        return Err(refuse("has no `=`; write KEY=TYPE:VALUE".into()));
    };
    let Some((ty, value)) = rest.split_once(':') else {
        return Err(refuse("has no `:` after its type; write KEY=TYPE:VALUE".into()));
    };
    check_key(key).map_err(|why| refuse(format!("its key {why}")))?;
    let no = |wanted: &str| refuse(format!("{value:?} is no {wanted}"));
    let value = match ty {
        "int" => OwnedValue::I64(value.parse().map_err(|_| no("integer of 64 bits"))?),
        "float" => OwnedValue::F64(value.parse().map_err(|_| no("number"))?),
        "bool" => OwnedValue::Bool(value.parse().map_err(|_| no("bool (true or false)"))?),
        "str" => OwnedValue::String(value.to_owned()),
        _ => return Err(refuse(format!("its type {ty:?} is none of int, float, bool, str"))),
    };
    Ok((key.to_owned(), value))
}
