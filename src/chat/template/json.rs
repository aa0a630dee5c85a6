//! `tojson` and `from_json` as Python's `json.dumps` and `json.loads` have them.

use std::fmt::Write as _;

use minijinja::value::Value;

use super::repr::float;
use super::value::{DictKind, ListKind, MAX_DEPTH, Py, Res, Runtime, err, py, type_name};

/// The keyword arguments of `json.dumps` that templates use.
pub(super) struct JsonStyle {
    /// The text of one indentation step; none writes everything on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

impl Runtime {
    /// `json.dumps(value)`.
    pub fn to_json(&self, value: &Value, style: &JsonStyle) -> Res<String> {
        let mut out = String::new();
        self.write_json(&mut out, value, style, 0)?;
        Ok(out)
    }

    fn json_newline(&self, out: &mut String, style: &JsonStyle, depth: usize) -> Res<()> {
        if let Some(indent) = &style.indent {
            let len = indent.len().saturating_mul(depth).saturating_add(1);
            self.check_len(out.len().saturating_add(len))?;
            self.charge(len)?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn write_json(&self, out: &mut String, value: &Value, style: &JsonStyle, depth: usize) -> Res<()> {
        if depth > MAX_DEPTH {
            return Err(self.exceed("the nesting depth of a JSON value"));
        }
        self.charge(8)?;
        match py(value) {
            Py::None => out.push_str("null"),
            Py::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            Py::Int(i) => out.push_str(&i.to_string()),
            Py::Float(f) => out.push_str(&json_float(f)),
            Py::Str(s) => self.write_json_string(out, s, style)?,
            Py::List(list) if matches!(list.kind, ListKind::List | ListKind::Tuple) => {
                let items = self.iterate(value)?;
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(&style.item_separator);
                    }
                    self.charge(style.item_separator.len())?;
                    self.json_newline(out, style, depth + 1)?;
                    self.write_json(out, item, style, depth + 1)?;
                }
                if !items.is_empty() {
                    self.json_newline(out, style, depth)?;
                }
                out.push(']');
            }
            Py::Dict(dict) if dict.kind == DictKind::Dict => {
                let mut pairs = Vec::new();
                for (key, value) in dict.pairs() {
                    let key = match py(&key) {
                        Py::Str(s) => s.to_string(),
                        Py::None => "null".into(),
                        Py::Bool(b) => b.to_string(),
                        Py::Int(i) => i.to_string(),
                        Py::Float(f) => json_float(f),
                        _ => return Err(err("keys must be str, int, float, bool or None")),
                    };
                    self.charge(key.len() + 32)?;
                    pairs.push((key, value));
                }
                if style.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    if i > 0 {
                        out.push_str(&style.item_separator);
                    }
                    self.charge(style.item_separator.len() + style.key_separator.len())?;
                    self.json_newline(out, style, depth + 1)?;
                    self.write_json_string(out, key, style)?;
                    out.push_str(&style.key_separator);
                    self.write_json(out, value, style, depth + 1)?;
                }
                if !pairs.is_empty() {
                    self.json_newline(out, style, depth)?;
                }
                out.push('}');
            }
            _ => return Err(err(format!("Object of type {} is not JSON serializable", type_name(value)))),
        }
        Ok(())
    }

    fn write_json_string(&self, out: &mut String, text: &str, style: &JsonStyle) -> Res<()> {
        self.charge_string(text.len().saturating_mul(if style.ensure_ascii { 6 } else { 2 }))?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c if style.ensure_ascii && (c as u32) > 0x7e => {
                    let mut units = [0u16; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }

    /// `json.loads(text)`.
    pub fn parse_json(&self, text: &str) -> Res {
        self.charge(text.len().saturating_mul(8))?;
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|e| err(format!("invalid JSON: {e}")))?;
        self.json_value(&json, &|_| None)
    }
}

fn json_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        float(value)
    }
}
