//! What a device's kernels reach of one buffer is limited ([`Backend::max_buffer`]). Weights are divided there; a layer's cache
//! with more stays on the CPU, and micro-batches are halved until their intermediates have no more.

use super::reserve::shapes;
use super::{BatchShape, BatchToken, EngineOptions, Result, compile};
use crate::backend::{Backend, Why};
use crate::exec::{Homes, Layout, Lowered};
use crate::graph::Op;
use crate::kv::KvFormat;
use crate::model::Model;

/// Bytes of a layer's K or V rows, of `dim` values each. Saturating: an absurd product is refused as memory that cannot be had.
pub(super) fn rows_bytes(n_ctx: usize, n_head_kv: usize, format: KvFormat, dim: usize) -> usize {
    n_ctx.saturating_mul(n_head_kv).saturating_mul(format.row_bytes(dim))
}

/// Bring the caches of which a device does not reach all rows to the CPU. Gives the nodes that go along, with the reason.
///
/// # Errors
/// The graph of the model cannot be built.
pub(super) fn bring_large_caches(
    model: &Model,
    options: &EngineOptions,
    caches: &mut [usize],
    backends: &[&dyn Backend],
) -> Result<Vec<(String, Why)>> {
    let graph = model.graph(BatchShape { n_tokens: 1, n_out: 1 }, options.kv)?;
    let were = caches.to_vec();
    let mut told = Vec::new();
    for (_, node) in graph.iter() {
        let leaf =
            node.inputs.iter().find_map(|input| graph.kv_leaf(*input)).map(|leaf| &graph.node(leaf).op);
        let Some(Op::Kv { layer, k, v, n_head_kv, d_k, d_v }) = leaf else { continue };
        let Some(backend) = were.get(*layer).filter(|home| **home != 0).and_then(|home| backends.get(*home))
        else {
            continue;
        };
        let most = backend.max_buffer();
        for (what, format, dim) in [("K", *k, *d_k), ("V", *v, *d_v)] {
            let bytes = rows_bytes(options.n_ctx, *n_head_kv, format, dim);
            if bytes > most {
                let why = format!(
                    "a layer's {what} rows take {bytes} bytes for {} tokens, and kernels reach {most} of a buffer",
                    options.n_ctx
                );
                told.push((node.label(), Why(why)));
                caches[*layer] = 0;
                break;
            }
        }
    }
    Ok(told)
}

/// Whether every device reaches all of its arena.
pub(super) fn reaches(layout: &Layout, backends: &[&dyn Backend]) -> bool {
    layout.arena.iter().zip(backends).all(|(bytes, backend)| *bytes <= backend.max_buffer())
}

/// The shapes that memory is had for, lowered and laid out. Where a device does not reach all of the largest arena, micro-batches
/// (`options.n_ubatch`) are halved, down to a single token.
///
/// # Errors
/// The graph of the model cannot be built.
pub(super) fn compile_shapes(
    model: &Model,
    options: &mut EngineOptions,
    homes: &Homes,
    backends: &[&dyn Backend],
) -> Result<Vec<(Lowered, Layout)>> {
    loop {
        let shapes = shapes(options);
        let compiled = shapes.map(|shape| compile(model, options.kv, shape, homes, backends));
        let compiled = compiled.into_iter().collect::<Result<Vec<_>>>()?;
        let n_tokens = shapes[0].n_tokens;
        if n_tokens <= 1 || compiled.iter().all(|(_, layout)| reaches(layout, backends)) {
            return Ok(compiled);
        }
        options.n_ubatch = n_tokens / 2;
    }
}

/// The first half of a micro-batch that is too large.
pub(super) fn half(part: &[BatchToken]) -> &[BatchToken] {
    &part[..part.len().div_ceil(2)]
}
