//! Metadata values as bytes of a version 3 file.

use crate::cursor::MAX_DEPTH;
use crate::{OwnedValue, Value, ValueType};

/// Append a string: its length, then its bytes.
pub(crate) fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Append a value without its type; says what is wrong with one that no file can hold.
pub(crate) fn owned(out: &mut Vec<u8>, value: &OwnedValue) -> Result<(), String> {
    owned_nested(out, value, 0)
}

fn owned_nested(out: &mut Vec<u8>, value: &OwnedValue, depth: usize) -> Result<(), String> {
    let OwnedValue::Array(ty, elements) = value else {
        scalar(out, &value.borrow_scalar().ok_or("is an array in an unexpected place")?);
        return Ok(());
    };
    array_head(out, *ty, elements.len(), depth)?;
    for (i, element) in elements.iter().enumerate() {
        if element.ty() != *ty {
            return Err(format!("has a {} as element {i} of an array of {ty}", element.ty()));
        }
        owned_nested(out, element, depth + 1)?;
    }
    Ok(())
}

/// As [`owned`], from a borrowed value of any version.
pub(crate) fn borrowed(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), String> {
    borrowed_nested(out, value, 0)
}

fn borrowed_nested(out: &mut Vec<u8>, value: &Value<'_>, depth: usize) -> Result<(), String> {
    let Value::Array(array) = value else {
        scalar(out, value);
        return Ok(());
    };
    array_head(out, array.ty, array.len, depth)?;
    if array.ty.fixed_size().is_some() {
        out.extend(array.bytes);
        return Ok(());
    }
    array.iter().try_for_each(|element| borrowed_nested(out, &element, depth + 1))
}

fn array_head(out: &mut Vec<u8>, ty: ValueType, len: usize, depth: usize) -> Result<(), String> {
    if depth == MAX_DEPTH {
        return Err(format!("nests arrays more than {MAX_DEPTH} deep"));
    }
    out.extend((ty as u32).to_le_bytes());
    out.extend((len as u64).to_le_bytes());
    Ok(())
}

/// Append a value that is no array.
fn scalar(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::U8(v) => out.push(v),
        Value::I8(v) => out.push(v as u8),
        Value::Bool(v) => out.push(v.into()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::String(v) => string(out, v),
        Value::Array(_) => {}
    }
}
