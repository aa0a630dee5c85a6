//! Values as text for people and as JSON for programs.

use chaski_gguf::{Array, Value};
use serde_json::Value as Json;

/// Characters of a string that are shown to people.
const STRING_SHOWN: usize = 72;
/// Elements of an array that are shown to people.
const ELEMENTS_SHOWN: usize = 6;

/// A size as people read it: `1.5 GiB (1610612736 bytes)` is too long, so three digits and a unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.2} {}", UNITS[unit])
    }
}

/// A number of things: 1.3 G, 260 k.
pub(super) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

/// A metadata value on one line; long strings and arrays are cut, and how much there is is said.
pub(super) fn value(value: Value<'_>) -> String {
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => string(v),
        Value::Array(v) => array(v),
    }
}

fn string(text: &str) -> String {
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(STRING_SHOWN).collect();
    let rest = chars.count();
    let quoted = format!("{shown:?}");
    if rest == 0 { quoted } else { format!("{quoted} ... ({} bytes)", text.len()) }
}

fn array(array: Array<'_>) -> String {
    let shown: Vec<String> = array.iter().take(ELEMENTS_SHOWN).map(value).collect();
    let rest = array.len.saturating_sub(shown.len());
    let more = if rest == 0 { String::new() } else { format!(", ... ({rest} more)") };
    format!("[{}{more}]", shown.join(", "))
}

/// The name of a value's type, as people read it: `u32`, `array of string`.
pub(super) fn type_name(value: Value<'_>) -> String {
    let name = |ty: chaski_gguf::ValueType| format!("{ty:?}").to_lowercase();
    match value {
        Value::Array(array) => format!("{} x {}", array.len, name(array.ty)),
        Value::U8(_) => "u8".into(),
        Value::I8(_) => "i8".into(),
        Value::U16(_) => "u16".into(),
        Value::I16(_) => "i16".into(),
        Value::U32(_) => "u32".into(),
        Value::I32(_) => "i32".into(),
        Value::U64(_) => "u64".into(),
        Value::I64(_) => "i64".into(),
        Value::F32(_) => "f32".into(),
        Value::F64(_) => "f64".into(),
        Value::Bool(_) => "bool".into(),
        Value::String(_) => "string".into(),
    }
}

/// A metadata value as JSON, whole. A float that is not finite, which JSON cannot write as a number, is its name.
pub(super) fn json(value: Value<'_>) -> Json {
    match value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::U64(v) => v.into(),
        Value::I64(v) => v.into(),
        // Through its shortest decimal form: 0.1 stays 0.1 and does not become 0.10000000149.
        Value::F32(v) => float(v.to_string().parse().unwrap_or(f64::from(v))),
        Value::F64(v) => float(v),
        Value::Bool(v) => v.into(),
        Value::String(v) => v.into(),
        Value::Array(v) => v.iter().map(json).collect(),
    }
}

fn float(v: f64) -> Json {
    serde_json::Number::from_f64(v).map_or_else(|| Json::String(v.to_string()), Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_have_three_digits_or_so() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(size(272 << 20), "272 MiB");
        assert_eq!(size(u64::MAX), "16777216 TiB");
        assert_eq!(count(260_032), "260.0 k");
    }

    #[test]
    fn floats_keep_the_digits_they_were_written_with() {
        assert_eq!(json(Value::F32(0.1)).to_string(), "0.1");
        assert_eq!(json(Value::F32(f32::NAN)).to_string(), "\"NaN\"");
        assert_eq!(json(Value::F64(f64::NEG_INFINITY)).to_string(), "\"-inf\"");
    }

    #[test]
    fn long_strings_are_cut_and_control_characters_stay_visible() {
        assert_eq!(value(Value::String("a\n\u{1b}[31m")), r#""a\n\u{1b}[31m""#);
        let long = "é".repeat(100);
        assert!(value(Value::String(&long)).ends_with("... (200 bytes)"));
    }
}
