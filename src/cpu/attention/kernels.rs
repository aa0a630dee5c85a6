//! What an instruction set brings to attention: packing K rows into columns, scores against them, the softmax of a tile, and
//! sums of V rows.
//!
//! **All that is asked of a set** is that the score of a query and a row, the weight of a row and a sum over rows come from a
//! sequence of operations of their own, wherever the query and the row stand in a tile and whatever stands beside
//! them. Then a token's bits are the same alone and in a prompt.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::TILE;
use crate::cpu::isa::Isa;
use crate::cpu::table::table;
use crate::kv::KvFormat;

/// Columns of a tile: [`TILE`].
pub(in crate::cpu) const COLUMNS: usize = TILE as usize;

/// The vector lengths of rows in memory: V rows and sums are filled up to a multiple of this many values.
pub(in crate::cpu) const LANES: usize = 16;

/// Values of a block of the formats that have integers.
pub(in crate::cpu) const BLOCK: usize = 32;

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Numbers that begin at a cache line. It grows to what was ever asked for.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Numbers(Vec<Line>);

impl Numbers {
    /// Make room for `n` numbers; what was there is kept.
    pub fn reserve(&mut self, n: usize) {
        let lines = n.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line::zeroed());
        }
    }
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.0)
    }
    pub fn words_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Stored rows, one after the other.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Rows<'a> {
    pub format: KvFormat,
    /// At least `n * row_bytes`.
    pub bytes: &'a [u8],
    pub row_bytes: usize,
    pub n: usize,
    /// Values of a row.
    pub d: usize,
}

impl<'a> Rows<'a> {
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.bytes[r * self.row_bytes..][..self.row_bytes]
    }
}

/// Queries or K rows as a [`Keys`] wants them.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Packed {
    /// Floats, or scales.
    pub floats: Numbers,
    /// Small integers, four to a word.
    pub words: Numbers,
}

/// How scores against K rows of one format are taken.
#[allow(clippy::type_complexity)]
pub(in crate::cpu) struct Keys {
    /// Pack queries of `d` values.
    pub queries: unsafe fn(q: &[f32], d: usize, out: &mut Packed),
    /// Pack up to [`COLUMNS`] rows, each into a column.
    pub pack: unsafe fn(rows: &Rows, out: &mut Packed),
    /// The dot products of queries `queries` with `columns` (at least), [`COLUMNS`] for each query.
    pub scores: unsafe fn(
        q: &Packed,
        queries: Range<usize>,
        d: usize,
        k: &Packed,
        columns: Range<usize>,
        out: &mut [f32],
    ),
}

/// How V rows of one format are read.
#[allow(clippy::type_complexity)]
pub(in crate::cpu) struct Values {
    /// Decode rows to floats, [`width`] for each.
    pub decode: unsafe fn(rows: &Rows, out: &mut [f32]),
    /// See [`Kernels::add_stored`].
    pub add: Option<
        unsafe fn(
            weights: &[[f32; COLUMNS]],
            range: Range<usize>,
            rows: &Rows,
            factor: &[f32],
            acc: &mut [f32],
        ),
    >,
}

/// The most queries for which stored rows are added without being decoded to memory.
const FEW: usize = 6;

/// The softmax of some queries, before and after a tile.
#[derive(Debug)]
pub(in crate::cpu) struct Softmax<'a> {
    /// The largest score so far.
    pub max: &'a mut [f32],
    /// The sum of all weights so far.
    pub sum: &'a mut [f32],
    /// What the sums of rows so far are to be multiplied by, since the maximum has grown: see [`Kernels::add`].
    pub factor: &'a mut [f32],
}

impl Softmax<'_> {
    /// Take in a tile's maximum and sum for a query: `weigh` calls this with the maximum first.
    #[inline]
    pub fn raise(&mut self, query: usize, max: f32) {
        let before = std::mem::replace(&mut self.max[query], max);
        self.factor[query] = if max == before { 1.0 } else { (before - max).exp() };
    }
    /// Take in the sum of a tile's weights under the maximum that `raise` has taken in.
    #[inline]
    pub fn add(&mut self, query: usize, sum: f32) {
        self.sum[query] = self.sum[query] * self.factor[query] + sum;
    }
}

/// The functions of an instruction set.
#[allow(clippy::type_complexity)]
pub(in crate::cpu) struct Kernels {
    /// The keys of a format.
    pub keys: fn(KvFormat) -> &'static Keys,
    /// The values of a format.
    pub values: fn(KvFormat) -> &'static Values,
    /// See [`Kernels::weigh`].
    pub weigh: unsafe fn(
        scores: &mut [[f32; COLUMNS]],
        range: Range<usize>,
        scale: f32,
        softcap: Option<f32>,
        softmax: &mut Softmax,
    ),
    /// See [`Kernels::add`].
    pub add: unsafe fn(
        weights: &[[f32; COLUMNS]],
        range: Range<usize>,
        values: &[f32],
        width: usize,
        factor: &[f32],
        acc: &mut [f32],
    ),
}

/// The functions of an instruction set.
///
/// # Panics
/// Where this machine does not have it.
pub(super) fn kernels(isa: Isa) -> &'static Kernels {
    table(isa).attention
}

/// The distance of rows of `d` values in memory.
pub(in crate::cpu) const fn width(d: usize) -> usize {
    d.next_multiple_of(LANES)
}

// Tables are only reached through `kernels`, which has checked that the machine has the instruction set: the one
// obligation of every pointer below, together with the lengths that are checked here.
impl Keys {
    /// Pack queries of `d` values.
    ///
    /// # Panics
    /// Where `q` is not whole queries.
    pub fn queries(&self, q: &[f32], d: usize, out: &mut Packed) {
        assert!(q.len().is_multiple_of(d), "{} values are not queries of {d}", q.len());
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { (self.queries)(q, d, out) }
    }
    /// Pack rows, each into a column.
    ///
    /// # Panics
    /// Where there are more rows than columns, or fewer bytes than rows.
    pub fn pack(&self, rows: &Rows, out: &mut Packed) {
        check(rows);
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { (self.pack)(rows, out) }
    }
    /// The dot products of packed queries with packed rows: `out[i * COLUMNS + c]` for the query `queries.start + i` and column
    /// `c`. Columns outside of `columns` may be left as they are, or not.
    ///
    /// # Panics
    /// Where `columns` or `out` do not fit.
    pub fn scores(
        &self,
        q: &Packed,
        queries: Range<usize>,
        d: usize,
        k: &Packed,
        columns: Range<usize>,
        out: &mut [f32],
    ) {
        assert!(columns.end <= COLUMNS && out.len() == queries.len() * COLUMNS);
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { (self.scores)(q, queries, d, k, columns, out) }
    }
}

impl Kernels {
    /// Decode rows: row `r` begins at `out[r * width(d)]`. What stands past its `d` values says nothing.
    ///
    /// # Panics
    /// Where there are more rows than columns, fewer bytes than rows, or no room in `out`.
    pub fn values(&self, rows: &Rows, out: &mut [f32]) {
        check(rows);
        assert!(out.len() >= rows.n * width(rows.d));
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { ((self.values)(rows.format).decode)(rows, out) }
    }
    /// Turn the scores of some queries in `range` into weights: `exp(scale * score - max)`, where `max` is the maximum of
    /// the query's so far and of all scaled (and capped) scores in `range`, and bring its softmax up to date.
    ///
    /// # Panics
    /// Where `range` leaves the tile, or the softmax is of another number of queries.
    pub fn weigh(
        &self,
        scores: &mut [[f32; COLUMNS]],
        range: Range<usize>,
        scale: f32,
        softcap: Option<f32>,
        softmax: &mut Softmax,
    ) {
        assert!(range.start <= range.end && range.end <= COLUMNS);
        let n = scores.len();
        assert!(softmax.max.len() == n && softmax.sum.len() == n && softmax.factor.len() == n);
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { (self.weigh)(scores, range, scale, softcap, softmax) }
    }
    /// `acc[q] = acc[q] * factor[q] + sum(weights[q][r] * values[r])` over the rows in `range`, in their order. `width` is a
    /// multiple of [`LANES`].
    ///
    /// # Panics
    /// Where lengths do not fit.
    pub fn add(
        &self,
        weights: &[[f32; COLUMNS]],
        range: Range<usize>,
        values: &[f32],
        width: usize,
        factor: &[f32],
        acc: &mut [f32],
    ) {
        assert!(range.start <= range.end && range.end <= COLUMNS && width.is_multiple_of(LANES));
        assert!(values.len() >= range.end * width && acc.len() == weights.len() * width);
        assert!(factor.len() == weights.len());
        // SAFETY: the machine has the instruction set, and the lengths hold.
        unsafe { (self.add)(weights, range, values, width, factor, acc) }
    }

    /// As `add`, from stored rows, where there are few queries and the instruction set has a function for that: whether it
    /// was done. The results are the same bits.
    ///
    /// # Panics
    /// Where lengths do not fit.
    pub fn add_stored(
        &self,
        weights: &[[f32; COLUMNS]],
        range: Range<usize>,
        rows: &Rows,
        factor: &[f32],
        acc: &mut [f32],
    ) -> bool {
        check(rows);
        assert!(range.start <= range.end && range.end <= rows.n);
        assert!(acc.len() == weights.len() * width(rows.d) && factor.len() == weights.len());
        match (self.values)(rows.format).add {
            Some(add) if weights.len() <= FEW => {
                // SAFETY: the machine has the instruction set, and the lengths hold.
                unsafe { add(weights, range, rows, factor, acc) }
                true
            }
            _ => false,
        }
    }
}

fn check(rows: &Rows) {
    assert!(rows.n <= COLUMNS && rows.bytes.len() >= rows.n * rows.row_bytes, "{} rows", rows.n);
    assert_eq!(rows.row_bytes, rows.format.row_bytes(rows.d));
}
