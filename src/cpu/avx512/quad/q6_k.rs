//! Q6_K.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};
use chaski_gguf::block::q6_k::BlockQ6K;

use super::super::lanes::{load, load_half, load_quarter, store};
use super::{Quad, ROWS, sums_of_lanes};
use crate::cpu::act::BlockQ8x256;
use crate::tensor::Act;

/// What is taken from a quant.
const OFFSET: i8 = 32;

/// A super-block of activations.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Column {
    q: [[i8; 64]; 4],
    /// Minus [`OFFSET`] times the sums of four quants.
    excess: [[i32; 16]; 4],
    d: f32,
    pad: [u8; 60],
}

/// Four blocks.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Rows {
    /// Of each row 64 quants in a register, unsigned: the 128 bits `c` of register `i` are sub-block `4 i + c`.
    q: [[__m512i; 4]; ROWS],
    /// The scales of two rows each, as i16.
    scales: [__m512i; 2],
    /// The scale of row `r` in lane `r` of every 128 bits.
    d: __m512,
}

impl Quad for BlockQ6K {
    type Step = BlockQ6K;
    type Act = Column;
    const ACT: Act = Act::Q8x256;
    const VALUES: usize = 256;
    type Unpacked = Rows;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn prepare(column: &[u8]) -> Column {
        let block: &BlockQ8x256 = bytemuck::from_bytes(column);
        let mut out = Column::zeroed();
        let zero = _mm512_setzero_si512();
        for (i, q) in block.q.as_chunks::<64>().0.iter().enumerate() {
            let q = load(q);
            let excess = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(OFFSET), q);
            store(&mut out.q[i], q);
            store(&mut out.excess[i], _mm512_sub_epi32(zero, excess));
        }
        out.d = block.d;
        out
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(rows: [&BlockQ6K; ROWS]) -> Rows {
        let (nibble, high) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        let (left, right) =
            (_mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
        let mut q = [[_mm512_setzero_si512(); 4]; ROWS];
        for r in 0..ROWS {
            let row = rows[r];
            for h in 0..2 {
                let ql = load(&row.ql.as_chunks::<64>().0[h]);
                let qh = _mm512_broadcast_i64x4(load_half(&row.qh.as_chunks::<32>().0[h]));
                // The bit pairs 0 and 1, then 2 and 3, of the two halves, come to stand at bits 5-4: `nibble | pair & 0x30`.
                let pairs01 = _mm512_sllv_epi64(qh, left);
                let pairs23 = _mm512_srlv_epi64(qh, right);
                let low = _mm512_and_si512(ql, nibble);
                q[r][2 * h] = _mm512_ternarylogic_epi32::<0xf8>(low, pairs01, high);
                let low = _mm512_and_si512(_mm512_srli_epi16::<4>(ql), nibble);
                q[r][2 * h + 1] = _mm512_ternarylogic_epi32::<0xf8>(low, pairs23, high);
            }
        }
        let two = |a: &BlockQ6K, b: &BlockQ6K| {
            let both = _mm256_set_m128i(load_quarter(&b.scales), load_quarter(&a.scales));
            _mm512_cvtepi8_epi16(both)
        };
        let d = |r: usize| i64::from(u16::from_le_bytes(rows[r].d.0));
        let d = d(0) | d(1) << 16 | d(2) << 32 | d(3) << 48;
        Rows {
            q,
            scales: [two(rows[0], rows[1]), two(rows[2], rows[3])],
            d: _mm512_cvtph_ps(_mm256_set1_epi64x(d)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(rows: &Rows, a: &Column, sums: __m512) -> __m512 {
        let mut dots = [_mm512_setzero_si512(); ROWS];
        // Word i of 16, four times, where packed sums of four products of sub-block i stand.
        const fn four(s: i64) -> i64 {
            s * 0x0001_0001_0001_0001
        }
        let order = _mm512_setr_epi64(four(0), four(4), four(1), four(5), four(2), four(6), four(3), four(7));
        for r in 0..ROWS {
            let fours = |i: usize| _mm512_dpbusd_epi32(load(&a.excess[i]), rows.q[r][i], load(&a.q[i]));
            // Sums of four products are at most 4 * 32 * 127 < 2^15: they fit in words.
            let low = _mm512_packs_epi32(fours(0), fours(1));
            let high = _mm512_packs_epi32(fours(2), fours(3));
            let first = 16 * (r as i16 % 2);
            let scales = |first| {
                let order = _mm512_add_epi16(order, _mm512_set1_epi16(first));
                _mm512_permutexvar_epi16(order, rows.scales[r / 2])
            };
            let dot = _mm512_madd_epi16(low, scales(first));
            dots[r] = _mm512_dpwssd_epi32(dot, high, scales(first + 8));
        }
        let d = _mm512_mul_ps(rows.d, _mm512_set1_ps(a.d));
        _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sums_of_lanes(dots)), sums)
    }
}
