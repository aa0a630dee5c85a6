//! Super-block formats.
//!
//! A weight is `d * w - dmin * min`, where `w = scale * (q - offset)` is an integer of at most 13 bits. It is cut into
//! two planes of bytes, `w = 128 * high + low` with `low` in 0 to 127, so that whole super-blocks are summed in the
//! integers of tile registers: nothing is rounded before the super-block's own scales are applied. The sums of
//! activations that the minima are multiplied by are 16-bit integers: their bytes are two planes as well.

use std::arch::asm;
use std::arch::x86_64::*;

use super::tiles::{InUse, ROW, Shapes, TILE};
use crate::cpu::act::BlockQ8x256;
use crate::cpu::avx512::lanes::{load_f32, store_f32};
use crate::cpu::avx512::panel::{ROWS, Super, SuperPanel, Words, load_words, store_words};
use crate::cpu::kernel::{Kernel, Tile};
use crate::cpu::scratch::Scratch;

/// Panels that are multiplied at once: two planes each of the two fill four tiles with results.
const PANELS: usize = 2;
/// Tokens of a tile of results.
const TOKENS: usize = 16;
/// Sums of 16 tokens.
const SUMS: usize = TOKENS * PANELS * ROWS;
/// Bytes of a block of activations.
const ACT: usize = size_of::<BlockQ8x256>();
/// Bytes from a block of activations to its sums.
const ACT_SUMS: usize = std::mem::offset_of!(BlockQ8x256, sums);

/// A super-block of 16 rows, as second operands.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Planes {
    /// For each 64 values the low plane, then the high one.
    weights: [[[Words; 16]; 2]; 4],
    /// The minima where the low bytes of sums lie, then where the high bytes do.
    mins: [[Words; 16]; 2],
    d: [f32; ROWS],
    dmin: [f32; ROWS],
}

impl Planes {
    const ZERO: Planes =
        Planes { weights: [[[[0; 16]; 16]; 2]; 4], mins: [[[0; 16]; 16]; 2], d: [0.0; 16], dmin: [0.0; 16] };

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn fill<W: Super>(&mut self, panel: &SuperPanel) {
        let (low_byte, seven_bits) = (_mm512_set1_epi16(0xff), _mm512_set1_epi16(0x7f));
        let offset = _mm512_set1_epi16(W::OFFSET);
        for (i, (planes, words)) in self.weights.iter_mut().zip(panel.q.as_chunks::<16>().0).enumerate() {
            for (j, words) in words.iter().enumerate() {
                let scales = load_words(&panel.scales[4 * i + j / 4]);
                let q = load_words(words);
                let even = _mm512_sub_epi16(_mm512_and_si512(q, low_byte), offset);
                let odd = _mm512_sub_epi16(_mm512_srli_epi16::<8>(q), offset);
                let even = _mm512_mullo_epi16(even, scales);
                let odd = _mm512_mullo_epi16(odd, scales);
                let low = _mm512_or_si512(
                    _mm512_and_si512(even, seven_bits),
                    _mm512_slli_epi16::<8>(_mm512_and_si512(odd, seven_bits)),
                );
                // Bytes of the first where the mask is set, else of the second: `odd >> 7` in the upper byte.
                let high = _mm512_ternarylogic_epi64::<0xca>(
                    low_byte,
                    _mm512_srai_epi16::<7>(even),
                    _mm512_slli_epi16::<1>(odd),
                );
                store_words(&mut planes[0][j], low);
                store_words(&mut planes[1][j], high);
            }
        }
        self.d = panel.d;
        if W::MINIMA {
            self.dmin = panel.dmin;
            for (j, words) in panel.mins.iter().enumerate() {
                let mins = load_words(words);
                store_words(&mut self.mins[0][j], mins);
                store_words(&mut self.mins[1][j], _mm512_slli_epi16::<8>(mins));
            }
        }
    }
}

/// Integers of 16 tokens: for each panel the products with its low and its high plane, then with its minima's.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Results([[[[i32; ROWS]; TOKENS]; 4]; PANELS]);

/// Compute a tile.
///
/// # Safety
/// `Kernel::run_wide` has checked the tile, and the machine has AMX.
#[allow(clippy::large_stack_arrays, reason = "tens of KiB, which stay in the nearest caches")]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn tile<W: Super>(_: &Kernel, tile: &Tile, scratch: &mut Scratch) {
    let blocks = tile.k / W::LEN;
    let groups = tile.cols.div_ceil(TOKENS);
    let last = tile.cols - (groups - 1) * TOKENS;
    let (whole, rest) = (Shapes::new(TOKENS, ROW), Shapes::new(last, ROW));
    let row = |r: usize| -> &[W] {
        bytemuck::cast_slice(&tile.weights[r * tile.row_bytes..][..blocks * size_of::<W>()])
    };
    let sums = scratch.zeros(groups * SUMS);
    let mut panel = SuperPanel::ZERO;
    let mut planes = [Planes::ZERO; PANELS];
    let mut results = Results([[[[0; ROWS]; TOKENS]; 4]; PANELS]);
    let _in_use = InUse::new();
    for first in (0..tile.rows).step_by(PANELS * ROWS) {
        sums.fill(0.0);
        for b in 0..blocks {
            for (p, planes) in planes.iter_mut().enumerate() {
                // Rows past the end repeat the last one; their results are not written.
                panel.fill(std::array::from_fn(|r| &row((first + p * ROWS + r).min(tile.rows - 1))[b]));
                planes.fill::<W>(&panel);
            }
            // SAFETY: the machine has AMX; 16 rows.
            unsafe { whole.load() };
            for (g, sums) in sums.chunks_exact_mut(SUMS).enumerate() {
                let tokens = if g + 1 == groups { last } else { TOKENS };
                if tokens < TOKENS {
                    // SAFETY: the machine has AMX; 1 to 15 rows.
                    unsafe { rest.load() };
                }
                let acts = &tile.acts[g * TOKENS * tile.act_bytes + b * ACT..];
                // SAFETY: as many tokens as the shapes have rows lie in `acts`, as the caller has checked.
                unsafe { multiply::<W>(acts, tile.act_bytes, &planes, &mut results) };
                for (t, sums) in sums.chunks_exact_mut(PANELS * ROWS).take(tokens).enumerate() {
                    prefetch(acts.as_ptr().wrapping_add((TOKENS + t) * tile.act_bytes));
                    let act: &BlockQ8x256 = bytemuck::from_bytes(&acts[t * tile.act_bytes..][..ACT]);
                    for p in 0..PANELS {
                        let sums = &mut sums.as_chunks_mut::<ROWS>().0[p];
                        add::<W>(act.d, &planes[p], &results.0[p], t, sums);
                    }
                }
            }
        }
        let rows = (tile.rows - first).min(PANELS * ROWS);
        for (col, sums) in sums.chunks_exact(PANELS * ROWS).take(tile.cols).enumerate() {
            // SAFETY: within the tile.
            unsafe { tile.out.set_rows(first, col, &sums[..rows]) };
        }
    }
}

/// Multiply a block of activations of each token by the planes.
///
/// # Safety
/// The machine has AMX; of blocks of activations, `stride` apart, `acts` holds as many as the shapes loaded have rows.
#[inline]
unsafe fn multiply<W: Super>(acts: &[u8], stride: usize, planes: &[Planes; PANELS], results: &mut Results) {
    let [x, y] = planes;
    let out = results.0.as_mut_ptr();
    // SAFETY: what is read and written lies within the arguments, by this function's contract.
    unsafe {
        clear();
        for i in 0..4 {
            asm!(
                "tileloadd tmm4, [{acts} + {stride}*1]",
                "tileloadd tmm5, [{x} + {row}*1]",
                "tdpbssd tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{x} + {row}*1 + {tile}]",
                "tdpbssd tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{y} + {row}*1]",
                "tdpbssd tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{y} + {row}*1 + {tile}]",
                "tdpbssd tmm3, tmm4, tmm5",
                acts = in(reg) acts.as_ptr().add(i * ROW), stride = in(reg) stride,
                x = in(reg) x.weights[i].as_ptr(), y = in(reg) y.weights[i].as_ptr(),
                row = in(reg) ROW, tile = const TILE,
                options(readonly, nostack, preserves_flags),
            );
        }
        store(out.cast());
        if W::MINIMA {
            clear();
            // 64 bytes from the sums on are still in the block; what follows the sums meets zeros.
            asm!(
                "tileloadd tmm4, [{acts} + {stride}*1]",
                "tileloadd tmm5, [{x} + {row}*1]",
                "tdpbusd tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{x} + {row}*1 + {tile}]",
                "tdpbssd tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{y} + {row}*1]",
                "tdpbusd tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{y} + {row}*1 + {tile}]",
                "tdpbssd tmm3, tmm4, tmm5",
                acts = in(reg) acts.as_ptr().add(ACT_SUMS), stride = in(reg) stride,
                x = in(reg) x.mins.as_ptr(), y = in(reg) y.mins.as_ptr(),
                row = in(reg) ROW, tile = const TILE,
                options(readonly, nostack, preserves_flags),
            );
            store(out.cast::<u8>().add(2 * TILE));
        }
    }
}

/// Zeros in the tiles of results.
///
/// # Safety
/// The machine has AMX and shapes are loaded.
#[inline]
unsafe fn clear() {
    // SAFETY: only tile registers are touched.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Store the tiles of results: two for each panel, panels four tiles apart.
///
/// # Safety
/// The machine has AMX and shapes are loaded; these places are writable.
#[inline]
unsafe fn store(to: *mut u8) {
    // SAFETY: the caller's obligation.
    unsafe {
        asm!(
            "tilestored [{to} + {row}*1], tmm0",
            "tilestored [{to} + {row}*1 + {tile}], tmm1",
            "tilestored [{to} + {row}*1 + 4*{tile}], tmm2",
            "tilestored [{to} + {row}*1 + 5*{tile}], tmm3",
            to = in(reg) to, row = in(reg) ROW, tile = const TILE,
            options(nostack, preserves_flags),
        );
    }
}

/// Ask for a block of activations.
#[inline]
fn prefetch(block: *const u8) {
    for line in (0..ACT).step_by(64) {
        // SAFETY: prefetching an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(line).cast()) };
    }
}

/// Add the products of one token and one panel, under their scales.
#[inline]
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add<W: Super>(
    act: f32,
    planes: &Planes,
    results: &[[[i32; ROWS]; TOKENS]; 4],
    t: usize,
    sums: &mut [f32; ROWS],
) {
    // SAFETY: each is 64 readable bytes.
    let integers = |i: usize| unsafe { _mm512_loadu_si512(results[i][t].as_ptr().cast()) };
    let product = _mm512_add_epi32(integers(0), _mm512_slli_epi32::<7>(integers(1)));
    let mut x = _mm512_mul_ps(_mm512_cvtepi32_ps(product), load_f32(&planes.d));
    if W::MINIMA {
        let min = _mm512_add_epi32(integers(2), _mm512_slli_epi32::<8>(integers(3)));
        x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), load_f32(&planes.dmin), x);
    }
    store_f32(sums, _mm512_fmadd_ps(x, _mm512_set1_ps(act), load_f32(sums)));
}
