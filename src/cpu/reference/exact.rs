//! Every format against activations that are not rounded: blocks are decoded to f32 by the format's own `decode`
//! and multiplied in f32.

use crate::cpu::kernel::{Kernel, Tile};
use crate::tensor::{Act, Format};

/// A kernel for every format of the table.
pub(super) static KERNELS: [Kernel; Format::ALL.len()] = {
    let mut kernels = [const {
        Kernel { format: Format::F32, act: Act::F32, name: "reference, decoded", tile, wide: None }
    }; Format::ALL.len()];
    let mut i = 0;
    while i < kernels.len() {
        kernels[i].format = Format::ALL[i];
        i += 1;
    }
    kernels
};

/// Columns that share a decoded block.
const COLS: usize = 8;
/// Values decoded at a time: whole blocks of every format.
const CHUNK: usize = 256;
/// Partial sums of an element: value `i` goes to lane `i % LANES`.
const LANES: usize = 16;

/// # Safety
/// `Kernel::run` has checked the tile.
unsafe fn tile(kernel: &Kernel, tile: &Tile) {
    let info = kernel.format.info();
    debug_assert!(CHUNK.is_multiple_of(info.block_len));
    let chunk_bytes = CHUNK / info.block_len * info.block_bytes;
    let row_bytes = kernel.row_bytes(tile.k);
    let mut w = [0.0f32; CHUNK];
    for r in 0..tile.rows {
        let row = &tile.weights[r * tile.row_bytes..][..row_bytes];
        for first in (0..tile.cols).step_by(COLS) {
            let cols = COLS.min(tile.cols - first);
            let mut lanes = [[0.0f32; LANES]; COLS];
            for (i, bytes) in row.chunks(chunk_bytes).enumerate() {
                let w = &mut w[..CHUNK.min(tile.k - i * CHUNK)];
                (info.decode)(bytes, w);
                for (c, lanes) in lanes[..cols].iter_mut().enumerate() {
                    let start = (first + c) * tile.act_bytes + i * CHUNK * 4;
                    accumulate(lanes, w, bytemuck::cast_slice(&tile.acts[start..][..w.len() * 4]));
                }
            }
            for (c, lanes) in lanes[..cols].iter().enumerate() {
                // SAFETY: within the tile.
                unsafe { tile.out.set(r, first + c, sum(lanes)) }
            }
        }
    }
}

/// Add the products of two equally long slices to the lanes.
pub(super) fn accumulate(lanes: &mut [f32; LANES], a: &[f32], b: &[f32]) {
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_tail).zip(b_tail) {
        *lane += a * b;
    }
}

/// The sum of the lanes, by halves.
pub(super) fn sum(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}
