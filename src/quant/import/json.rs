//! The JSON files of a folder: fields by name, and errors that say which.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ImportError;

/// The largest file that is read. The tokenizers of today's models have some 20 MiB.
const MAX_BYTES: u64 = 512 << 20;

/// A JSON file of the folder.
pub(super) struct Json {
    path: PathBuf,
    value: Value,
}

/// A field of a file, there or not. `null` counts as not there.
#[derive(Clone)]
pub(super) struct Field<'a> {
    path: &'a Path,
    name: String,
    value: Option<&'a Value>,
}

/// Read a small file whole; none if it is not there.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if !about.is_file() {
        return Err(ImportError::bad(path, "the file", "is no plain file"));
    }
    if about.len() > MAX_BYTES {
        let why = format!("has {} bytes, more than {MAX_BYTES}", about.len());
        return Err(ImportError::bad(path, "the file", why));
    }
    std::fs::read(path).map(Some).map_err(io)
}

impl Json {
    /// Read a file; none if it is not there.
    pub(super) fn read_if_there(path: &Path) -> Result<Option<Json>, ImportError> {
        let Some(bytes) = read_bytes(path)? else { return Ok(None) };
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ImportError::bad(path, "the file", format!("is no JSON: {error}")))?;
        if !value.is_object() {
            return Err(ImportError::bad(path, "the file", "is no JSON object"));
        }
        Ok(Some(Json { path: path.to_owned(), value }))
    }

    /// Read a file that must be there.
    pub(super) fn read(path: &Path) -> Result<Json, ImportError> {
        Json::read_if_there(path)?.ok_or_else(|| ImportError::Io {
            path: path.to_owned(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })
    }

    /// All of it.
    pub(super) fn root(&self) -> Field<'_> {
        Field { path: &self.path, name: String::new(), value: Some(&self.value) }
    }

    /// A field of it.
    pub(super) fn get(&self, name: &str) -> Field<'_> {
        self.root().get(name)
    }
}

impl<'a> Field<'a> {
    /// A field of this object; one that is not there if this is no object.
    pub(super) fn get(&self, name: &str) -> Field<'a> {
        let value = self.value.and_then(|v| v.get(name)).filter(|v| !v.is_null());
        let name = if self.name.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name) };
        Field { path: self.path, name, value }
    }

    /// The elements of an array; nothing where it is not there.
    pub(super) fn elements(&self) -> Result<Vec<Field<'a>>, ImportError> {
        let Some(value) = self.value else { return Ok(Vec::new()) };
        let array = value.as_array().ok_or_else(|| self.is_no("array"))?;
        let element =
            |(i, value)| Field { path: self.path, name: format!("{}[{i}]", self.name), value: Some(value) };
        Ok(array.iter().enumerate().map(element).collect())
    }

    /// The value as it is.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        self.value.is_some()
    }

    /// The error that this field is wrong.
    pub(super) fn bad(&self, why: impl Into<String>) -> ImportError {
        ImportError::bad(self.path, format!("field {}", self.name), why)
    }

    fn is_no(&self, wanted: &str) -> ImportError {
        let text = self.value.map_or_else(String::new, Value::to_string);
        let shown: String = text.chars().take(60).collect();
        self.bad(format!("is {shown}, no {wanted}"))
    }

    fn required<T>(&self, value: Option<T>) -> Result<T, ImportError> {
        value.ok_or_else(|| self.bad("is missing"))
    }

    fn typed<T>(&self, wanted: &str, get: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, ImportError> {
        self.value.map(|value| get(value).ok_or_else(|| self.is_no(wanted))).transpose()
    }

    /// A count of 32 bits, if it is there.
    pub(super) fn count(&self) -> Result<Option<u32>, ImportError> {
        // Python writes some counts as floats (`8.0`).
        let whole = |v: &Value| {
            let of_float =
                || v.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x)).map(|x| x as u64);
            v.as_u64().or_else(of_float).and_then(|n| u32::try_from(n).ok())
        };
        self.typed("count of at most 32 bits", whole)
    }

    /// A count that must be there.
    pub(super) fn need_count(&self) -> Result<u32, ImportError> {
        self.required(self.count()?)
    }

    /// A finite number, if it is there.
    pub(super) fn number(&self) -> Result<Option<f64>, ImportError> {
        self.typed("finite number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A finite number that must be there.
    pub(super) fn need_number(&self) -> Result<f64, ImportError> {
        self.required(self.number()?)
    }

    /// True or false, if it is there.
    pub(super) fn flag(&self) -> Result<Option<bool>, ImportError> {
        self.typed("true or false", Value::as_bool)
    }

    /// A text, if it is there.
    pub(super) fn text(&self) -> Result<Option<&'a str>, ImportError> {
        self.typed("text", Value::as_str)
    }

    /// A text that must be there.
    pub(super) fn need_text(&self) -> Result<&'a str, ImportError> {
        self.required(self.text()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json { path: "config.json".into(), value: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn errors_name_file_and_field() {
        let json = json(r#"{"a": {"b": "x", "n": 8.0, "list": [1, -2]}, "none": null}"#);
        let said = |error: ImportError| error.to_string();
        assert_eq!(
            said(json.get("a").get("b").count().unwrap_err()),
            "config.json: field a.b: is \"x\", no count of at most 32 bits"
        );
        assert_eq!(
            said(json.get("a").get("c").need_count().unwrap_err()),
            "config.json: field a.c: is missing"
        );
        assert_eq!(json.get("a").get("n").count().unwrap(), Some(8));
        assert_eq!(json.get("none").count().unwrap(), None);
        let list = json.get("a").get("list").elements().unwrap();
        assert_eq!(list[0].count().unwrap(), Some(1));
        assert!(said(list[1].count().unwrap_err()).contains("field a.list[1]: is -2"));
        // What is no object has no fields.
        assert_eq!(json.get("a").get("b").get("c").text().unwrap(), None);
    }
}
