//! Which kernel multiplies by a matrix, and what it is told: from formats, shapes and places to keys, immediates and workgroups.

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
/// From so many rows on, a team of `matvec` takes two: below, more workgroups are worth more than activations read once for two.
const TWO_ROWS_FROM: usize = 4096;

/// A kernel and what it runs with.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) key: KernelKey,
    pub(crate) immediates: Immediates,
    pub(crate) groups: usize,
}

/// Rows of a matrix that lie in one buffer.
#[derive(Debug, Clone, Copy)]
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
pub(crate) struct Experts {
    /// The file of `shaders/lib` that reads the numbers, and where they begin.
    pub(crate) ids: (&'static str, usize),
    /// Rows of one expert.
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
    let mut key = keyed("get_rows", MATMUL_THREADS, rows, &counting)?.lib(ids_lib);
    if ids_lib == "ids_inputs" {
        key = key.lib("inputs");
    }
    let immediates = Immediates::default().u(rows.k).u(counting.stride).u(rows.first).u(rows.rows);
    let immediates = immediates.u(n).u(ids_at).u(out);
    Ok(Kernel { key, immediates, groups: (n * rows.k.div_ceil(16)).div_ceil(MATMUL_THREADS) })
}

/// The kernel of a product; several where it takes `matmul` and there is more than one part.
///
/// # Errors
/// No kernel computes it, with the reason.
pub(crate) fn product(p: &Product, caps: Caps) -> Result<Vec<Kernel>, String> {
    if p.columns <= MAX_COLUMNS || p.experts.is_some() {
        return Ok(vec![matvec(p, caps)?]);
    }
    if p.norm.is_some() || p.glu.is_some() {
        return Err(format!("no kernel normalises or activates {} columns with their product", p.columns));
    }
    p.parts.iter().map(|part| matmul(p, part, caps)).collect()
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
    let lanes = caps.lanes as usize;
    let teams = MATVEC_THREADS / lanes;
    let columns = if p.experts.is_some() { 1 } else { p.columns };
    let (of_team, per_team) = match p.glu {
        Some(_) => (2, 1),
        None if p.parts.iter().all(|q| q.rows.rows >= TWO_ROWS_FROM) => (2, 2),
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
        .lib(counting.x_lib)
        .lib(["weight", "weight2", "weight3"][p.parts.len() - 1]);
    key = vectors(key, p.norm.is_some() || biased);
    key = match p.experts {
        None => key.lib("ids_none"),
        Some(e) if e.ids.0 == "ids_inputs" => key.lib("ids_inputs").lib("inputs"),
        Some(e) => key.lib(e.ids.0),
    };
    let norm = p.norm.unwrap_or(Norm { at: 0, eps: 0.0 });
    let add = p.add.unwrap_or(Place { at: 0, stride: 0 });
    let mut im = Immediates::default().u(rows.k).u(rows.k.div_ceil(32)).u(counting.stride);
    im = im.u(p.x.at).u(p.x.stride).u(norm.at).f(norm.eps);
    // The rows of an expert are counted within it; else a shard's results begin at its first row.
    let (expert_rows, shift) = match p.experts {
        None => (0, [0, 1]),
        Some(e) => (e.rows, [1, 0]),
    };
    im = im.u(add.at + shift[1] * rows.first).u(add.stride);
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
        let rows = if shift[0] == 1 { expert_rows } else { part.rows.rows };
        let begin = shift[1] * part.rows.first;
        im = im.u(rows).u(part.out.at + begin).u(part.out.stride).u(part.bias.unwrap_or(0) + begin);
        if i == 0 || p.glu.is_none() {
            groups += rows.div_ceil(per_group);
        }
    }
    if p.experts.is_some() {
        groups *= p.columns;
    }
    Ok(Kernel { key, immediates: im, groups })
}

fn matmul(p: &Product, part: &Part, caps: Caps) -> Result<Kernel, String> {
    let rows = &part.rows;
    let counting = Counting::of(rows, Some(p.x))?;
    let key = keyed("matmul", MATMUL_THREADS, rows, &counting)?
        .with("ADD", usize::from(p.add.is_some()))
        .with("BIAS", usize::from(part.bias.is_some()))
        .lib(counting.x_lib)
        .lib("weight")
        .lib(if caps.f16 && !matches!(rows.format, Format::F32 | Format::BF16) {
            "tile_f16"
        } else {
            "tile_f32"
        });
    let key = vectors(key, part.bias.is_some());
    let add = p.add.unwrap_or(Place { at: 0, stride: 0 });
    let im = Immediates::default().u(rows.k).u(rows.k.div_ceil(32)).u(counting.stride);
    let im = im.u(rows.rows).u(p.columns).u(p.x.at).u(p.x.stride);
    let im = im.u(part.out.at + rows.first).u(part.out.stride).u(add.at + rows.first).u(add.stride);
    let im = im.u(part.bias.unwrap_or(0) + rows.first);
    Ok(Kernel { key, immediates: im, groups: rows.rows.div_ceil(TILE) * p.columns.div_ceil(TILE) })
}

/// The library that reads norms and biases, or the one that has none, so that no buffer need be bound.
fn vectors(key: KernelKey, any: bool) -> KernelKey {
    if any { key.lib("vectors").lib("vectors_one") } else { key.lib("vectors_none") }
}
