//! Kernels for AMX: products of tiles of 16 tokens by panels of 16 rows, where there are many tokens. Fewer are
//! multiplied as AVX-512 does.

// Intrinsics come by the dozen, and loops with an index unroll into registers.
#![allow(clippy::wildcard_imports, clippy::needless_range_loop)]

mod block32;
mod superblock;
mod tiles;

use super::avx512;
use super::avx512::block32::Parts;
use super::avx512::panel::Super;
use super::avx512::tile::Weights;
use super::kernel::{Kernel, Wide};
use super::table::Table;

pub(super) use tiles::are_available;

/// What AMX adds.
pub(super) static TABLE: Table = Table { kernels: &[KERNELS], ..avx512::TABLE_VNNI };

static KERNELS: &[Kernel] = avx512::kernels!(blocks, superblocks);

/// Columns from which on the tiles pay.
const FROM: usize = 12;

/// Rows that are multiplied at once.
const ROWS: usize = 32;

const fn blocks<W: Weights<Unpacked: Parts>>(kernel: &Kernel) -> Kernel {
    let wide = Wide { name: "amx", from: FROM, rows: ROWS, tile: block32::tile::<W> };
    Kernel { wide: Some(wide), ..*kernel }
}

const fn superblocks<W: Super>(kernel: &Kernel) -> Kernel {
    let wide = Wide { name: "amx", from: FROM, rows: ROWS, tile: superblock::tile::<W> };
    Kernel { wide: Some(wide), ..*kernel }
}
