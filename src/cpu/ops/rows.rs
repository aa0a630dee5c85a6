//! The shape that most small ops share: every row of the result from rows of the inputs.

use std::ops::Range;

use super::{Scratch, Step};
use crate::backend::Inputs;
use crate::cpu::memory::Dst;

/// Values of a chunk, about: enough to be worth handing out.
const CHUNK: usize = 8192;

/// A step whose result is `rows` rows of `row` values, each computed on its own by `f`.
pub(crate) struct Rows<F> {
    row: usize,
    count: usize,
    out: Dst,
    f: F,
}

impl<F> Rows<F>
where
    F: Fn(Range<usize>, &mut [f32], &Inputs) + Send + Sync + 'static,
{
    /// `f(rows, out, inputs)` computes a range of rows into `out`, which holds just those.
    pub(crate) fn step(row: usize, rows: usize, out: Dst, f: F) -> Box<dyn Step> {
        Box::new(Rows { row, count: rows, out, f })
    }
}

impl<F> Rows<F> {
    fn per_chunk(&self) -> usize {
        (CHUNK / self.row.max(1)).max(1)
    }
}

impl<F> Step for Rows<F>
where
    F: Fn(Range<usize>, &mut [f32], &Inputs) + Send + Sync,
{
    fn chunks(&mut self, _: &Inputs) -> usize {
        self.count.div_ceil(self.per_chunk())
    }
    fn run(&self, chunk: usize, inputs: &Inputs, _: &mut Scratch) {
        let per = self.per_chunk();
        let rows = chunk * per..((chunk + 1) * per).min(self.count);
        // SAFETY: chunks take disjoint ranges of rows.
        let out = unsafe { self.out.slice(rows.start * self.row..rows.end * self.row) };
        (self.f)(rows, out, inputs);
    }
}
