//! Q4_K.

use std::arch::x86_64::*;

use chaski_gguf::block::q4_k::BlockQ4K;

use super::super::lanes::load;
use super::scales::{Chunks, Heads, add, halves_of_chunks, heads};
use super::{Quad, ROWS};
use crate::tensor::Act;

/// Four blocks: of each the bytes of four chunks, first and second halves.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Rows {
    heads: Heads,
    bytes: [[__m512i; 2]; ROWS],
}

impl Quad for BlockQ4K {
    type Step = BlockQ4K;
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
    unsafe fn unpack(rows: [&BlockQ4K; ROWS]) -> Rows {
        let mut bytes = [[_mm512_setzero_si512(); 2]; ROWS];
        for r in 0..ROWS {
            bytes[r] = halves_of_chunks(&rows[r].qs);
        }
        Rows { heads: heads(rows), bytes }
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(rows: &Rows, a: &Chunks, sums: __m512) -> __m512 {
        let (zero, nibble) = (_mm512_setzero_si512(), _mm512_set1_epi8(15));
        let high = _mm512_set1_epi8(-16);
        let q = [load(&a.q[0]), load(&a.q[1]), load(&a.q[2]), load(&a.q[3])];
        let mut words = [zero; ROWS];
        for r in 0..ROWS {
            let [first, second] = rows.bytes[r];
            let mut even = _mm512_dpbusd_epi32(zero, _mm512_and_si512(first, nibble), q[0]);
            even = _mm512_dpbusd_epi32(even, _mm512_and_si512(second, nibble), q[1]);
            // The upper nibble where it stands, so 16 times the sum.
            let mut odd = _mm512_dpbusd_epi32(zero, _mm512_and_si512(first, high), q[2]);
            odd = _mm512_dpbusd_epi32(odd, _mm512_and_si512(second, high), q[3]);
            // Sums of eight products are at most 8 * 15 * 127: they fit in words, the odd ones in the upper half.
            // `even & 0xffff | odd`.
            words[r] = _mm512_ternarylogic_epi32::<0xea>(
                even,
                _mm512_set1_epi32(0xffff),
                _mm512_slli_epi32::<12>(odd),
            );
        }
        // Sums of 16 fit as well. Lanes of two rows take turns.
        let both = |a, b| _mm512_add_epi16(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let scales = rows.heads.scales;
        let first =
            _mm512_madd_epi16(both(words[0], words[1]), _mm512_shuffle_epi32::<0b01_00_01_00>(scales));
        let second =
            _mm512_madd_epi16(both(words[2], words[3]), _mm512_shuffle_epi32::<0b11_10_11_10>(scales));
        let dot =
            _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
        add(&rows.heads, dot, a, sums)
    }
}
