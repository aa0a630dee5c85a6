//! Jinja's filters and tests.

use minijinja::value::Value;

use super::json::JsonStyle;
use super::methods::{Args, capitalize, string_of, title};
use super::value::{DictKind, ListKind, Py, Res, Runtime, err, int, py, type_name};

impl Runtime {
    /// Applies a filter; the first positional argument is the value.
    pub fn filter(&self, name: &str, value: &Value, args: &Args) -> Res {
        self.charge(8)?;
        let generator = |items: Vec<Value>| self.list_of(ListKind::Generator, items);
        Ok(match name {
            "default" | "d" => {
                let missing = value.is_undefined() || (args.bool(1, "boolean") && !value.is_true());
                if missing {
                    args.get(0, "default_value").unwrap_or_else(|| Value::from(""))
                } else {
                    value.clone()
                }
            }
            "string" => self.markup(self.str(value)?, value.is_safe())?,
            "safe" => self.markup(self.str(value)?, true)?,
            "escape" | "e" => self.markup(self.escaped(value)?, true)?,
            "forceescape" => self.markup(self.escaped(&self.string(self.str(value)?)?)?, true)?,
            "trim" => {
                let text = self.str(value)?;
                let trimmed = match args.string(0, "chars")? {
                    Some(chars) => text.trim_matches(|c| chars.contains(c)),
                    None => text.trim(),
                };
                self.markup(trimmed, value.is_safe())?
            }
            "upper" => self.markup(self.str(value)?.to_uppercase(), value.is_safe())?,
            "lower" => self.markup(self.str(value)?.to_lowercase(), value.is_safe())?,
            "title" => self.string(jinja_title(&self.str(value)?))?,
            "capitalize" => self.markup(capitalize(&self.str(value)?), value.is_safe())?,
            "length" | "count" => match py(value) {
                Py::Undefined => Value::from(0),
                Py::Str(s) => {
                    self.charge(s.len() / 16)?;
                    Value::from(s.chars().count())
                }
                Py::List(list) if list.kind != ListKind::Generator => Value::from(list.len()),
                Py::Dict(dict) if dict.kind == DictKind::Dict => Value::from(dict.len()),
                _ => return Err(err(format!("object of type '{}' has no len()", type_name(value)))),
            },
            "first" => self.iterate(value)?.into_iter().next().unwrap_or_default(),
            "last" => self.iterate(value)?.pop().unwrap_or_default(),
            "list" => self.list(self.iterate(value)?)?,
            "tojson" => self.string(self.to_json(value, &json_style(args)?)?)?,
            "from_json" | "fromjson" => self.parse_json(&string_of(value)?)?,
            "join" => self.join(value, args)?,
            "replace" => {
                let count = args.int(2, "count")?.and_then(|n| usize::try_from(n).ok());
                let (old, new) = (self.str(&args.required(0, "old")?)?, self.str(&args.required(1, "new")?)?);
                self.replace(&self.str(value)?, &old, &new, count)?
            }
            "items" => match py(value) {
                Py::Undefined => generator(Vec::new())?,
                Py::Dict(dict) if dict.kind == DictKind::Dict => {
                    let pairs: Res<Vec<_>> =
                        dict.pairs().into_iter().map(|(k, v)| self.tuple(vec![k, v])).collect();
                    generator(pairs?)?
                }
                _ => return Err(err("Can only get item pairs from a mapping.")),
            },
            "dictsort" => self.dictsort(value, args)?,
            "sort" => {
                let sensitive = args.bool(1, "case_sensitive");
                let attribute = args.some(2, "attribute");
                let items = self.iterate(value)?;
                let key = |item: Value| self.sort_key(item, attribute.as_ref(), sensitive);
                self.list(self.sorted(items, args.bool(0, "reverse"), key)?)?
            }
            "unique" => {
                let sensitive = args.bool(0, "case_sensitive");
                let attribute = args.some(1, "attribute");
                let mut seen = std::collections::HashSet::new();
                let mut items = Vec::new();
                for item in self.iterate(value)? {
                    let key = self.sort_key(item.clone(), attribute.as_ref(), sensitive)?;
                    if seen.insert(super::value::Key::of(&key)?) {
                        items.push(item);
                    }
                }
                generator(items)?
            }
            "reverse" => {
                if let Py::Str(s) = py(value) {
                    self.string(s.chars().rev().collect::<String>())?
                } else {
                    let mut items = self.iterate(value)?;
                    items.reverse();
                    generator(items)?
                }
            }
            "map" => self.map(value, args)?,
            "select" | "reject" => generator(self.select(value, args, false, name == "select")?)?,
            "selectattr" | "rejectattr" => {
                generator(self.select(value, args, true, name == "selectattr")?)?
            }
            "sum" => {
                let attribute = args.some(0, "attribute");
                let mut total = args.get(1, "start").unwrap_or_else(|| Value::from(0));
                for item in self.iterate(value)? {
                    total = self.add(&total, &self.path(item, attribute.as_ref())?)?;
                }
                total
            }
            "min" | "max" => {
                let attribute = args.some(1, "attribute");
                let items = self.iterate(value)?;
                let key =
                    |item: Value| self.sort_key(item, attribute.as_ref(), args.bool(0, "case_sensitive"));
                let sorted = self.sorted(items, name == "max", key)?;
                sorted.into_iter().next().unwrap_or_default()
            }
            "indent" => self.indent(value, args)?,
            "attr" => self.attribute(value, &string_of(&args.required(0, "name")?)?)?,
            "abs" => match py(value) {
                Py::Float(f) => Value::from(f.abs()),
                Py::Int(i) => int(i.checked_abs().ok_or_else(|| err("the number is too large"))?),
                _ => return Err(err(format!("bad operand type for abs(): '{}'", type_name(value)))),
            },
            "int" => to_int(value, args),
            "float" => match py(value) {
                Py::Float(_) => value.clone(),
                Py::Int(i) => Value::from(i as f64),
                Py::Str(s) if s.trim().parse::<f64>().is_ok() => {
                    Value::from(s.trim().parse::<f64>().unwrap_or(0.0))
                }
                _ => args.get(0, "default").unwrap_or_else(|| Value::from(0.0)),
            },
            "round" => {
                let Py::Float(x) = py(&self.filter("float", value, &Args::new(&[]))?) else {
                    return Err(err("a number is required"));
                };
                let digits = args.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
                let scale = 10f64.powi(digits);
                Value::from(match args.string(1, "method")?.as_deref() {
                    Some("ceil") => (x * scale).ceil() / scale,
                    Some("floor") => (x * scale).floor() / scale,
                    _ => (x * scale).round_ties_even() / scale,
                })
            }
            "format" => {
                let format = self.str(value)?;
                let named = args.all_named();
                let values = if named.is_empty() {
                    self.tuple(args.positional.to_vec())?
                } else {
                    self.dict(named.into_iter().map(|(k, v)| (Value::from(k), v)))?
                };
                self.printf(&format, &values, value.is_safe())?
            }
            "center" => {
                let width = usize::try_from(args.int(0, "width")?.unwrap_or(80)).unwrap_or(0);
                self.pad(&self.str(value)?, "center", width, ' ')?
            }
            "wordcount" => Value::from(
                self.str(value)?
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .filter(|w| !w.is_empty())
                    .count(),
            ),
            "batch" => {
                let size = usize::try_from(args.int(0, "linecount")?.unwrap_or(1)).ok().filter(|n| *n > 0);
                let size = size.ok_or_else(|| err("a batch holds at least one item"))?;
                let lists: Res<Vec<_>> =
                    self.iterate(value)?.chunks(size).map(|c| self.list(c.to_vec())).collect();
                generator(lists?)?
            }
            other => return Err(err(format!("No filter named '{other}'."))),
        })
    }

    fn join(&self, value: &Value, args: &Args) -> Res {
        let separator = args.some(0, "d").map(|v| self.str(&v)).transpose()?.unwrap_or_default();
        let attribute = args.some(1, "attribute");
        let mut out = String::new();
        for (i, item) in self.iterate(value)?.into_iter().enumerate() {
            if i > 0 {
                out.push_str(&separator);
            }
            let text = self.str(&self.path(item, attribute.as_ref())?)?;
            self.check_len(out.len().saturating_add(text.len()).saturating_add(separator.len()))?;
            self.charge(text.len() + separator.len())?;
            out.push_str(&text);
        }
        Ok(Value::from(out))
    }

    fn indent(&self, value: &Value, args: &Args) -> Res {
        let text = self.str(value)?;
        let width = args.some(0, "width");
        let step = match width.as_ref().map(py) {
            None => "    ".to_string(),
            Some(Py::Str(s)) => s.to_string(),
            Some(Py::Int(n)) => {
                let n = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
                self.charge_string(n)?;
                " ".repeat(n)
            }
            Some(_) => return Err(err("the width of an indent is an int or a str")),
        };
        let (first, blank) = (args.bool(1, "first"), args.bool(2, "blank"));
        let mut out = String::new();
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                out.push('\n');
            }
            let indented = if i == 0 { first } else { blank || !line.is_empty() };
            self.check_len(out.len().saturating_add(line.len()).saturating_add(step.len()))?;
            self.charge(line.len() + step.len())?;
            if indented {
                out.push_str(&step);
            }
            out.push_str(line);
        }
        Ok(Value::from(out))
    }

    fn dictsort(&self, value: &Value, args: &Args) -> Res {
        let Py::Dict(dict) = py(value) else {
            return Err(err(format!("dictsort needs a mapping, not '{}'", type_name(value))));
        };
        let sensitive = args.bool(0, "case_sensitive");
        let by_value = args.string(1, "by")?.as_deref() == Some("value");
        let mut pairs = Vec::new();
        for (key, value) in dict.pairs() {
            pairs.push(self.tuple(vec![key, value])?);
        }
        let key = |pair: Value| {
            let of = self.item(&pair, &Value::from(i32::from(by_value)))?;
            self.sort_key(of, None, sensitive)
        };
        self.list(self.sorted(pairs, args.bool(2, "reverse"), key)?)
    }

    fn sort_key(&self, item: Value, attribute: Option<&Value>, case_sensitive: bool) -> Res {
        let value = self.path(item, attribute)?;
        match py(&value) {
            Py::Str(s) if !case_sensitive => self.string(s.to_lowercase()),
            _ => Ok(value),
        }
    }

    /// The value at an attribute path such as `function.name`; integers index.
    fn path(&self, item: Value, attribute: Option<&Value>) -> Res {
        let Some(attribute) = attribute else { return Ok(item) };
        let Py::Str(path) = py(attribute) else { return self.item(&item, attribute) };
        let mut value = item;
        for step in path.split('.') {
            let key = step.parse::<i64>().map_or_else(|_| Value::from(step), Value::from);
            value = self.item(&value, &key)?;
        }
        Ok(value)
    }

    fn map(&self, value: &Value, args: &Args) -> Res {
        let mut items = Vec::new();
        // As in Jinja, nothing (none, say) maps to nothing.
        if !value.is_true() {
            return self.list_of(ListKind::Generator, items);
        }
        let attribute = args.named("attribute");
        for item in self.iterate(value)? {
            items.push(if attribute.is_some() {
                let found = self.path(item, attribute.as_ref())?;
                if found.is_undefined() { args.named("default").unwrap_or(found) } else { found }
            } else {
                let (name, rest) =
                    args.positional.split_first().ok_or_else(|| err("map requires a filter argument"))?;
                self.filter(&string_of(name)?, &item, &Args::new(rest))?
            });
        }
        self.list_of(ListKind::Generator, items)
    }

    fn select(&self, value: &Value, args: &Args, by_attribute: bool, keep: bool) -> Res<Vec<Value>> {
        let mut positional = args.positional;
        let mut attribute = None;
        if by_attribute {
            let (first, rest) =
                positional.split_first().ok_or_else(|| err("Missing parameter for attribute name"))?;
            attribute = Some(first);
            positional = rest;
        }
        let mut items = Vec::new();
        if !value.is_true() {
            return Ok(items);
        }
        for item in self.iterate(value)? {
            let subject = self.path(item.clone(), attribute)?;
            let chosen = match positional.split_first() {
                Some((test, rest)) => self.test(&string_of(test)?, &subject, &Args::new(rest))?,
                None => subject.is_true(),
            };
            if chosen == keep {
                items.push(item);
            }
        }
        Ok(items)
    }

    /// Applies a test; the value comes before its arguments.
    pub fn test(&self, name: &str, value: &Value, args: &Args) -> Res<bool> {
        self.charge(2)?;
        let other = || args.required(0, "other");
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => value.is_none(),
            "true" => matches!(py(value), Py::Bool(true)),
            "false" => matches!(py(value), Py::Bool(false)),
            "boolean" => matches!(py(value), Py::Bool(_)),
            "integer" => matches!(py(value), Py::Int(_)),
            "float" => matches!(py(value), Py::Float(_)),
            "number" => matches!(py(value), Py::Int(_) | Py::Float(_) | Py::Bool(_)),
            "string" => matches!(py(value), Py::Str(_)),
            "mapping" => matches!(py(value), Py::Dict(d) if d.kind == DictKind::Dict),
            "iterable" => match py(value) {
                Py::Undefined | Py::Str(_) | Py::List(_) => true,
                Py::Dict(d) => d.kind == DictKind::Dict,
                _ => false,
            },
            // What has a length and takes an item: in Python a dict and a string do.
            "sequence" => match py(value) {
                Py::Undefined | Py::Str(_) => true,
                Py::List(list) => matches!(list.kind, ListKind::List | ListKind::Tuple | ListKind::Range),
                Py::Dict(d) => d.kind == DictKind::Dict,
                _ => false,
            },
            "callable" => matches!(py(value), Py::Other),
            "lower" => {
                let text = self.str(value)?;
                text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
            }
            "upper" => {
                let text = self.str(value)?;
                text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
            }
            "odd" => self.equal(&self.modulo(value, &Value::from(2))?, &Value::from(1))?,
            "even" => self.equal(&self.modulo(value, &Value::from(2))?, &Value::from(0))?,
            "divisibleby" => self.equal(&self.modulo(value, &other()?)?, &Value::from(0))?,
            "eq" | "equalto" | "==" | "sameas" => self.equal(value, &other()?)?,
            "ne" | "!=" => !self.equal(value, &other()?)?,
            "lt" | "lessthan" | "<" => self.compare("<", value, &other()?)?,
            "le" | "<=" => self.compare("<=", value, &other()?)?,
            "gt" | "greaterthan" | ">" => self.compare(">", value, &other()?)?,
            "ge" | ">=" => self.compare(">=", value, &other()?)?,
            "in" => self.contains(&other()?, value)?,
            "escaped" => false,
            other => return Err(err(format!("No test named '{other}'."))),
        })
    }
}

/// Python's `int(value)`, or the default.
fn to_int(value: &Value, args: &Args) -> Value {
    let default = args.get(0, "default").unwrap_or_else(|| Value::from(0));
    match py(value) {
        Py::Int(_) => value.clone(),
        Py::Bool(b) => Value::from(i64::from(b)),
        Py::Float(f) if f.is_finite() => int(f.trunc() as i128),
        Py::Str(s) => {
            let s = s.trim();
            let parsed = s.parse::<i128>().ok();
            parsed
                .or_else(|| s.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f.trunc() as i128))
                .map_or(default, int)
        }
        _ => default,
    }
}

fn json_style(args: &Args) -> Res<JsonStyle> {
    let indent = args.named("indent").or_else(|| args.positional.first().cloned());
    let indent = match indent.as_ref().map(py) {
        None | Some(Py::None | Py::Undefined) => None,
        Some(Py::Str(s)) => Some(s.to_string()),
        Some(Py::Int(n)) => {
            let n = usize::try_from(n.max(0)).ok().filter(|n| *n <= 256);
            Some(" ".repeat(n.ok_or_else(|| err("the indent of tojson is at most 256"))?))
        }
        Some(_) => return Err(err("the indent of tojson is an int or a str")),
    };
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    if let Some(separators) = args.named("separators").filter(|v| !v.is_none())
        && let Py::List(list) = py(&separators)
        && let [a, b] = list.snapshot().as_slice()
    {
        (item, key) = (string_of(a)?, string_of(b)?);
    }
    Ok(JsonStyle {
        indent,
        item_separator: item,
        key_separator: key,
        sort_keys: args.named("sort_keys").is_some_and(|v| v.is_true()),
        ensure_ascii: args.named("ensure_ascii").is_some_and(|v| v.is_true()),
    })
}

/// Jinja's `title` filter, which unlike `str.title` begins words only after spaces, hyphens and brackets.
fn jinja_title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "-({[<".contains(c)) {
        out.push_str(&capitalize(word));
    }
    if out.is_empty() { title(text) } else { out }
}
