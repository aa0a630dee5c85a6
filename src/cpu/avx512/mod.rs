//! Kernels for AVX-512: float products with F, BW, DQ and VL, integer products with VNNI as well.
//!
//! `dpbusd` multiplies unsigned bytes by signed ones, so weights are offset to be unsigned, and the offset times the
//! activations is taken off again in integers: nothing is rounded by it.

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
mod quad;
mod superblock;
mod tile;
mod vector;

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

use super::kernel::Kernel;
use super::table::Table;
use crate::tensor::{Act, Format};
use float::Float;
use tile::{Unpacked, Weights};

/// What AVX-512 without VNNI brings.
pub(super) static TABLE: Table = Table {
    kernels: &[FLOATS, &exact::KERNELS],
    quantize: &act::QUANTIZE,
    vector: &vector::VECTOR,
    attention: &attention::KERNELS,
};

/// What VNNI adds.
pub(super) static TABLE_VNNI: Table = Table {
    kernels: &[KERNELS],
    quantize: &act::QUANTIZE,
    vector: &vector::VECTOR,
    attention: &attention::KERNELS_VNNI,
};

static FLOATS: &[Kernel] =
    &[float::<F32Le>(Format::F32), float::<F16Le>(Format::F16), float::<Bf16Le>(Format::BF16)];

static KERNELS: &[Kernel] = &[
    quad::kernel::<BlockQ4_0>(Format::Q4_0),
    kernel::<BlockQ4_1>(Format::Q4_1),
    kernel::<BlockQ5_0>(Format::Q5_0),
    kernel::<BlockQ5_1>(Format::Q5_1),
    quad::kernel::<BlockQ8_0>(Format::Q8_0),
    kernel::<BlockIq4Nl>(Format::IQ4_NL),
    kernel::<BlockMxfp4>(Format::MXFP4),
    kernel::<BlockQ2K>(Format::Q2_K),
    kernel::<BlockQ3K>(Format::Q3_K),
    quad::kernel::<BlockQ4K>(Format::Q4_K),
    quad::kernel::<BlockQ5K>(Format::Q5_K),
    quad::kernel::<BlockQ6K>(Format::Q6_K),
    kernel::<BlockIq4Xs>(Format::IQ4_XS),
];

const fn kernel<W: Weights>(format: Format) -> Kernel {
    Kernel { format, act: <W::Unpacked as Unpacked>::ACT, name: "avx512vnni", tile: tile::tile::<W> }
}

const fn float<W: Float>(format: Format) -> Kernel {
    Kernel { format, act: Act::F32, name: "avx512", tile: float::tile::<W> }
}
