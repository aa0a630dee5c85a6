//! Shaders as text: plain concatenation of a generated header, chosen library files, a format's decoder and one op.
//!
//! Nobody parses WGSL here. What varies is which files are taken and which constants the header holds.

use std::fmt::Write;

use chaski_gguf::Format;

use super::adapter::IMMEDIATE_BYTES;
use super::cache::CacheUse;
use super::device::Caps;
use super::formats::{FormatRow, Kind};

/// What makes a kernel: everything that its text depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KernelKey {
    /// The file of `shaders/op` without its ending.
    pub(crate) op: &'static str,
    /// The decoders that it takes: `shaders/format`.
    pub(crate) format: Option<Format>,
    /// What it does with rows of a cache: `shaders/cache`.
    pub(crate) cache: Option<CacheUse>,
    /// Further files of `shaders/lib`, as [`lib`] knows them: an op leaves some of its functions to them.
    pub(crate) libs: Vec<&'static str>,
    /// Constants of the header: `const NAME: u32 = value;`.
    pub(crate) consts: Vec<(&'static str, u32)>,
}

impl KernelKey {
    /// A kernel without a choice.
    pub(crate) fn new(op: &'static str) -> KernelKey {
        KernelKey { op, format: None, cache: None, libs: Vec::new(), consts: Vec::new() }
    }
    /// With a format's decoder.
    pub(crate) fn format(mut self, format: Format) -> KernelKey {
        self.format = Some(format);
        self
    }
    /// Reading or writing rows of a cache.
    pub(crate) fn cache(mut self, cache: CacheUse) -> KernelKey {
        self.cache = Some(cache);
        self
    }
    /// With a file of `shaders/lib`.
    pub(crate) fn lib(mut self, name: &'static str) -> KernelKey {
        self.libs.push(name);
        self
    }
    /// With a constant.
    pub(crate) fn with(mut self, name: &'static str, value: usize) -> KernelKey {
        self.consts.push((name, value as u32));
        self
    }
}

/// Which buffers a kernel binds: one bit a binding of group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bindings(pub(crate) u32);

impl Bindings {
    /// 0 and 1: the intermediates, as words and as vectors of four floats. The only buffer that ops write values to.
    pub(crate) const ARENA: Bindings = Bindings(0b11);
    /// 2: what the batch brings, as words.
    pub(crate) const INPUTS: Bindings = Bindings(1 << 2);
    /// 3 and 4: a matrix, as vectors of four words and as words.
    pub(crate) const WEIGHT: Bindings = Bindings(0b11 << 3);
    /// 5: vectors (norms, biases), f32.
    pub(crate) const VECTORS: Bindings = Bindings(1 << 5);
    /// 6 and 7: a layer's K and V rows, as words.
    pub(crate) const KV: Bindings = Bindings(0b11 << 6);
    /// 8: memory that two dispatches of one op share, f32.
    pub(crate) const SCRATCH: Bindings = Bindings(1 << 8);
    /// 9 and 10, 11 and 12: a second and a third matrix.
    pub(crate) const WEIGHT2: Bindings = Bindings(0b11 << 9);
    /// See [`Bindings::WEIGHT2`].
    pub(crate) const WEIGHT3: Bindings = Bindings(0b11 << 11);

    /// Both.
    pub(crate) const fn and(self, other: Bindings) -> Bindings {
        Bindings(self.0 | other.0)
    }
    /// Whether kernels write through binding `number`.
    pub(crate) fn is_written(number: u32) -> bool {
        Bindings::ARENA.and(Bindings::KV).and(Bindings::SCRATCH).0 >> number & 1 == 1
    }
    /// The numbers of the bindings.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..32).filter(move |number| self.0 >> number & 1 == 1)
    }
}

/// A file of `shaders/op` and what it takes.
struct OpFile {
    name: &'static str,
    text: &'static str,
    /// Files of `shaders/lib` that it always takes.
    libs: &'static [&'static str],
}

macro_rules! ops {
    ($($name:ident: $($lib:ident)*;)*) => {
        const OPS: &[OpFile] = &[$(OpFile {
            name: stringify!($name),
            text: include_str!(concat!("../../shaders/op/", stringify!($name), ".wgsl")),
            libs: &[$(stringify!($lib)),*],
        }),*];
    };
}

ops! {
    add: arena;
    add_row: arena vectors;
    attention: arena inputs cache scratch;
    attention_merge: arena scratch;
    copy_in: arena inputs;
    expert_tiles: arena scratch;
    gather: arena inputs;
    get_computed_rows: arena inputs;
    get_rows: arena weight;
    glu: arena;
    hadamard: arena;
    kv_write: arena inputs;
    matmul: arena;
    matvec: arena team finish;
    quantize_bytes: arena;
    rms_norm: arena vectors reduce;
    rope: arena rope;
    rope_write: arena inputs rope reduce;
    softmax: arena reduce;
    sum_to_one: arena reduce;
    top_k: arena;
    weighted_sum: arena;
}

/// A file of `shaders/lib` and the buffers that it declares.
struct LibFile {
    name: &'static str,
    text: &'static str,
    bindings: Bindings,
}

macro_rules! libs {
    ($($name:ident $(binds $($bindings:ident)*)?;)*) => {
        const LIBS: &[LibFile] = &[$(LibFile {
            name: stringify!($name),
            text: include_str!(concat!("../../shaders/lib/", stringify!($name), ".wgsl")),
            bindings: Bindings(0)$($(.and(Bindings::$bindings))*)?,
        }),*];
    };
}

libs! {
    arena binds ARENA;
    cache binds KV;
    cache_blocks;
    cache_both binds KV;
    cache_k binds KV;
    cache_v binds KV;
    codebook;
    columns_all;
    columns_experts;
    finish;
    gelu_tanh;
    heads_1;
    heads_2;
    heads_4;
    ids_arena;
    ids_inputs;
    ids_none;
    inputs binds INPUTS;
    multiply_bytes;
    multiply_floats;
    reduce_subgroup;
    reduce_workgroup;
    rope;
    rope_adjacent;
    rope_halves;
    scratch binds SCRATCH;
    silu;
    team_subgroup;
    team_workgroup;
    threads;
    tile_f16;
    tile_f32;
    values_blocks;
    values_floats;
    vectors binds VECTORS;
    vectors_none;
    vectors_one;
    weight binds WEIGHT;
    weight2 binds WEIGHT WEIGHT2;
    weight3 binds WEIGHT WEIGHT2 WEIGHT3;
    write;
    write_blocks;
    write_scales;
    write_scales_and_mins;
    x_vectors;
    x_words;
}

/// The text of a kernel and what it binds.
pub(crate) fn assemble(key: &KernelKey, caps: Caps) -> Result<(String, Bindings), String> {
    let op = OPS.iter().find(|op| op.name == key.op).ok_or_else(|| format!("no shader {}", key.op))?;
    let mut text = String::new();
    if key.libs.contains(&"tile_f16") {
        text.push_str("enable f16;\n");
    }
    for (name, value) in &key.consts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    let mut bindings = Bindings(0);
    let mut libs: Vec<&str> = op.libs.iter().chain(&key.libs).copied().collect();
    // Sums over a workgroup come with the threads' own numbers.
    if !libs.contains(&"reduce") && !libs.contains(&"team") {
        libs.push("threads");
    }
    // The decoder gives blocks or floats; one of these makes rows of them.
    let decoder =
        key.format.map(|format| FormatRow::of(format).ok_or_else(|| format!("no shader decodes {format}")));
    let decoder = decoder.transpose()?;
    if let Some(row) = decoder {
        libs.push(match row.kind {
            Kind::Blocks => "values_blocks",
            Kind::Floats => "values_floats",
        });
        text.push_str(&row.shader());
    }
    if let Some(cache) = key.cache {
        let (rows, of_rows) = cache.shader()?;
        libs.extend(of_rows);
        text.push_str(&rows);
    }
    for name in libs {
        let name = match name {
            "reduce" if caps.subgroups => "reduce_subgroup",
            "reduce" => "reduce_workgroup",
            "team" if caps.subgroups => "team_subgroup",
            "team" => "team_workgroup",
            name => name,
        };
        let lib = LIBS.iter().find(|lib| lib.name == name).ok_or_else(|| format!("no library {name}"))?;
        text.push_str(lib.text);
        bindings = bindings.and(lib.bindings);
    }
    text.push_str(op.text);
    Ok((text, bindings))
}

/// Values of a kernel's `var<immediate>`: 32-bit words in the order of the op file's `Params`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Immediates(Vec<u32>);

impl Immediates {
    /// Append an integer.
    pub(crate) fn u(mut self, value: usize) -> Immediates {
        self.0.push(value as u32);
        self
    }
    /// Append a float.
    pub(crate) fn f(mut self, value: f32) -> Immediates {
        self.0.push(value.to_bits());
        self
    }
    /// Replace the word at `index`.
    pub(crate) fn set(&mut self, index: usize, value: u32) {
        if let Some(word) = self.0.get_mut(index) {
            *word = value;
        }
    }
    /// As bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        debug_assert!(self.0.len() * 4 <= IMMEDIATE_BYTES as usize);
        bytemuck::cast_slice(&self.0)
    }
}
