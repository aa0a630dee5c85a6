//! A unit of work: one K/V head, a few tokens of one list of cells, one split of their positions after the other.

use std::ops::Range;

use super::kernels::{COLUMNS, Kernels, Numbers, Packed, Rows, width};
use super::{AttentionParams, KvRows, SPLIT, TILE};
use crate::kv::{Span, View};

/// A thread's memory for attention; it grows to what the largest unit needs and is then reused.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The unit's queries, one after the other.
    q: Vec<f32>,
    /// The queries as the keys' format wants them, and the K rows of a tile.
    queries: Packed,
    keys: Packed,
    /// The V rows of a tile as floats.
    values: Numbers,
    /// Scores of a tile: [`COLUMNS`] for each query.
    scores: Numbers,
    /// Copies of rows that lie apart.
    rows: Vec<u8>,
    /// What each token sees of a tile.
    sees: Vec<Range<usize>>,
    /// The softmax of the split at hand and that of all splits before it.
    pub(super) split: State,
    pub(super) total: State,
}

/// An unfinished softmax of several queries: `acc = sum(exp(s - max) v)`, `sum = sum(exp(s - max))`.
#[derive(Debug, Default)]
pub(super) struct State {
    pub max: Vec<f32>,
    pub sum: Vec<f32>,
    /// `width(d_v)` values for each query.
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
        self.acc.resize(queries * width(d_v), 0.0);
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
        for (a, b) in self.acc[query * width(d_v)..][..d_v].iter_mut().zip(acc) {
            *a = *a * old + b * new;
        }
    }

    /// The finished result of query `query`, a query of head `head`, in its place in `acc`.
    pub fn finish(&mut self, query: usize, head: usize, p: &AttentionParams) -> &[f32] {
        let acc = &mut self.acc[query * width(p.d_v)..][..p.d_v];
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

    /// Bring the queries into `scratch`, before any split.
    pub fn pack_queries(&self, scratch: &mut Scratch) {
        let AttentionParams { n_head, d_k, .. } = *self.params;
        let each = self.params.group() * d_k;
        scratch.q.clear();
        for token in self.first..self.first + self.views.len() {
            scratch.q.extend_from_slice(&self.q[token * n_head * d_k + self.head * each..][..each]);
        }
        (self.kernels.keys)(self.k.format).queries(&scratch.q, d_k, &mut scratch.queries);
    }

    /// Take the softmax over one split of positions into `scratch.split`, from nothing.
    pub fn run_split(&self, split: u32, scratch: &mut Scratch) {
        let p = self.params;
        scratch.split.reset(self.queries(), p.d_v);
        scratch.scores.reserve(self.queries() * COLUMNS);
        scratch.values.reserve(COLUMNS * width(p.d_v));
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
        let mut cells = [0u32; COLUMNS];
        let mut held = [0u32; COLUMNS];
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
        scratch.sees.clear();
        scratch.sees.extend(self.views.iter().map(|view| {
            let from = held.partition_point(|pos| *pos < view.from);
            from..held.partition_point(|pos| *pos < view.to).max(from)
        }));
        let p = self.params;
        let keys = (self.kernels.keys)(self.k.format);
        let Scratch { queries, keys: packed, values, scores, rows, sees, split, .. } = scratch;
        keys.pack(&self.k.rows(self.head, cells, rows), packed);
        let scores = &mut scores.floats_mut()[..self.queries() * COLUMNS];
        // Tokens that see the same go together.
        let group = p.group();
        for_each_run(sees, |tokens, range| {
            let (from, to) = (tokens.start * group, tokens.end * group);
            let scores = &mut scores[from * COLUMNS..to * COLUMNS];
            keys.scores(queries, from..to, p.d_k, packed, range.clone(), scores);
            for (query, scores) in (from..to).zip(scores.as_chunks_mut().0) {
                self.weigh(query, scores, range.clone(), split);
            }
        });
        let width = width(p.d_v);
        self.kernels.values(&self.v.rows(self.head, cells, rows), values.floats_mut());
        for_each_run(sees, |tokens, range| {
            let (from, to) = (tokens.start * group, tokens.end * group);
            let weights = &scores.as_chunks().0[from..to];
            self.kernels.add(
                weights,
                range,
                values.floats(),
                width,
                &mut split.acc[from * width..to * width],
            );
        });
    }

    /// Turn a query's scores into weights, and bring its state to their maximum.
    fn weigh(&self, query: usize, scores: &mut [f32; COLUMNS], range: Range<usize>, state: &mut State) {
        let p = self.params;
        let before = state.max[query];
        let weighed = self.kernels.weigh(scores, range, p.scale, p.softcap, before);
        let sum = &mut state.sum[query];
        if weighed.max == before {
            *sum += weighed.sum;
            return;
        }
        let factor = (before - weighed.max).exp();
        state.max[query] = weighed.max;
        *sum = *sum * factor + weighed.sum;
        let width = width(p.d_v);
        for x in &mut state.acc[query * width..][..width] {
            *x *= factor;
        }
    }
}

/// Call `f` for every run of tokens that see the same, where that is anything.
fn for_each_run(sees: &[Range<usize>], mut f: impl FnMut(Range<usize>, Range<usize>)) {
    let mut first = 0;
    for run in sees.chunk_by(|a, b| a == b) {
        if !run[0].is_empty() {
            f(first..first + run.len(), run[0].clone());
        }
        first += run.len();
    }
}

impl<'a> KvRows<'a> {
    /// The rows of a head and some cells, one after the other: where they lie, or copied to `copies`.
    fn rows<'b>(&self, head: usize, cells: &[u32], copies: &'b mut Vec<u8>) -> Rows<'b>
    where
        'a: 'b,
    {
        let KvRows { format, row_bytes, dim, .. } = *self;
        let start = |cell: u32| (head * self.capacity + cell as usize) * row_bytes;
        let (Some(&first), Some(&last)) = (cells.first(), cells.last()) else {
            return Rows { format, bytes: &[], row_bytes, n: 0, d: dim };
        };
        let n = cells.len();
        let neighbours = cells.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
        let bytes = if neighbours {
            &self.bytes[start(first)..start(last) + row_bytes]
        } else {
            copies.clear();
            for cell in cells {
                copies.extend_from_slice(&self.bytes[start(*cell)..][..row_bytes]);
            }
            &copies[..]
        };
        Rows { format, bytes, row_bytes, n, d: dim }
    }
}

/// The positions that any view of a list sees.
pub(super) fn positions(views: &[View]) -> Range<u32> {
    let seen = views.iter().filter(|view| view.from < view.to);
    let (from, to) = seen.fold((u32::MAX, 0), |(from, to), v| (from.min(v.from), to.max(v.to)));
    from.min(to)..to
}
