//! The mutable Python containers that templates work with, and the budget that bounds what one rendering may do.
//!
//! Lists, tuples and dicts are reference objects as in Python: `xs.append(x)` is seen through every name of
//! `xs`. All of them are registered with the [`Runtime`] of the rendering, which empties them one by one at its
//! end: that breaks reference cycles, and a chain of a million nested lists is not dropped recursively.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::strftime::CivilTime;

/// How deep a value may be nested where it is printed, compared or converted.
pub(super) const MAX_DEPTH: usize = 128;
/// What one list element or dict entry costs, in units of work (about its bytes of memory).
const ELEMENT_COST: usize = 64;
/// What one container costs, in units of work.
const CONTAINER_COST: usize = 256;

/// Shorthand for what every operation returns.
pub(super) type Res<T = Value> = Result<T, Error>;

/// Makes an error with a message.
pub(super) fn err(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// What one rendering owns: its budget, the template's literal text, the clock and all containers.
pub(super) struct Runtime {
    work: AtomicU64,
    max_string: usize,
    /// The literal text between the tags of the template.
    pub raw: Vec<Arc<str>>,
    /// What `strftime_now` formats.
    pub now: CivilTime,
    /// The message of `raise_exception`, once called.
    pub raised: Mutex<Option<String>>,
    /// Which limit was met, once one was.
    pub exceeded: Mutex<Option<String>>,
    lists: Mutex<Vec<Arc<List>>>,
    dicts: Mutex<Vec<Arc<Dict>>>,
}

/// Locks, and goes on with the data of a poisoned lock: nothing here leaves a value half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime {
    pub fn new(raw: Vec<Arc<str>>, now: CivilTime, work: u64, max_string: usize) -> Runtime {
        Runtime {
            work: AtomicU64::new(work),
            max_string,
            raw,
            now,
            raised: Mutex::new(None),
            exceeded: Mutex::new(None),
            lists: Mutex::default(),
            dicts: Mutex::default(),
        }
    }

    /// Draws `units` of work (bytes written, elements made) from the budget, before the work is done.
    pub fn charge(&self, units: usize) -> Res<()> {
        let left = self.work.load(Ordering::Relaxed);
        match left.checked_sub(units as u64) {
            Some(left) => {
                self.work.store(left, Ordering::Relaxed);
                Ok(())
            }
            None => Err(self.exceed("the work limit (bytes and elements made while rendering)")),
        }
    }

    /// As [`Runtime::charge`], for a string of `len` bytes that is about to be made.
    pub fn charge_string(&self, len: usize) -> Res<()> {
        self.check_len(len)?;
        self.charge(len.saturating_add(32))
    }

    /// Refuses a string of `len` bytes that is too long, at no cost.
    pub fn check_len(&self, len: usize) -> Res<()> {
        if len > self.max_string {
            return Err(self.exceed(&format!("the limit of {} bytes for one string", self.max_string)));
        }
        Ok(())
    }

    /// Notes which limit was met and makes the error that says so.
    pub fn exceed(&self, what: &str) -> Error {
        lock(&self.exceeded).get_or_insert_with(|| what.to_string());
        err(format!("{what} is exceeded"))
    }

    /// A new string value.
    pub fn string(&self, text: impl AsRef<str>) -> Res {
        let text = text.as_ref();
        self.charge_string(text.len())?;
        Ok(Value::from(text))
    }

    /// A new string value, of markup if `safe`.
    pub fn markup(&self, text: impl AsRef<str>, safe: bool) -> Res {
        let value = self.string(text)?;
        Ok(match value.as_str() {
            Some(text) if safe => Value::from_safe_string(text.to_string()),
            _ => value,
        })
    }

    /// The text of a string as it joins markup: escaped unless it is markup itself.
    ///
    /// Escaping is off in chat templates, but Python's `Markup` (what `|safe` gives) escapes whatever is added
    /// to it all the same, and the templates that say `|safe` were tested with that.
    pub fn escaped(&self, value: &Value) -> Res<String> {
        let text = self.str(value)?;
        if value.is_safe() {
            return Ok(text);
        }
        self.charge_string(text.len().saturating_mul(5))?;
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '\'' => out.push_str("&#39;"),
                '"' => out.push_str("&#34;"),
                c => out.push(c),
            }
        }
        Ok(out)
    }

    pub fn list_of(&self, kind: ListKind, items: Vec<Value>) -> Res {
        self.charge(CONTAINER_COST + items.len().saturating_mul(ELEMENT_COST))?;
        for item in &items {
            storable(item)?;
        }
        let list = Arc::new(List { kind, items: Mutex::new(items), consumed: AtomicBool::new(false) });
        lock(&self.lists).push(list.clone());
        Ok(Value::from_dyn_object(list))
    }

    pub fn list(&self, items: Vec<Value>) -> Res {
        self.list_of(ListKind::List, items)
    }

    pub fn tuple(&self, items: Vec<Value>) -> Res {
        self.list_of(ListKind::Tuple, items)
    }

    pub fn dict_of(&self, kind: DictKind, pairs: impl IntoIterator<Item = (Value, Value)>) -> Res {
        self.charge(CONTAINER_COST)?;
        let dict = Arc::new(Dict { kind, entries: Mutex::default() });
        lock(&self.dicts).push(dict.clone());
        for (key, value) in pairs {
            self.dict_set(&dict, key, value)?;
        }
        Ok(Value::from_dyn_object(dict))
    }

    pub fn dict(&self, pairs: impl IntoIterator<Item = (Value, Value)>) -> Res {
        self.dict_of(DictKind::Dict, pairs)
    }

    pub fn dict_set(&self, dict: &Dict, key: Value, value: Value) -> Res<()> {
        self.charge(2 * ELEMENT_COST)?;
        storable(&value)?;
        let hashed = Key::of(&key)?;
        let mut entries = lock(&dict.entries);
        match entries.get_mut(&hashed) {
            Some(entry) => entry.1 = value,
            None => {
                entries.insert(hashed, (key, value));
            }
        }
        Ok(())
    }

    pub fn push(&self, list: &List, value: Value) -> Res<()> {
        self.charge(ELEMENT_COST)?;
        storable(&value)?;
        lock(&list.items).push(value);
        Ok(())
    }

    /// Turns a JSON value into the value a template sees; `map` may replace each string and key.
    pub fn json_value(&self, json: &serde_json::Value, map: &dyn Fn(&str) -> Option<String>) -> Res {
        self.json_value_at(json, map, 0)
    }

    fn json_value_at(
        &self,
        json: &serde_json::Value,
        map: &dyn Fn(&str) -> Option<String>,
        depth: usize,
    ) -> Res {
        use serde_json::Value as Json;
        if depth > MAX_DEPTH {
            return Err(self.exceed("the nesting depth of the input"));
        }
        let string = |text: &str| match map(text) {
            Some(mapped) => self.string(mapped),
            None => self.string(text),
        };
        Ok(match json {
            Json::Null => Value::from(()),
            Json::Bool(b) => Value::from(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Value::from(i),
                (None, Some(u)) => Value::from(u),
                (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => string(s)?,
            Json::Array(items) => {
                let items: Res<Vec<_>> =
                    items.iter().map(|item| self.json_value_at(item, map, depth + 1)).collect();
                self.list(items?)?
            }
            Json::Object(entries) => {
                let pairs: Res<Vec<_>> = entries
                    .iter()
                    .map(|(k, v)| Ok((string(k)?, self.json_value_at(v, map, depth + 1)?)))
                    .collect();
                self.dict(pairs?)?
            }
        })
    }

    /// Empties every container, so that dropping them recurses no deeper than one level.
    pub fn clear(&self) {
        for list in lock(&self.lists).iter() {
            lock(&list.items).clear();
        }
        for dict in lock(&self.dicts).iter() {
            lock(&dict.entries).clear();
        }
    }
}

/// Refuses to store what is no data (macros, loops, bound methods): they could hold containers unseen.
fn storable(value: &Value) -> Res<()> {
    let plain_data = match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain => {
            value.downcast_object_ref::<List>().is_some() || value.downcast_object_ref::<Dict>().is_some()
        }
        ValueKind::Invalid => false,
        _ => true,
    };
    if plain_data {
        Ok(())
    } else {
        Err(err(format!("a {} cannot be stored in a container", type_name(value))))
    }
}

/// Which Python type a [`List`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ListKind {
    List,
    Tuple,
    Range,
    /// `dict.items()` and its like: iterable any number of times, no JSON.
    View(&'static str),
    /// What `map`, `select` and their like give: iterable once, without a length.
    Generator,
}

/// A Python list, tuple, range, dict view or generator.
pub(super) struct List {
    pub kind: ListKind,
    pub items: Mutex<Vec<Value>>,
    consumed: AtomicBool,
}

impl List {
    /// The items as they are now. A generator gives them once.
    pub fn snapshot(&self) -> Vec<Value> {
        if self.kind == ListKind::Generator && self.consumed.swap(true, Ordering::Relaxed) {
            return Vec::new();
        }
        lock(&self.items).clone()
    }

    pub fn len(&self) -> usize {
        lock(&self.items).len()
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<list of {}>", self.len())
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        lock(&self.items).get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.snapshot())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.kind == ListKind::Generator || self.len() != 0
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which Python type a [`Dict`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DictKind {
    Dict,
    Namespace,
}

/// A Python dict, or a Jinja namespace.
pub(super) struct Dict {
    pub kind: DictKind,
    pub entries: Mutex<IndexMap<Key, (Value, Value), rustc_hash::FxBuildHasher>>,
}

impl Dict {
    pub fn get(&self, key: &Value) -> Option<Value> {
        lock(&self.entries).get(&Key::of(key).ok()?).map(|(_, value)| value.clone())
    }

    pub fn get_str(&self, key: &str) -> Option<Value> {
        self.get(&Value::from(key))
    }

    pub fn keys(&self) -> Vec<Value> {
        lock(&self.entries).values().map(|(key, _)| key.clone()).collect()
    }

    pub fn pairs(&self) -> Vec<(Value, Value)> {
        lock(&self.entries).values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<dict of {}>", self.len())
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.kind {
            DictKind::Dict => ObjectRepr::Map,
            DictKind::Namespace => ObjectRepr::Plain,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.kind == DictKind::Namespace || self.len() != 0
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A dict key as Python compares it: `1`, `1.0` and `True` are one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Arc<str>),
    Tuple(Vec<Key>),
}

impl Key {
    pub fn of(value: &Value) -> Res<Key> {
        Key::at(value, 0)
    }

    fn at(value: &Value, depth: usize) -> Res<Key> {
        Ok(match py(value) {
            Py::None | Py::Undefined => Key::None,
            Py::Bool(b) => Key::Int(i128::from(b)),
            Py::Int(i) => Key::Int(i),
            Py::Float(f) if f.fract() == 0.0 && f.abs() < 1e30 => Key::Int(f as i128),
            Py::Float(f) => Key::Float(f.to_bits()),
            Py::Str(s) => Key::Str(s.into()),
            Py::List(list) if list.kind == ListKind::Tuple && depth < 8 => {
                let items: Res<Vec<_>> =
                    list.snapshot().iter().map(|item| Key::at(item, depth + 1)).collect();
                Key::Tuple(items?)
            }
            _ => return Err(err(format!("unhashable type: '{}'", type_name(value)))),
        })
    }
}

/// A value seen as its Python type.
pub(super) enum Py<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    List(&'a List),
    Dict(&'a Dict),
    Other,
}

/// Looks at a value as Python would.
pub(super) fn py(value: &Value) -> Py<'_> {
    match value.kind() {
        ValueKind::Undefined => Py::Undefined,
        ValueKind::None => Py::None,
        ValueKind::Bool => Py::Bool(value.is_true()),
        ValueKind::Number => {
            if value.is_integer() {
                i128::try_from(value.clone()).map_or(Py::Other, Py::Int)
            } else {
                f64::try_from(value.clone()).map_or(Py::Other, Py::Float)
            }
        }
        ValueKind::String => value.as_str().map_or(Py::Other, Py::Str),
        _ => {
            if let Some(list) = value.downcast_object_ref::<List>() {
                Py::List(list)
            } else if let Some(dict) = value.downcast_object_ref::<Dict>() {
                Py::Dict(dict)
            } else {
                Py::Other
            }
        }
    }
}

/// An integer value, as small as it fits (so that it prints and compares as such).
pub(super) fn int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// The name Python gives to the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match py(value) {
        Py::Undefined => "Undefined",
        Py::None => "NoneType",
        Py::Bool(_) => "bool",
        Py::Int(_) => "int",
        Py::Float(_) => "float",
        Py::Str(_) => "str",
        Py::List(list) => match list.kind {
            ListKind::List => "list",
            ListKind::Tuple => "tuple",
            ListKind::Range => "range",
            ListKind::View(name) => name,
            ListKind::Generator => "generator",
        },
        Py::Dict(dict) => match dict.kind {
            DictKind::Dict => "dict",
            DictKind::Namespace => "Namespace",
        },
        Py::Other => "callable",
    }
}

impl Runtime {
    /// The items that iterating over a value gives, as Python has it.
    pub fn iterate(&self, value: &Value) -> Res<Vec<Value>> {
        match py(value) {
            Py::Undefined => Ok(Vec::new()),
            Py::Str(s) => {
                self.charge(s.len().saturating_mul(24))?;
                Ok(s.chars().map(|c| Value::from(c.to_string())).collect())
            }
            Py::List(list) => {
                self.charge(list.len().saturating_mul(8))?;
                Ok(list.snapshot())
            }
            Py::Dict(dict) if dict.kind == DictKind::Dict => {
                self.charge(dict.len().saturating_mul(8))?;
                Ok(dict.keys())
            }
            _ => Err(err(format!("'{}' object is not iterable", type_name(value)))),
        }
    }
}
