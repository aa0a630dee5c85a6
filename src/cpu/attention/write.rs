//! Rounds K or V rows and writes them into the cache.

use std::ops::Range;

use crate::kv::KvFormat;

/// Write the rows of some tokens of a batch. `x` is `[dim, heads, n]`, `cells[t]` is the cell of token `t`; `row(bytes)` gives
/// the place of a row in a cache that lies head by head, as in [`KvRows`](super::KvRows). Different tokens have different
/// cells, so calls for different tokens ask for different rows.
///
/// # Panics
/// Where slices are shorter than their shapes say, or a cell is negative.
pub fn write_rows<'a>(
    tokens: Range<usize>,
    x: &[f32],
    (dim, heads): (usize, usize),
    cells: &[i32],
    (format, capacity): (KvFormat, usize),
    mut row: impl FnMut(Range<usize>) -> &'a mut [u8],
) {
    let row_bytes = format.row_bytes(dim);
    for t in tokens {
        let cell = cells[t] as usize;
        assert!(cell < capacity, "cell {} of {capacity}", cells[t]);
        for head in 0..heads {
            let values = &x[(t * heads + head) * dim..][..dim];
            let start = (head * capacity + cell) * row_bytes;
            format.encode_row(values, row(start..start + row_bytes));
        }
    }
}
