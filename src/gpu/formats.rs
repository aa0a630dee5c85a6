//! The table of formats that shaders decode: the text of the decoder, and how its blocks lie on the device.

use std::fmt::Write;

use chaski_gguf::Format;

/// What a decoder gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Units of sixteen signed bytes with a scale and a bias: `x_unit`, `x_pair`, `x_at`.
    Blocks,
    /// Four floats at once: `x_float4`.
    Floats,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct FormatRow {
    pub(crate) format: Format,
    pub(crate) kind: Kind,
    /// What the names in the decoder begin with.
    prefix: &'static str,
    /// The decoder: its file in `shaders/format`.
    text: &'static str,
    /// Files of `shaders/lib` that the decoder takes.
    libs: &'static [&'static str],
    /// Blocks of a group, see [`super::layout`].
    pub(crate) group: usize,
    /// The parts of a block, offset and length, in the order of a group's planes.
    pub(crate) planes: &'static [(usize, usize)],
}

macro_rules! formats {
    ($($format:ident $prefix:ident $kind:ident [$($lib:ident)*] $group:literal x $planes:expr;)*) => {
        const FORMATS: &[FormatRow] = &[$(FormatRow {
            format: Format::$format,
            kind: Kind::$kind,
            prefix: stringify!($prefix),
            text: include_str!(concat!("../../shaders/format/", stringify!($prefix), ".wgsl")),
            libs: &[$(include_str!(concat!("../../shaders/lib/", stringify!($lib), ".wgsl"))),*],
            group: $group,
            planes: &$planes,
        }),*];
    };
}

formats! {
    F32 f32 Floats [] 4 x [(0, 4)];
    F16 f16 Floats [] 8 x [(0, 2)];
    BF16 bf16 Floats [] 8 x [(0, 2)];
    Q4_0 q4_0 Blocks [units] 8 x [(2, 16), (0, 2)];
    Q4_1 q4_1 Blocks [units] 4 x [(4, 16), (0, 4)];
    Q5_0 q5_0 Blocks [units] 8 x [(6, 16), (2, 4), (0, 2)];
    Q5_1 q5_1 Blocks [units] 2 x [(8, 16), (0, 4), (4, 4)];
    Q8_0 q8_0 Blocks [units] 8 x [(2, 32), (0, 2)];
    Q2_K q2_k Blocks [units] 4 x [(16, 64), (0, 16), (80, 4)];
    Q3_K q3_k Blocks [units] 8 x [(32, 64), (0, 32), (96, 12), (108, 2)];
    Q4_K q4_k Blocks [units scales] 1 x [(0, 144)];
    Q5_K q5_k Blocks [units scales] 1 x [(0, 176)];
    Q6_K q6_k Blocks [units] 8 x [(0, 128), (128, 64), (192, 16), (208, 2)];
    IQ4_NL iq4_nl Blocks [units codebook] 8 x [(2, 16), (0, 2)];
    IQ4_XS iq4_xs Blocks [units codebook] 2 x [(8, 128), (0, 8)];
    MXFP4 mxfp4 Blocks [units] 16 x [(1, 16), (0, 1)];
}

impl FormatRow {
    /// The row of a format; none where no shader decodes it.
    pub(crate) fn of(format: Format) -> Option<&'static FormatRow> {
        FORMATS.iter().find(|row| row.format == format)
    }

    /// Every row.
    #[cfg(test)]
    pub(crate) fn all() -> &'static [FormatRow] {
        FORMATS
    }

    /// The decoder, what it takes, and under the names that ops use: `w_unit` and its like for blocks, `w_float4` for floats.
    pub(crate) fn shader(&self) -> String {
        let mut text = self.libs.concat();
        text.push_str(self.text);
        let (x, upper) = (self.prefix, self.prefix.to_uppercase());
        // Writing to a string cannot fail.
        let _ = match self.kind {
            Kind::Floats => writeln!(text, "fn w_float4(i: u32) -> vec4<f32> {{ return {x}_float4(i); }}"),
            Kind::Blocks => writeln!(
                text,
                "const W_LEN: u32 = {upper}_LEN;\n\
                 const W_PAIRS: u32 = {upper}_PAIRS;\n\
                 const W_BIASED: bool = {upper}_BIASED;\n\
                 fn w_at(p: u32) -> vec2<u32> {{ return {x}_at(p); }}\n\
                 fn w_pair(block: u32, p: u32) -> Pair {{ return {x}_pair(block, p); }}\n\
                 fn w_unit(block: u32, u: u32) -> Unit {{ return {x}_unit(block, u); }}"
            ),
        };
        text
    }
}
