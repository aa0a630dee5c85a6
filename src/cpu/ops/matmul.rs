//! Matrix products: rows of the weight are dealt out in blocks, each for all tokens of the batch.

use super::{Blocks, Planner, Result, Scratch, Step};
use crate::backend::Inputs;
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::memory::{Dst, Src};
use crate::tensor::{Act, DType};

/// Bytes of weights in a chunk, about. Neighbouring rows of this many bytes stream well, stay in the
/// second-level cache while many tokens pass over them, and are short enough to balance threads.
const CHUNK_BYTES: usize = 64 << 10;

/// Rows of a chunk come in multiples of this: the most that a kernel takes at once, and enough to be worth bringing
/// columns into a kernel's order for.
pub(super) const ROW_STEP: usize = 32;

/// Rows of a chunk for rows of this size.
pub(super) fn rows_per_chunk(row_bytes: usize, rows: usize) -> usize {
    (CHUNK_BYTES / row_bytes.max(1)).next_multiple_of(ROW_STEP).clamp(ROW_STEP, rows.max(ROW_STEP))
}

/// The kernel for a weight and the type of its activations, as `lower` has prepared them.
pub(super) fn kernel(p: &Planner, w: &Blocks) -> Result<&'static Kernel> {
    let x = p.segment.graph.node(p.input(1)?);
    let kernel = p.backend.kernel(w.format);
    let act = match x.dtype {
        DType::Act(act) => act,
        _ => Act::F32,
    };
    if kernel.act != act {
        return Err(format!(
            "its activations are {act:?}, the kernel for {} takes {:?}",
            w.format, kernel.act
        ));
    }
    if !w.shape.row().is_multiple_of(act.block_len()) {
        return Err(format!("rows of {} values are no whole blocks of {act:?}", w.shape.row()));
    }
    Ok(kernel)
}

struct MatMul {
    kernel: &'static Kernel,
    w: Blocks,
    x: Src,
    cols: usize,
    out: Dst,
    per_chunk: usize,
    wide: bool,
}

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let w = p.weight(0)?;
    let kernel = kernel(p, &w)?;
    let cols = p.shape(1)?.rows();
    let wide = p.backend.wide(kernel, cols);
    // Many columns make even few rows work enough for a chunk.
    let per_chunk = match wide {
        Some(wide) => wide.rows,
        None => rows_per_chunk(w.row_bytes(), w.shape.rows()),
    };
    let wide = wide.is_some();
    Ok(Box::new(MatMul { kernel, w, x: p.src(1)?, cols, out: p.dst()?, per_chunk, wide }))
}

impl Step for MatMul {
    fn chunks(&mut self, _: &Inputs) -> usize {
        self.w.shape.rows().div_ceil(self.per_chunk)
    }
    fn how(&self) -> String {
        let wide = self.kernel.wide.as_ref().filter(|_| self.wide);
        format!("{} ({})", self.w.format, wide.map_or(self.kernel.name, |wide| wide.name))
    }
    fn run(&self, chunk: usize, _: &Inputs, scratch: &mut Scratch) {
        let (m, k, row_bytes) = (self.w.shape.rows(), self.w.shape.row(), self.w.row_bytes());
        let rows = chunk * self.per_chunk..((chunk + 1) * self.per_chunk).min(m);
        // SAFETY: the window holds m values for each column, this chunk writes only its rows of each.
        let out = unsafe { self.out.tile(rows.start, m) };
        let tile = Tile {
            weights: &self.w.src.slice()[rows.start * row_bytes..rows.end * row_bytes],
            row_bytes,
            rows: rows.len(),
            acts: self.x.slice(),
            act_bytes: self.kernel.act.row_bytes(k),
            cols: self.cols,
            k,
            out,
        };
        if self.wide {
            self.kernel.run_wide(&tile, &mut scratch.products);
        } else {
            self.kernel.run(&tile);
        }
    }
}
