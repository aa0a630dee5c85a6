//! Matrix products in which every token chooses its matrices.

use std::ops::Range;

use super::matmul::{kernel, rows_per_chunk};
use super::{Blocks, Ids, Planner, Result, Scratch, Step};
use crate::backend::Inputs;
use crate::cpu::kernel::{Kernel, OutTile, Tile};
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
    /// So many tokens of one expert are multiplied at once.
    at_once: Option<usize>,
}

/// Columns that are brought together, and their results.
#[derive(Default)]
pub(crate) struct Gathered {
    pairs: Vec<usize>,
    acts: Vec<[u32; 16]>,
    results: Vec<f32>,
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
        at_once: p.backend.wide(kernel, usize::MAX).map(|wide| wide.from),
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

    /// The activations of a pair of token and slot.
    fn acts(&self, pair: usize) -> &[u8] {
        let bytes = self.kernel.act.row_bytes(self.w.shape.row());
        let row = pair / self.used * self.x_rows + if self.x_rows == 1 { 0 } else { pair % self.used };
        &self.x.slice()[row * bytes..(row + 1) * bytes]
    }

    /// The rows of a block of an expert.
    fn rows(&self, block: usize) -> Range<usize> {
        block * self.per_chunk..((block + 1) * self.per_chunk).min(self.w.shape.0[1])
    }

    fn tile<'a>(
        &'a self,
        expert: usize,
        rows: &Range<usize>,
        acts: &'a [u8],
        cols: usize,
        out: OutTile<'a>,
    ) -> Tile<'a> {
        let [k, m, ..] = self.w.shape.0;
        let row_bytes = self.w.row_bytes();
        let first = (expert * m + rows.start) * row_bytes;
        Tile {
            weights: &self.w.src.slice()[first..first + rows.len() * row_bytes],
            row_bytes,
            rows: rows.len(),
            acts,
            act_bytes: self.kernel.act.row_bytes(k),
            cols,
            k,
            out,
        }
    }

    fn product(&self, pair: usize, expert: usize, block: usize) {
        let [_, m, n_expert, _] = self.w.shape.0;
        // Ids come from TopK and are below the number of experts.
        if expert >= n_expert {
            return;
        }
        let rows = self.rows(block);
        // SAFETY: this chunk alone writes these rows of this pair's column.
        let out = unsafe { self.out.tile(pair * m + rows.start, m) };
        self.kernel.run(&self.tile(expert, &rows, self.acts(pair), 1, out));
    }

    /// The products of all pairs that chose an expert, in the kernel's form for many columns.
    fn products(&self, expert: usize, block: usize, scratch: &mut Scratch) {
        let Gathered { pairs, acts, results } = &mut scratch.gathered;
        let m = self.w.shape.0[1];
        let rows = self.rows(block);
        let act_bytes = self.kernel.act.row_bytes(self.w.shape.row());
        acts.clear();
        acts.resize((pairs.len() * act_bytes).div_ceil(size_of::<[u32; 16]>()), [0; 16]);
        let acts: &mut [u8] = bytemuck::cast_slice_mut(acts);
        for (pair, to) in pairs.iter().zip(acts.chunks_exact_mut(act_bytes)) {
            to.copy_from_slice(self.acts(*pair));
        }
        results.clear();
        results.resize(pairs.len() * rows.len(), 0.0);
        let out = OutTile::new(results, rows.len());
        self.kernel.run_wide(&self.tile(expert, &rows, acts, pairs.len(), out), &mut scratch.products);
        for (pair, from) in pairs.iter().zip(results.chunks_exact(rows.len())) {
            let start = pair * m + rows.start;
            // SAFETY: this chunk alone writes these rows of this pair's column.
            unsafe { self.out.slice(start..start + rows.len()) }.copy_from_slice(from);
        }
    }
}

impl Step for Experts {
    fn how(&self) -> String {
        format!("{} ({})", self.w.format, self.kernel.name)
    }
    fn chunks(&mut self, _: &Inputs) -> usize {
        let units = if self.by_expert() { self.w.shape.0[2] } else { self.pairs() };
        units * self.blocks()
    }
    fn run(&self, chunk: usize, inputs: &Inputs, scratch: &mut Scratch) {
        let (unit, block) = (chunk / self.blocks(), chunk % self.blocks());
        let ids = self.ids.get(inputs);
        if !self.by_expert() {
            return self.product(unit, ids[unit] as usize, block);
        }
        let pairs = &mut scratch.gathered.pairs;
        pairs.clear();
        pairs.extend(ids.iter().enumerate().filter(|(_, id)| **id as usize == unit).map(|(pair, _)| pair));
        if self.at_once.is_some_and(|from| pairs.len() >= from) {
            self.products(unit, block, scratch);
        } else {
            for i in 0..pairs.len() {
                self.product(scratch.gathered.pairs[i], unit, block);
            }
        }
    }
}
