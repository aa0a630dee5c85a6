//! Heads of q, k and v on their way to attention, computed together: norms, rotary embedding, and the write into the cache.

use super::kv::format_of;
use super::{Dispatch, Planner, Result};
use crate::gpu::cache::CacheUse;
use crate::gpu::shader::{Immediates, KernelKey};
use crate::gpu::weight::{Vector, together};
use crate::graph::{NodeId, Op, RopePairs};

/// Threads of a workgroup, which takes a head.
const THREADS: usize = 64;

/// Where q, k and v come from and what is done to them.
pub(crate) struct Heads {
    /// What q, k and v are before their norms and turns.
    pub(crate) x: [NodeId; 3],
    /// The norms of q and k: the node of the weights, and what is added to the mean square.
    pub(crate) norms: [Option<(NodeId, f32)>; 2],
    pub(crate) pairs: RopePairs,
    pub(crate) table: NodeId,
    /// The turned q: its value is stored.
    pub(crate) q: NodeId,
}

/// The dispatch; the planner stands at the write.
pub(crate) fn dispatch(p: &Planner, heads: &Heads) -> Result<Dispatch> {
    let graph = p.segment.graph;
    let (op, kv) = p.kv(2)?;
    let Op::Kv { n_head_kv, d_k, .. } = *op else { return Err("writes to no cache".into()) };
    let format = format_of(kv)?;
    let [_, q_heads, tokens, _] = graph.node(heads.q).shape.0;
    let norms = heads.norms.map(|norm| {
        norm.map(|(weight, eps)| super::vector_of(p.segment, weight).map(|vector| (vector, eps))).transpose()
    });
    let [q_norm, k_norm] = norms;
    let (q_norm, k_norm) = (q_norm?, k_norm?);
    let vectors: Vec<&Vector> = q_norm.iter().chain(&k_norm).map(|(vector, _)| vector).collect();
    let (buffer, places) = if vectors.is_empty() {
        (None, Vec::new())
    } else {
        let (buffer, places) = together(p.device, &vectors).map_err(|e| e.to_string())?;
        (Some(buffer), places)
    };
    let mut places = places.into_iter();
    let mut place = |norm: &Option<(Vector, f32)>| norm.as_ref().and_then(|_| places.next()).unwrap_or(0);
    let (q_at, k_at) = (place(&q_norm), place(&k_norm));
    let eps = |norm: &Option<(Vector, f32)>| norm.as_ref().map_or(0.0, |(_, eps)| *eps);
    let (cells, ids) = p.ids(3)?;
    if ids != "ids_inputs" {
        return Err("its cells are not of the batch".into());
    }
    let [q, k, v] = heads.x;
    let at = Immediates::default().u(p.place(q)?).u(p.place(k)?).u(p.place(v)?).u(p.place(heads.table)?);
    let at = at.u(p.place(heads.q)?).u(cells).u(tokens).u(graph.node(heads.table).shape.row()).u(kv.capacity);
    let scales = format.scales(n_head_kv * kv.capacity, d_k);
    let at = at.u(scales).u(scales).u(q_at).u(k_at).f(eps(&q_norm)).f(eps(&k_norm));
    let key = KernelKey::new("rope_write").with("WG", THREADS).with("DIM", d_k).with("Q_HEADS", q_heads);
    let key = key.with("KV_HEADS", n_head_kv);
    let key = key.with("NORM_Q", usize::from(q_norm.is_some())).with("NORM_K", usize::from(k_norm.is_some()));
    let key = key.lib("cache_both").cache(CacheUse::Writes(format.format)).lib(match heads.pairs {
        RopePairs::Adjacent => "rope_adjacent",
        RopePairs::Halves => "rope_halves",
    });
    let key = if buffer.is_some() { key.lib("vectors").lib("vectors_one") } else { key.lib("vectors_none") };
    let groups = tokens * (q_heads + 2 * n_head_kv);
    Ok(Dispatch { vectors: buffer, kv: Some(kv.clone()), ..Dispatch::new(key, at, groups) })
}
