//! The cache: K and V rows rounded and written, and attention over them.
//!
//! Rows of quantized formats lie in two planes: the quants of all rows, then the scales of all rows, two in a word. They take
//! the same bytes as the blocks of [`KvFormat`], so that no seam knows of it.

use super::{Dispatch, Planner, Query, Result, WG, kernel};
use crate::backend::{Inputs, KvLayer};
use crate::gpu::shader::{Immediates, KernelKey};
use crate::graph::{Node, Op};
use crate::kv::KvFormat;

/// Threads of a workgroup of attention, which are also the positions that it looks at together.
const TILE: usize = 64;
/// Workgroups that are enough for the largest GPU: no more parts of the positions than give that many.
const ENOUGH: usize = 1024;
/// Parts of the positions, at most.
const MOST_PARTS: usize = 64;
/// The longest row: what a workgroup shares holds a query for four heads.
const MOST_VALUES: usize = 512;
/// Where the number of parts and the positions of one stand among attention's immediates.
const PARTS_AT: usize = 6;

/// A format of the cache that kernels know.
pub(crate) struct Known {
    format: KvFormat,
    pub(crate) write: &'static str,
    k: &'static str,
    v: &'static str,
    /// Words of a block's quants; none for floats, which have no scales.
    quant_words: Option<usize>,
}

const KNOWN: &[Known] = &[
    Known { format: KvFormat::F32, write: "write_f32", k: "k_f32", v: "v_f32", quant_words: None },
    Known { format: KvFormat::F16, write: "write_f16", k: "k_f16", v: "v_f16", quant_words: None },
    Known { format: KvFormat::Q8_0, write: "write_q8_0", k: "k_q8_0", v: "v_q8_0", quant_words: Some(8) },
    Known { format: KvFormat::Q4_0, write: "write_q4_0", k: "k_q4_0", v: "v_q4_0", quant_words: Some(4) },
];

/// The one format of a cache whose K and V rows have the same.
pub(crate) fn format_of(kv: &KvLayer) -> Result<&'static Known> {
    if kv.formats.0 == kv.formats.1 {
        known(kv.formats.0)
    } else {
        Err("K and V have different formats".into())
    }
}

/// Whether kernels know a format.
pub(crate) fn is_known(format: KvFormat) -> bool {
    known(format).is_ok()
}

fn known(format: KvFormat) -> Result<&'static Known> {
    KNOWN.iter().find(|k| k.format == format).ok_or_else(|| format!("no kernel for a cache of {format}"))
}

impl Known {
    /// The word at which the scales of `rows` rows of `dim` values begin.
    pub(crate) fn scales(&self, rows: usize, dim: usize) -> usize {
        self.quant_words.map_or(0, |words| rows * dim.div_ceil(32) * words)
    }
    /// How many threads write a row.
    fn units(&self, dim: usize) -> usize {
        match self.format {
            KvFormat::F32 => dim,
            KvFormat::F16 => dim.div_ceil(2),
            _ => dim.div_ceil(32).div_ceil(2),
        }
    }
}

/// Whether the cache that a node reads or writes is one that kernels know.
pub(super) fn supports(q: &Query, input: usize) -> Result<()> {
    let id = *q.node().inputs.get(input).ok_or("has no cache")?;
    let leaf = q.graph.kv_leaf(id).ok_or("reads no cache")?;
    let Node { op: Op::Kv { k, v, d_k, d_v, .. }, .. } = *q.graph.node(leaf) else {
        return Err("reads no cache".into());
    };
    known(k)?;
    known(v)?;
    for d in [d_k, d_v] {
        if d % 4 != 0 || d > MOST_VALUES || d == 0 {
            return Err(format!("no kernel for heads of {d} values"));
        }
    }
    Ok(())
}

pub(super) fn write(p: &Planner) -> Result<Vec<Dispatch>> {
    let (op, kv) = p.kv(2)?;
    let Op::Kv { n_head_kv, d_k, d_v, .. } = *op else { return Err("writes to no cache".into()) };
    let (cells, ids) = p.ids(3)?;
    let tokens = p.shape(0)?.0[2];
    let one = |input, d, format, cache| -> Result<Dispatch> {
        let format = known(format)?;
        let units = tokens * n_head_kv * format.units(d);
        let at = Immediates::default().u(p.src(input)?).u(cells).u(units).u(n_head_kv).u(kv.capacity);
        let at = at.u(format.scales(n_head_kv * kv.capacity, d));
        let key = kernel("kv_write").lib(ids).lib(cache).lib(format.write).with("DIM", d);
        Ok(Dispatch { kv: Some(kv.clone()), ..Dispatch::new(key, at, units.div_ceil(WG)) })
    };
    Ok(vec![one(0, d_k, kv.formats.0, "cache_k")?, one(1, d_v, kv.formats.1, "cache_v")?])
}

/// The most parts that positions are cut into.
fn most_parts(workgroups: usize) -> usize {
    (ENOUGH / workgroups.max(1)).clamp(1, MOST_PARTS)
}

/// How many parts the positions are cut into, and the positions of each: `longest` is what a token sees at most.
fn parts(longest: usize, workgroups: usize) -> (usize, usize) {
    let tiles = longest.div_ceil(TILE).max(1);
    let wanted = most_parts(workgroups).min(tiles);
    let part = tiles.div_ceil(wanted);
    (tiles.div_ceil(part), part * TILE)
}

/// The longest stretch of positions that a token of the batch sees.
fn longest(inputs: &Inputs, window: Option<u32>) -> usize {
    let visible = inputs.visible.iter().find(|(w, _)| *w == window);
    let tokens = visible.map_or(&[][..], |(_, visible)| &visible.tokens);
    tokens.iter().map(|view| view.to.saturating_sub(view.from)).max().unwrap_or(0) as usize
}

pub(super) fn attention(
    p: &Planner,
    n_head: usize,
    scale: f32,
    softcap: Option<f32>,
) -> Result<Vec<Dispatch>> {
    let (op, kv) = p.kv(1)?;
    let Op::Kv { n_head_kv, d_k, d_v, .. } = *op else { return Err("reads no cache".into()) };
    let KvLayer { formats: (k, v), capacity, .. } = *kv;
    let (k, v) = (known(k)?, known(v)?);
    let (window, views) = p.views(2)?;
    let (tokens, group) = (p.shape(0)?.0[2], n_head / n_head_kv);
    let (heads, heads_lib) = match group {
        1 => (1, "heads_1"),
        2 => (2, "heads_2"),
        _ => (4, "heads_4"),
    };
    let chunks = group.div_ceil(heads);
    let shaped = |key: KernelKey| {
        let key = key.with("KV_HEADS", n_head_kv).with("GROUP", group).with("CHUNKS", chunks);
        key.with("DK", d_k).with("DV", d_v)
    };
    let rows = n_head_kv * capacity;
    let out = p.dst()?;
    let at = Immediates::default().u(p.src(0)?).u(out).u(views).u(p.inputs.spans());
    // The parts and the positions of each follow from the batch.
    let at = at.u(tokens).u(capacity).u(1).u(TILE).f(scale).f(softcap.unwrap_or(0.0));
    let at = at.u(k.scales(rows, d_k)).u(v.scales(rows, d_v));
    let workgroups = tokens * n_head_kv * chunks;
    let key = shaped(KernelKey::new("attention").with("WG", TILE)).lib(heads_lib).lib(k.k).lib(v.v);
    let most = most_parts(workgroups);
    let scratch = if most == 1 { 4 } else { workgroups * most * heads * (d_v + 2) * 4 };
    let how = format!("{}, {}", k.format, v.format);
    let walk = Dispatch {
        kv: Some(kv.clone()),
        scratch,
        how: how.clone(),
        adapt: Some(Box::new(move |inputs, at| {
            let (parts, part) = parts(longest(inputs, window), workgroups);
            at.set(PARTS_AT, parts as u32);
            at.set(PARTS_AT + 1, part as u32);
            workgroups * parts
        })),
        ..Dispatch::new(key, at, workgroups)
    };
    let values = tokens * n_head * d_v;
    let key = shaped(kernel("attention_merge")).with("HEADS", heads);
    let merge = Dispatch {
        scratch,
        how,
        adapt: Some(Box::new(move |inputs, at| {
            let (parts, _) = parts(longest(inputs, window), workgroups);
            at.set(2, parts as u32);
            if parts == 1 { 0 } else { values.div_ceil(WG) }
        })),
        ..Dispatch::new(key, Immediates::default().u(out).u(tokens).u(1), 0)
    };
    Ok(vec![walk, merge])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_cut_into_whole_tiles_that_cover_all() {
        for workgroups in [1, 8, 64, 500, 1024, 100_000] {
            for longest in [0, 1, 63, 64, 65, 1000, 4096, 100_000] {
                let (parts, part) = parts(longest, workgroups);
                assert!((1..=MOST_PARTS).contains(&parts), "{workgroups} x {longest}: {parts}");
                assert_eq!(part % TILE, 0);
                assert!(parts * part >= longest && (parts - 1) * part < longest.max(1));
                assert!(parts == 1 || parts * workgroups <= ENOUGH);
            }
        }
    }

    #[test]
    fn planes_take_the_bytes_of_the_format() {
        for known in KNOWN {
            for dim in (4..300).step_by(4) {
                let rows = 6;
                let bytes = rows * known.format.row_bytes(dim);
                let words = match known.quant_words {
                    None => rows * known.units(dim),
                    Some(_) => known.scales(rows, dim) + rows * known.units(dim),
                };
                assert_eq!(words * 4, bytes, "{} of {dim}", known.format);
            }
        }
    }
}
