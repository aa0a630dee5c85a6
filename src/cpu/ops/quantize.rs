//! Activations rounded once for all matrix products that read them.

use super::{Planner, Result, Scratch, Step, row};
use crate::backend::Inputs;
use crate::cpu::act;
use crate::cpu::isa::Isa;
use crate::cpu::memory::{Dst, Src};
use crate::tensor::Act;

/// Values of a chunk, about.
const CHUNK: usize = 8192;

struct Quantize {
    isa: Isa,
    act: Act,
    row: usize,
    rows: usize,
    /// Rows of a chunk; a single row is not cut.
    per_chunk: usize,
    x: Src,
    out: Dst,
}

pub(super) fn step(p: &Planner, act: Act) -> Result<Box<dyn Step>> {
    let shape = p.node().shape;
    let (row, rows) = (shape.row(), shape.rows());
    let per_chunk = (CHUNK / row.max(1)).max(1);
    Ok(Box::new(Quantize { isa: p.backend.isa(), act, row, rows, per_chunk, x: p.src(0)?, out: p.dst()? }))
}

impl Step for Quantize {
    fn chunks(&mut self, _: &Inputs) -> usize {
        self.rows.div_ceil(self.per_chunk)
    }
    fn run(&self, chunk: usize, _: &Inputs, _: &mut Scratch) {
        let bytes = self.act.row_bytes(self.row);
        for r in chunk * self.per_chunk..((chunk + 1) * self.per_chunk).min(self.rows) {
            // SAFETY: each chunk writes its own rows.
            let out = unsafe { self.out.slice(r * bytes..(r + 1) * bytes) };
            act::quantize(self.isa, self.act, row(self.x.slice(), self.row, r), out);
        }
    }
}
