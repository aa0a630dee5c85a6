//! The cache: K and V rows rounded and written, and attention over them.

use super::{Dispatch, Planner, Query, Result, WG, kernel};
use crate::backend::{Inputs, KvLayer};
use crate::gpu::cache::{CacheRow, CacheUse};
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

/// The one format of a cache whose K and V rows have the same.
pub(crate) fn format_of(kv: &KvLayer) -> Result<&'static CacheRow> {
    if kv.formats.0 == kv.formats.1 {
        known(kv.formats.0)
    } else {
        Err("K and V have different formats".into())
    }
}

fn known(format: KvFormat) -> Result<&'static CacheRow> {
    CacheRow::of(format).ok_or_else(|| format!("no kernel for a cache of {format}"))
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
        let key =
            kernel("kv_write").lib(ids).lib(cache).cache(CacheUse::Writes(format.format)).with("DIM", d);
        Ok(Dispatch { kv: Some(kv.clone()), ..Dispatch::new(key, at, units.div_ceil(WG)) })
    };
    Ok(vec![one(0, d_k, kv.formats.0, "cache_k")?, one(1, d_v, kv.formats.1, "cache_v")?])
}

/// The most parts that positions are cut into, where as many as `reach` leave what the device binds of a buffer.
fn most_parts(workgroups: usize, reach: usize) -> usize {
    (ENOUGH / workgroups.max(1)).min(reach).clamp(1, MOST_PARTS)
}

/// How many parts the positions are cut into, `most` at most, and the positions of each: `longest` is what a token sees at
/// most.
fn parts(longest: usize, most: usize) -> (usize, usize) {
    let tiles = longest.div_ceil(TILE).max(1);
    let wanted = most.min(tiles);
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
    let key = shaped(KernelKey::new("attention").with("WG", TILE)).lib(heads_lib);
    let key = key.cache(CacheUse::Reads(k.format, v.format));
    let left = workgroups * heads * (d_v + 2) * 4;
    let most = most_parts(workgroups, p.device.max_binding() / left.max(1));
    let scratch = if most == 1 { 4 } else { left * most };
    let how = format!("{}, {}", k.format, v.format);
    let walk = Dispatch {
        kv: Some(kv.clone()),
        scratch,
        how: how.clone(),
        adapt: Some(Box::new(move |inputs, at| {
            let (parts, part) = parts(longest(inputs, window), most);
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
            let (parts, _) = parts(longest(inputs, window), most);
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
                for reach in [0, 1, 3, 50, usize::MAX] {
                    let (parts, part) = parts(longest, most_parts(workgroups, reach));
                    assert!((1..=MOST_PARTS).contains(&parts), "{workgroups} x {longest}: {parts}");
                    assert_eq!(part % TILE, 0);
                    assert!(parts * part >= longest && (parts - 1) * part < longest.max(1));
                    assert!(parts == 1 || (parts * workgroups <= ENOUGH && parts <= reach));
                }
            }
        }
    }
}
