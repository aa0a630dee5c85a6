//! The k largest of each row, largest first; ties go to the lower index.

use super::{Planner, Result, Scratch, Step, row};
use crate::backend::Inputs;
use crate::cpu::memory::{Dst, Src};

struct TopK {
    k: usize,
    from: usize,
    rows: usize,
    x: Src,
    out: Dst,
}

pub(super) fn step(p: &Planner, k: usize) -> Result<Box<dyn Step>> {
    let shape = p.shape(0)?;
    Ok(Box::new(TopK { k, from: shape.row(), rows: shape.rows(), x: p.src(0)?, out: p.dst()? }))
}

impl Step for TopK {
    fn chunks(&mut self, _: &Inputs) -> usize {
        self.rows
    }
    fn run(&self, r: usize, _: &Inputs, _: &mut Scratch) {
        let x = row(self.x.slice::<f32>(), self.from, r);
        // SAFETY: each chunk writes its own row.
        let out: &mut [i32] = unsafe { self.out.slice(r * self.k..(r + 1) * self.k) };
        let mut order: Vec<i32> = (0..x.len() as i32).collect();
        let larger = |a: &i32, b: &i32| x[*b as usize].total_cmp(&x[*a as usize]).then(a.cmp(b));
        if self.k < order.len() {
            order.select_nth_unstable_by(self.k, larger);
        }
        order[..self.k].sort_unstable_by(larger);
        out.copy_from_slice(&order[..self.k]);
    }
}
