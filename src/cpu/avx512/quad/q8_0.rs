//! Q8_0, and what 32-value blocks share: a step is four blocks of each row, each with 128 bits of every sum.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};
use chaski_gguf::block::q8_0::BlockQ8_0;

use super::super::lanes::{load, load_half, store};
use super::{Quad, ROWS, sums_of_lanes};
use crate::cpu::act::BlockQ8x32;
use crate::tensor::Act;

/// Four blocks of activations.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Column {
    q: [[i8; 64]; 2],
    /// -128 times the sums of quants that are added up in one lane.
    excess: [[i32; 16]; 2],
    /// The scale of each block, four times.
    d: [[f32; 4]; 4],
}

/// Four blocks of four rows.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Rows {
    /// Of each row two blocks in a register, with 128 added to quants.
    q: [[__m512i; 2]; ROWS],
    /// In the 128 bits `b`, lane `r`: the scale of block `b` of row `r`.
    d: __m512,
}

impl Quad for BlockQ8_0 {
    type Step = [BlockQ8_0; 4];
    type Act = Column;
    const ACT: Act = Act::Q8x32;
    const VALUES: usize = 128;
    type Unpacked = Rows;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn prepare(column: &[u8]) -> Column {
        let mut out = Column::zeroed();
        let blocks: &[BlockQ8x32] = bytemuck::cast_slice(column);
        for (i, block) in blocks.iter().enumerate() {
            out.q.as_flattened_mut().as_chunks_mut::<32>().0[i] = block.q;
            out.d[i] = [block.d; 4];
        }
        let zero = _mm512_setzero_si512();
        for (q, excess) in out.q.iter().zip(&mut out.excess) {
            let excess128 = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(-128), load(q));
            store(excess, _mm512_sub_epi32(zero, excess128));
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(rows: [&[BlockQ8_0; 4]; ROWS]) -> Rows {
        let flipped = _mm512_set1_epi8(-128);
        let mut q = [[flipped; 2]; ROWS];
        for r in 0..ROWS {
            for i in 0..2 {
                let both = _mm512_castsi256_si512(load_half(&rows[r][2 * i].qs));
                let both = _mm512_inserti64x4::<1>(both, load_half(&rows[r][2 * i + 1].qs));
                q[r][i] = _mm512_xor_si512(both, flipped);
            }
        }
        let mut halves = _mm512_setzero_si512();
        for r in 0..ROWS {
            for block in [0, 2] {
                // Two blocks have their scales in 64 bytes.
                let bytes = bytemuck::cast_slice(&rows[r][block..]).first_chunk().unwrap_or(&[0u8; 64]);
                halves = gather::<17>(halves, load(bytes), r, block);
            }
        }
        let d = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        Rows { q, d }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(rows: &Rows, a: &Column, sums: __m512) -> __m512 {
        let zero = _mm512_setzero_si512();
        let mut halves = [zero; 2];
        for i in 0..2 {
            let mut dots = [zero; ROWS];
            for r in 0..ROWS {
                dots[r] = _mm512_dpbusd_epi32(load(&a.excess[i]), rows.q[r][i], load(&a.q[i]));
            }
            halves[i] = sums_of_lanes(dots);
        }
        // Each half has two blocks of 256 bits.
        let dot = _mm512_add_epi32(
            _mm512_shuffle_i32x4::<0b10_00_10_00>(halves[0], halves[1]),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(halves[0], halves[1]),
        );
        let d = _mm512_mul_ps(rows.d, _mm512_castsi512_ps(load(&a.d)));
        _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(dot), sums)
    }
}

/// Words of row `r` from the first on, `APART` words apart, for the blocks from `block` on: that of block `b` comes to
/// stand at word `4 b + r`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn gather<const APART: i16>(to: __m512i, from: __m512i, r: usize, block: usize) -> __m512i {
    let order = _mm512_zextsi256_si512(_mm256_setr_epi16(
        0,
        0,
        0,
        0,
        APART,
        APART,
        APART,
        APART,
        2 * APART,
        2 * APART,
        2 * APART,
        2 * APART,
        3 * APART,
        3 * APART,
        3 * APART,
        3 * APART,
    ));
    let order = _mm512_sub_epi16(order, _mm512_set1_epi16(block as i16 * APART));
    let blocks = if APART == 17 { 0x11 } else { 0x1111 };
    _mm512_mask_permutexvar_epi16(to, (blocks << (4 * block + r)) as __mmask32, order, from)
}
