//! The table of formats that shaders read and write rows of a cache in: one file each, with a decoder and an encoder.
//!
//! Rows of blocks lie in two planes: the quants of all rows, then the scales of all rows. They take the same bytes as the
//! blocks of [`KvFormat`], so that no seam knows of it.

use std::fmt::Write;

use crate::kv::KvFormat;

/// The line between a file's decoder and its encoder.
const WRITING: &str = "\n// Writing.\n";

/// A row of the table.
#[derive(Debug)]
pub(crate) struct CacheRow {
    pub(crate) format: KvFormat,
    /// What the names in the decoder begin with.
    prefix: &'static str,
    /// The file in `shaders/cache`.
    text: &'static str,
    /// Files of `shaders/lib` that the decoder takes, and those that the encoder takes.
    libs: [&'static [&'static str]; 2],
    /// Values that one thread writes, with their scales: so that it writes whole words. `ROW_UNITS` in the shader follows.
    unit: usize,
    /// Words of a block's quants; 0 for floats, whose rows are in one piece.
    quant_words: usize,
}

macro_rules! cache_formats {
    ($($format:ident $prefix:ident [$($read:ident)*] [$($write:ident)*] $unit:literal $quant_words:literal;)*) => {
        const CACHE: &[CacheRow] = &[$(CacheRow {
            format: KvFormat::$format,
            prefix: stringify!($prefix),
            text: include_str!(concat!("../../shaders/cache/", stringify!($prefix), ".wgsl")),
            libs: [&[$(stringify!($read)),*], &[$(stringify!($write)),*]],
            unit: $unit,
            quant_words: $quant_words,
        }),*];
    };
}

cache_formats! {
    F32 f32 [] [] 1 0;
    F16 f16 [] [] 2 0;
    BF16 bf16 [] [] 2 0;
    Q8_0 q8_0 [cache_blocks] [write_blocks write_scales] 64 8;
    Q4_0 q4_0 [cache_blocks] [write_blocks write_scales] 64 4;
    Q4_1 q4_1 [cache_blocks] [write_blocks write_scales_and_mins] 32 4;
    Q5_0 q5_0 [cache_blocks] [write_blocks write_scales] 64 5;
    Q5_1 q5_1 [cache_blocks] [write_blocks write_scales_and_mins] 32 5;
    Iq4Nl iq4_nl [cache_blocks codebook] [write_blocks write_scales codebook] 64 4;
    F8E4M3 f8_e4m3 [] [] 4 0;
}

impl CacheRow {
    /// The row of a format; none where no shader knows it.
    pub(crate) fn of(format: KvFormat) -> Option<&'static CacheRow> {
        CACHE.iter().find(|row| row.format == format)
    }
    /// Every row.
    #[cfg(test)]
    pub(crate) fn all() -> &'static [CacheRow] {
        CACHE
    }

    /// How many threads write a row of `dim` values.
    pub(crate) fn units(&self, dim: usize) -> usize {
        dim.div_ceil(self.unit)
    }
    /// The word at which the scales of `rows` rows of `dim` values begin; 0 where they have no plane of their own.
    pub(crate) fn scales(&self, rows: usize, dim: usize) -> usize {
        rows * dim.div_ceil(32) * self.quant_words
    }
    /// The file's decoder and its encoder.
    fn parts(&self) -> (&'static str, &'static str) {
        // A test sees to it that every file has both.
        self.text.split_once(WRITING).unwrap_or((self.text, ""))
    }
}

/// What a kernel does with rows of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CacheUse {
    /// It reads K rows and V rows of these formats.
    Reads(KvFormat, KvFormat),
    /// It writes rows of this format.
    Writes(KvFormat),
}

impl CacheUse {
    /// The text that it needs, and the files of `shaders/lib`. Reading is under the names that ops use: `k4` for values 4 i to
    /// 4 i + 3 of a K row, `v2` for values 2 i and 2 i + 1 of a V row.
    pub(crate) fn shader(self) -> Result<(String, Vec<&'static str>), String> {
        let row = |format| CacheRow::of(format).ok_or_else(|| format!("no shader knows a cache of {format}"));
        let (k, v) = match self {
            CacheUse::Reads(k, v) => (row(k)?, row(v)?),
            CacheUse::Writes(format) => {
                let row = row(format)?;
                return Ok((row.parts().1.into(), [&["write"][..], row.libs[1]].concat()));
            }
        };
        let mut libs = k.libs[0].to_vec();
        let mut text = k.parts().0.to_owned();
        if k.format != v.format {
            text.push_str(v.parts().0);
            libs.extend(v.libs[0].iter().filter(|lib| !k.libs[0].contains(lib)));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "fn k4(row: u32, i: u32) -> vec4<f32> {{ return {}_four(false, row, i); }}\n\
             fn v2(row: u32, i: u32) -> vec2<f32> {{ return {}_two(true, row, i); }}",
            k.prefix, v.prefix
        );
        Ok((text, libs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_of_a_cache_has_a_decoder_and_an_encoder() {
        for format in KvFormat::ALL {
            let row = CacheRow::of(*format).unwrap_or_else(|| panic!("no row for {format}"));
            let (reads, writes) = row.parts();
            for part in ["four", "two"] {
                assert!(reads.contains(&format!("fn {}_{part}(", row.prefix)), "{format}: {part}");
            }
            assert!(writes.contains("fn write_unit(") || writes.contains("fn write_block("), "{format}");
            assert_eq!(row.prefix, format.name());
        }
        assert_eq!(CACHE.len(), KvFormat::ALL.len());
    }

    #[test]
    fn planes_take_the_bytes_of_the_format() {
        for row in CACHE {
            for dim in (4..300).step_by(4) {
                let rows = 6;
                // Beside the quants: a word for every unit, and what stands in front of a row.
                let words = row.units(dim) + row.format.info().header_bytes / 4;
                let bytes = (row.scales(rows, dim) + rows * words) * 4;
                assert_eq!(bytes, rows * row.format.row_bytes(dim), "{} of {dim}", row.format);
            }
        }
    }
}
