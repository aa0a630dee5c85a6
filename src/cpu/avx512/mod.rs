//! Kernels for AVX-512: float products with F, BW, DQ and VL, integer products with VNNI as well.
//!
//! `dpbusd` multiplies unsigned bytes by signed ones, so weights are offset to be unsigned, and the offset times the
//! activations is taken off again in integers: nothing is rounded by it.

// Intrinsics come by the dozen, and loops with an index unroll into registers.
#![allow(clippy::wildcard_imports, clippy::needless_range_loop)]

mod act;
mod attention;
pub(super) mod block32;
mod exact;
mod float;
mod iq4_nl;
mod iq4_xs;
pub(super) mod lanes;
mod mxfp4;
pub(super) mod panel;
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
pub(super) mod quad;
mod superblock;
pub(super) mod tile;
mod vector;
mod wide;

use chaski_gguf::block::bf16::Bf16Le;
use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::plain::F32Le;

use super::kernel::{Kernel, Wide};
use super::table::Table;
use crate::tensor::{Act, Format};
use block32::Parts;
use float::Float;
use panel::Super;
use tile::Weights;
use wide::{Blocks, Supers};

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

/// The kernels for single columns, each with a form for many: what `$blocks` makes of those of 32-value blocks, and
/// `$superblocks` of the others.
macro_rules! kernels {
    ($blocks:ident, $superblocks:ident) => {{
        use chaski_gguf::block::{
            iq4_nl::BlockIq4Nl, iq4_xs::BlockIq4Xs, mxfp4::BlockMxfp4, q2_k::BlockQ2K, q3_k::BlockQ3K,
            q4_0::BlockQ4_0, q4_1::BlockQ4_1, q4_k::BlockQ4K, q5_0::BlockQ5_0, q5_1::BlockQ5_1,
            q5_k::BlockQ5K, q6_k::BlockQ6K, q8_0::BlockQ8_0,
        };
        use $crate::cpu::avx512::{quad, tile};
        use $crate::tensor::Format;
        &[
            $blocks::<BlockQ4_0>(&quad::kernel::<BlockQ4_0>(Format::Q4_0)),
            $blocks::<BlockQ4_1>(&tile::kernel::<BlockQ4_1>(Format::Q4_1)),
            $blocks::<BlockQ5_0>(&tile::kernel::<BlockQ5_0>(Format::Q5_0)),
            $blocks::<BlockQ5_1>(&tile::kernel::<BlockQ5_1>(Format::Q5_1)),
            $blocks::<BlockQ8_0>(&quad::kernel::<BlockQ8_0>(Format::Q8_0)),
            $blocks::<BlockIq4Nl>(&tile::kernel::<BlockIq4Nl>(Format::IQ4_NL)),
            $blocks::<BlockMxfp4>(&tile::kernel::<BlockMxfp4>(Format::MXFP4)),
            $superblocks::<BlockQ2K>(&tile::kernel::<BlockQ2K>(Format::Q2_K)),
            $superblocks::<BlockQ3K>(&tile::kernel::<BlockQ3K>(Format::Q3_K)),
            $superblocks::<BlockQ4K>(&quad::kernel::<BlockQ4K>(Format::Q4_K)),
            $superblocks::<BlockQ5K>(&quad::kernel::<BlockQ5K>(Format::Q5_K)),
            $superblocks::<BlockQ6K>(&quad::kernel::<BlockQ6K>(Format::Q6_K)),
            $superblocks::<BlockIq4Xs>(&tile::kernel::<BlockIq4Xs>(Format::IQ4_XS)),
        ]
    }};
}
pub(super) use kernels;

static KERNELS: &[Kernel] = kernels!(blocks, superblocks);

/// Columns from which on panels pay.
const FROM: usize = 12;

const fn blocks<W: Weights<Unpacked: Parts>>(kernel: &Kernel) -> Kernel {
    let wide = Wide { name: "avx512vnni, wide", from: FROM, rows: WIDE_ROWS, tile: wide::tile::<Blocks<W>> };
    Kernel { wide: Some(wide), ..*kernel }
}

const fn superblocks<W: Super>(kernel: &Kernel) -> Kernel {
    let wide = Wide { name: "avx512vnni, wide", from: FROM, rows: WIDE_ROWS, tile: wide::tile::<Supers<W>> };
    Kernel { wide: Some(wide), ..*kernel }
}

/// Rows that are multiplied at once.
const WIDE_ROWS: usize = 2 * panel::ROWS;

const fn float<W: Float>(format: Format) -> Kernel {
    Kernel { format, act: Act::F32, name: "avx512", tile: float::tile::<W>, wide: None }
}
