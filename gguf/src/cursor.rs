//! A checked walk over the bytes of a file: every read says where it stood when it failed.

use byteorder::{ByteOrder, LittleEndian};

use crate::value::ValueType;
use crate::{Error, Result};

/// The longest string that is accepted. Tokenizer tables embedded as one string reach tens of MiB.
const MAX_STRING: u64 = 256 << 20;

/// Arrays inside arrays, counted with the outermost.
pub(crate) const MAX_DEPTH: usize = 4;

/// A broken rule at a place; the caller adds which field it was.
#[derive(Debug)]
pub(crate) struct Fault {
    pub at: usize,
    pub why: String,
}

impl Fault {
    pub fn new(at: usize, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }

    /// The error of a field.
    pub fn of(self, what: impl Into<String>) -> Error {
        Error::Malformed { what: what.into(), why: self.why, offset: self.at as u64 }
    }
}

/// A position in the bytes of a file.
pub(crate) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
    /// Version 1: counts, string lengths and dimensions have 32 bits.
    narrow: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8], at: usize, narrow: bool) -> Self {
        Self { data, at, narrow }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    /// Bytes of a count.
    pub fn count_size(&self) -> usize {
        if self.narrow { 4 } else { 8 }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(n);
        let Some(bytes) = end.and_then(|end| self.data.get(self.at..end)) else {
            return Err(Fault::new(
                self.at,
                format!("needs {n} bytes, but {} are left in the file", self.left()),
            ));
        };
        self.at += n;
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.take(4).map(LittleEndian::read_u32)
    }

    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.take(8).map(LittleEndian::read_u64)
    }

    /// A count, length or dimension: 32 bits in version 1, else 64 of which the highest must be 0.
    pub fn count(&mut self) -> Result<u64, Fault> {
        let at = self.at;
        let n = if self.narrow { u64::from(self.u32()?) } else { self.u64()? };
        if i64::try_from(n).is_err() {
            return Err(Fault::new(at, format!("is negative ({})", n as i64)));
        }
        Ok(n)
    }

    /// A count of things that take at least `min_size` bytes each, all of which must still fit.
    pub fn count_of(&mut self, min_size: usize) -> Result<usize, Fault> {
        let at = self.at;
        let n = self.count()?;
        match usize::try_from(n).ok().and_then(|n| n.checked_mul(min_size).map(|size| (n, size))) {
            Some((n, size)) if size <= self.left() => Ok(n),
            _ => Err(Fault::new(
                at,
                format!(
                    "counts {n} of at least {min_size} bytes each, but {} bytes are left in the file",
                    self.left()
                ),
            )),
        }
    }

    pub fn string(&mut self) -> Result<&'a str, Fault> {
        self.string_up_to(MAX_STRING)
    }

    pub fn string_up_to(&mut self, max: u64) -> Result<&'a str, Fault> {
        let at = self.at;
        let len = self.count()?;
        if len > max {
            return Err(Fault::new(
                at,
                format!("is a string of {len} bytes, more than the {max} that are accepted"),
            ));
        }
        let start = self.at;
        let bytes = self.take(len as usize).map_err(|_| {
            Fault::new(at, format!("is a string of {len} bytes, but {} are left in the file", self.left()))
        })?;
        std::str::from_utf8(bytes)
            .map_err(|e| Fault::new(start + e.valid_up_to(), "is a string that is not valid UTF-8"))
    }

    pub fn value_type(&mut self) -> Result<ValueType, Fault> {
        let at = self.at;
        let id = self.u32()?;
        ValueType::from_id(id).ok_or_else(|| Fault::new(at, format!("has the unknown value type {id}")))
    }

    /// Walk over a value and check all that can be wrong with it.
    pub fn skip(&mut self, ty: ValueType) -> Result<(), Fault> {
        self.skip_nested(ty, 0)
    }

    fn skip_nested(&mut self, ty: ValueType, depth: usize) -> Result<(), Fault> {
        if let Some(size) = ty.fixed_size() {
            return self.skip_fixed(ty, size, 1);
        }
        if ty == ValueType::String {
            return self.string().map(|_| ());
        }
        if depth == MAX_DEPTH {
            return Err(Fault::new(self.at, format!("nests arrays more than {MAX_DEPTH} deep")));
        }
        let element =
            self.value_type().map_err(|f| Fault::new(f.at, format!("is an array that {}", f.why)))?;
        if let Some(size) = element.fixed_size() {
            let len = self.count_of(size)?;
            return self.skip_fixed(element, size, len);
        }
        // An array has at least its type and its count, a string its length.
        let min = self.count_size() + if element == ValueType::Array { 4 } else { 0 };
        let len = self.count_of(min)?;
        if element == ValueType::String && self.skip_good_strings(len) {
            return Ok(());
        }
        for i in 0..len {
            self.skip_nested(element, depth + 1)
                .map_err(|f| Fault::new(f.at, format!("element {i} of {len} {}", f.why)))?;
        }
        Ok(())
    }

    /// Walk over `n` strings that break no rule, or stay where they begin: [`Cursor::string`] says what is wrong.
    ///
    /// Vocabularies have hundreds of thousands of short strings, and checking each for UTF-8 takes most of the time
    /// that opening a file takes. A length whose bytes are all below 128 is ASCII itself, and no character
    /// extends over an ASCII byte; so strings with such lengths between them are checked in one go, lengths
    /// and all.
    fn skip_good_strings(&mut self, n: usize) -> bool {
        let size = self.count_size();
        let mut at = self.at;
        // Where the strings begin that are still to be checked.
        let mut unchecked = at;
        let is_text = |from: usize, to: usize| {
            self.data.get(from..to).is_some_and(|bytes| simdutf8::basic::from_utf8(bytes).is_ok())
        };
        for _ in 0..n {
            let Some(head) = self.data.get(at..).and_then(|rest| rest.get(..size)) else { return false };
            let len = LittleEndian::read_uint(head, size);
            let (before, start) = (at, at + size);
            if len > MAX_STRING || len > (self.data.len() - start) as u64 {
                return false;
            }
            at = start + len as usize;
            if !head.is_ascii() {
                if !is_text(unchecked, before) {
                    return false;
                }
                unchecked = start;
            }
        }
        if !is_text(unchecked, at) {
            return false;
        }
        self.at = at;
        true
    }

    fn skip_fixed(&mut self, ty: ValueType, size: usize, len: usize) -> Result<(), Fault> {
        let at = self.at;
        let total = size.checked_mul(len).ok_or_else(|| Fault::new(at, "is too large"))?;
        let bytes = self.take(total)?;
        if ty == ValueType::Bool
            && let Some(i) = bytes.iter().position(|b| *b > 1)
        {
            return Err(Fault::new(at + i, "is a bool that is neither 0 nor 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Skip strings of these bytes; where that leads, or what was wrong.
    fn skip(strings: &[&[u8]], narrow: bool) -> Result<(), String> {
        let mut data = 8u32.to_le_bytes().to_vec();
        let count = |data: &mut Vec<u8>, n: usize| {
            let size = if narrow { 4 } else { 8 };
            data.extend(&n.to_le_bytes()[..size]);
        };
        count(&mut data, strings.len());
        for string in strings {
            count(&mut data, string.len());
            data.extend(*string);
        }
        data.push(b'.');
        let mut cursor = Cursor::new(&data, 0, narrow);
        cursor.skip(ValueType::Array).map_err(|f| f.why)?;
        assert_eq!(cursor.left(), 1);
        Ok(())
    }

    #[test]
    fn strings_of_all_lengths_are_walked_over() {
        let long = "ü".repeat(300);
        // Lengths of 127, 128, 200 and 383 bytes: with and without a byte above 127.
        let cuts = [126, 128, 200, 382, 600].map(|n| &long.as_bytes()[..n]);
        for narrow in [true, false] {
            skip(&[], narrow).unwrap();
            skip(&[b"", b"a", b"\xc3\xa9", cuts[0], cuts[1], b"b", cuts[2], cuts[3], b"", cuts[4]], narrow)
                .unwrap();
        }
    }

    #[test]
    fn a_character_does_not_extend_over_two_strings() {
        let long = [&b"a".repeat(199)[..], b"\xc3"].concat();
        for narrow in [true, false] {
            for strings in [
                [&b"ab"[..], b"\xc3", b"\xa9"],
                [b"ab", &long, b"\xa9"],
                [&long, b"\xa9", b"ab"],
                [b"\xa9", b"a", b"b"],
            ] {
                let bad = strings.iter().position(|s| std::str::from_utf8(s).is_err()).unwrap();
                let why = skip(&strings, narrow).unwrap_err();
                assert_eq!(why, format!("element {bad} of 3 is a string that is not valid UTF-8"));
            }
        }
    }
}
