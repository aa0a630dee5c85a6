//! Float weights against activations that are not rounded.

use std::arch::x86_64::*;

use bytemuck::Pod;
use chaski_gguf::block::bf16::Bf16Le;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::plain::F32Le;

use super::lanes::{load, load_f32, load_half, load_tail, sum};
use crate::cpu::kernel::{Kernel, Tile};

/// A float as the file holds it.
pub(super) trait Float: Pod {
    /// Sixteen of them in f32.
    ///
    /// # Safety
    /// The machine has AVX-512.
    unsafe fn widen(values: &[Self; 16]) -> __m512;
}

impl Float for F32Le {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[Self; 16]) -> __m512 {
        _mm512_castsi512_ps(load(values))
    }
}

impl Float for F16Le {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[Self; 16]) -> __m512 {
        _mm512_cvtph_ps(load_half(values))
    }
}

impl Float for Bf16Le {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn widen(values: &[Self; 16]) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_half(values))))
    }
}

/// Columns of a register block.
const COLS: usize = 4;
/// Rows of a register block: two where there are `COLS` columns, else this many.
const ROWS: usize = 4;

/// Compute a tile: in registers `2 x COLS` at a time, or `ROWS x 1` for the columns left over. The operations of an
/// element are the same in both.
///
/// # Safety
/// `Kernel::run` has checked the tile, and the machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn tile<W: Float>(_: &Kernel, tile: &Tile) {
    let grouped = tile.cols - tile.cols % COLS;
    // SAFETY: within the tile.
    unsafe {
        for c in (0..grouped).step_by(COLS) {
            rows::<W, 2, COLS>(tile, c);
        }
        for c in grouped..tile.cols {
            rows::<W, ROWS, 1>(tile, c);
        }
    }
}

/// All rows, `R` at a time, of `C` columns from `col`.
///
/// # Safety
/// As for `tile`, and the columns are within it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn rows<W: Float, const R: usize, const C: usize>(tile: &Tile, col: usize) {
    let grouped = tile.rows - tile.rows % R;
    // SAFETY: within the tile.
    unsafe {
        for r in (0..grouped).step_by(R) {
            micro::<W, R, C>(tile, r, col);
        }
        for r in grouped..tile.rows {
            micro::<W, 1, C>(tile, r, col);
        }
    }
}

/// `R` rows from `row` times `C` columns from `col`.
///
/// # Safety
/// As for `tile`, and the rows and columns are within it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn micro<W: Float, const R: usize, const C: usize>(tile: &Tile, row: usize, col: usize) {
    let rows: [(&[[W; 16]], &[W]); R] = std::array::from_fn(|r| {
        bytemuck::cast_slice(&tile.weights[(row + r) * tile.row_bytes..][..tile.k * size_of::<W>()])
            .as_chunks()
    });
    let cols: [(&[[f32; 16]], &[f32]); C] = std::array::from_fn(|c| {
        bytemuck::cast_slice(&tile.acts[(col + c) * tile.act_bytes..][..tile.k * 4]).as_chunks()
    });
    // SAFETY: the machine has the features; `i` is less than the length of each slice, and elements are in the tile.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); C]; R];
        for i in 0..tile.k / 16 {
            let x: [__m512; C] = std::array::from_fn(|c| load_f32(cols[c].0.get_unchecked(i)));
            for r in 0..R {
                let w = W::widen(rows[r].0.get_unchecked(i));
                for c in 0..C {
                    sums[r][c] = _mm512_fmadd_ps(w, x[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let mut tail = [W::zeroed(); 16];
            tail[..rows[r].1.len()].copy_from_slice(rows[r].1);
            let w = W::widen(&tail);
            for c in 0..C {
                let total = sum(_mm512_fmadd_ps(w, load_tail(cols[c].1), sums[r][c]));
                tile.out.set(row + r, col + c, total);
            }
        }
    }
}
