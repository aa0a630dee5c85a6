//! Metadata values, borrowed from the file.

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
        [T::U8, T::I8, T::U16, T::I16, T::U32, T::I32, T::F32, T::Bool, T::String, T::Array, T::U64, T::I64, T::F64]
            .into_iter()
            .find(|t| *t as u32 == id)
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

impl<'a> Value<'a> {
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
}

impl<'a> Array<'a> {
    /// Every element in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + 'a {
        let (ty, mut bytes) = (self.ty, self.bytes);
        (0..self.len).map_while(move |_| {
            let (value, used) = parse(ty, bytes)?;
            bytes = &bytes[used..];
            Some(value)
        })
    }
    /// The elements as strings; none if the array holds another type.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a str> + 'a> {
        (self.ty == ValueType::String).then(|| self.iter().filter_map(|v| v.as_str()))
    }
}

/// Parse a value of a known type from the start of `bytes`; the value and the bytes it took.
pub(crate) fn parse(ty: ValueType, bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    fn le<const N: usize>(b: &[u8]) -> Option<[u8; N]> {
        b.first_chunk::<N>().copied()
    }
    Some(match ty {
        ValueType::U8 => (Value::U8(*bytes.first()?), 1),
        ValueType::I8 => (Value::I8(*bytes.first()? as i8), 1),
        ValueType::Bool => (Value::Bool(*bytes.first()? != 0), 1),
        ValueType::U16 => (Value::U16(u16::from_le_bytes(le(bytes)?)), 2),
        ValueType::I16 => (Value::I16(i16::from_le_bytes(le(bytes)?)), 2),
        ValueType::U32 => (Value::U32(u32::from_le_bytes(le(bytes)?)), 4),
        ValueType::I32 => (Value::I32(i32::from_le_bytes(le(bytes)?)), 4),
        ValueType::F32 => (Value::F32(f32::from_le_bytes(le(bytes)?)), 4),
        ValueType::U64 => (Value::U64(u64::from_le_bytes(le(bytes)?)), 8),
        ValueType::I64 => (Value::I64(i64::from_le_bytes(le(bytes)?)), 8),
        ValueType::F64 => (Value::F64(f64::from_le_bytes(le(bytes)?)), 8),
        ValueType::String => {
            let len = usize::try_from(u64::from_le_bytes(le(bytes)?)).ok()?;
            let end = len.checked_add(8)?;
            (Value::String(std::str::from_utf8(bytes.get(8..end)?).ok()?), end)
        }
        ValueType::Array => {
            let ty = ValueType::from_id(u32::from_le_bytes(le(bytes)?))?;
            let len = usize::try_from(u64::from_le_bytes(le(bytes.get(4..)?)?)).ok()?;
            let body = bytes.get(12..)?;
            let mut used = 0usize;
            if let Some(size) = ty.fixed_size() {
                used = len.checked_mul(size)?;
            } else {
                for _ in 0..len {
                    used = used.checked_add(parse(ty, body.get(used..)?)?.1)?;
                }
            }
            (Value::Array(Array { ty, len, bytes: body.get(..used)? }), used.checked_add(12)?)
        }
    })
}
