//! Python's two ways to fill values into a text: `'%s' % x` and `'{}'.format(x)`.

use minijinja::value::Value;

use super::methods::Args;
use super::repr::float;
use super::value::{ListKind, Py, Res, Runtime, err, py, type_name};

/// A width or precision above this is refused: nobody lines up columns that wide.
const MAX_WIDTH: usize = 4096;

/// How one value is written: `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Res<Spec> {
        let mut spec = Spec::default();
        let chars: Vec<char> = text.chars().take(64).collect();
        let at = |i: usize| chars.get(i).copied();
        let mut i = 0;
        let is_align = |c: Option<char>| matches!(c, Some('<' | '>' | '^' | '='));
        if is_align(at(1)) {
            (spec.fill, spec.align) = (at(0), at(1));
            i = 2;
        } else if is_align(at(0)) {
            spec.align = at(0);
            i = 1;
        }
        if let Some(sign @ ('+' | '-' | ' ')) = at(i) {
            spec.sign = Some(sign);
            i += 1;
        }
        if at(i) == Some('#') {
            spec.alternate = true;
            i += 1;
        }
        if at(i) == Some('0') {
            spec.zero = true;
            i += 1;
        }
        let number = |i: &mut usize| -> Res<Option<usize>> {
            let digits: String = chars.iter().skip(*i).take_while(|c| c.is_ascii_digit()).collect();
            *i += digits.len();
            if digits.is_empty() {
                return Ok(None);
            }
            let number = digits.parse().ok().filter(|n| *n <= MAX_WIDTH);
            number.map(Some).ok_or_else(|| err("the width or precision of a format is too large"))
        };
        spec.width = number(&mut i)?.unwrap_or(0);
        if let Some(grouping @ (',' | '_')) = at(i) {
            spec.grouping = Some(grouping);
            i += 1;
        }
        if at(i) == Some('.') {
            i += 1;
            spec.precision = Some(number(&mut i)?.unwrap_or(0));
        }
        if let Some(kind) = at(i) {
            spec.kind = Some(kind);
            i += 1;
        }
        if i == text.chars().count() {
            Ok(spec)
        } else {
            Err(err(format!("invalid format specifier '{text}'")))
        }
    }
}

impl Runtime {
    /// `format % values`. What is filled into markup is escaped.
    pub fn printf(&self, format: &str, values: &Value, markup: bool) -> Res {
        let positional = match py(values) {
            Py::List(list) if list.kind == ListKind::Tuple => list.snapshot(),
            _ => vec![values.clone()],
        };
        let mut next = positional.into_iter();
        let mut used_name = false;
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let mut named = None;
            if let Some(after) = rest.strip_prefix('(') {
                let Some((name, after)) = after.split_once(')') else {
                    return Err(err("incomplete format key"));
                };
                let Py::Dict(dict) = py(values) else { return Err(err("format requires a mapping")) };
                named = Some(dict.get_str(name).ok_or_else(|| err(format!("KeyError: '{name}'")))?);
                used_name = true;
                rest = after;
            }
            let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
            let (flags, after) = rest.split_at(flags);
            let digits =
                after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
            let (size, after) = after.split_at(digits);
            let Some(kind) = after.chars().next() else { return Err(err("incomplete format")) };
            rest = &after[kind.len_utf8()..];
            let value = match named {
                Some(value) => value,
                None => next.next().ok_or_else(|| err("not enough arguments for format string"))?,
            };
            let mut spec = Spec::parse(size)?;
            spec.align = Some(if flags.contains('-') { '<' } else { '>' });
            spec.sign = flags.chars().find(|c| matches!(c, '+' | ' '));
            spec.alternate = flags.contains('#');
            spec.zero = flags.contains('0') && !flags.contains('-');
            let text = match kind {
                's' | 'r' | 'a' => {
                    spec.zero = false;
                    let text = match kind {
                        's' if markup => self.escaped(&value)?,
                        's' => self.str(&value)?,
                        _ => self.repr(&value)?,
                    };
                    lay_out(&text, &spec, "")
                }
                'd' | 'i' | 'u' => {
                    spec.kind = Some('d');
                    let value = match py(&value) {
                        Py::Float(f) if f.is_finite() => super::value::int(f.trunc() as i128),
                        _ => value,
                    };
                    self.format_value(&value, &spec)?
                }
                'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                    spec.kind = Some(kind);
                    self.format_value(&value, &spec)?
                }
                'c' => self.str(&value)?,
                other => return Err(err(format!("unsupported format character '{other}'"))),
            };
            self.charge_string(text.len())?;
            self.check_len(out.len() + text.len())?;
            out.push_str(&text);
        }
        if next.next().is_some() && !used_name && !matches!(py(values), Py::Dict(_)) {
            return Err(err("not all arguments converted during string formatting"));
        }
        out.push_str(rest);
        self.markup(out, markup)
    }

    /// `format.format(...)`. What is filled into markup is escaped.
    pub fn str_format(&self, format: &str, args: &Args, markup: bool) -> Res {
        let mut out = String::new();
        let mut automatic = 0;
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if after.starts_with(brace) {
                out.push_str(brace);
                rest = &after[1..];
                continue;
            }
            if brace == "}" {
                return Err(err("Single '}' encountered in format string"));
            }
            let Some((field, after)) = after.split_once('}') else {
                return Err(err("Single '{' encountered in format string"));
            };
            rest = after;
            let (field, spec) = field.split_once(':').unwrap_or((field, ""));
            let (field, conversion) = field.split_once('!').unwrap_or((field, ""));
            let path = field.find(['.', '[']).unwrap_or(field.len());
            let (first, path) = field.split_at(path);
            let mut value = if first.is_empty() {
                automatic += 1;
                args.positional.get(automatic - 1).cloned()
            } else if let Ok(position) = first.parse::<usize>() {
                args.positional.get(position).cloned()
            } else {
                args.named(first)
            }
            .ok_or_else(|| err(format!("the format field '{first}' has no argument")))?;
            for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
                let step = step.trim_end_matches(']');
                let key = step.parse::<i64>().map_or_else(|_| Value::from(step), Value::from);
                value = self.item(&value, &key)?;
            }
            let spec = Spec::parse(spec)?;
            let text = match conversion {
                "" if markup => lay_out(&self.escaped(&value)?, &spec, ""),
                "" => self.format_value(&value, &spec)?,
                "r" => lay_out(&self.repr(&value)?, &spec, ""),
                _ => lay_out(&self.str(&value)?, &spec, ""),
            };
            self.charge_string(text.len())?;
            self.check_len(out.len() + text.len())?;
            out.push_str(&text);
        }
        out.push_str(rest);
        self.markup(out, markup)
    }

    fn format_value(&self, value: &Value, spec: &Spec) -> Res<String> {
        let number = match py(value) {
            Py::Bool(b) if spec.kind.is_some() => Some((b.into(), f64::from(u8::from(b)), true)),
            Py::Int(i) => Some((i, i as f64, true)),
            Py::Float(f) => Some((0, f, false)),
            _ => None,
        };
        let Some((integer, real, is_int)) = number else {
            return match spec.kind {
                None | Some('s') => Ok(lay_out(&self.str(value)?, spec, "")),
                Some(kind) => Err(err(format!("unknown format code '{kind}' for '{}'", type_name(value)))),
            };
        };
        let upper =
            |text: String, kind: char| if kind.is_ascii_uppercase() { text.to_uppercase() } else { text };
        let prefix = |text: &'static str| if spec.alternate { text } else { "" };
        let negative = if is_int { integer < 0 } else { real.is_sign_negative() && !real.is_nan() };
        let magnitude = integer.unsigned_abs();
        let precision = spec.precision.unwrap_or(6);
        let body = match (spec.kind, is_int) {
            (None | Some('d' | 'n'), true) => magnitude.to_string(),
            (Some('x'), true) => format!("{}{magnitude:x}", prefix("0x")),
            (Some('X'), true) => format!("{}{magnitude:X}", prefix("0X")),
            (Some('o'), true) => format!("{}{magnitude:o}", prefix("0o")),
            (Some('b'), true) => format!("{}{magnitude:b}", prefix("0b")),
            (Some('s'), _) => return Ok(lay_out(&self.str(value)?, spec, "")),
            (Some('f' | 'F'), _) => format!("{:.precision$}", real.abs()),
            (Some('%'), _) => format!("{:.precision$}%", real.abs() * 100.0),
            (Some(kind @ ('e' | 'E')), _) => upper(exponent(real.abs(), precision), kind),
            (Some(kind @ ('g' | 'G')), _) => upper(general(real.abs(), precision.max(1)), kind),
            (None, false) => match spec.precision {
                Some(precision) => general(real.abs(), precision.max(1)),
                None => float(real.abs()),
            },
            (Some(kind), _) => {
                return Err(err(format!("unknown format code '{kind}' for '{}'", type_name(value))));
            }
        };
        let body = match spec.grouping {
            Some(grouping) => group(&body, grouping),
            None => body,
        };
        let sign = match (negative, spec.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let mut layout = Spec { precision: None, align: spec.align.or(Some('>')), ..*spec };
        if spec.zero && spec.align.is_none_or(|a| a == '>') {
            layout.fill = Some('0');
            layout.align = Some('=');
        }
        Ok(lay_out(&body, &layout, sign))
    }
}

/// Cuts to the precision and fills to the width.
fn lay_out(text: &str, spec: &Spec, sign: &str) -> String {
    let text: String = match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_string(),
    };
    let missing = spec.width.saturating_sub(text.chars().count() + sign.len());
    let fill = |n: usize| std::iter::repeat_n(spec.fill.unwrap_or(' '), n).collect::<String>();
    match spec.align {
        Some('>') => fill(missing) + sign + &text,
        Some('^') => fill(missing / 2) + sign + &text + &fill(missing - missing / 2),
        Some('=') => sign.to_string() + &fill(missing) + &text,
        _ => sign.to_string() + &text + &fill(missing),
    }
}

fn group(body: &str, grouping: char) -> String {
    let digits = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    let (digits, rest) = body.split_at(digits);
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(grouping);
        }
        out.push(c);
    }
    out + rest
}

/// C's `%e`: an exponent of at least two digits.
fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// C's `%g`: `precision` significant digits, without trailing zeros.
fn general(value: f64, precision: usize) -> String {
    let scientific = exponent(value, precision - 1);
    let magnitude: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let strip = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text.to_string()
        }
    };
    if magnitude < -4 || magnitude >= precision as i64 {
        match scientific.split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", strip(mantissa)),
            None => scientific,
        }
    } else {
        let decimals = usize::try_from(precision as i64 - 1 - magnitude).unwrap_or(0);
        strip(&format!("{value:.decimals$}"))
    }
}
