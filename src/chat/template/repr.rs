//! How Python prints values: `str()` and `repr()`.

use std::fmt::Write as _;

use minijinja::value::Value;

use super::value::{DictKind, ListKind, MAX_DEPTH, Py, Res, Runtime, py};

impl Runtime {
    /// `str(value)`. An undefined value is the empty string, as Jinja prints it.
    pub fn str(&self, value: &Value) -> Res<String> {
        match py(value) {
            Py::Undefined => Ok(String::new()),
            Py::Str(s) => {
                self.charge_string(s.len())?;
                Ok(s.to_string())
            }
            _ => self.repr(value),
        }
    }

    /// `repr(value)`.
    pub fn repr(&self, value: &Value) -> Res<String> {
        let mut out = String::new();
        self.write_repr(&mut out, value, 0)?;
        Ok(out)
    }

    fn write_repr(&self, out: &mut String, value: &Value, depth: usize) -> Res<()> {
        if depth > MAX_DEPTH {
            return Err(self.exceed("the nesting depth of a printed value"));
        }
        let before = out.len();
        match py(value) {
            Py::Undefined => out.push_str("Undefined"),
            Py::None => out.push_str("None"),
            Py::Bool(true) => out.push_str("True"),
            Py::Bool(false) => out.push_str("False"),
            Py::Int(i) => out.push_str(&i.to_string()),
            Py::Float(f) => out.push_str(&float(f)),
            Py::Str(s) => {
                self.charge_string(s.len())?;
                quote(out, s);
            }
            Py::List(list) => {
                let (open, close) = match list.kind {
                    ListKind::List => ("[", "]"),
                    ListKind::Tuple => ("(", ")"),
                    ListKind::Range => {
                        out.push_str("range(...)");
                        return Ok(());
                    }
                    ListKind::View(name) => {
                        out.push_str(name);
                        ("([", "])")
                    }
                    ListKind::Generator => {
                        out.push_str("<generator object>");
                        return Ok(());
                    }
                };
                out.push_str(open);
                let items = self.iterate(value)?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    self.write_repr(out, item, depth + 1)?;
                }
                if list.kind == ListKind::Tuple && items.len() == 1 {
                    out.push(',');
                }
                out.push_str(close);
            }
            Py::Dict(dict) if dict.kind == DictKind::Namespace => out.push_str("<Namespace>"),
            Py::Dict(dict) => {
                self.charge(dict.len() * 16)?;
                out.push('{');
                for (i, (key, value)) in dict.pairs().iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    self.write_repr(out, key, depth + 1)?;
                    out.push_str(": ");
                    self.write_repr(out, value, depth + 1)?;
                }
                out.push('}');
            }
            Py::Other => out.push_str("<object>"),
        }
        // Nested values were charged on their way; what this level added is at most a few bytes more.
        self.charge_string(0)?;
        if depth == 0 {
            self.charge_string(out.len() - before)?;
        }
        Ok(())
    }
}

/// The shortest text that reads back as the same number, in Python's notation.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        if plain.contains('.') { plain } else { format!("{plain}.0") }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..=0xa0).contains(&(c as u32)) || c as u32 == 0xad => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_print_as_python_prints_them() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }
}
