//! Metadata values, borrowed from the file.

use byteorder::{ByteOrder, LittleEndian as Le};

/// The type of a metadata value, with its id in the file.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// A metadata value, borrowed.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of `len` elements of one type; its elements are parsed when they are iterated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    /// The type of every element.
    pub ty: ValueType,
    /// The number of elements.
    pub len: usize,
    /// The elements as they lie in the file.
    pub bytes: &'a [u8],
    /// Version 1: the lengths of strings and of inner arrays have 32 bits.
    pub(crate) narrow: bool,
}

/// A metadata value that owns its data (for writing and for overrides).
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(ValueType, Vec<OwnedValue>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl ValueType {
    /// The type of this id, if there is one.
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType as T;
        [
            T::U8,
            T::I8,
            T::U16,
            T::I16,
            T::U32,
            T::I32,
            T::F32,
            T::Bool,
            T::String,
            T::Array,
            T::U64,
            T::I64,
            T::F64,
        ]
        .get(id as usize)
        .copied()
    }

    /// Bytes of a value of fixed size; none for strings and arrays.
    pub fn fixed_size(self) -> Option<usize> {
        use ValueType as T;
        Some(match self {
            T::U8 | T::I8 | T::Bool => 1,
            T::U16 | T::I16 => 2,
            T::U32 | T::I32 | T::F32 => 4,
            T::U64 | T::I64 | T::F64 => 8,
            T::String | T::Array => return None,
        })
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use ValueType as T;
        f.write_str(match self {
            T::U8 => "u8",
            T::I8 => "i8",
            T::U16 => "u16",
            T::I16 => "i16",
            T::U32 => "u32",
            T::I32 => "i32",
            T::F32 => "f32",
            T::Bool => "bool",
            T::String => "string",
            T::Array => "array",
            T::U64 => "u64",
            T::I64 => "i64",
            T::F64 => "f64",
        })
    }
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn ty(&self) -> ValueType {
        use ValueType as T;
        match self {
            Value::U8(_) => T::U8,
            Value::I8(_) => T::I8,
            Value::U16(_) => T::U16,
            Value::I16(_) => T::I16,
            Value::U32(_) => T::U32,
            Value::I32(_) => T::I32,
            Value::F32(_) => T::F32,
            Value::Bool(_) => T::Bool,
            Value::String(_) => T::String,
            Value::Array(_) => T::Array,
            Value::U64(_) => T::U64,
            Value::I64(_) => T::I64,
            Value::F64(_) => T::F64,
        }
    }

    /// As an unsigned integer, if it is an integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// As a signed integer, if it is an integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::I8(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::I64(v) => Some(v),
            _ => self.as_u64().and_then(|v| v.try_into().ok()),
        }
    }

    /// As a float, if it is one.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// As a double, if it is a float.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// As a bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(v) = *self { Some(v) } else { None }
    }

    /// As a string, if it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Value::String(v) = *self { Some(v) } else { None }
    }

    /// As an array, if it is one.
    pub fn as_array(&self) -> Option<Array<'a>> {
        if let Value::Array(v) = *self { Some(v) } else { None }
    }

    /// A copy that does not borrow from the file. An array takes many times its size in the file.
    pub fn to_owned(&self) -> OwnedValue {
        match *self {
            Value::U8(v) => OwnedValue::U8(v),
            Value::I8(v) => OwnedValue::I8(v),
            Value::U16(v) => OwnedValue::U16(v),
            Value::I16(v) => OwnedValue::I16(v),
            Value::U32(v) => OwnedValue::U32(v),
            Value::I32(v) => OwnedValue::I32(v),
            Value::F32(v) => OwnedValue::F32(v),
            Value::Bool(v) => OwnedValue::Bool(v),
            Value::String(v) => OwnedValue::String(v.into()),
            Value::Array(v) => OwnedValue::Array(v.ty, v.iter().map(|v| v.to_owned()).collect()),
            Value::U64(v) => OwnedValue::U64(v),
            Value::I64(v) => OwnedValue::I64(v),
            Value::F64(v) => OwnedValue::F64(v),
        }
    }
}

impl<'a> Array<'a> {
    /// Every element in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + 'a {
        let Array { ty, mut bytes, narrow, .. } = *self;
        (0..self.len).map_while(move |_| {
            let (value, used) = parse(ty, bytes, narrow)?;
            bytes = bytes.get(used..)?;
            Some(value)
        })
    }

    /// The elements as strings; none if the array holds another type.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a str> + 'a> {
        (self.ty == ValueType::String).then(|| self.iter().filter_map(|v| v.as_str()))
    }
}

/// Parse a value of a known type from the start of `bytes`: the value and the bytes it took.
/// The bytes were checked when the file was opened.
pub(crate) fn parse(ty: ValueType, bytes: &[u8], narrow: bool) -> Option<(Value<'_>, usize)> {
    let count_size = if narrow { 4 } else { 8 };
    if let Some(size) = ty.fixed_size() {
        let b = bytes.get(..size)?;
        let value = match ty {
            ValueType::U8 => Value::U8(*b.first()?),
            ValueType::I8 => Value::I8(*b.first()? as i8),
            ValueType::Bool => Value::Bool(*b.first()? != 0),
            ValueType::U16 => Value::U16(Le::read_u16(b)),
            ValueType::I16 => Value::I16(Le::read_i16(b)),
            ValueType::U32 => Value::U32(Le::read_u32(b)),
            ValueType::I32 => Value::I32(Le::read_i32(b)),
            ValueType::F32 => Value::F32(Le::read_f32(b)),
            ValueType::U64 => Value::U64(Le::read_u64(b)),
            ValueType::I64 => Value::I64(Le::read_i64(b)),
            ValueType::F64 => Value::F64(Le::read_f64(b)),
            ValueType::String | ValueType::Array => return None,
        };
        return Some((value, size));
    }
    if ty == ValueType::String {
        let end = extent(ty, bytes, narrow)?;
        return Some((Value::String(std::str::from_utf8(bytes.get(count_size..end)?).ok()?), end));
    }
    let (element, len, body) = array_head(bytes, narrow)?;
    let mut used = 0usize;
    if let Some(size) = element.fixed_size() {
        used = len.checked_mul(size)?;
    } else {
        for _ in 0..len {
            used = used.checked_add(extent(element, body.get(used..)?, narrow)?)?;
        }
    }
    let array = Array { ty: element, len, bytes: body.get(..used)?, narrow };
    Some((Value::Array(array), used.checked_add(bytes.len() - body.len())?))
}

/// As [`parse`], where `bytes` hold the value and nothing else, so that an array need not be walked over.
pub(crate) fn parse_whole(ty: ValueType, bytes: &[u8], narrow: bool) -> Option<Value<'_>> {
    if ty == ValueType::Array {
        let (ty, len, bytes) = array_head(bytes, narrow)?;
        return Some(Value::Array(Array { ty, len, bytes, narrow }));
    }
    parse(ty, bytes, narrow).map(|(value, _)| value)
}

/// The type and number of an array's elements, and the bytes after them.
fn array_head(bytes: &[u8], narrow: bool) -> Option<(ValueType, usize, &[u8])> {
    let (ty, rest) = bytes.split_at_checked(4)?;
    let (len, body) = rest.split_at_checked(if narrow { 4 } else { 8 })?;
    let len = usize::try_from(Le::read_uint(len, len.len())).ok()?;
    Some((ValueType::from_id(Le::read_u32(ty))?, len, body))
}

/// The bytes that a string or an array takes at the start of `bytes`.
fn extent(ty: ValueType, bytes: &[u8], narrow: bool) -> Option<usize> {
    if ty == ValueType::String {
        let count_size = if narrow { 4 } else { 8 };
        let len = Le::read_uint(bytes.get(..count_size)?, count_size);
        return usize::try_from(len).ok()?.checked_add(count_size);
    }
    parse(ty, bytes, narrow).map(|(_, used)| used)
}

impl OwnedValue {
    /// Its type.
    pub fn ty(&self) -> ValueType {
        match self {
            OwnedValue::Array(..) => ValueType::Array,
            _ => self.borrow_scalar().map_or(ValueType::Array, |v| v.ty()),
        }
    }

    /// The same value, borrowed; none for an array.
    pub(crate) fn borrow_scalar(&self) -> Option<Value<'_>> {
        Some(match self {
            OwnedValue::U8(v) => Value::U8(*v),
            OwnedValue::I8(v) => Value::I8(*v),
            OwnedValue::U16(v) => Value::U16(*v),
            OwnedValue::I16(v) => Value::I16(*v),
            OwnedValue::U32(v) => Value::U32(*v),
            OwnedValue::I32(v) => Value::I32(*v),
            OwnedValue::F32(v) => Value::F32(*v),
            OwnedValue::Bool(v) => Value::Bool(*v),
            OwnedValue::String(v) => Value::String(v),
            OwnedValue::U64(v) => Value::U64(*v),
            OwnedValue::I64(v) => Value::I64(*v),
            OwnedValue::F64(v) => Value::F64(*v),
            OwnedValue::Array(..) => return None,
        })
    }
}

macro_rules! owned_from {
    ($($ty:ty => $variant:ident),* $(,)?) => {
        $(
            impl From<$ty> for OwnedValue {
                fn from(v: $ty) -> Self {
                    OwnedValue::$variant(v.into())
                }
            }

            impl From<Vec<$ty>> for OwnedValue {
                fn from(v: Vec<$ty>) -> Self {
                    OwnedValue::Array(ValueType::$variant, v.into_iter().map(OwnedValue::from).collect())
                }
            }
        )*
    };
}

owned_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool,
    u64 => U64, i64 => I64, f64 => F64, String => String, &str => String,
}
