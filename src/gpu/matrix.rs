//! Which kernel multiplies by a matrix, and what it is told: from formats, shapes and places to keys, immediates and workgroups.

use std::ops::Range;

use chaski_gguf::Format;

use super::device::Caps;
use super::formats::{FormatRow, Kind};
use super::layout::Layout;
use super::shader::{Immediates, KernelKey};
use crate::graph::Activation;

/// Vectors that `matvec` multiplies at once, at most; more are `matmul`'s.
pub(crate) const MAX_COLUMNS: usize = 8;
/// Threads of a workgroup of `matvec`.
const MATVEC_THREADS: usize = 128;
/// Rows and columns of a tile of `matmul`.
const TILE: usize = 64;
/// Threads of a workgroup of `matmul` and of `get_rows`.
const MATMUL_THREADS: usize = 256;
/// Threads of a workgroup of `quantize_bytes`: few, so that a single vector is spread over the device.
#[cfg(test)]
const QUANTIZE_THREADS: usize = 32;
/// Experts of a layer, at most, whose slots `expert_tiles` brings together.
const MAX_EXPERTS: usize = 1024;
/// From so many slots an expert on, tiles are worth more than matrices read once a slot.
const TILES_FROM: usize = 4;
/// From so many rows on, a team of `matvec` takes two: below, more workgroups are worth more than activations read once for two.
const TWO_ROWS_FROM: usize = 4096;

/// A kernel and what it runs with.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) key: KernelKey,
    pub(crate) immediates: Immediates,
    pub(crate) groups: usize,
    /// Which of the product's matrices it binds.
    pub(crate) parts: Range<usize>,
    /// Bytes of memory that it shares with the other kernels of its product.
    pub(crate) scratch: usize,
}

/// Rows of a matrix that lie in one buffer.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_field_names, reason = "rows is what the field counts")]
pub(crate) struct Rows {
    pub(crate) format: Format,
    /// Values of a row.
    pub(crate) k: usize,
    /// The first row, counted over all of the tensor.
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// Where rows of values lie in the arena, in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: usize,
    /// From one row to the next.
    pub(crate) stride: usize,
}

/// One of the matrices of a product, with what becomes of its results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) rows: Rows,
    /// Where the results of the whole tensor go: those of a shard begin at its first row.
    pub(crate) out: Place,
    /// A bias for the whole tensor, among the vectors.
    pub(crate) bias: Option<usize>,
}

/// Vectors that are normalised before they are multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    /// The norm's weights, among the vectors.
    pub(crate) at: usize,
    /// Added to the mean square.
    pub(crate) eps: f32,
}

/// Which expert's matrix each vector meets.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_field_names, reason = "experts is what the field counts")]
pub(crate) struct Experts {
    /// The file of `shaders/lib` that reads the numbers, and where they begin.
    pub(crate) ids: (&'static str, usize),
    /// Experts of the layer, and rows of one.
    pub(crate) experts: usize,
    pub(crate) rows: usize,
    /// Experts that a token uses.
    pub(crate) used: usize,
    /// Whether each slot has its own vector; else the slots of a token share one.
    pub(crate) x_per_slot: bool,
}

/// Matrices of one format and row length times some vectors.
#[derive(Debug, Clone)]
pub(crate) struct Product<'a> {
    /// One to three matrices; with `glu`, gate and up, and the results are those of the first.
    pub(crate) parts: &'a [Part],
    /// The vectors, and how many: tokens, or with experts slots of all tokens.
    pub(crate) x: Place,
    pub(crate) columns: usize,
    pub(crate) norm: Option<Norm>,
    pub(crate) glu: Option<Activation>,
    /// Values that are added to the results, for the whole tensor.
    pub(crate) add: Option<Place>,
    pub(crate) experts: Option<Experts>,
    /// Whether the vectors are signed bytes, as [`quantize`] leaves them; for formats of blocks.
    pub(crate) bytes: bool,
}

/// Words from one vector of `k` signed bytes to the next: the bytes, and a scale for each 32.
#[cfg(test)]
pub(crate) fn bytes_stride(k: usize) -> usize {
    (k / 4 + k / 32).next_multiple_of(4)
}

/// Round `columns` vectors of `k` values to signed bytes, [`bytes_stride`] apart. All places are multiples of four words.
#[cfg(test)]
pub(crate) fn quantize(k: usize, x: Place, columns: usize, out: usize) -> Result<Kernel, String> {
    if !k.is_multiple_of(32) || [x.at, x.stride, out].iter().any(|at| !at.is_multiple_of(4)) {
        return Err(format!("no kernel rounds rows of {k} values at these places"));
    }
    let key = KernelKey::new("quantize_bytes").with("WG", QUANTIZE_THREADS);
    let im = Immediates::default().u(k / 32).u(columns).u(x.at).u(x.stride).u(out).u(bytes_stride(k));
    Ok(Kernel {
        key,
        immediates: im,
        groups: (columns * k / 32).div_ceil(QUANTIZE_THREADS),
        parts: 0..0,
        scratch: 0,
    })
}

/// How a row of `k` values is counted: its stride, and the libraries and constants that a kernel takes for it.
struct Counting {
    stride: usize,
    /// Whether a row ends within an item of 32.
    tail: bool,
    x_lib: &'static str,
}

impl Counting {
    fn of(rows: &Rows, x: Option<Place>) -> Result<Counting, String> {
        let layout = Layout::of(rows.format, rows.k);
        let layout = layout.ok_or_else(|| format!("no shader reads rows of {} {}", rows.k, rows.format))?;
        let tail = !rows.k.is_multiple_of(32);
        let whole = x.is_none_or(|x| x.at.is_multiple_of(4) && x.stride.is_multiple_of(4));
        Ok(Counting {
            stride: layout.stride(),
            tail,
            x_lib: if tail || !whole { "x_words" } else { "x_vectors" },
        })
    }
}

/// A key with a format and what its rows need.
fn keyed(op: &'static str, threads: usize, rows: &Rows, counting: &Counting) -> Result<KernelKey, String> {
    let row = FormatRow::of(rows.format).ok_or_else(|| format!("no shader decodes {}", rows.format))?;
    let key = KernelKey::new(op).format(rows.format).with("WG", threads);
    Ok(match row.kind {
        Kind::Blocks => key,
        Kind::Floats => key.with("W_TAIL", usize::from(counting.tail)),
    })
}

/// `ids.len()` rows by number, one after the other at `out`. Those outside of `rows` are left alone: each shard writes its own.
pub(crate) fn get_rows(
    rows: &Rows,
    (ids_lib, ids_at): (&'static str, usize),
    n: usize,
    out: usize,
) -> Result<Kernel, String> {
    let counting = Counting::of(rows, None)?;
    let key = ids(keyed("get_rows", MATMUL_THREADS, rows, &counting)?, ids_lib);
    let immediates = Immediates::default().u(rows.k).u(counting.stride).u(rows.first).u(rows.rows);
    let immediates = immediates.u(n).u(ids_at).u(out);
    Ok(Kernel {
        key,
        immediates,
        groups: (n * rows.k.div_ceil(16)).div_ceil(MATMUL_THREADS),
        parts: 0..1,
        scratch: 0,
    })
}

/// The kernels of a product, in order: `matvec`, or `matmul` for every part, or what brings slots together and then `matmul`.
///
/// # Errors
/// No kernel computes it, with the reason.
pub(crate) fn product(p: &Product, caps: Caps) -> Result<Vec<Kernel>, String> {
    let tiled = match p.experts {
        None => p.columns > MAX_COLUMNS,
        Some(e) => p.columns >= TILES_FROM * e.experts && e.experts <= MAX_EXPERTS,
    };
    if !tiled {
        return Ok(vec![matvec(p, caps)?]);
    }
    if p.bytes || p.norm.is_some() || p.glu.is_some() {
        return Err(format!(
            "no kernel normalises, rounds or activates {} columns with their product",
            p.columns
        ));
    }
    let Some(experts) = p.experts else {
        return (0..p.parts.len()).map(|number| matmul(p, number, None, caps)).collect();
    };
    if p.parts.len() != 1 {
        return Err("no kernel takes experts of several matrices".into());
    }
    let tiles = p.columns / TILE + experts.experts;
    let scratch = (3 * tiles + p.columns) * 4;
    let key = KernelKey::new("expert_tiles").with("WG", MATMUL_THREADS).with("EXPERTS", experts.experts);
    let immediates = Immediates::default().u(p.columns).u(experts.ids.1).u(experts.experts).u(tiles);
    let key = ids(key, experts.ids.0);
    let sort = Kernel { key, immediates, groups: 1, parts: 0..0, scratch };
    Ok(vec![sort, Kernel { scratch, ..matmul(p, 0, Some((&experts, tiles)), caps)? }])
}

/// The library that reads numbers, with what it takes.
fn ids(key: KernelKey, lib: &'static str) -> KernelKey {
    if lib == "ids_inputs" { key.lib(lib).lib("inputs") } else { key.lib(lib) }
}

fn matvec(p: &Product, caps: Caps) -> Result<Kernel, String> {
    let first = p.parts.first().ok_or("a product of no matrix")?;
    let rows = &first.rows;
    if p.parts.len() > 3 || p.parts.iter().any(|q| (q.rows.format, q.rows.k) != (rows.format, rows.k)) {
        return Err("matrices of different kinds".into());
    }
    if p.glu.is_some() && (p.parts.len() != 2 || p.parts[1].rows.rows != rows.rows) {
        return Err("gate and up are not alike".into());
    }
    if p.parts.len() > 1 && p.glu.is_none() && (p.experts.is_some() || p.add.is_some()) {
        return Err("no kernel adds to, or takes experts of, several matrices".into());
    }
    let counting = Counting::of(rows, Some(p.x))?;
    if p.bytes && (counting.tail || counting.x_lib != "x_vectors" || rows.format.info().block_len == 1) {
        return Err(format!(
            "no kernel multiplies rows of {} {} by bytes at these places",
            rows.k, rows.format
        ));
    }
    let lanes = (caps.lanes as usize).clamp(1, MATVEC_THREADS);
    let teams = MATVEC_THREADS / lanes;
    let columns = if p.experts.is_some() { 1 } else { p.columns };
    // The rows of an expert are counted within it; else a shard's results begin at its first row.
    let counted = |part: &Part| p.experts.map_or((part.rows.rows, part.rows.first), |e| (e.rows, 0));
    let (of_team, per_team) = match p.glu {
        Some(_) => (2, 1),
        None if p.parts.iter().all(|q| counted(q).0 >= TWO_ROWS_FROM) => (2, 2),
        None => (1, 1),
    };
    let slots = columns * of_team + if p.norm.is_some() { columns } else { 0 };
    let biased = p.parts.iter().any(|q| q.bias.is_some());
    if biased && !p.parts.iter().all(|q| q.bias.is_some()) {
        return Err("only some of the matrices have a bias".into());
    }
    let glu = match p.glu {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::GeluTanh) => 2,
    };
    let mut key = keyed("matvec", MATVEC_THREADS, rows, &counting)?
        .with("LANES", lanes)
        .with("SLOTS", slots)
        .with("COLS", columns)
        .with("ROWS", of_team)
        .with("PARTS", p.parts.len())
        .with("NORM", usize::from(p.norm.is_some()))
        .with("GLU", glu)
        .with("ADD", usize::from(p.add.is_some()))
        .with("BIAS", usize::from(biased))
        .with("EXPERTS", usize::from(p.experts.is_some()))
        .lib(if p.bytes { "multiply_bytes" } else { "multiply_floats" })
        .lib(["weight", "weight2", "weight3"][p.parts.len() - 1]);
    key = vectors(key, p.norm.is_some() || biased);
    if !p.bytes {
        key = key.lib(counting.x_lib);
    }
    key = match p.experts {
        None => key.lib("ids_none"),
        Some(e) => ids(key, e.ids.0),
    };
    let norm = p.norm.unwrap_or(Norm { at: 0, eps: 0.0 });
    let add = p.add.unwrap_or(Place { at: 0, stride: 0 });
    let mut im = Immediates::default().u(rows.k).u(rows.k.div_ceil(32)).u(counting.stride);
    im = im.u(p.x.at).u(p.x.stride).u(norm.at).f(norm.eps);
    im = im.u(add.at + counted(first).1).u(add.stride);
    im = match p.experts {
        None => im.u(0).u(0).u(0).u(0).u(0).u(0).u(0),
        Some(e) if e.rows > 0 && e.used > 0 => {
            let (first, n) = (rows.first / e.rows, rows.rows / e.rows);
            im.u(first).u(n).u(e.rows).u(e.ids.1).u(e.used).u(p.columns).u(usize::from(e.x_per_slot))
        }
        Some(_) => return Err("experts without rows".into()),
    };
    let per_group = teams * per_team;
    let mut groups = 0;
    for i in 0..3 {
        let Some(part) = p.parts.get(i) else {
            im = im.u(0).u(0).u(0).u(0);
            continue;
        };
        let (rows, begin) = counted(part);
        im = im.u(rows).u(part.out.at + begin).u(part.out.stride).u(part.bias.unwrap_or(0) + begin);
        if i == 0 || p.glu.is_none() {
            groups += rows.div_ceil(per_group);
        }
    }
    if p.experts.is_some() {
        groups *= p.columns;
    }
    Ok(Kernel { key, immediates: im, groups, parts: 0..p.parts.len(), scratch: 0 })
}

/// The matrix of one part; with experts, and the number of tiles that their slots are cut into.
fn matmul(
    p: &Product,
    number: usize,
    experts: Option<(&Experts, usize)>,
    caps: Caps,
) -> Result<Kernel, String> {
    let part = &p.parts[number];
    let rows = &part.rows;
    let counting = Counting::of(rows, Some(p.x))?;
    let halves = caps.f16 && !matches!(rows.format, Format::F32 | Format::BF16);
    let key = keyed("matmul", MATMUL_THREADS, rows, &counting)?
        .with("ADD", usize::from(p.add.is_some()))
        .with("BIAS", usize::from(part.bias.is_some()))
        .lib(counting.x_lib)
        .lib("weight")
        .lib(if halves { "tile_f16" } else { "tile_f32" });
    let mut key = vectors(key, part.bias.is_some());
    key = if experts.is_some() { key.lib("columns_experts").lib("scratch") } else { key.lib("columns_all") };
    let add = p.add.unwrap_or(Place { at: 0, stride: 0 });
    // The rows of an expert are counted within it; else a shard's results begin at its first row.
    let (of_one, begin) = experts.map_or((rows.rows, rows.first), |(e, _)| (e.rows, 0));
    let im = Immediates::default().u(rows.k).u(rows.k.div_ceil(32)).u(counting.stride);
    let im = im.u(of_one).u(p.columns).u(p.x.at).u(p.x.stride);
    let im = im.u(part.out.at + begin).u(part.out.stride).u(add.at + begin).u(add.stride);
    let im = im.u(part.bias.unwrap_or(0) + begin);
    let (im, column_tiles) = match experts {
        None => (im.u(0).u(0).u(0).u(0).u(0), p.columns.div_ceil(TILE)),
        Some((e, tiles)) if e.rows > 0 && e.used > 0 => {
            let im = im.u(rows.first / e.rows).u(rows.rows / e.rows).u(e.used).u(usize::from(e.x_per_slot));
            (im.u(tiles), tiles)
        }
        Some(_) => return Err("experts without rows".into()),
    };
    Ok(Kernel {
        key,
        immediates: im,
        groups: of_one.div_ceil(TILE) * column_tiles,
        parts: number..number + 1,
        scratch: 0,
    })
}

/// The library that reads norms and biases, or the one that has none, so that no buffer need be bound.
fn vectors(key: KernelKey, any: bool) -> KernelKey {
    if any { key.lib("vectors").lib("vectors_one") } else { key.lib("vectors_none") }
}
