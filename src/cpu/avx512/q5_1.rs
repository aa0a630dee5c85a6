//! Q5_1.

use std::arch::x86_64::*;

use chaski_gguf::block::q5_1::BlockQ5_1;

use super::block32::Unsigned;
use super::lanes::{nibbles, scale};
use super::tile::Weights;

impl Weights for BlockQ5_1 {
    type Unpacked = Unsigned;

    #[inline]
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn unpack(&self) -> Self::Unpacked {
        Unsigned { d: scale(self.d), m: scale(self.m), q: quants(self.qh, &self.qs) }
    }
}

/// The quants of Q5_0 and Q5_1, 0 to 31: nibbles, and a fifth bit each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) fn quants(qh: [u8; 4], qs: &[u8; 16]) -> __m256i {
    let q = nibbles(qs);
    _mm256_mask_add_epi8(q, u32::from_le_bytes(qh), q, _mm256_set1_epi8(16))
}
