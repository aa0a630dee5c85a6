//! The methods of Python's str, list and dict.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Value};

use super::value::{Dict, DictKind, List, ListKind, Py, Res, Runtime, err, lock, py, type_name};

/// The methods of a dict, which hide items of the same names where these are read as attributes.
pub(super) const DICT: [&str; 9] =
    ["get", "items", "keys", "values", "update", "pop", "setdefault", "copy", "clear"];
/// The methods of a list.
pub(super) const LIST: [&str; 11] =
    ["append", "extend", "insert", "pop", "remove", "index", "count", "reverse", "sort", "copy", "clear"];
/// The methods of a string.
pub(super) const STR: [&str; 38] = [
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "rsplit",
    "splitlines",
    "partition",
    "rpartition",
    "startswith",
    "endswith",
    "removeprefix",
    "removesuffix",
    "replace",
    "upper",
    "lower",
    "casefold",
    "title",
    "capitalize",
    "swapcase",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "join",
    "format",
    "center",
    "ljust",
    "rjust",
    "zfill",
    "isdigit",
    "isdecimal",
    "isnumeric",
    "isalpha",
    "isalnum",
    "isspace",
    "isupper",
    "islower",
];

/// The arguments of a call.
pub(super) struct Args<'a> {
    pub positional: &'a [Value],
    kwargs: Option<Kwargs>,
}

impl<'a> Args<'a> {
    pub fn new(args: &'a [Value]) -> Args<'a> {
        match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => {
                Args { positional: rest, kwargs: Kwargs::try_from(last.clone()).ok() }
            }
            _ => Args { positional: args, kwargs: None },
        }
    }

    /// The argument at a position or of a name.
    pub fn get(&self, position: usize, name: &str) -> Option<Value> {
        self.positional.get(position).cloned().or_else(|| self.named(name))
    }

    pub fn named(&self, name: &str) -> Option<Value> {
        self.kwargs.as_ref().and_then(|k| k.peek::<Value>(name).ok()).filter(|_| self.has(name))
    }

    fn has(&self, name: &str) -> bool {
        self.kwargs.as_ref().is_some_and(|k| k.has(name))
    }

    /// The named arguments, in order of their names' first mention.
    pub fn all_named(&self) -> Vec<(String, Value)> {
        let Some(kwargs) = &self.kwargs else { return Vec::new() };
        let names: Vec<String> = kwargs.args().map(str::to_string).collect();
        names.into_iter().filter_map(|n| self.named(&n).map(|v| (n, v))).collect()
    }

    /// As [`Args::get`], where an argument that is none counts as absent.
    pub fn some(&self, position: usize, name: &str) -> Option<Value> {
        self.get(position, name).filter(|v| !v.is_none() && !v.is_undefined())
    }

    pub fn string(&self, position: usize, name: &str) -> Res<Option<String>> {
        self.some(position, name).map(|v| string_of(&v)).transpose()
    }

    pub fn required(&self, position: usize, name: &str) -> Res {
        self.get(position, name).ok_or_else(|| err(format!("the argument '{name}' is missing")))
    }

    pub fn int(&self, position: usize, name: &str) -> Res<Option<i64>> {
        self.some(position, name)
            .map(|v| match py(&v) {
                Py::Int(i) => Ok(i.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
                Py::Bool(b) => Ok(b.into()),
                _ => Err(err(format!("'{}' object cannot be interpreted as an integer", type_name(&v)))),
            })
            .transpose()
    }

    pub fn bool(&self, position: usize, name: &str) -> bool {
        self.get(position, name).is_some_and(|v| v.is_true())
    }
}

/// The text of a string value.
pub(super) fn string_of(value: &Value) -> Res<String> {
    match py(value) {
        Py::Str(s) => Ok(s.to_string()),
        _ => Err(err(format!("a str is required, not '{}'", type_name(value)))),
    }
}

impl Runtime {
    /// A method of a string. One of markup gives markup, and escapes the strings that it takes in.
    pub fn str_method(&self, receiver: &Value, s: &str, name: &str, args: &[Value]) -> Res {
        if !receiver.is_safe() {
            return self.plain_str_method(s, name, &Args::new(args), false);
        }
        let mut args = args.to_vec();
        if name == "replace" {
            for arg in args.iter_mut().filter(|a| a.as_str().is_some()) {
                *arg = Value::from(self.escaped(arg)?);
            }
        } else if name == "join" {
            for arg in args.iter_mut().take(1) {
                let items = self.iterate(arg)?;
                let items =
                    items.iter().map(|i| self.escaped(i).map(Value::from)).collect::<Res<Vec<_>>>()?;
                *arg = self.list(items)?;
            }
        }
        let result = self.plain_str_method(s, name, &Args::new(&args), true)?;
        match py(&result) {
            Py::Str(text) => self.markup(text, true),
            Py::List(list) => {
                let items =
                    list.snapshot().iter().map(|i| self.markup(self.str(i)?, true)).collect::<Res<Vec<_>>>();
                self.list_of(list.kind, items?)
            }
            _ => Ok(result),
        }
    }

    fn plain_str_method(&self, s: &str, name: &str, args: &Args, markup: bool) -> Res {
        self.charge(s.len() / 4 + 1)?;
        let chars = |args: &Args| args.string(0, "chars");
        Ok(match name {
            "strip" | "lstrip" | "rstrip" => {
                let set = chars(args)?;
                let wanted = |c: char| match &set {
                    Some(set) => set.contains(c),
                    None => c.is_whitespace(),
                };
                self.charge(s.len().saturating_mul(set.as_ref().map_or(0, |s| s.len() / 64)))?;
                self.string(match name {
                    "strip" => s.trim_matches(wanted),
                    "lstrip" => s.trim_start_matches(wanted),
                    _ => s.trim_end_matches(wanted),
                })?
            }
            "split" | "rsplit" => {
                let limit = args.int(1, "maxsplit")?.and_then(|n| usize::try_from(n).ok());
                let parts = split(s, args.string(0, "sep")?.as_deref(), limit, name == "rsplit")?;
                self.strings(&parts)?
            }
            "splitlines" => {
                let keep = args.bool(0, "keepends");
                let mut parts = Vec::new();
                for line in s.split_inclusive('\n') {
                    let bare = line.strip_suffix('\n').unwrap_or(line);
                    parts.push(if keep { line } else { bare.strip_suffix('\r').unwrap_or(bare) });
                }
                self.strings(&parts)?
            }
            "partition" | "rpartition" => {
                let separator = string_of(&args.required(0, "sep")?)?;
                if separator.is_empty() {
                    return Err(err("empty separator"));
                }
                let first = name == "partition";
                let found = if first { s.split_once(&separator) } else { s.rsplit_once(&separator) };
                let parts = match found {
                    Some((before, after)) => [before, &separator, after],
                    None if first => [s, "", ""],
                    None => ["", "", s],
                };
                self.charge(s.len())?;
                self.tuple(parts.iter().map(|p| Value::from(*p)).collect())?
            }
            "startswith" | "endswith" => {
                let affix = args.required(0, "prefix")?;
                let affixes = match py(&affix) {
                    Py::List(list) if list.kind == ListKind::Tuple => list.snapshot(),
                    _ => vec![affix],
                };
                let mut found = false;
                for affix in affixes {
                    let affix = string_of(&affix)?;
                    found |= if name == "startswith" { s.starts_with(&affix) } else { s.ends_with(&affix) };
                }
                Value::from(found)
            }
            "removeprefix" => {
                let affix = string_of(&args.required(0, "prefix")?)?;
                self.string(s.strip_prefix(affix.as_str()).unwrap_or(s))?
            }
            "removesuffix" => {
                let affix = string_of(&args.required(0, "suffix")?)?;
                self.string(s.strip_suffix(affix.as_str()).unwrap_or(s))?
            }
            "replace" => {
                let (old, new) = (args.required(0, "old")?, args.required(1, "new")?);
                let count = args.int(2, "count")?.and_then(|n| usize::try_from(n).ok());
                self.replace(s, &string_of(&old)?, &string_of(&new)?, count)?
            }
            "upper" => self.string(s.to_uppercase())?,
            "lower" | "casefold" => self.string(s.to_lowercase())?,
            "title" => self.string(title(s))?,
            "capitalize" => self.string(capitalize(s))?,
            "swapcase" => self.string(
                s.chars()
                    .flat_map(|c| {
                        if c.is_uppercase() {
                            c.to_lowercase().collect::<Vec<_>>()
                        } else {
                            c.to_uppercase().collect()
                        }
                    })
                    .collect::<String>(),
            )?,
            "find" | "index" | "rfind" | "rindex" => {
                let part = string_of(&args.required(0, "sub")?)?;
                let found = if name.starts_with('r') { s.rfind(&part) } else { s.find(&part) };
                match found {
                    Some(byte) => Value::from(s.get(..byte).unwrap_or_default().chars().count()),
                    None if name.ends_with("index") => return Err(err("substring not found")),
                    None => Value::from(-1),
                }
            }
            "count" => {
                let part = string_of(&args.required(0, "sub")?)?;
                Value::from(if part.is_empty() { s.chars().count() + 1 } else { s.matches(&part).count() })
            }
            "join" => {
                let items = self.iterate(&args.required(0, "iterable")?)?;
                let mut out = String::new();
                for (i, item) in items.iter().enumerate() {
                    let Py::Str(text) = py(item) else {
                        return Err(err(format!(
                            "sequence item {i}: expected str instance, {} found",
                            type_name(item)
                        )));
                    };
                    self.check_len(out.len().saturating_add(s.len()).saturating_add(text.len()))?;
                    self.charge(s.len() + text.len())?;
                    if i > 0 {
                        out.push_str(s);
                    }
                    out.push_str(text);
                }
                Value::from(out)
            }
            "format" => self.str_format(s, args, markup)?,
            "center" | "ljust" | "rjust" | "zfill" => {
                let width = args.int(0, "width")?.unwrap_or(0);
                let fill = if name == "zfill" { Some("0".to_string()) } else { args.string(1, "fillchar")? };
                let fill = fill.and_then(|f| f.chars().next()).unwrap_or(' ');
                self.pad(s, name, usize::try_from(width).unwrap_or(0), fill)?
            }
            "isdigit" | "isdecimal" | "isnumeric" => {
                Value::from(!s.is_empty() && s.chars().all(char::is_numeric))
            }
            "isalpha" => Value::from(!s.is_empty() && s.chars().all(char::is_alphabetic)),
            "isalnum" => Value::from(!s.is_empty() && s.chars().all(char::is_alphanumeric)),
            "isspace" => Value::from(!s.is_empty() && s.chars().all(char::is_whitespace)),
            "isupper" => Value::from(s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)),
            "islower" => Value::from(s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)),
            _ => return Err(err(format!("'str' object has no attribute '{name}'"))),
        })
    }

    /// A list of strings.
    fn strings(&self, parts: &[&str]) -> Res {
        self.charge(parts.iter().map(|p| p.len() + 48).sum())?;
        self.list(parts.iter().map(|p| Value::from(*p)).collect())
    }

    /// `str.replace`, with the length of the result checked before it is made.
    pub fn replace(&self, s: &str, old: &str, new: &str, count: Option<usize>) -> Res {
        let found = if old.is_empty() { s.chars().count() + 1 } else { s.matches(old).count() };
        let found = found.min(count.unwrap_or(usize::MAX));
        self.charge_string(s.len().saturating_add(found.saturating_mul(new.len())))?;
        Ok(Value::from(s.replacen(old, new, found)))
    }

    pub fn pad(&self, s: &str, name: &str, width: usize, fill: char) -> Res {
        let len = s.chars().count();
        let missing = width.saturating_sub(len);
        self.charge_string(s.len().saturating_add(missing.saturating_mul(4)))?;
        let (left, right) = match name {
            "ljust" => (0, missing),
            // As CPython splits an odd rest.
            "center" => {
                let left = missing / 2 + (missing & width & 1);
                (left, missing - left)
            }
            _ => (missing, 0),
        };
        let fill = |n: usize| std::iter::repeat_n(fill, n);
        let signed = name == "zfill" && s.starts_with(['+', '-']);
        let (sign, digits) = s.split_at(usize::from(signed));
        Ok(Value::from(
            sign.chars().chain(fill(left)).chain(digits.chars()).chain(fill(right)).collect::<String>(),
        ))
    }

    pub fn list_method(&self, list: &List, name: &str, args: &Args) -> Res {
        let index_error = || err("list index out of range");
        let resolve = |i: i64, len: usize| usize::try_from(if i < 0 { i + len as i64 } else { i }).ok();
        match name {
            "append" => self.push(list, args.required(0, "object")?)?,
            "extend" => {
                for item in self.iterate(&args.required(0, "iterable")?)? {
                    self.push(list, item)?;
                }
            }
            "insert" => {
                self.charge(list.len() / 8 + 1)?;
                let at = args.int(0, "index")?.unwrap_or(0);
                let len = list.len();
                let at = resolve(at, len).unwrap_or(0).min(len);
                self.push(list, args.required(1, "object")?)?;
                lock(&list.items)[at..].rotate_right(1);
            }
            "pop" => {
                let mut items = lock(&list.items);
                let at = resolve(args.int(0, "index")?.unwrap_or(-1), items.len());
                let at = at.filter(|i| *i < items.len()).ok_or_else(index_error)?;
                self.charge((items.len() - at) / 8)?;
                return Ok(items.remove(at));
            }
            "remove" | "index" => {
                let wanted = args.required(0, "value")?;
                let items = list.snapshot();
                self.charge(items.len() * 8)?;
                for (i, item) in items.iter().enumerate() {
                    if self.equal(item, &wanted)? {
                        if name == "index" {
                            return Ok(Value::from(i));
                        }
                        lock(&list.items).remove(i);
                        return Ok(Value::from(()));
                    }
                }
                return Err(err("the value is not in the list"));
            }
            "count" => {
                let wanted = args.required(0, "value")?;
                let items = list.snapshot();
                self.charge(items.len() * 8)?;
                let mut count = 0;
                for item in &items {
                    count += i64::from(self.equal(item, &wanted)?);
                }
                return Ok(Value::from(count));
            }
            "reverse" => {
                self.charge(list.len())?;
                lock(&list.items).reverse();
            }
            "sort" => {
                let sorted = self.sorted(list.snapshot(), args.bool(usize::MAX, "reverse"), Ok)?;
                *lock(&list.items) = sorted;
            }
            "copy" => return self.list(list.snapshot()),
            "clear" => lock(&list.items).clear(),
            _ => return Err(err(format!("'list' object has no attribute '{name}'"))),
        }
        Ok(Value::from(()))
    }

    /// Sorts by a key, stably, as Python's `sorted` does.
    pub fn sorted(&self, items: Vec<Value>, reverse: bool, key: impl Fn(Value) -> Res) -> Res<Vec<Value>> {
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            keyed.push((key(item.clone())?, item));
        }
        // The standard sort may panic on an order that is none (NaN, say), so this merges by hand.
        let before = |a: &Value, b: &Value| -> Res<bool> {
            self.charge(4)?;
            // An item goes in front only if it is strictly before, which keeps equal items in their order.
            Ok(self.order("<", a, b)? == Some(if reverse { Ordering::Greater } else { Ordering::Less }))
        };
        let mut width = 1;
        while width < keyed.len() {
            let mut merged = Vec::with_capacity(keyed.len());
            let mut rest = keyed.into_iter().peekable();
            while rest.peek().is_some() {
                let mut left = rest.by_ref().take(width).collect::<Vec<_>>().into_iter().peekable();
                let mut right = rest.by_ref().take(width).collect::<Vec<_>>().into_iter().peekable();
                while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
                    let from = if before(b, a)? { &mut right } else { &mut left };
                    merged.extend(from.next());
                }
                merged.extend(left);
                merged.extend(right);
            }
            keyed = merged;
            width *= 2;
        }
        Ok(keyed.into_iter().map(|(_, item)| item).collect())
    }

    pub fn dict_method(&self, dict: &Dict, name: &str, args: &Args) -> Res {
        if dict.kind == DictKind::Namespace {
            return Err(err(format!("'{name}' of a namespace is not callable")));
        }
        self.charge(
            dict.len().saturating_mul(if matches!(name, "get" | "setdefault") { 0 } else { 16 }) + 1,
        )?;
        let pairs = |dict: &Dict| {
            dict.pairs().into_iter().map(|(k, v)| self.tuple(vec![k, v])).collect::<Res<Vec<_>>>()
        };
        match name {
            "get" => {
                let key = args.required(0, "key")?;
                let default = args.get(1, "default").unwrap_or_else(|| Value::from(()));
                super::value::Key::of(&key)?;
                Ok(dict.get(&key).unwrap_or(default))
            }
            "items" => self.list_of(ListKind::View("dict_items"), pairs(dict)?),
            "keys" => self.list_of(ListKind::View("dict_keys"), dict.keys()),
            "values" => self
                .list_of(ListKind::View("dict_values"), dict.pairs().into_iter().map(|(_, v)| v).collect()),
            "update" => {
                if let Some(other) = args.positional.first() {
                    for (key, value) in self.pairs_of(other)? {
                        self.dict_set(dict, key, value)?;
                    }
                }
                for (key, value) in args.all_named() {
                    self.dict_set(dict, Value::from(key), value)?;
                }
                Ok(Value::from(()))
            }
            "pop" => {
                let key = args.required(0, "key")?;
                let removed = lock(&dict.entries).shift_remove(&super::value::Key::of(&key)?);
                match (removed, args.get(1, "default")) {
                    (Some((_, value)), _) => Ok(value),
                    (None, Some(default)) => Ok(default),
                    (None, None) => Err(err(format!("KeyError: {}", self.repr(&key)?))),
                }
            }
            "setdefault" => {
                let key = args.required(0, "key")?;
                if let Some(value) = dict.get(&key) {
                    return Ok(value);
                }
                let default = args.get(1, "default").unwrap_or_else(|| Value::from(()));
                self.dict_set(dict, key, default.clone())?;
                Ok(default)
            }
            "copy" => self.dict(dict.pairs()),
            "clear" => {
                lock(&dict.entries).clear();
                Ok(Value::from(()))
            }
            _ => Err(err(format!("'dict' object has no attribute '{name}'"))),
        }
    }

    /// The pairs that `dict(x)` and `update(x)` read from a mapping or from a sequence of pairs.
    pub fn pairs_of(&self, value: &Value) -> Res<Vec<(Value, Value)>> {
        if let Py::Dict(dict) = py(value) {
            self.charge(dict.len().saturating_mul(16))?;
            return Ok(dict.pairs());
        }
        let mut pairs = Vec::new();
        for item in self.iterate(value)? {
            match <[Value; 2]>::try_from(self.iterate(&item)?) {
                Ok([key, value]) => pairs.push((key, value)),
                Err(_) => return Err(err("dictionary update sequence element does not have length 2")),
            }
        }
        Ok(pairs)
    }
}

fn split<'s>(s: &'s str, separator: Option<&str>, limit: Option<usize>, right: bool) -> Res<Vec<&'s str>> {
    let parts = limit.map(|n| n.saturating_add(1));
    let Some(separator) = separator else {
        let Some(limit) = limit else { return Ok(s.split_whitespace().collect()) };
        let mut out = Vec::new();
        let mut rest = if right { s.trim_end() } else { s.trim_start() };
        while !rest.is_empty() {
            let cut = if right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
            match cut {
                Some(at) if out.len() < limit => {
                    let (before, after) = rest.split_at(at);
                    if right {
                        out.push(after.trim_start());
                        rest = before.trim_end();
                    } else {
                        out.push(before);
                        rest = after.trim_start();
                    }
                }
                _ => {
                    out.push(if right { rest.trim_start() } else { rest });
                    break;
                }
            }
        }
        if right {
            out.reverse();
        }
        return Ok(out);
    };
    if separator.is_empty() {
        return Err(err("empty separator"));
    }
    Ok(match (parts, right) {
        (None, _) => s.split(separator).collect(),
        (Some(n), false) => s.splitn(n, separator).collect(),
        (Some(n), true) => {
            let mut parts: Vec<_> = s.rsplitn(n, separator).collect();
            parts.reverse();
            parts
        }
    })
}

/// `str.title`: every letter that follows a letter is lower case, every other one upper case.
pub(super) fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut in_word = false;
    for c in s.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// `str.capitalize`.
pub(super) fn capitalize(s: &str) -> String {
    let mut chars = s.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}
