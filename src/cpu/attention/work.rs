//! How an attention is cut into chunks that threads take in any order.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kernels::{Kernels, kernels, width};
use super::unit::{Scratch, Unit, positions};
use super::{AttentionParams, KvRows, SPLIT};
use crate::cpu::isa::Isa;
use crate::kv::Visible;

/// Queries of a unit at most (one token's group where that is more): their sums share a second-level cache with the rows.
const QUERIES: usize = 256;

/// Tokens of a unit: the most, and what units are not cut below for the sake of their number.
const TOKENS: RangeInclusive<usize> = 16..=64;

/// Below this many units, splits of the positions become chunks of their own.
const UNITS: usize = 64;

/// Numbers that the splits' results may take: 16 MiB. Past that, units walk their splits one after the other.
const PARTIALS: usize = 4 << 20;

/// Neighbouring tokens of a batch that look at the same list of cells.
#[derive(Debug, Clone, Copy)]
struct Tokens {
    first: usize,
    n: usize,
    /// The splits of the positions that they see: at least one, which may be empty.
    first_split: u32,
    splits: u32,
    /// Chunks and partial results before these tokens'.
    chunks_before: usize,
    partials_before: usize,
}

/// The plan of an attention for one batch, with the memory that its chunks share. It is made anew for every batch, without
/// giving memory back, and does not depend on the number of threads.
pub struct Work {
    kernels: &'static Kernels,
    tiles: Vec<Tokens>,
    chunks: usize,
    /// Whether splits are chunks of their own.
    pub(super) apart: bool,
    /// Results of splits, as the bits of f32: for each query of a unit and split the maximum, the sum and `d_v` sums.
    partials: Vec<AtomicU32>,
    /// For every unit how many of its splits are done.
    done: Vec<AtomicU32>,
}

impl Work {
    /// An empty plan for an instruction set.
    ///
    /// # Panics
    /// Where this machine does not have it.
    pub fn new(isa: Isa) -> Work {
        Work {
            kernels: kernels(isa),
            tiles: Vec::new(),
            chunks: 0,
            apart: false,
            partials: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Cut the attention of a batch into chunks; gives their number.
    pub fn prepare(&mut self, visible: &Visible, params: &AttentionParams) -> usize {
        let group = params.group();
        let enough = visible.tokens.len() * params.n_head_kv / UNITS;
        let most = enough.clamp(*TOKENS.start(), *TOKENS.end()).min(QUERIES / group).max(1);
        self.tiles.clear();
        let mut first = 0;
        let mut splits_of_all = 0;
        let mut partials = 0;
        for run in visible.tokens.chunk_by(|a, b| a.list == b.list) {
            for views in run.chunks(most) {
                let seen = positions(views);
                let first_split = seen.start / SPLIT;
                let splits = seen.end.div_ceil(SPLIT).saturating_sub(first_split).max(1);
                self.tiles.push(Tokens {
                    first,
                    n: views.len(),
                    first_split,
                    splits,
                    chunks_before: splits_of_all,
                    partials_before: partials,
                });
                first += views.len();
                splits_of_all += splits as usize * params.n_head_kv;
                partials += splits as usize * views.len() * params.n_head * (2 + width(params.d_v));
            }
        }
        let units = self.tiles.len() * params.n_head_kv;
        self.apart = units < UNITS && splits_of_all > units && partials <= PARTIALS;
        self.chunks = if self.apart { splits_of_all } else { units };
        if self.apart {
            if self.partials.len() < partials {
                self.partials.resize_with(partials, AtomicU32::default);
            }
            self.done.clear();
            self.done.resize_with(units, AtomicU32::default);
        }
        self.chunks
    }

    /// The number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Compute one chunk of the plan. `q` is `[d_k, n_head, n]`; each chunk calls `emit(token, head, row)` once for every
    /// result that it finishes, `d_v` values; together the chunks emit each token and query head once. Everything
    /// but `chunk` and `scratch` must be what `prepare` saw, and every chunk is run once.
    ///
    /// # Panics
    /// Where slices are shorter than their shapes say.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        chunk: usize,
        params: &AttentionParams,
        q: &[f32],
        k: &KvRows,
        v: &KvRows,
        visible: &Visible,
        scratch: &mut Scratch,
        emit: &mut dyn FnMut(usize, usize, &[f32]),
    ) {
        let heads = params.n_head_kv;
        let (tile, within) = if self.apart {
            let tile = self.tiles.partition_point(|t| t.chunks_before <= chunk) - 1;
            (tile, chunk - self.tiles[tile].chunks_before)
        } else {
            // Later tokens see more: what takes longest is begun first.
            (self.tiles.len() - 1 - chunk / heads, chunk % heads)
        };
        let tokens = self.tiles[tile];
        let splits = tokens.splits as usize;
        let head = if self.apart { within / splits } else { within };
        let views = &visible.tokens[tokens.first..tokens.first + tokens.n];
        let spans = views.first().map_or(&[][..], |view| visible.list(view.list));
        let unit = Unit { params, kernels: self.kernels, q, k, v, head, first: tokens.first, views, spans };
        unit.pack_queries(scratch);
        let queries = unit.queries();
        let d_v = params.d_v;
        if self.apart && splits > 1 {
            // The results of this unit's splits, in order of position.
            let each = queries * (2 + width(d_v));
            let partials = &self.partials[tokens.partials_before + head * splits * each..][..splits * each];
            let split = within % splits;
            unit.run_split(tokens.first_split + split as u32, scratch);
            let state = &scratch.split;
            let values = state.max.iter().chain(&state.sum).chain(&state.acc);
            for (to, value) in partials[split * each..].iter().zip(values) {
                to.store(value.to_bits(), Ordering::Relaxed);
            }
            // Whoever finishes the last split merges: acquire sees what the others stored before their release.
            if self.done[tile * heads + head].fetch_add(1, Ordering::AcqRel) + 1 < tokens.splits {
                return;
            }
            scratch.total.reset(queries, d_v);
            for partial in partials.chunks_exact(each) {
                let load = |x: &AtomicU32| f32::from_bits(x.load(Ordering::Relaxed));
                for query in 0..queries {
                    let acc = &partial[2 * queries + query * width(d_v)..][..d_v];
                    let (max, sum) = (load(&partial[query]), load(&partial[queries + query]));
                    scratch.total.merge(query, max, sum, acc.iter().map(load), d_v);
                }
            }
        } else {
            scratch.total.reset(queries, d_v);
            for split in 0..tokens.splits {
                unit.run_split(tokens.first_split + split, scratch);
                let (total, state) = (&mut scratch.total, &scratch.split);
                for query in 0..queries {
                    let acc = state.acc[query * width(d_v)..][..d_v].iter().copied();
                    total.merge(query, state.max[query], state.sum[query], acc, d_v);
                }
            }
        }
        let group = params.group();
        for query in 0..queries {
            let (token, head) = (tokens.first + query / group, head * group + query % group);
            emit(token, head, scratch.total.finish(query, head, params));
        }
    }
}
