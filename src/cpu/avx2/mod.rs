//! Kernels for AVX2, FMA and F16C.
//!
//! Bytes are multiplied by `maddubs`, which wants one side unsigned and sums pairs into 16 bits, saturating: each
//! format says why its pairs fit.

// Intrinsics come by the dozen, and loops with an index unroll into registers.
#![allow(clippy::wildcard_imports, clippy::needless_range_loop)]

mod act;
mod attention;
mod block32;
mod exact;
mod float;
mod iq4_nl;
mod iq4_xs;
mod lanes;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod superblock;
mod tile;
mod vector;
mod wide;

use chaski_gguf::block::bf16::Bf16Le;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::iq4_nl::BlockIq4Nl;
use chaski_gguf::block::iq4_xs::BlockIq4Xs;
use chaski_gguf::block::mxfp4::BlockMxfp4;
use chaski_gguf::block::plain::F32Le;
use chaski_gguf::block::q2_k::BlockQ2K;
use chaski_gguf::block::q3_k::BlockQ3K;
use chaski_gguf::block::q4_0::BlockQ4_0;
use chaski_gguf::block::q4_1::BlockQ4_1;
use chaski_gguf::block::q4_k::BlockQ4K;
use chaski_gguf::block::q5_0::BlockQ5_0;
use chaski_gguf::block::q5_1::BlockQ5_1;
use chaski_gguf::block::q5_k::BlockQ5K;
use chaski_gguf::block::q6_k::BlockQ6K;
use chaski_gguf::block::q8_0::BlockQ8_0;

use super::kernel::{Kernel, Wide};
use super::table::Table;
use crate::tensor::{Act, Format};
use float::Float;
use tile::{Unpacked, Weights};
use wide::{Affine, Blocks, Family, Supers};

/// What this instruction set brings.
pub(super) static TABLE: Table = Table {
    kernels: &[KERNELS, &exact::KERNELS],
    quantize: &act::QUANTIZE,
    vector: &vector::VECTOR,
    attention: &attention::KERNELS,
};

/// What AVX-VNNI adds: no kernel of its own yet.
pub(super) static TABLE_VNNI: Table =
    Table { kernels: &[], quantize: &act::QUANTIZE, vector: &vector::VECTOR, attention: &attention::KERNELS };

static KERNELS: &[Kernel] = &[
    float::<F32Le>(Format::F32),
    float::<F16Le>(Format::F16),
    float::<Bf16Le>(Format::BF16),
    kernel::<BlockQ4_0, Blocks<BlockQ4_0, 8, 15>>(Format::Q4_0),
    kernel::<BlockQ4_1, Affine<BlockQ4_1, 15>>(Format::Q4_1),
    kernel::<BlockQ5_0, Blocks<BlockQ5_0, 16, 31>>(Format::Q5_0),
    kernel::<BlockQ5_1, Affine<BlockQ5_1, 31>>(Format::Q5_1),
    kernel::<BlockQ8_0, Blocks<BlockQ8_0, 0, 0>>(Format::Q8_0),
    kernel::<BlockIq4Nl, Blocks<BlockIq4Nl, 0, 0>>(Format::IQ4_NL),
    kernel::<BlockMxfp4, Blocks<BlockMxfp4, 12, 24>>(Format::MXFP4),
    kernel::<BlockQ2K, Supers<BlockQ2K, 16, 3>>(Format::Q2_K),
    kernel::<BlockQ3K, Supers<BlockQ3K, 16, 7>>(Format::Q3_K),
    kernel::<BlockQ4K, Supers<BlockQ4K, 32, 15>>(Format::Q4_K),
    kernel::<BlockQ5K, Supers<BlockQ5K, 32, 31>>(Format::Q5_K),
    kernel::<BlockQ6K, Supers<BlockQ6K, 16, 63>>(Format::Q6_K),
    kernel::<BlockIq4Xs, Supers<BlockIq4Xs, 32, 0>>(Format::IQ4_XS),
];

/// Columns from which on panels pay.
const FROM: usize = 12;

const fn kernel<W: Weights, F: Family>(format: Format) -> Kernel {
    let wide = Wide { name: "avx2, wide", from: FROM, rows: 32, tile: wide::tile::<F> };
    Kernel {
        format,
        act: <W::Unpacked as Unpacked>::ACT,
        name: "avx2",
        tile: tile::tile::<W>,
        wide: Some(wide),
    }
}

const fn float<W: Float>(format: Format) -> Kernel {
    Kernel { format, act: Act::F32, name: "avx2", tile: float::tile::<W>, wide: None }
}
