//! The one table of formats.

/// A row of the table: all that the rest of the project may ask of a format.
#[derive(Debug)]
pub struct FormatInfo {
    /// The name as llama.cpp spells it, in capitals: `Q4_K`.
    pub name: &'static str,
    /// The id in the file.
    pub id: u32,
    /// Values in a block.
    pub block_len: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Decode whole blocks: `out.len()` is a multiple of `block_len`, `bytes` holds just those blocks.
    pub decode: fn(bytes: &[u8], out: &mut [f32]),
    /// Encode whole blocks, rounding as ggml's reference does; none where no encoder exists yet.
    pub encode: Option<fn(values: &[f32], out: &mut [u8])>,
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $len:literal, $bytes:literal;)*) => {
        /// A block format of the table.
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Format { $($(#[$doc])* $name = $id),* }
        impl Format {
            /// Every format of the table.
            pub const ALL: &'static [Format] = &[$(Format::$name),*];
            /// The row of the table.
            pub fn info(self) -> &'static FormatInfo {
                match self { $(Format::$name => &FormatInfo {
                    name: stringify!($name), id: $id, block_len: $len, block_bytes: $bytes,
                    decode: |_, out| out.fill(f32::NAN), encode: None },)* }
            }
        }
    };
}

formats! {
    /// IEEE binary32
    F32 = 0, 1, 4;
    /// IEEE binary16
    F16 = 1, 1, 2;
    /// 4.5 bits
    Q4_0 = 2, 32, 18;
    /// 5 bits
    Q4_1 = 3, 32, 20;
    /// 5.5 bits
    Q5_0 = 6, 32, 22;
    /// 6 bits
    Q5_1 = 7, 32, 24;
    /// 8.5 bits
    Q8_0 = 8, 32, 34;
    /// 2.625 bits
    Q2_K = 10, 256, 84;
    /// 3.4375 bits
    Q3_K = 11, 256, 110;
    /// 4.5 bits
    Q4_K = 12, 256, 144;
    /// 5.5 bits
    Q5_K = 13, 256, 176;
    /// 6.5625 bits
    Q6_K = 14, 256, 210;
    /// 4.5 bits
    IQ4_NL = 20, 32, 18;
    /// 4.25 bits
    IQ4_XS = 23, 256, 136;
    /// integer
    I8 = 24, 1, 1;
    /// integer
    I16 = 25, 1, 2;
    /// integer
    I32 = 26, 1, 4;
    /// integer
    I64 = 27, 1, 8;
    /// IEEE binary64
    F64 = 28, 1, 8;
    /// the upper half of binary32
    BF16 = 30, 1, 2;
    /// 4.25 bits
    MXFP4 = 39, 32, 17;
}

impl Format {
    /// The format of an id of the file; none if the table does not hold it.
    pub fn from_id(id: u32) -> Option<Format> {
        Self::ALL.iter().copied().find(|f| f.info().id == id)
    }
    /// Bytes of `n` values; none if `n` is no whole number of blocks or the product overflows.
    pub fn bytes_of(self, n: u64) -> Option<u64> {
        let info = self.info();
        (n % info.block_len as u64 == 0).then(|| (n / info.block_len as u64).checked_mul(info.block_bytes as u64))?
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}
