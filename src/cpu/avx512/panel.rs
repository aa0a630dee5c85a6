//! Sixteen rows of weights side by side: the layout of products with many columns.
//!
//! A lane of a register is a row. A word is four neighbouring bytes of a row, so that a register of words meets
//! four activations in every lane; it is also the layout that AMX wants of its second operand.

use std::arch::x86_64::*;

use super::lanes::load;

/// Rows of a panel.
pub(in crate::cpu) const ROWS: usize = 16;

/// A register of words, in memory.
pub(in crate::cpu) type Words = [u32; ROWS];

/// 64 bytes as a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) fn load_words(words: &Words) -> __m512i {
    load(words)
}

/// Store a register of words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) fn store_words(words: &mut Words, v: __m512i) {
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), v) }
}

/// Transpose 16 registers of 16 words: word `i` of register `r` becomes word `r` of register `i`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) fn transpose(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // Pairs of rows, then fours: after this, register `4 g + j` holds words `j`, `4 + j`, `8 + j` and `12 + j` of the
    // rows `4 g ..`, one to a 128-bit part.
    let mut fours = [zero; 16];
    for g in 0..4 {
        let r = &rows[4 * g..][..4];
        let low01 = _mm512_unpacklo_epi32(r[0], r[1]);
        let high01 = _mm512_unpackhi_epi32(r[0], r[1]);
        let low23 = _mm512_unpacklo_epi32(r[2], r[3]);
        let high23 = _mm512_unpackhi_epi32(r[2], r[3]);
        fours[4 * g] = _mm512_unpacklo_epi64(low01, low23);
        fours[4 * g + 1] = _mm512_unpackhi_epi64(low01, low23);
        fours[4 * g + 2] = _mm512_unpacklo_epi64(high01, high23);
        fours[4 * g + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    let mut out = [zero; 16];
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let even01 = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let odd01 = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let even23 = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
        let odd23 = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
        out[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even01, even23);
        out[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even01, even23);
        out[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd01, odd23);
        out[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd01, odd23);
    }
    out
}

/// Quants and integer scales of a super-block of one row, before they are put side by side.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Integers {
    /// The scale.
    pub d: f32,
    /// The scale of the minima.
    pub dmin: f32,
    /// 64 quants each, in order, unsigned.
    pub q: [__m512i; 4],
    /// The scales of 16 sub-blocks of 16, as i16 in order.
    pub scales: __m256i,
    /// Their minima likewise.
    pub mins: __m256i,
}

/// A super-block format whose values are `d * scale * (q - OFFSET) - dmin * min`.
pub(in crate::cpu) trait Super: bytemuck::Pod {
    /// What is taken from the quants.
    const OFFSET: i16;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Values of a block.
    const LEN: usize = 256;
    /// Values of a sub-block.
    const SUB: usize;
    /// The block's integers.
    ///
    /// # Safety
    /// The machine has AVX-512.
    unsafe fn integers(&self) -> Integers;
}

/// A super-block of 16 rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct SuperPanel {
    /// Words of quants.
    pub q: [Words; 64],
    /// For every sub-block of 16 the rows' scales, each twice as i16.
    pub scales: [Words; 16],
    /// Pairs of minima as i16; 8 pairs, then zeros.
    pub mins: [Words; 16],
    /// The rows' scales.
    pub d: [f32; ROWS],
    /// The rows' scales of minima.
    pub dmin: [f32; ROWS],
}

impl SuperPanel {
    /// Nothing but zeros.
    pub(in crate::cpu) const ZERO: SuperPanel = SuperPanel {
        q: [[0; ROWS]; 64],
        scales: [[0; ROWS]; 16],
        mins: [[0; ROWS]; 16],
        d: [0.0; ROWS],
        dmin: [0.0; ROWS],
    };

    /// Put the super-blocks of 16 rows side by side.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(in crate::cpu) fn fill<W: Super>(&mut self, rows: [&W; ROWS]) {
        let mut scales = [_mm512_setzero_si512(); ROWS];
        let mut mins = [_mm512_setzero_si512(); ROWS];
        let mut quants = [[[0u32; 16]; 4]; ROWS];
        for (r, block) in rows.into_iter().enumerate() {
            // SAFETY: the machine has the features of this function.
            let integers = unsafe { block.integers() };
            self.d[r] = integers.d;
            self.dmin[r] = integers.dmin;
            for (words, q) in quants[r].iter_mut().zip(integers.q) {
                store_words(words, q);
            }
            let wide = _mm512_cvtepu16_epi32(integers.scales);
            scales[r] = _mm512_or_si512(wide, _mm512_slli_epi32::<16>(wide));
            mins[r] = _mm512_zextsi256_si512(integers.mins);
        }
        for (words, v) in self.scales.iter_mut().zip(transpose(&scales)) {
            store_words(words, v);
        }
        if W::MINIMA {
            for (words, v) in self.mins.iter_mut().zip(transpose(&mins)) {
                store_words(words, v);
            }
        }
        for (i, words) in self.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mut v = [_mm512_setzero_si512(); ROWS];
            for (v, q) in v.iter_mut().zip(&quants) {
                *v = load_words(&q[i]);
            }
            for (words, v) in words.iter_mut().zip(transpose(&v)) {
                store_words(words, v);
            }
        }
    }
}
