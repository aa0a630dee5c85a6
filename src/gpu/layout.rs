//! How the blocks of a weight lie on the device: in planes, so that kernels read whole words.
//!
//! A plane holds the same bytes of every block, one block after the other. All planes together hold every byte of every block
//! once; a plane begins at a multiple of 16 bytes.

use chaski_gguf::Format;

/// Planes that a format may have: kernels are told where each begins.
pub(crate) const MAX_PLANES: usize = 4;
/// Planes begin at multiples of this many bytes.
pub(crate) const PLANE_ALIGN: usize = 16;

/// The planes of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// For every plane the parts of a block, offset and length, that it holds in this order.
    pub(crate) planes: &'static [&'static [(usize, usize)]],
    /// Bytes of a block.
    pub(crate) block_bytes: usize,
}

impl Layout {
    /// The layout of a format; none where no shader decodes it.
    pub(crate) fn of(format: Format) -> Option<Layout> {
        let planes: &[&[(usize, usize)]] = match format {
            Format::F32 => &[&[(0, 4)]],
            Format::F16 => &[&[(0, 2)]],
            _ => return None,
        };
        Some(Layout { planes, block_bytes: format.info().block_bytes })
    }

    /// Bytes of a block in plane `plane`.
    pub(crate) fn plane_bytes(&self, plane: usize) -> usize {
        self.planes[plane].iter().map(|(_, len)| len).sum()
    }

    /// Where the planes of `blocks` blocks begin, in bytes, and the bytes of all of them.
    pub(crate) fn offsets(&self, blocks: usize) -> ([usize; MAX_PLANES], usize) {
        let (mut at, mut end) = ([0; MAX_PLANES], 0usize);
        for (plane, at) in at.iter_mut().enumerate().take(self.planes.len()) {
            *at = end;
            end = end
                .saturating_add(blocks.saturating_mul(self.plane_bytes(plane)))
                .saturating_add(PLANE_ALIGN - 1)
                / PLANE_ALIGN
                * PLANE_ALIGN;
        }
        (at, end)
    }

    /// The bytes of plane `plane` of whole blocks.
    pub(crate) fn pack(&self, plane: usize, blocks: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let parts = self.planes[plane];
        if parts == [(0, self.block_bytes)] {
            out.extend_from_slice(blocks);
            return;
        }
        for block in blocks.chunks_exact(self.block_bytes) {
            for &(at, len) in parts {
                out.extend_from_slice(&block[at..at + len]);
            }
        }
    }
}
