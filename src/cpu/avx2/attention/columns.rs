//! Turning rows into columns.

use std::arch::x86_64::*;

use crate::cpu::attention::kernels::COLUMNS;
use crate::cpu::avx2::lanes::store_f32;

/// Value `i` of row `r` goes to `out[i][at + r]`, for eight rows of eight values.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose(rows: [__m256; 8], out: &mut [[f32; COLUMNS]], at: usize) {
    let [a, b, c, d, e, f, g, h] = rows;
    let pairs = [
        (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)),
        (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)),
        (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f)),
        (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h)),
    ];
    let fours = |x: (__m256, __m256), y: (__m256, __m256)| {
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(x.0, y.0),
            _mm256_shuffle_ps::<0b11_10_11_10>(x.0, y.0),
            _mm256_shuffle_ps::<0b01_00_01_00>(x.1, y.1),
            _mm256_shuffle_ps::<0b11_10_11_10>(x.1, y.1),
        ]
    };
    let (low, high) = (fours(pairs[0], pairs[1]), fours(pairs[2], pairs[3]));
    for i in 0..4 {
        let columns = [
            (i, _mm256_permute2f128_ps::<0x20>(low[i], high[i])),
            (i + 4, _mm256_permute2f128_ps::<0x31>(low[i], high[i])),
        ];
        for (i, column) in columns {
            if let Some(out) = out[i][at..].first_chunk_mut() {
                store_f32(out, column);
            }
        }
    }
}
