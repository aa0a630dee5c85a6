//! What Q4_K and Q5_K share: the heads of their blocks, and the activations of a super-block in the order of four chunks.

use std::arch::x86_64::*;

use bytemuck::{Pod, Zeroable};

use super::super::lanes::{load, load_half, load_quarter, store};
use super::ROWS;
use crate::cpu::act::BlockQ8x256;

/// A super-block of activations. The 128 bits `c` of every register belong to chunk `c`: the sub-blocks `2 c` and
/// `2 c + 1`, which share bytes of weights.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Chunks {
    /// The first and the second 16 values of even sub-blocks, then of odd ones.
    pub q: [[i8; 64]; 4],
    /// The sums of both sub-blocks, four times.
    pub sums: [i16; 32],
    /// The scale.
    pub d: f32,
    pad: [u8; 60],
}

impl Chunks {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
    pub fn new(block: &BlockQ8x256) -> Chunks {
        let mut out = Chunks::zeroed();
        let chunks = block.q.as_chunks::<64>().0;
        let chunks = [load(&chunks[0]), load(&chunks[1]), load(&chunks[2]), load(&chunks[3])];
        // The four quarters of each chunk go to four registers.
        let even01 = _mm512_shuffle_i32x4::<0b01_00_01_00>(chunks[0], chunks[1]);
        let even23 = _mm512_shuffle_i32x4::<0b01_00_01_00>(chunks[2], chunks[3]);
        let odd01 = _mm512_shuffle_i32x4::<0b11_10_11_10>(chunks[0], chunks[1]);
        let odd23 = _mm512_shuffle_i32x4::<0b11_10_11_10>(chunks[2], chunks[3]);
        store(&mut out.q[0], _mm512_shuffle_i32x4::<0b10_00_10_00>(even01, even23));
        store(&mut out.q[1], _mm512_shuffle_i32x4::<0b11_01_11_01>(even01, even23));
        store(&mut out.q[2], _mm512_shuffle_i32x4::<0b10_00_10_00>(odd01, odd23));
        store(&mut out.q[3], _mm512_shuffle_i32x4::<0b11_01_11_01>(odd01, odd23));
        // Sums of 32, two to a lane: lane c is of chunk c.
        let thirty_two =
            _mm256_cvtepi32_epi16(_mm256_madd_epi16(load_half(&block.sums), _mm256_set1_epi16(1)));
        let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        store(&mut out.sums, _mm512_permutexvar_epi32(lanes, _mm512_castsi128_si512(thirty_two)));
        out.d = block.d;
        out
    }
}

/// The scales and minima of four rows.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// `d` of row `r` in lane `r` of the first 128 bits, `dmin` in the next.
    pub d: __m256,
    /// In the 128 bits `c`, lane `r`: the two scales of chunk `c` of row `r`, as i16.
    pub scales: __m512i,
    /// The minima likewise.
    pub mins: __m512i,
}

/// Unpack the first 16 bytes of four blocks: `d`, `dmin` and 12 bytes of 6-bit numbers (`chaski_gguf::block::scales`).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
pub(super) fn heads<W: Pod>(rows: [&W; ROWS]) -> Heads {
    let mut heads = _mm512_castsi128_si512(load_quarter(head(rows[0])));
    heads = _mm512_inserti32x4::<1>(heads, load_quarter(head(rows[1])));
    heads = _mm512_inserti32x4::<2>(heads, load_quarter(head(rows[2])));
    heads = _mm512_inserti32x4::<3>(heads, load_quarter(head(rows[3])));
    const fn four(first: i32) -> i32 {
        first * 0x0101_0101 + 0x0302_0100
    }
    let none = -1;
    let all = |v: [i32; 4]| _mm512_broadcast_i32x4(_mm_setr_epi32(v[0], v[1], v[2], v[3]));
    // For each group of four numbers the bytes that hold its low bits, then those that hold bits 5 and 4.
    let low = _mm512_shuffle_epi8(heads, all([four(4), four(12), four(8), four(12)]));
    let high = _mm512_shuffle_epi8(heads, all([none, four(4), none, four(8)]));
    let low = _mm512_srlv_epi32(low, all([0, 0, 0, 4]));
    let low = _mm512_and_si512(low, all([0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f]));
    let high = _mm512_srli_epi32::<2>(high);
    // `low | high & 0x30`: in the 128 bits `r` the eight scales of row `r`, then its eight minima.
    let bytes = _mm512_ternarylogic_epi32::<0xf8>(low, high, all([0x3030_3030; 4]));
    let order = load(&CHUNK_PAIRS);
    let pairs = _mm512_permutexvar_epi16(order, bytes);
    let zero = _mm512_setzero_si512();
    let halves = _mm512_permutexvar_epi16(load(&SCALES), heads);
    Heads {
        d: _mm256_cvtph_ps(_mm512_castsi512_si128(halves)),
        scales: _mm512_unpackhi_epi8(pairs, zero),
        mins: _mm512_unpacklo_epi8(pairs, zero),
    }
}

/// The first 16 bytes of a block.
#[inline]
fn head<W: Pod>(row: &W) -> &[u8; 16] {
    bytemuck::bytes_of(row).first_chunk().unwrap_or(&[0; 16])
}

/// Where the pairs of minima of each chunk come from, for four rows, and the pairs of scales.
const CHUNK_PAIRS: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (chunk, part, row) = (i / 8, i / 4 % 2, i % 4);
        order[i] = (8 * row + 4 * (1 - part) + chunk) as u16;
        i += 1;
    }
    order
};

/// Where `d` of four rows comes from, then `dmin`.
const SCALES: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 8 {
        order[i] = (8 * (i % 4) + i / 4) as u16;
        i += 1;
    }
    order
};

/// Bytes of four chunks of 32: the first halves, and the second.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn halves_of_chunks(qs: &[u8; 128]) -> [__m512i; 2] {
    let halves = qs.as_chunks::<64>().0;
    let (first, second) = (load(&halves[0]), load(&halves[1]));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(first, second),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(first, second),
    ]
}

/// Add integer products and minima, under the scales of the blocks, to the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn add(heads: &Heads, dot: __m512i, a: &Chunks, sums: __m512) -> __m512 {
    let d = _mm512_castps256_ps512(_mm256_mul_ps(heads.d, _mm256_set1_ps(a.d)));
    let min = _mm512_madd_epi16(heads.mins, load(&a.sums));
    let sums = _mm512_fmadd_ps(_mm512_shuffle_f32x4::<0>(d, d), _mm512_cvtepi32_ps(dot), sums);
    _mm512_fnmadd_ps(_mm512_shuffle_f32x4::<0b01_01_01_01>(d, d), _mm512_cvtepi32_ps(min), sums)
}
