//! Turning rows into columns.

use std::arch::x86_64::*;

use crate::cpu::attention::kernels::COLUMNS;
use crate::cpu::avx512::lanes::{load_quarter, store_f32};

/// Sixteen rows of sixteen numbers (or four bytes each) that begin at cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Square(pub [[f32; 16]; 16]);

impl Square {
    pub(super) const ZERO: Square = Square([[0.0; 16]; 16]);
}

/// Number `i` of row `r` goes to `out[i][at + r]`, for the first `out.len()` numbers of each row, a multiple of four.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
pub(super) fn transpose(square: &Square, out: &mut [[f32; COLUMNS]], at: usize) {
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // Numbers 4i to 4i + 3 of rows j, j + 4, j + 8 and j + 12: four rows of four in each lane of 128 bits.
        let four = |r: usize| load_four(&square.0[r].as_chunks::<4>().0[i]);
        let stack = |j: usize| {
            let v = _mm512_castps128_ps512(four(j));
            let v = _mm512_insertf32x4::<1>(v, four(j + 4));
            let v = _mm512_insertf32x4::<2>(v, four(j + 8));
            _mm512_insertf32x4::<3>(v, four(j + 12))
        };
        let [a, b, c, d] = [stack(0), stack(1), stack(2), stack(3)];
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let columns = [
            _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
            _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
            _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ];
        for (out, column) in out.iter_mut().zip(columns) {
            if let Some(out) = out[at..].first_chunk_mut() {
                store_f32(out, column);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_four(values: &[f32; 4]) -> __m128 {
    _mm_castsi128_ps(load_quarter(values))
}
