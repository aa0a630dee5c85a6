//! Matrix products in which every token chooses its matrices.

use super::matmul::{kernel, rows_per_chunk};
use super::{Blocks, Ids, Planner, Result, Scratch, Step};
use crate::backend::Inputs;
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::memory::{Dst, Src};

struct Experts {
    kernel: &'static Kernel,
    w: Blocks,
    x: Src,
    /// Rows of x for each token: 1, or one a slot.
    x_rows: usize,
    ids: Ids,
    used: usize,
    tokens: usize,
    out: Dst,
    per_chunk: usize,
}

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let w = p.weight(0)?;
    let kernel = kernel(p, &w)?;
    let per_chunk = rows_per_chunk(w.row_bytes(), w.shape.0[1]);
    let [used, tokens, ..] = p.shape(2)?.0;
    let x_rows = p.shape(1)?.0[1];
    Ok(Box::new(Experts {
        kernel,
        w,
        x: p.src(1)?,
        x_rows,
        ids: p.ids(2)?,
        used,
        tokens,
        out: p.dst()?,
        per_chunk,
    }))
}

impl Experts {
    fn blocks(&self) -> usize {
        self.w.shape.0[1].div_ceil(self.per_chunk)
    }
    fn pairs(&self) -> usize {
        self.used * self.tokens
    }
    /// With few pairs of token and slot, a chunk serves one of them; with many, one expert, so that
    /// its rows are read once for all that chose it.
    fn by_expert(&self) -> bool {
        self.pairs() > self.w.shape.0[2]
    }

    fn product(&self, pair: usize, expert: usize, block: usize) {
        let [k, m, n_expert, _] = self.w.shape.0;
        let row_bytes = self.w.row_bytes();
        // Ids come from TopK and are below the number of experts.
        if expert >= n_expert {
            return;
        }
        let rows = block * self.per_chunk..((block + 1) * self.per_chunk).min(m);
        let first = (expert * m + rows.start) * row_bytes;
        let act_bytes = self.kernel.act.row_bytes(k);
        let x = (pair / self.used * self.x_rows + if self.x_rows == 1 { 0 } else { pair % self.used })
            * act_bytes;
        // SAFETY: this chunk alone writes these rows of this pair's column.
        let out = unsafe { self.out.tile(pair * m + rows.start, m) };
        self.kernel.run(&Tile {
            weights: &self.w.src.slice()[first..first + rows.len() * row_bytes],
            row_bytes,
            rows: rows.len(),
            acts: &self.x.slice()[x..x + act_bytes],
            act_bytes,
            cols: 1,
            k,
            out,
        });
    }
}

impl Step for Experts {
    fn chunks(&mut self, _: &Inputs) -> usize {
        let units = if self.by_expert() { self.w.shape.0[2] } else { self.pairs() };
        units * self.blocks()
    }
    fn run(&self, chunk: usize, inputs: &Inputs, _: &mut Scratch) {
        let (unit, block) = (chunk / self.blocks(), chunk % self.blocks());
        let ids = self.ids.get(inputs);
        if self.by_expert() {
            for (pair, _) in ids.iter().enumerate().filter(|(_, id)| **id as usize == unit) {
                self.product(pair, unit, block);
            }
        } else {
            self.product(unit, ids[unit] as usize, block);
        }
    }
}
