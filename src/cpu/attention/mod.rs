//! Attention over the rows of the cache: softmax(scale * q k) v for every token and head.
//!
//! One pass over the cache with an online softmax (arXiv 1805.02867, arXiv 2205.14135): no dequantized copy of the cache
//! and no matrix of all scores. Cells are taken in tiles of [`TILE`] positions; the rows of a tile are decoded a few
//! at a time, once for all query heads that share the K/V head and for all tokens of a unit of work.
//!
//! **Results depend on nothing but what a token sees.** Tiles and splits begin at multiples of their length in
//! positions, every split starts afresh, and splits are merged in order of position; this holds whether they were
//! computed one after the other or by several threads, for one token or for many. So the bits of a token's
//! result are the same however the prompt was cut into batches, whatever else was in the batch, wherever its
//! cells lie, and for any number of threads.

pub(super) mod kernels;
mod unit;
mod work;
mod write;

pub use unit::Scratch;
pub use work::Work;
pub use write::write_rows;

use crate::kv::KvFormat;

/// Positions of a tile: scores of one tile at a time exist, for each query.
pub const TILE: u32 = 64;

/// Positions of a split, a multiple of [`TILE`]: the smallest part of a context that is worth a thread's while.
pub const SPLIT: u32 = 512;

/// The numbers of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionParams<'a> {
    /// Query heads.
    pub n_head: usize,
    /// K and V heads; each serves `n_head / n_head_kv` query heads in a row.
    pub n_head_kv: usize,
    /// Values of a query and of a K row.
    pub d_k: usize,
    /// Values of a V row and of a result.
    pub d_v: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scaled scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// For every query head a further score that takes part in the softmax and has no value (gpt-oss).
    pub sinks: Option<&'a [f32]>,
}

impl AttentionParams<'_> {
    /// Query heads that share a K/V head.
    pub fn group(&self) -> usize {
        self.n_head / self.n_head_kv
    }
}

/// The K or the V rows of a layer, head by head: the row of head `h` and cell `c` begins at byte
/// `(h * capacity + c) * format.row_bytes(dim)`.
#[derive(Debug, Clone, Copy)]
pub struct KvRows<'a> {
    format: KvFormat,
    bytes: &'a [u8],
    capacity: usize,
    dim: usize,
    row_bytes: usize,
}

impl<'a> KvRows<'a> {
    /// Rows of `dim` values for `heads` heads and `capacity` cells.
    ///
    /// # Panics
    /// Where `bytes` is shorter than that.
    pub fn new(format: KvFormat, bytes: &'a [u8], capacity: usize, heads: usize, dim: usize) -> KvRows<'a> {
        let row_bytes = format.row_bytes(dim);
        assert!(bytes.len() >= heads * capacity * row_bytes, "{} bytes for {heads} heads", bytes.len());
        KvRows { format, bytes, capacity, dim, row_bytes }
    }
}

#[cfg(test)]
mod kernels_tests;
#[cfg(test)]
mod tests;
