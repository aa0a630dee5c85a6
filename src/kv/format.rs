//! How one head's K or V row is stored: the formats of the cache and their one table.

use std::fmt;
use std::str::FromStr;

use chaski_gguf::Format;

use super::f8e4m3;

/// The longest block of the table; the padded end of a row passes through an array of this length.
const MAX_BLOCK: usize = 32;

/// Rows start at multiples of this many bytes: shaders read words, and a scale of four bytes stays aligned.
const ROW_ALIGN: usize = 4;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct KvFormatInfo {
    /// Values in a block.
    pub block_len: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Bytes before the blocks of each row: its scale, where the format has one for the whole row.
    pub header_bytes: usize,
    /// Decode a header and whole blocks.
    decode: fn(&[u8], &mut [f32]),
    /// Encode a header and whole blocks.
    encode: fn(&[f32], &mut [u8]),
}

/// A row of the table that the table of GGUF's block formats already holds.
fn block(format: Format) -> KvFormatInfo {
    let info = format.info();
    KvFormatInfo {
        block_len: info.block_len,
        block_bytes: info.block_bytes,
        header_bytes: 0,
        decode: info.decode,
        encode: info
            .encode
            .unwrap_or(|_, _| unreachable!("a format without an encoder is no row of this table")),
    }
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident $text:literal = $info:expr;)*) => {
        /// How a row of the cache is stored.
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum KvFormat { $($(#[$doc])* $name),* }

        impl KvFormat {
            /// Every format, as the command line lists them.
            pub const ALL: &'static [KvFormat] = &[$(KvFormat::$name),*];

            /// The name on the command line: `q8_0`.
            pub const fn name(self) -> &'static str {
                match self { $(KvFormat::$name => $text),* }
            }

            /// The row of the table.
            pub fn info(self) -> KvFormatInfo {
                match self { $(KvFormat::$name => $info),* }
            }
        }
    };
}

formats! {
    /// IEEE binary32.
    F32 "f32" = block(Format::F32);
    /// IEEE binary16.
    F16 "f16" = block(Format::F16);
    /// The upper half of binary32.
    BF16 "bf16" = block(Format::BF16);
    /// 8-bit integers, a scale for 32.
    Q8_0 "q8_0" = block(Format::Q8_0);
    /// 4-bit integers, a scale for 32.
    Q4_0 "q4_0" = block(Format::Q4_0);
    /// 4-bit integers, a scale and a minimum for 32.
    Q4_1 "q4_1" = block(Format::Q4_1);
    /// 5-bit integers, a scale for 32.
    Q5_0 "q5_0" = block(Format::Q5_0);
    /// 5-bit integers, a scale and a minimum for 32.
    Q5_1 "q5_1" = block(Format::Q5_1);
    /// Indices into 16 uneven steps, a scale for 32.
    Iq4Nl "iq4_nl" = block(Format::IQ4_NL);
    /// 8-bit floats of 4 exponent and 3 mantissa bits under an f32 scale for the row: see [`f8e4m3`].
    F8E4M3 "f8_e4m3" = KvFormatInfo {
        block_len: 1,
        block_bytes: 1,
        header_bytes: size_of::<f32>(),
        decode: f8e4m3::decode_row,
        encode: f8e4m3::encode_row,
    };
}

impl KvFormat {
    /// Bytes of one head's row of `dim` values. The row is filled up with zeros to whole blocks, and
    /// its bytes to a multiple of four, so that every row starts at a word.
    pub fn row_bytes(self, dim: usize) -> usize {
        let info = self.info();
        (info.header_bytes + dim.div_ceil(info.block_len) * info.block_bytes).next_multiple_of(ROW_ALIGN)
    }

    /// Store a row: `row_bytes(values.len())` bytes.
    ///
    /// # Panics
    /// Where `out` has another length.
    pub fn encode_row(self, values: &[f32], out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.row_bytes(values.len()),
            "bytes of a {self} row of {} values",
            values.len()
        );
        let info = self.info();
        let whole = values.len() / info.block_len;
        let (values, tail) = values.split_at(whole * info.block_len);
        let (head, rest) = out.split_at_mut(info.header_bytes + whole * info.block_bytes);
        (info.encode)(values, head);
        let mut unused = 0;
        if !tail.is_empty() {
            let mut padded = [0.0; MAX_BLOCK];
            padded[..tail.len()].copy_from_slice(tail);
            (info.encode)(&padded[..info.block_len], &mut rest[..info.block_bytes]);
            unused = info.block_bytes;
        }
        rest[unused..].fill(0);
    }

    /// Read a row back: `bytes` as `encode_row` wrote them for `out.len()` values.
    ///
    /// # Panics
    /// Where `bytes` is not `row_bytes(out.len())` long.
    pub fn decode_row(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), self.row_bytes(out.len()), "bytes of a {self} row of {} values", out.len());
        let info = self.info();
        let whole = out.len() / info.block_len;
        let (out, tail) = out.split_at_mut(whole * info.block_len);
        let (head, rest) = bytes.split_at(info.header_bytes + whole * info.block_bytes);
        (info.decode)(head, out);
        if !tail.is_empty() {
            let mut padded = [0.0; MAX_BLOCK];
            (info.decode)(&rest[..info.block_bytes], &mut padded[..info.block_len]);
            tail.copy_from_slice(&padded[..tail.len()]);
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no format of the cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no cache format is called `{0}`: it is one of {all}", all = names())]
pub struct UnknownKvFormat(pub String);

fn names() -> String {
    KvFormat::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for KvFormat {
    type Err = UnknownKvFormat;

    fn from_str(name: &str) -> Result<KvFormat, UnknownKvFormat> {
        let found = KvFormat::ALL.iter().copied().find(|f| f.name() == name);
        found.ok_or_else(|| UnknownKvFormat(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::random::Random;

    #[test]
    fn names_read_back_and_an_unknown_one_lists_them_all() {
        for &format in KvFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let message = "q3_k".parse::<KvFormat>().unwrap_err().to_string();
        assert!(message.contains("`q3_k`"));
        assert!(KvFormat::ALL.iter().all(|f| message.contains(f.name())), "{message}");
    }

    #[test]
    fn rows_are_whole_words_and_hold_whole_blocks() {
        let bytes = |name: &str, dim| name.parse::<KvFormat>().unwrap().row_bytes(dim);
        assert_eq!(bytes("f16", 128), 256);
        assert_eq!(bytes("q8_0", 128), 136);
        assert_eq!(bytes("q4_0", 64), 36);
        assert_eq!(bytes("q4_0", 32), 20, "18 bytes of a block, then two of padding");
        assert_eq!(bytes("q8_0", 40), 68, "two blocks for 40 values");
        assert_eq!(bytes("f8_e4m3", 128), 132);
        for &format in KvFormat::ALL {
            assert!(format.info().block_len <= MAX_BLOCK);
            assert_eq!(format.row_bytes(0) % ROW_ALIGN, 0);
            for dim in 1..300 {
                assert_eq!(format.row_bytes(dim) % ROW_ALIGN, 0);
                assert!(format.row_bytes(dim) >= format.row_bytes(dim - 1));
            }
        }
    }

    /// Root mean square error of the round trip of normally distributed rows, relative to their own.
    fn error(format: KvFormat, dim: usize) -> f64 {
        let mut random = Random::new(7);
        let (mut lost, mut all) = (0.0, 0.0);
        let mut bytes = vec![0xAA; format.row_bytes(dim)];
        let mut back = vec![f32::NAN; dim];
        for _ in 0..64 {
            let row = random.normals(dim);
            format.encode_row(&row, &mut bytes);
            format.decode_row(&bytes, &mut back);
            for (a, b) in row.iter().zip(&back) {
                lost += f64::from(a - b).powi(2);
                all += f64::from(*a).powi(2);
            }
        }
        (lost / all).sqrt()
    }

    #[test]
    fn a_round_trip_loses_what_the_bits_of_the_format_say() {
        let limits = [
            ("f32", 0.0),
            ("f16", 3e-4),
            ("bf16", 2.5e-3),
            ("q8_0", 7e-3),
            ("q4_0", 0.11),
            ("q4_1", 0.10),
            ("q5_0", 0.055),
            ("q5_1", 0.05),
            ("iq4_nl", 0.10),
            ("f8_e4m3", 0.03),
        ];
        assert_eq!(limits.len(), KvFormat::ALL.len());
        for (name, limit) in limits {
            for dim in [32, 40, 72, 80, 128] {
                let error = error(name.parse().unwrap(), dim);
                assert!(error <= limit, "{name}, {dim} values: {error:.2e} > {limit:.2e}");
                assert!(error > limit / 3.0 || limit == 0.0, "{name}: the limit {limit:.2e} says little");
            }
        }
    }

    #[test]
    fn values_past_the_row_are_zeros_and_change_nothing() {
        let mut random = Random::new(11);
        for &format in KvFormat::ALL {
            let mut row = random.normals(40);
            let mut short = vec![0xAA; format.row_bytes(40)];
            format.encode_row(&row, &mut short);
            row.resize(64, 0.0);
            let mut long = vec![0x55; format.row_bytes(64)];
            format.encode_row(&row, &mut long);
            let info = format.info();
            let n = info.header_bytes + 40usize.div_ceil(info.block_len) * info.block_bytes;
            assert_eq!(short[..n], long[..n], "{format}");
            assert!(short[n..].iter().all(|b| *b == 0), "{format}");
        }
    }
}
