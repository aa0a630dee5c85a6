//! A unit of work: one K/V head, a few tokens of one list of cells, one split of their positions after the other.

use std::ops::Range;

use super::tile::Kernels;
use super::{AttentionParams, KvRows, SPLIT, TILE};
use crate::cpu::vector::Vector;
use crate::kv::{Span, View};

/// Rows that are decoded at a time: 16 rows of 128 values are 8 KiB and stay in the first-level cache.
const ROWS: usize = 16;

/// A thread's memory for attention; it grows to what the largest unit needs and is then reused.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Decoded rows.
    rows: Vec<f32>,
    /// Scores of a tile: `TILE` for each query.
    scores: Vec<f32>,
    /// The softmax of the split at hand and that of all splits before it.
    pub(super) split: State,
    pub(super) total: State,
}

/// An unfinished softmax of several queries: `acc = sum(exp(s - max) v)`, `sum = sum(exp(s - max))`.
#[derive(Debug, Default)]
pub(super) struct State {
    pub max: Vec<f32>,
    pub sum: Vec<f32>,
    /// `d_v` values for each query.
    pub acc: Vec<f32>,
}

impl State {
    /// The state of `queries` queries that have seen nothing.
    pub fn reset(&mut self, queries: usize, d_v: usize) {
        self.max.clear();
        self.max.resize(queries, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(queries, 0.0);
        self.acc.clear();
        self.acc.resize(queries * d_v, 0.0);
    }

    /// Add what a later split of positions has seen to query `query`.
    pub fn merge(&mut self, query: usize, max: f32, sum: f32, acc: impl Iterator<Item = f32>, d_v: usize) {
        // A sum of 0 means that the query saw no cell: the largest exponential of any other is 1.
        if sum == 0.0 {
            return;
        }
        let both = self.max[query].max(max);
        let (old, new) = ((self.max[query] - both).exp(), (max - both).exp());
        self.max[query] = both;
        self.sum[query] = self.sum[query] * old + sum * new;
        for (a, b) in self.acc[query * d_v..][..d_v].iter_mut().zip(acc) {
            *a = *a * old + b * new;
        }
    }

    /// The finished result of query `query`, a query of head `head`, in its place in `acc`.
    pub fn finish(&mut self, query: usize, head: usize, p: &AttentionParams) -> &[f32] {
        let acc = &mut self.acc[query * p.d_v..][..p.d_v];
        let (max, mut sum) = (self.max[query], self.sum[query]);
        if sum == 0.0 {
            return acc;
        }
        let mut factor = 1.0;
        if let Some(sink) = p.sinks.and_then(|sinks| sinks.get(head)) {
            let both = max.max(*sink);
            factor = (max - both).exp();
            sum = sum * factor + (sink - both).exp();
        }
        let factor = factor / sum;
        for a in acc.iter_mut() {
            *a *= factor;
        }
        acc
    }
}

/// What a unit reads.
pub(super) struct Unit<'a> {
    pub params: &'a AttentionParams<'a>,
    pub kernels: &'static Kernels,
    pub vector: &'static Vector,
    /// `[d_k, n_head, n]` of all tokens of the batch.
    pub q: &'a [f32],
    pub k: &'a KvRows<'a>,
    pub v: &'a KvRows<'a>,
    /// The K/V head.
    pub head: usize,
    /// The first token in the batch.
    pub first: usize,
    /// What the tokens see, all of one list.
    pub views: &'a [View],
    /// That list.
    pub spans: &'a [Span],
}

impl Unit<'_> {
    /// Queries: the heads of the group for each token; query `t * group + g` is head `head * group + g` of token `t`.
    pub fn queries(&self) -> usize {
        self.views.len() * self.params.group()
    }

    /// The positions that any of the tokens sees.
    pub fn positions(&self) -> Range<u32> {
        positions(self.views)
    }

    /// Take the softmax over one split of positions into `scratch.split`, from nothing.
    pub fn run_split(&self, split: u32, scratch: &mut Scratch) {
        let p = self.params;
        scratch.split.reset(self.queries(), p.d_v);
        scratch.scores.resize(self.queries() * TILE as usize, 0.0);
        scratch.rows.resize(ROWS * p.d_k.max(p.d_v), 0.0);
        let seen = self.positions();
        let from = seen.start.max(split.saturating_mul(SPLIT));
        let to = seen.end.min((split + 1).saturating_mul(SPLIT));
        let mut at = from;
        while at < to {
            let end = (at / TILE + 1).saturating_mul(TILE).min(to);
            self.run_tile(at..end, scratch);
            at = end;
        }
    }

    fn run_tile(&self, positions: Range<u32>, scratch: &mut Scratch) {
        // The cells of the tile and their positions, in order.
        let mut cells = [0u32; TILE as usize];
        let mut held = [0u32; TILE as usize];
        let mut n = 0;
        let skipped = self.spans.partition_point(|span| span.end() <= positions.start);
        for span in self.spans[skipped..].iter().take_while(|span| span.pos < positions.end) {
            for pos in span.pos.max(positions.start)..span.end().min(positions.end) {
                cells[n] = span.cell(pos);
                held[n] = pos;
                n += 1;
            }
        }
        let (cells, held) = (&cells[..n], &held[..n]);
        let sees = |view: &View| {
            let from = held.partition_point(|pos| *pos < view.from);
            from..held.partition_point(|pos| *pos < view.to).max(from)
        };
        self.score(cells, sees, scratch);
        for (t, view) in self.views.iter().enumerate() {
            let range = sees(view);
            if !range.is_empty() {
                for query in self.queries_of(t) {
                    self.weigh(query, range.clone(), scratch);
                }
            }
        }
        self.add(cells, sees, scratch);
    }

    fn queries_of(&self, token: usize) -> Range<usize> {
        let group = self.params.group();
        token * group..(token + 1) * group
    }

    fn q(&self, query: usize) -> &[f32] {
        let AttentionParams { n_head, d_k, .. } = *self.params;
        let group = self.params.group();
        let (token, head) = (self.first + query / group, self.head * group + query % group);
        &self.q[(token * n_head + head) * d_k..][..d_k]
    }

    /// Dot products of every query with the K rows that it sees.
    fn score(&self, cells: &[u32], sees: impl Fn(&View) -> Range<usize>, scratch: &mut Scratch) {
        let d = self.params.d_k;
        for (i, chunk) in cells.chunks(ROWS).enumerate() {
            for (cell, row) in chunk.iter().zip(scratch.rows.chunks_exact_mut(d)) {
                self.k.decode(self.head, *cell, row);
            }
            for (t, view) in self.views.iter().enumerate() {
                let (range, here) = part(sees(view), i, chunk.len());
                if range.is_empty() {
                    continue;
                }
                for query in self.queries_of(t) {
                    let scores = &mut scratch.scores[query * TILE as usize..][range.clone()];
                    self.kernels.scores(self.q(query), &scratch.rows[here.start * d..here.end * d], scores);
                }
            }
        }
    }

    /// Turn a query's scores into weights, and bring its state to their maximum.
    fn weigh(&self, query: usize, range: Range<usize>, scratch: &mut Scratch) {
        let p = self.params;
        let scores = &mut scratch.scores[query * TILE as usize..][range];
        self.vector.scale(scores, p.scale);
        if let Some(cap) = p.softcap {
            for s in scores.iter_mut() {
                *s = cap * (*s / cap).tanh();
            }
        }
        let state = &mut scratch.split;
        let max = state.max[query].max(self.vector.max(scores));
        let factor = (state.max[query] - max).exp();
        state.max[query] = max;
        let sum = self.vector.exp_sum(scores, max);
        state.sum[query] = state.sum[query] * factor + sum;
        if factor != 1.0 {
            self.vector.scale(&mut state.acc[query * p.d_v..][..p.d_v], factor);
        }
    }

    /// Add the V rows under their weights.
    fn add(&self, cells: &[u32], sees: impl Fn(&View) -> Range<usize>, scratch: &mut Scratch) {
        let d = self.params.d_v;
        for (i, chunk) in cells.chunks(ROWS).enumerate() {
            for (cell, row) in chunk.iter().zip(scratch.rows.chunks_exact_mut(d)) {
                self.v.decode(self.head, *cell, row);
            }
            for (t, view) in self.views.iter().enumerate() {
                let (range, here) = part(sees(view), i, chunk.len());
                if range.is_empty() {
                    continue;
                }
                for query in self.queries_of(t) {
                    let weights = &scratch.scores[query * TILE as usize..][range.clone()];
                    let acc = &mut scratch.split.acc[query * d..][..d];
                    self.kernels.accumulate(weights, &scratch.rows[here.start * d..here.end * d], acc);
                }
            }
        }
    }
}

/// The positions that any view of a list sees.
pub(super) fn positions(views: &[View]) -> Range<u32> {
    let seen = views.iter().filter(|view| view.from < view.to);
    let (from, to) = seen.fold((u32::MAX, 0), |(from, to), v| (from.min(v.from), to.max(v.to)));
    from.min(to)..to
}

/// What of a range of slots lies in chunk `i` of `ROWS` slots, which holds `n`: as slots, and counted from its first.
fn part(range: Range<usize>, i: usize, n: usize) -> (Range<usize>, Range<usize>) {
    let base = i * ROWS;
    let (from, to) = (range.start.max(base), range.end.min(base + n));
    let to = to.max(from);
    (from..to, from - base..to - base)
}
