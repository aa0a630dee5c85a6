//! The loop over a tile, for formats with integer products.

use bytemuck::Pod;

use crate::cpu::kernel::{Kernel, Tile};
use crate::tensor::Act;

/// A block of weights, its quants a byte each.
pub(super) trait Unpacked {
    /// A block of activations of as many values.
    type Act: Pod;
    /// The format of `Act`.
    const ACT: Act;
    /// The product of a block of weights and one of activations.
    fn dot(&self, a: &Self::Act) -> f32;
}

/// A block of weights as the file holds it.
pub(super) trait Weights: Pod {
    /// What it unpacks to.
    type Unpacked: Unpacked;
    /// Unpack it.
    fn unpack(&self) -> Self::Unpacked;
}

/// Columns that share an unpacked block.
const COLS: usize = 8;

/// Compute a tile: an element is the sum of the products of its blocks in order.
///
/// # Safety
/// `Kernel::run` has checked the tile.
pub(super) unsafe fn tile<W: Weights>(kernel: &Kernel, tile: &Tile) {
    let row_bytes = kernel.row_bytes(tile.k);
    let col_bytes = kernel.act.row_bytes(tile.k);
    for r in 0..tile.rows {
        let row: &[W] = bytemuck::cast_slice(&tile.weights[r * tile.row_bytes..][..row_bytes]);
        for first in (0..tile.cols).step_by(COLS) {
            let cols = COLS.min(tile.cols - first);
            let mut acts: [&[<W::Unpacked as Unpacked>::Act]; COLS] = [&[]; COLS];
            for (c, act) in acts[..cols].iter_mut().enumerate() {
                *act = bytemuck::cast_slice(&tile.acts[(first + c) * tile.act_bytes..][..col_bytes]);
            }
            let mut sums = [0.0f32; COLS];
            for (b, block) in row.iter().enumerate() {
                let w = block.unpack();
                for (sum, act) in sums.iter_mut().zip(&acts[..cols]) {
                    *sum += w.dot(&act[b]);
                }
            }
            for (c, &sum) in sums[..cols].iter().enumerate() {
                // SAFETY: within the tile.
                unsafe { tile.out.set(r, first + c, sum) }
            }
        }
    }
}
