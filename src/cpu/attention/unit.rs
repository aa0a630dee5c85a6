//! A unit of work: one K/V head, a few tokens of one list of cells, one split of their positions after the other.

use std::ops::Range;

use super::kernels::{COLUMNS, Kernels, Numbers, Packed, Rows, Softmax, width};
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
    /// See [`Softmax`].
    factor: Vec<f32>,
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
        self.factor.clear();
        self.factor.resize(queries, 1.0);
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
        let p = self.params;
        let keys = (self.kernels.keys)(self.k.format);
        let Scratch { queries, keys: packed, values, scores, rows, sees, split, .. } = scratch;
        let tile = Tile::new(self.spans, positions);
        sees.clear();
        sees.extend(self.views.iter().map(|view| tile.sees(view)));
        keys.pack(&self.k.rows(self.head, &tile, rows), packed);
        let scores = scores.floats_mut().as_chunks_mut::<COLUMNS>().0;
        // Tokens that see the same go together.
        let (group, queries_of_all) = (p.group(), self.queries());
        for_each_run(sees, |tokens, range| {
            let run = tokens.start * group..tokens.end * group;
            let scores = &mut scores[run.clone()];
            keys.scores(queries, run.clone(), p.d_k, packed, range.clone(), scores.as_flattened_mut());
            let State { max, sum, factor, .. } = &mut *split;
            let mut softmax =
                Softmax { max: &mut max[run.clone()], sum: &mut sum[run.clone()], factor: &mut factor[run] };
            self.kernels.weigh(scores, range, p.scale, p.softcap, &mut softmax);
        });
        let v = self.v.rows(self.head, &tile, rows);
        let width = width(p.d_v);
        let mut decoded = false;
        for_each_run(sees, |tokens, range| {
            let run = tokens.start * group..tokens.end * group;
            let acc = &mut split.acc[run.start * width..run.end * width];
            let (weights, factor) = (&scores[run.clone()], &split.factor[run]);
            // What few queries read once need not pass through memory.
            let alone = weights.len() == queries_of_all;
            if alone && self.kernels.add_stored(weights, range.clone(), &v, factor, acc) {
                return;
            }
            if !decoded {
                self.kernels.values(&v, values.floats_mut());
                decoded = true;
            }
            self.kernels.add(weights, range, values.floats(), width, factor, acc);
        });
    }
}

/// The cells of a tile, in the order of their positions.
struct Tile {
    positions: Range<u32>,
    cells: Cells,
}

// It lives on the stack, for one tile.
#[allow(clippy::large_enum_variant)]
enum Cells {
    /// Every position of the tile has its cell, one after the other from this one on.
    Neighbours(u32),
    /// Some cells and their positions.
    Apart { n: usize, cells: [u32; COLUMNS], held: [u32; COLUMNS] },
}

impl Tile {
    fn new(spans: &[Span], positions: Range<u32>) -> Tile {
        let skipped = spans.partition_point(|span| span.end() <= positions.start);
        let spans = &spans[skipped..];
        if let Some(span) = spans.first().filter(|s| s.pos <= positions.start && positions.end <= s.end()) {
            let cells = Cells::Neighbours(span.cell(positions.start));
            return Tile { positions, cells };
        }
        let (mut n, mut cells, mut held) = (0, [0; COLUMNS], [0; COLUMNS]);
        for span in spans.iter().take_while(|span| span.pos < positions.end) {
            for pos in span.pos.max(positions.start)..span.end().min(positions.end) {
                cells[n] = span.cell(pos);
                held[n] = pos;
                n += 1;
            }
        }
        Tile { positions, cells: Cells::Apart { n, cells, held } }
    }

    /// Which of the tile's cells a token sees.
    fn sees(&self, view: &View) -> Range<usize> {
        let column = |pos: u32| match &self.cells {
            Cells::Neighbours(_) => {
                (pos.clamp(self.positions.start, self.positions.end) - self.positions.start) as usize
            }
            Cells::Apart { n, held, .. } => held[..*n].partition_point(|held| *held < pos),
        };
        let from = column(view.from);
        from..column(view.to).max(from)
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
    /// The rows of a head and the cells of a tile, one after the other: where they lie, or copied to `copies`.
    fn rows<'b>(&self, head: usize, tile: &Tile, copies: &'b mut Vec<u8>) -> Rows<'b>
    where
        'a: 'b,
    {
        let KvRows { format, row_bytes, dim, .. } = *self;
        let start = |cell: u32| (head * self.capacity + cell as usize) * row_bytes;
        let (n, bytes) = match &tile.cells {
            Cells::Neighbours(first) => {
                let n = tile.positions.len();
                (n, &self.bytes[start(*first)..][..n * row_bytes])
            }
            Cells::Apart { n, cells, .. } => {
                copies.clear();
                for cell in &cells[..*n] {
                    copies.extend_from_slice(&self.bytes[start(*cell)..][..row_bytes]);
                }
                (*n, &copies[..])
            }
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
