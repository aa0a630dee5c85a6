//! Q5_1.

use std::arch::x86_64::*;

use chaski_gguf::block::q5_1::BlockQ5_1;

use super::block32::Unsigned;
use super::lanes::{nibbles, scale};
use super::tile::Weights;

impl Weights for BlockQ5_1 {
    type Unpacked = Unsigned;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Unsigned { d: scale(self.d), m: scale(self.m), q: quants(self.qh, &self.qs) }
    }
}

/// The quants of Q5_0 and Q5_1, 0 to 31: nibbles, and a fifth bit each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quants(qh: [u8; 4], qs: &[u8; 16]) -> __m256i {
    // Each byte of the bits eight times over, and in each copy another bit.
    let copies = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let fifth = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(qh)), copies);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(fifth, bit), bit);
    _mm256_or_si256(nibbles(qs), _mm256_and_si256(set, _mm256_set1_epi8(16)))
}
