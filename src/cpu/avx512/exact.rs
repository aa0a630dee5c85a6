//! Every format against activations that are not rounded: blocks are decoded to f32 by the format's own `decode`
//! and multiplied in f32.

use std::arch::x86_64::*;

use super::lanes::{load_f32, load_tail, sum};
use crate::cpu::kernel::{Kernel, Tile};
use crate::tensor::{Act, Format};

/// A kernel for every format of the table.
pub(super) static KERNELS: [Kernel; Format::ALL.len()] = {
    let mut kernels =
        [const { Kernel { format: Format::F32, act: Act::F32, name: "avx512, decoded", tile, wide: None } };
            Format::ALL.len()];
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

/// # Safety
/// `Kernel::run` has checked the tile, and the machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
            let mut sums = [_mm512_setzero_ps(); COLS];
            for (i, bytes) in row.chunks(chunk_bytes).enumerate() {
                let w = &mut w[..CHUNK.min(tile.k - i * CHUNK)];
                (info.decode)(bytes, w);
                for (c, sum) in sums[..cols].iter_mut().enumerate() {
                    let start = (first + c) * tile.act_bytes + i * CHUNK * 4;
                    *sum = accumulate(*sum, w, bytemuck::cast_slice(&tile.acts[start..][..w.len() * 4]));
                }
            }
            for (c, &lanes) in sums[..cols].iter().enumerate() {
                // SAFETY: within the tile.
                unsafe { tile.out.set(r, first + c, sum(lanes)) }
            }
        }
    }
}

/// Add the products of two equally long slices to the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn accumulate(mut sum: __m512, a: &[f32], b: &[f32]) -> __m512 {
    let (a, a_tail) = a.as_chunks::<16>();
    let (b, b_tail) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        sum = _mm512_fmadd_ps(load_f32(a), load_f32(b), sum);
    }
    _mm512_fmadd_ps(load_tail(a_tail), load_tail(b_tail), sum)
}
