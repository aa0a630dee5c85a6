//! K and V rows of the batch, rounded and written into the cache.

use super::{Ids, Planner, Result, Scratch, Step, cpu_buffer};
use crate::backend::{Buffer, Inputs};
use crate::cpu::attention::write_rows;
use crate::cpu::memory::{Dst, Src};
use crate::graph::Op;
use crate::kv::KvFormat;

/// Tokens of a chunk.
const TOKENS: usize = 16;

struct KvWrite {
    heads: usize,
    capacity: usize,
    cells: Ids,
    tokens: usize,
    /// K and V: row length, format, source, place in the cache.
    rows: [(usize, KvFormat, Src, Dst); 2],
}

pub(super) fn step(p: &Planner) -> Result<Box<dyn Step>> {
    let (op, kv) = p.kv(2)?;
    let Op::Kv { n_head_kv, d_k, d_v, .. } = *op else { return Err("writes to no cache".into()) };
    let place = |buffer, format: KvFormat, d| -> Result<Dst> {
        let buffer = cpu_buffer(buffer)?;
        let bytes = n_head_kv * kv.capacity * format.row_bytes(d);
        if bytes > buffer.bytes() {
            return Err("its cache is smaller than its shape".into());
        }
        // SAFETY: the plan holds the cache; only this step touches it while it runs.
        Ok(unsafe { Dst::new(buffer.ptr(), bytes) })
    };
    let (fk, fv) = kv.formats;
    Ok(Box::new(KvWrite {
        heads: n_head_kv,
        capacity: kv.capacity,
        cells: p.ids(3)?,
        tokens: p.shape(0)?.0[2],
        rows: [(d_k, fk, p.src(0)?, place(&*kv.k, fk, d_k)?), (d_v, fv, p.src(1)?, place(&*kv.v, fv, d_v)?)],
    }))
}

impl Step for KvWrite {
    fn chunks(&mut self, _: &Inputs) -> usize {
        self.tokens.div_ceil(TOKENS)
    }
    fn run(&self, chunk: usize, inputs: &Inputs, _: &mut Scratch) {
        let tokens = chunk * TOKENS..((chunk + 1) * TOKENS).min(self.tokens);
        for (dim, format, from, to) in &self.rows {
            let layout = (*format, self.capacity);
            write_rows(
                tokens.clone(),
                from.slice(),
                (*dim, self.heads),
                self.cells.get(inputs),
                layout,
                |bytes| {
                    // SAFETY: every token has a cell of its own, and a chunk asks for each row once.
                    unsafe { to.slice(bytes) }
                },
            );
        }
    }
}
