//! Files made field by field, so that a test can lie in one of them.

#![allow(dead_code, reason = "each test binary uses its part")]

/// A file under construction. The numbers are written as they are given, right or wrong.
#[derive(Clone, Default)]
pub struct Raw {
    pub bytes: Vec<u8>,
    /// Where each field begins.
    pub fields: Vec<usize>,
    /// Version 1: counts, lengths and dimensions take 32 bits.
    narrow: bool,
}

pub const U8: u32 = 0;
pub const I8: u32 = 1;
pub const U16: u32 = 2;
pub const I16: u32 = 3;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;
pub const I64: u32 = 11;
pub const F64: u32 = 12;

impl Raw {
    /// Magic, version and counts.
    pub fn header(version: u32, n_tensors: u64, n_keys: u64) -> Self {
        let mut raw = Self { narrow: version == 1, ..Self::default() };
        raw.raw(b"GGUF").u32(version).count(n_tensors).count(n_keys);
        raw
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.fields.push(self.bytes.len());
        self.bytes.extend(bytes);
        self
    }

    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.raw(&v.to_le_bytes())
    }

    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.raw(&v.to_le_bytes())
    }

    pub fn count(&mut self, v: u64) -> &mut Self {
        if self.narrow { self.u32(v as u32) } else { self.u64(v) }
    }

    pub fn str(&mut self, s: impl AsRef<[u8]>) -> &mut Self {
        self.count(s.as_ref().len() as u64).raw(s.as_ref())
    }

    /// A key with its value's type and the bytes of its value.
    pub fn key(&mut self, key: &str, ty: u32, value: &[u8]) -> &mut Self {
        self.str(key).u32(ty).raw(value)
    }

    pub fn key_str(&mut self, key: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.str(key).u32(STRING).str(value)
    }

    /// A key with the head of an array; the elements follow.
    pub fn key_array(&mut self, key: &str, ty: u32, len: u64) -> &mut Self {
        self.str(key).u32(ARRAY).u32(ty).count(len)
    }

    pub fn tensor(&mut self, name: impl AsRef<[u8]>, dims: &[u64], id: u32, offset: u64) -> &mut Self {
        self.str(name).u32(dims.len() as u32);
        for d in dims {
            self.count(*d);
        }
        self.u32(id).u64(offset)
    }

    pub fn pad(&mut self, alignment: usize) -> &mut Self {
        let end = self.bytes.len().next_multiple_of(alignment);
        self.fields.push(self.bytes.len());
        self.bytes.resize(end, 0);
        self
    }

    /// The data section: padding, then that many bytes.
    pub fn data(&mut self, n: usize) -> Vec<u8> {
        self.pad(32).raw(&vec![0; n]);
        self.bytes.clone()
    }

    pub fn done(&mut self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// A small file with a key of every type, nested arrays, and tensors of three formats.
pub fn small(version: u32) -> Raw {
    let mut raw = Raw::header(version, 4, 17);
    raw.key_str("general.architecture", "llama")
        .key("u8", U8, &[200])
        .key("i8", I8, &[200])
        .key("u16", U16, &60_000u16.to_le_bytes())
        .key("i16", I16, &(-2i16).to_le_bytes())
        .key("u32", U32, &4_000_000_000u32.to_le_bytes())
        .key("i32", I32, &(-3i32).to_le_bytes())
        .key("f32", F32, &1.5f32.to_le_bytes())
        .key("bool", BOOL, &[1])
        .key("u64", U64, &u64::MAX.to_le_bytes())
        .key("i64", I64, &i64::MIN.to_le_bytes())
        .key("f64", F64, &0.1f64.to_le_bytes())
        .key_str("empty", "");
    raw.key_array("strings", STRING, 3).str("a").str("").str("Grüße");
    raw.key_array("ints", I32, 3).raw(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    raw.key_array("nested", ARRAY, 2)
        .u32(STRING)
        .count(2)
        .str("x")
        .str("yz")
        .u32(ARRAY)
        .count(1)
        .u32(BOOL)
        .count(2)
        .raw(&[0, 1]);
    raw.key("general.alignment", U32, &32u32.to_le_bytes());
    raw.tensor("token_embd.weight", &[32, 2], 0, 0)
        .tensor("blk.0.ffn_up.weight", &[64], 8, 256)
        .tensor("none", &[0, 4], 0, 352)
        .tensor("scalar", &[], 1, 352);
    raw.pad(32);
    let mut data: Vec<u8> = (0..64).flat_map(|i| (i as f32 * 0.25).to_le_bytes()).collect();
    for block in 0..2u8 {
        data.extend([0x00, 0x3c]);
        data.extend((0..32).map(|i| i * 3 + block));
    }
    data.resize(352, 0);
    data.extend([0x00, 0x40]);
    raw.raw(&data);
    raw
}

/// A small generator of numbers (SplitMix64), so that a failure can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
