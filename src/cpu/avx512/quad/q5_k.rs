//! Q5_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q5_k::BlockQ5K;

use super::super::lanes::{load, load_quarter};
use super::scales::{Chunks, Heads, add, halves_of_chunks, heads};
use super::{Quad, ROWS, sums_of_lanes};
use crate::tensor::Act;

/// Four blocks: of each the quants in the order of [`Chunks::q`].
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Rows {
    heads: Heads,
    q: [[__m512i; 4]; ROWS],
}

impl Quad for BlockQ5K {
    type Step = BlockQ5K;
    type Act = Chunks;
    const ACT: Act = Act::Q8x256;
    const VALUES: usize = 256;
    type Unpacked = Rows;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn prepare(column: &[u8]) -> Chunks {
        Chunks::new(bytemuck::from_bytes(column))
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(rows: [&BlockQ5K; ROWS]) -> Rows {
        let (nibble, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
        // Chunk c has bits 2 c and 2 c + 1, which come to stand at bits 4 and 5.
        let turn = _mm512_setr_epi64(4, 4, 2, 2, 0, 0, -2, -2);
        let mut q = [[_mm512_setzero_si512(); 4]; ROWS];
        for r in 0..ROWS {
            let bytes = halves_of_chunks(&rows[r].qs);
            let bits = rows[r].qh.as_chunks::<16>().0;
            for h in 0..2 {
                let bits = _mm512_rolv_epi64(_mm512_broadcast_i32x4(load_quarter(&bits[h])), turn);
                let low = _mm512_and_si512(bytes[h], nibble);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes[h]), nibble);
                // `nibble | bits & 16`.
                q[r][h] = _mm512_ternarylogic_epi32::<0xf8>(low, bits, fifth);
                q[r][2 + h] = _mm512_ternarylogic_epi32::<0xf8>(high, _mm512_srli_epi16::<1>(bits), fifth);
            }
        }
        Rows { heads: heads(rows), q }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(rows: &Rows, a: &Chunks, sums: __m512) -> __m512 {
        let zero = _mm512_setzero_si512();
        let q = [load(&a.q[0]), load(&a.q[1]), load(&a.q[2]), load(&a.q[3])];
        let mut dots = [zero; ROWS];
        // The scales of row 0, each four times as many words, in every 128 bits.
        let even_odd = _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3);
        for r in 0..ROWS {
            let even = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, rows.q[r][0], q[0]), rows.q[r][1], q[1]);
            let odd = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, rows.q[r][2], q[2]), rows.q[r][3], q[3]);
            // Sums of eight products are at most 8 * 31 * 127 < 2^15: they fit in words.
            let order = _mm512_broadcast_i32x4(_mm_add_epi8(even_odd, _mm_set1_epi8(4 * r as i8)));
            let scales = _mm512_shuffle_epi8(rows.heads.scales, order);
            dots[r] = _mm512_madd_epi16(_mm512_packs_epi32(even, odd), scales);
        }
        add(&rows.heads, sums_of_lanes(dots), a, sums)
    }
}
