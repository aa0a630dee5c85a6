//! Q4_0.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};
use chaski_gguf::block::q4_0::BlockQ4_0;

use super::super::lanes::{load, load_quarter, store};
use super::q8_0::gather;
use super::{Quad, ROWS, sums_of_lanes};
use crate::cpu::act::BlockQ8x32;
use crate::tensor::Act;

/// Four blocks of activations, each with 128 bits of every register.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Column {
    /// The first 16 quants of each block, then the last.
    q: [[i8; 64]; 2],
    /// -8 times the sums of quants that are added up in one lane.
    excess: [i32; 16],
    /// The scale of each block, four times.
    d: [[f32; 4]; 4],
}

/// Four blocks of four rows.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Rows {
    bytes: [__m512i; ROWS],
    /// In the 128 bits `b`, lane `r`: the scale of block `b` of row `r`.
    d: __m512,
}

impl Quad for BlockQ4_0 {
    type Step = [BlockQ4_0; 4];
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
            for (q, half) in out.q.iter_mut().zip(block.q.as_chunks::<16>().0) {
                q.as_chunks_mut::<16>().0[i] = *half;
            }
            out.d[i] = [block.d; 4];
        }
        let (zero, eight) = (_mm512_setzero_si512(), _mm512_set1_epi8(8));
        let excess = _mm512_dpbusd_epi32(zero, eight, load(&out.q[0]));
        let excess = _mm512_dpbusd_epi32(excess, eight, load(&out.q[1]));
        store(&mut out.excess, _mm512_sub_epi32(zero, excess));
        out
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(rows: [&[BlockQ4_0; 4]; ROWS]) -> Rows {
        let mut all = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            let row = rows[r];
            let mut bytes = _mm512_castsi128_si512(load_quarter(&row[0].qs));
            bytes = _mm512_inserti32x4::<1>(bytes, load_quarter(&row[1].qs));
            bytes = _mm512_inserti32x4::<2>(bytes, load_quarter(&row[2].qs));
            all[r] = _mm512_inserti32x4::<3>(bytes, load_quarter(&row[3].qs));
        }
        let mut halves = _mm512_setzero_si512();
        for r in 0..ROWS {
            // The scales are 9 words apart: all four lie in the first 64 bytes.
            halves = gather::<9>(
                halves,
                load(bytemuck::bytes_of(rows[r]).first_chunk().unwrap_or(&[0u8; 64])),
                r,
                0,
            );
        }
        let d = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        Rows { bytes: all, d }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(rows: &Rows, a: &Column, sums: __m512) -> __m512 {
        let nibble = _mm512_set1_epi8(15);
        let mut dots = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            let low = _mm512_and_si512(rows.bytes[r], nibble);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(rows.bytes[r]), nibble);
            let dot = _mm512_dpbusd_epi32(load(&a.excess), low, load(&a.q[0]));
            dots[r] = _mm512_dpbusd_epi32(dot, high, load(&a.q[1]));
        }
        let dot = sums_of_lanes(dots);
        let d = _mm512_mul_ps(rows.d, _mm512_castsi512_ps(load(&a.d)));
        _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(dot), sums)
    }
}
