//! Importance matrices as llama.cpp wrote them before it took to GGUF (`imatrix.dat`); many are still about.
//!
//! All numbers are little-endian and nothing is aligned: an i32 with the number of entries; for each entry an i32 with the length of
//! its name, the name, an i32 with the number of calls `n`, an i32 with the number of values and the values, f32. A value is `n` times
//! the mean square of a column's activations; the columns of the matrices of all experts follow each other. Then, in files that are
//! not very old: an i32 with the number of chunks, an i32 with the length of the text's name, the name.

use std::collections::BTreeMap;

use super::QuantError;
use super::imatrix::{Imatrix, Statistics};

/// Entries of a file, at most: models have some thousand matrices.
const MOST_ENTRIES: u32 = 1 << 20;
/// Bytes of a name, at most.
const MOST_NAME: u32 = 1 << 12;

/// Whether a file that begins so may be one: a sane number of entries, then the sane length of a name that begins with a letter. No
/// other file that people take for an importance matrix begins so.
pub(super) fn looks_like_one(head: &[u8]) -> bool {
    let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk::<4>()?));
    matches!((word(0), word(4), head.get(8)), (Some(1..=MOST_ENTRIES), Some(1..=MOST_NAME), Some(letter))
        if letter.is_ascii_alphabetic())
}

/// Read a file.
///
/// # Errors
/// It is cut short, or its numbers make no sense: which, and at which byte.
pub(super) fn read(bytes: &[u8]) -> Result<Imatrix, QuantError> {
    let mut at = Reader { bytes, at: 0 };
    let n_entries = at.count("the number of entries", MOST_ENTRIES)?;
    // A vector for every entry is had when its values are there, so a large number costs nothing.
    let mut entries = BTreeMap::new();
    for i in 0..n_entries {
        let name = at.string(&format!("the name of entry {i}"), 1)?;
        let begin = at.at;
        let calls = at.word(&format!("the calls of {name}"))?;
        // Where nothing was counted the values are taken as they are.
        let calls = if calls == 0 { 1 } else { calls };
        if calls > i32::MAX as u32 {
            return Err(fault(begin, &format!("{name} has {} calls", calls.cast_signed())));
        }
        let what = format!("the values of {name}");
        let n_values = at.count(&what, i32::MAX as u32)?;
        let begin = at.at;
        let values = at.take((n_values as usize).saturating_mul(4), &what)?;
        let sums: Vec<f32> = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if sums.is_empty() {
            return Err(fault(begin, &format!("{name} has no values")));
        }
        if let Some(bad) = sums.iter().position(|v| !v.is_finite() || *v < 0.0) {
            return Err(fault(begin + 4 * bad, &format!("value {bad} of {name} is {}", sums[bad])));
        }
        let statistics = Statistics { sums, counts: vec![calls as f32] };
        if entries.insert(name.clone(), statistics).is_some() {
            return Err(fault(begin, &format!("{name} is there twice")));
        }
    }
    let mut imatrix = Imatrix { entries, ..Imatrix::default() };
    if at.at < bytes.len() {
        imatrix.chunks = at.count("the number of chunks", i32::MAX as u32)?;
    }
    if at.at < bytes.len() {
        let text = at.string("the name of the text", 0)?;
        imatrix.datasets.extend(Some(text).filter(|text| !text.is_empty()));
    }
    match bytes.len() - at.at {
        0 => Ok(imatrix),
        left => Err(fault(at.at, &format!("{left} bytes are left over"))),
    }
}

fn fault(at: usize, what: &str) -> QuantError {
    QuantError::Imatrix { why: format!("{what} (byte offset {at})") }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], QuantError> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = left.get(..n) else {
            return Err(fault(self.at, &format!("{what}: cut short, {} of {n} bytes are there", left.len())));
        };
        self.at += n;
        Ok(taken)
    }

    fn word(&mut self, what: &str) -> Result<u32, QuantError> {
        Ok(self.take(4, what)?.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b)))
    }

    fn count(&mut self, what: &str, most: u32) -> Result<u32, QuantError> {
        let begin = self.at;
        let n = self.word(what)?;
        if n > most { Err(fault(begin, &format!("{what}: {}", n.cast_signed()))) } else { Ok(n) }
    }

    fn string(&mut self, what: &str, least: u32) -> Result<String, QuantError> {
        let begin = self.at;
        let n = self.count(what, MOST_NAME)?;
        if n < least {
            return Err(fault(begin, &format!("{what} is empty")));
        }
        let bytes = self.take(n as usize, what)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| fault(begin + 4, &format!("{what} is no UTF-8")))?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, calls: i32, values: &[f32]) -> Vec<u8> {
        let mut out = (name.len() as i32).to_le_bytes().to_vec();
        out.extend(name.bytes());
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        for v in values {
            out.extend(v.to_le_bytes());
        }
        out
    }

    fn file(entries: &[Vec<u8>], end: &[u8]) -> Vec<u8> {
        [&(entries.len() as i32).to_le_bytes()[..], &entries.concat(), end].concat()
    }

    fn refused(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn values_are_means_times_calls() {
        let entries = [entry("blk.0.attn_q.weight", 4, &[8.0, 2.0]), entry("b", 0, &[3.0])];
        let end = [&7i32.to_le_bytes()[..], &4i32.to_le_bytes(), b"text"].concat();
        let bytes = file(&entries, &end);
        assert!(looks_like_one(&bytes));
        let found = read(&bytes).unwrap();
        assert_eq!(found.importance("blk.0.attn_q.weight", &[2, 5]).unwrap(), Some(vec![2.0, 0.5]));
        assert_eq!(found.importance("b", &[1, 1]).unwrap(), Some(vec![3.0]));
        assert_eq!((found.chunks, found.datasets), (7, vec!["text".to_owned()]));
        // What very old files lack.
        assert_eq!(read(&file(&entries, &[])).unwrap().chunks, 0);
        assert_eq!(read(&file(&entries, &7i32.to_le_bytes())).unwrap().chunks, 7);
    }

    #[test]
    fn the_columns_of_all_experts_follow_each_other() {
        let found = read(&file(&[entry("up", 2, &[2.0, 4.0, 0.0, 0.0, 6.0, 8.0])], &[])).unwrap();
        // An expert that nothing met has no say.
        assert_eq!(found.importance("up", &[2, 9, 3]).unwrap(), Some(vec![1.0, 2.0, 1.0, 1.0, 3.0, 4.0]));
        for shape in [&[3, 9, 3][..], &[2, 9], &[2, 9, 2]] {
            assert!(found.importance("up", shape).unwrap_err().to_string().contains("of another model"));
        }
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let whole = file(
            &[entry("abc", 1, &[1.0, 2.0])],
            &[&1i32.to_le_bytes()[..], &1i32.to_le_bytes(), b"t"].concat(),
        );
        assert!(read(&whole).is_ok());
        for cut in 0..whole.len() {
            // A file may end before the number of chunks, and before the name of the text.
            let old = cut == whole.len() - 9 || cut == whole.len() - 5;
            assert_eq!(read(&whole[..cut]).is_ok(), old, "{cut}");
        }
        assert!(refused(&[&whole[..], b"x"].concat()).contains("1 bytes are left over (byte offset 36)"));
        assert!(refused(&file(&[entry("abc", 1, &[1.0, f32::NAN])], &[])).contains("value 1 of abc is NaN"));
        assert!(refused(&file(&[entry("abc", 1, &[-1.0])], &[])).contains("value 0 of abc is -1"));
        assert!(refused(&file(&[entry("abc", -1, &[1.0])], &[])).contains("abc has -1 calls"));
        assert!(refused(&file(&[entry("abc", 1, &[])], &[])).contains("no values"));
        assert!(refused(&file(&[entry("", 1, &[1.0])], &[])).contains("is empty (byte offset 4)"));
        let twice = file(&[entry("a", 1, &[1.0]), entry("a", 1, &[1.0])], &[]);
        assert!(refused(&twice).contains("a is there twice"));
    }

    #[test]
    fn numbers_are_not_believed() {
        assert!(refused(&(-5i32).to_le_bytes()).contains("the number of entries: -5"));
        let huge = [&1i32.to_le_bytes()[..], &i32::MAX.to_le_bytes(), b"abc"].concat();
        assert!(refused(&huge).contains("the name of entry 0: 2147483647"));
        let mut many = entry("abc", 1, &[1.0]);
        many[11..15].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(refused(&file(&[many], &[])).contains("cut short, 4 of 8589934588 bytes"));
        assert!(!looks_like_one(b"GGUF") && !looks_like_one(b"GGUF\x03\0\0\0aaaa") && !looks_like_one(&[]));
    }
}
