//! What 256-value super-blocks have in common: 16 sub-blocks of 16 (or 8 of 32) with integer scales and minima.

use std::arch::x86_64::*;

use super::lanes::{load, load_half, sum};
use super::panel::Integers;
use super::tile::Unpacked;
use crate::cpu::act::BlockQ8x256;
use crate::tensor::Act;

/// A super-block whose values are `d * scale * (q - OFFSET) - dmin * min` (no minimum where `MINIMA` is false), with
/// `q` in 0 to 63.
pub(in crate::cpu) struct Superblock<const OFFSET: i8, const MINIMA: bool> {
    pub d: f32,
    pub dmin: f32,
    /// 64 quants each.
    pub q: [__m512i; 4],
    /// The scales of the first and the second 8 sub-blocks: see [`spread`].
    pub scales: [__m512i; 2],
    /// The minima of sub-blocks of 16, as i16 in order.
    pub mins: __m256i,
}

impl<const OFFSET: i8, const MINIMA: bool> Superblock<OFFSET, MINIMA> {
    /// The block with its scales where products of single columns want them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn of(block: &Integers) -> Self {
        let Integers { d, dmin, q, scales, mins } = *block;
        Superblock { d, dmin, q, scales: spread(scales), mins }
    }
}

impl<const OFFSET: i8, const MINIMA: bool> Unpacked for Superblock<OFFSET, MINIMA> {
    type Act = BlockQ8x256;
    const ACT: Act = Act::Q8x256;
    type Sum = __m512;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn add(&self, a: &BlockQ8x256, mut sum: __m512) -> __m512 {
        let quants = a.q.as_chunks::<64>().0;
        let fours = |i: usize| {
            let a = load(&quants[i]);
            _mm512_dpbusd_epi32(minus_excess::<OFFSET>(a), self.q[i], a)
        };
        // Sums of four products are at most 4 * 63 * 127 < 2^15: they fit in words.
        let low = _mm512_packs_epi32(fours(0), fours(1));
        let high = _mm512_packs_epi32(fours(2), fours(3));
        let dot = _mm512_madd_epi16(low, self.scales[0]);
        let dot = _mm512_dpwssd_epi32(dot, high, self.scales[1]);
        sum = _mm512_fmadd_ps(_mm512_set1_ps(self.d * a.d), _mm512_cvtepi32_ps(dot), sum);
        if MINIMA {
            let min = _mm256_cvtepi32_ps(_mm256_madd_epi16(self.mins, load_half(&a.sums)));
            let dmin = _mm256_set1_ps(self.dmin * a.d);
            sum = _mm512_fnmadd_ps(_mm512_zextps256_ps512(dmin), _mm512_zextps256_ps512(min), sum);
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn total(dot: __m512) -> f32 {
        sum(dot)
    }
}

/// Minus the offset times the sums of four activations: the same for every row, so computed once for those that share
/// a register block.
#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn minus_excess<const OFFSET: i8>(a: __m512i) -> __m512i {
    let zero = _mm512_setzero_si512();
    if OFFSET == 0 {
        return zero;
    }
    _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(OFFSET), a))
}

/// 16 scales as i16, in the order of packed sums of four: quarter `i` of the first register holds scale `i` four times,
/// then scale `4 + i` four times; the second register holds the other eight likewise.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn spread(scales: __m256i) -> [__m512i; 2] {
    // Four copies of the number of a word.
    const fn four(s: i64) -> i64 {
        s * 0x0001_0001_0001_0001
    }
    let order = _mm512_setr_epi64(four(0), four(4), four(1), four(5), four(2), four(6), four(3), four(7));
    let scales = _mm512_castsi256_si512(scales);
    let second = _mm512_add_epi16(order, _mm512_set1_epi16(8));
    [_mm512_permutexvar_epi16(order, scales), _mm512_permutexvar_epi16(second, scales)]
}

/// What 8 sub-blocks of 32 have each, as of 16 of 16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pairs(each: [u8; 8]) -> __m256i {
    let each = _mm_cvtsi64_si128(i64::from_le_bytes(each));
    _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(each, each))
}
