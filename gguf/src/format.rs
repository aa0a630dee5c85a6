//! The one table of formats.

use crate::block::parts::{Layout, Parts};
use crate::block::{self, Block};

/// A row of the table: all that the rest of the project may ask of a format.
#[derive(Debug)]
pub struct FormatInfo {
    /// The name as llama.cpp spells it, in capitals: `Q4_K`.
    pub name: &'static str,
    /// The id in the file (`enum ggml_type` in ggml.h).
    pub id: u32,
    /// Values in a block.
    pub block_len: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Decode whole blocks, `bytes` at any offset; see [`block::decode_blocks`] for the lengths.
    pub decode: block::Decoder,
    /// Encode whole blocks, rounding as ggml's reference does; none where no encoder exists yet. See
    /// [`block::encode_blocks`] for the lengths.
    pub encode: Option<block::Encoder>,
    /// Encode whole rows for a file, with the importance of each column where it is known: see
    /// [`block::quantize_blocks`].
    pub quantize: block::Quantizer,
    /// The integers of a block and how to get at them; none for floats and plain integers.
    pub integers: Option<Integers>,
}

/// How to take a format's blocks apart and put them together: see [`block::parts`].
#[derive(Debug)]
pub struct Integers {
    /// The integers that there are.
    pub layout: &'static Layout,
    /// From the bytes of one block to its integers.
    pub split: fn(bytes: &[u8], parts: &mut Parts),
    /// From integers to the bytes of one block.
    pub join: fn(parts: &Parts, out: &mut [u8]),
}

impl FormatInfo {
    const fn of<B: Block>(name: &'static str, id: u32) -> FormatInfo {
        FormatInfo {
            name,
            id,
            block_len: B::LEN,
            block_bytes: size_of::<B>(),
            decode: block::decode_blocks::<B>,
            encode: Some(block::encode_blocks::<B>),
            quantize: block::quantize_blocks::<B>,
            integers: match B::LAYOUT {
                Some(layout) => {
                    Some(Integers { layout, split: block::split_block::<B>, join: block::join_block::<B> })
                }
                None => None,
            },
        }
    }

    /// Bits per value, scales included: 4.5 for Q4_K.
    pub fn bits(&self) -> f64 {
        self.block_bytes as f64 * 8.0 / self.block_len as f64
    }
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $id:literal => $block:ty,)*) => {
        /// A block format of the table.
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Format { $($(#[$doc])* $name = $id),* }

        impl Format {
            /// Every format of the table, by id.
            pub const ALL: &'static [Format] = &[$(Format::$name),*];

            /// The row of the table.
            pub fn info(self) -> &'static FormatInfo {
                match self {
                    $(Format::$name => const { &FormatInfo::of::<$block>(stringify!($name), $id) },)*
                }
            }

            /// The format of an id of the file; none if the table does not hold it.
            pub fn from_id(id: u32) -> Option<Format> {
                match id {
                    $($id => Some(Format::$name),)*
                    _ => None,
                }
            }
        }
    };
}

formats! {
    /// IEEE binary32.
    F32 = 0 => block::plain::F32Le,
    /// IEEE binary16.
    F16 = 1 => block::f16::F16Le,
    /// 4-bit integers, a scale for 32.
    Q4_0 = 2 => block::q4_0::BlockQ4_0,
    /// 4-bit integers, a scale and a minimum for 32.
    Q4_1 = 3 => block::q4_1::BlockQ4_1,
    /// 5-bit integers, a scale for 32.
    Q5_0 = 6 => block::q5_0::BlockQ5_0,
    /// 5-bit integers, a scale and a minimum for 32.
    Q5_1 = 7 => block::q5_1::BlockQ5_1,
    /// 8-bit integers, a scale for 32.
    Q8_0 = 8 => block::q8_0::BlockQ8_0,
    /// 2-bit integers, 4-bit scales and minima for 16, both scaled for 256.
    Q2_K = 10 => block::q2_k::BlockQ2K,
    /// 3-bit integers, 6-bit scales for 16, scaled for 256.
    Q3_K = 11 => block::q3_k::BlockQ3K,
    /// 4-bit integers, 6-bit scales and minima for 32, both scaled for 256.
    Q4_K = 12 => block::q4_k::BlockQ4K,
    /// 5-bit integers, 6-bit scales and minima for 32, both scaled for 256.
    Q5_K = 13 => block::q5_k::BlockQ5K,
    /// 6-bit integers, 8-bit scales for 16, scaled for 256.
    Q6_K = 14 => block::q6_k::BlockQ6K,
    /// 4-bit table indices, a scale for 32.
    IQ4_NL = 20 => block::iq4_nl::BlockIq4Nl,
    /// 4-bit table indices, 6-bit scales for 32, scaled for 256.
    IQ4_XS = 23 => block::iq4_xs::BlockIq4Xs,
    /// 8-bit integers.
    I8 = 24 => block::plain::I8Le,
    /// 16-bit integers.
    I16 = 25 => block::plain::I16Le,
    /// 32-bit integers.
    I32 = 26 => block::plain::I32Le,
    /// 64-bit integers.
    I64 = 27 => block::plain::I64Le,
    /// IEEE binary64.
    F64 = 28 => block::plain::F64Le,
    /// The upper half of binary32.
    BF16 = 30 => block::bf16::Bf16Le,
    /// 4-bit floats, a power-of-two scale for 32.
    MXFP4 = 39 => block::mxfp4::BlockMxfp4,
}

impl Format {
    /// Bytes of `n` values; none if `n` is no whole number of blocks or the product overflows.
    pub fn bytes_of(self, n: u64) -> Option<u64> {
        let info = self.info();
        let len = info.block_len as u64;
        if n.is_multiple_of(len) { (n / len).checked_mul(info.block_bytes as u64) } else { None }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}
