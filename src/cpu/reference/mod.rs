//! Kernels in plain Rust, written to be read: what every other instruction set is tested against, and what runs
//! where there is no other. Loops have fixed lengths so that the compiler can vectorize them.
//!
//! Rounding is as in ggml: integer products within a block, times the scales, summed in f32.

mod act;
mod attention;
mod block32;
mod exact;
mod iq4_nl;
mod iq4_xs;
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

use chaski_gguf::block::iq4_nl::BlockIq4Nl;
use chaski_gguf::block::iq4_xs::BlockIq4Xs;
use chaski_gguf::block::mxfp4::BlockMxfp4;
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
use crate::tensor::Format;
use tile::{Unpacked, Weights, tile};

/// What this instruction set brings.
pub(super) static TABLE: Table = Table {
    kernels: &[KERNELS, &exact::KERNELS],
    quantize: &act::QUANTIZE,
    vector: &vector::VECTOR,
    attention: &attention::KERNELS,
};

static KERNELS: &[Kernel] = &[
    kernel::<BlockQ4_0>(Format::Q4_0),
    kernel::<BlockQ4_1>(Format::Q4_1),
    kernel::<BlockQ5_0>(Format::Q5_0),
    kernel::<BlockQ5_1>(Format::Q5_1),
    kernel::<BlockQ8_0>(Format::Q8_0),
    kernel::<BlockIq4Nl>(Format::IQ4_NL),
    kernel::<BlockMxfp4>(Format::MXFP4),
    kernel::<BlockQ2K>(Format::Q2_K),
    kernel::<BlockQ3K>(Format::Q3_K),
    kernel::<BlockQ4K>(Format::Q4_K),
    kernel::<BlockQ5K>(Format::Q5_K),
    kernel::<BlockQ6K>(Format::Q6_K),
    kernel::<BlockIq4Xs>(Format::IQ4_XS),
];

const fn kernel<W: Weights>(format: Format) -> Kernel {
    Kernel { format, act: <W::Unpacked as Unpacked>::ACT, name: "reference", tile: tile::<W>, wide: None }
}
