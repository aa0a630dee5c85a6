//! How a matrix lies on the device: the bytes of its blocks, in an order in which kernels read whole words.
//!
//! Blocks stand in groups of so many that a group is a multiple of 16 bytes. In a group the parts of the blocks lie in planes: first
//! the quants of all of its blocks, then what belongs to them, down to the scales of two bytes. So vectors of four words are
//! aligned, nothing is stored twice, a row's bytes stay together, and a block's number is all that a kernel needs to find it. The last
//! group is filled up with zeros. Blocks of a multiple of 16 bytes are groups by themselves and stay as they are. Floats stay as
//! they are too, but each row begins at a multiple of 16 bytes.

use std::ops::Range;

use chaski_gguf::Format;
use rayon::prelude::*;

use super::formats::{FormatRow, Kind};

/// Groups that one task brings into planes.
const GROUPS_AT_ONCE: usize = 64;

/// The layout of matrices of one format and row length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    row: &'static FormatRow,
    /// Blocks of a row as the file has them.
    blocks: usize,
    /// Bytes of a block.
    block_bytes: usize,
}

impl Layout {
    /// The layout of rows of `row_len` values; none where no shader decodes the format or the row is no whole number of blocks.
    pub(crate) fn of(format: Format, row_len: usize) -> Option<Layout> {
        let row = FormatRow::of(format)?;
        let info = format.info();
        let whole = row_len > 0 && row_len.is_multiple_of(info.block_len);
        let (blocks, block_bytes) = (row_len / info.block_len, info.block_bytes);
        whole.then_some(Layout { row, blocks, block_bytes })
    }

    /// Bytes of a row in the file.
    pub(crate) fn file_row_bytes(&self) -> usize {
        self.blocks * self.block_bytes
    }

    /// Blocks of a row on the device: rows of floats are filled up.
    fn row_blocks(&self) -> usize {
        match self.row.kind {
            Kind::Blocks => self.blocks,
            Kind::Floats => self.blocks.next_multiple_of(self.row.group),
        }
    }

    /// From one row to the next as kernels count: in blocks, or in vectors of four floats.
    pub(crate) fn stride(&self) -> usize {
        match self.row.kind {
            Kind::Blocks => self.blocks,
            Kind::Floats => self.row_blocks() / 4,
        }
    }

    fn group_bytes(&self) -> usize {
        self.row.group * self.block_bytes
    }

    /// Bytes of `rows` rows on the device, a multiple of 16; none where that is more than can be counted.
    pub(crate) fn bytes(&self, rows: usize) -> Option<usize> {
        let groups = rows.checked_mul(self.row_blocks())?.div_ceil(self.row.group);
        groups.checked_mul(self.group_bytes())
    }

    /// The ranges of rows that lie in one buffer each, of at most `most` bytes: as few as can be, whole multiples of `unit` rows
    /// (the rows of an expert; 1 elsewhere). None where `unit` rows are too many.
    pub(crate) fn shards(&self, rows: usize, unit: usize, most: usize) -> Option<Vec<Range<usize>>> {
        let fits = |rows: usize| self.bytes(rows).is_some_and(|bytes| bytes <= most);
        if fits(rows) {
            return Some(std::iter::once(0..rows).collect());
        }
        let unit = unit.max(1);
        // Filling up takes less than a group a shard, and of floats less than a group a row.
        let row_bytes = self.row_blocks().checked_mul(self.block_bytes)?;
        let at_once = most.saturating_sub(self.group_bytes()) / row_bytes / unit * unit;
        // Shards begin at rows that a kernel's workgroup takes together.
        let at_once = if unit == 1 && at_once >= 64 { at_once / 64 * 64 } else { at_once };
        if at_once == 0 || !fits(at_once) {
            return None;
        }
        Some((0..rows).step_by(at_once).map(|first| first..rows.min(first + at_once)).collect())
    }

    /// Hand the bytes of whole rows, as the file has them, to `write` as the device has them: pieces of about `chunk` bytes with
    /// their offsets, both multiples of 16, in order.
    ///
    /// # Errors
    /// What `write` fails with.
    pub(crate) fn upload<E>(
        &self,
        bytes: &[u8],
        chunk: usize,
        mut write: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let group = self.group_bytes();
        let mut packed = Vec::new();
        let mut at = 0;
        // What a piece holds of the file: whole groups, or whole rows of floats that are filled up.
        let fill = self.row.kind == Kind::Floats && !self.blocks.is_multiple_of(self.row.group);
        let least = if fill { self.file_row_bytes() } else { group };
        for piece in bytes.chunks((chunk / least).max(1) * least) {
            if !fill && self.row.planes.len() == 1 {
                write(at, piece)?;
                at += piece.len();
                continue;
            }
            packed.clear();
            if fill {
                let row_bytes = self.row_blocks() * self.block_bytes;
                packed.resize(piece.len() / least * row_bytes, 0);
                for (from, to) in piece.chunks_exact(least).zip(packed.chunks_exact_mut(row_bytes)) {
                    to[..least].copy_from_slice(from);
                }
            } else {
                packed.resize(piece.len().next_multiple_of(group), 0);
                let from = piece.par_chunks(group * GROUPS_AT_ONCE);
                from.zip(packed.par_chunks_mut(group * GROUPS_AT_ONCE)).for_each(|(from, to)| {
                    for (from, to) in from.chunks(group).zip(to.chunks_exact_mut(group)) {
                        self.pack(from, to);
                    }
                });
            }
            write(at, &packed)?;
            at += packed.len();
        }
        Ok(())
    }

    /// Bring the blocks of a group into planes; where there are fewer than a group has, the rest of each plane stays as it is.
    fn pack(&self, blocks: &[u8], group: &mut [u8]) {
        let mut plane_at = 0;
        for &(at, len) in self.row.planes {
            let plane = &mut group[plane_at..plane_at + self.row.group * len];
            let blocks = blocks.chunks_exact(self.block_bytes);
            // The usual lengths as constants, so that a copy is an instruction or two.
            match len {
                2 => copy::<2>(blocks, at, plane),
                4 => copy::<4>(blocks, at, plane),
                16 => copy::<16>(blocks, at, plane),
                32 => copy::<32>(blocks, at, plane),
                _ => {
                    for (block, to) in blocks.zip(plane.chunks_exact_mut(len)) {
                        to.copy_from_slice(&block[at..at + len]);
                    }
                }
            }
            plane_at += self.row.group * len;
        }
    }
}

fn copy<'a, const LEN: usize>(blocks: impl Iterator<Item = &'a [u8]>, at: usize, plane: &mut [u8]) {
    let (plane, _) = plane.as_chunks_mut::<LEN>();
    for (block, to) in blocks.zip(plane) {
        to.copy_from_slice(&block[at..at + LEN]);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn uploaded(layout: &Layout, bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let done: Result<(), Infallible> = layout.upload(bytes, chunk, |at, piece| {
            assert_eq!((at, at % 16, piece.len() % 16), (out.len(), 0, 0));
            out.extend_from_slice(piece);
            Ok(())
        });
        assert!(done.is_ok());
        out
    }

    /// Where the byte at `at` of the file's blocks lies on the device, by the words of the module's description.
    fn place(row: &FormatRow, block_bytes: usize, at: usize) -> usize {
        let (block, byte) = (at / block_bytes, at % block_bytes);
        let (group, member) = (block / row.group, block % row.group);
        let mut plane_at = group * row.group * block_bytes;
        for &(first, len) in row.planes {
            if (first..first + len).contains(&byte) {
                return plane_at + member * len + byte - first;
            }
            plane_at += row.group * len;
        }
        panic!("byte {byte} of {} is in no plane", row.format);
    }

    #[test]
    fn every_byte_of_a_block_is_in_one_plane_and_groups_are_whole_vectors() {
        for row in FormatRow::all() {
            let bytes = row.format.info().block_bytes;
            let mut times = vec![0; bytes];
            for &(at, len) in row.planes {
                times[at..at + len].iter_mut().for_each(|n| *n += 1);
            }
            assert_eq!(times, vec![1; bytes], "{}", row.format);
            assert_eq!(row.group * bytes % 16, 0, "{}", row.format);
            let mut at = 0;
            for &(_, len) in row.planes {
                // A plane of vectors begins at a vector, one of words at a word.
                let aligned = if len % 16 == 0 { 16 } else { 4 };
                assert_eq!(at % aligned, 0, "{}", row.format);
                at += row.group * len;
            }
        }
    }

    #[test]
    fn nothing_is_lost_and_nothing_added() {
        for row in FormatRow::all().iter().filter(|row| row.kind == Kind::Blocks) {
            let info = row.format.info();
            for blocks in [1, 7, 16, 33] {
                let layout = Layout::of(row.format, blocks * info.block_len).unwrap();
                let bytes: Vec<u8> =
                    (0..3 * blocks * info.block_bytes).map(|i| (i * 7 + i / 251) as u8 | 1).collect();
                let out = uploaded(&layout, &bytes, 1000);
                assert_eq!(
                    out,
                    uploaded(&layout, &bytes, usize::MAX / 2),
                    "{}: cut in other places",
                    row.format
                );
                assert_eq!(Some(out.len()), layout.bytes(3));
                assert!(out.len() < bytes.len() + row.group * info.block_bytes);
                if (3 * blocks).is_multiple_of(row.group) {
                    assert_eq!(out.len(), bytes.len(), "{}", row.format);
                }
                let mut seen = vec![false; out.len()];
                for (at, byte) in bytes.iter().enumerate() {
                    let place = place(row, info.block_bytes, at);
                    assert!(
                        !std::mem::replace(&mut seen[place], true),
                        "{}: two bytes at {place}",
                        row.format
                    );
                    assert_eq!(out[place], *byte, "{}: byte {at}", row.format);
                }
                assert!(out.iter().zip(&seen).all(|(byte, seen)| *seen || *byte == 0), "{}", row.format);
            }
        }
    }

    #[test]
    fn rows_of_floats_begin_at_vectors() {
        for (format, k, filled) in [
            (Format::F32, 8, 8),
            (Format::F32, 5, 8),
            (Format::F16, 16, 16),
            (Format::F16, 12, 16),
            (Format::BF16, 3, 8),
        ] {
            let size = format.info().block_bytes;
            let layout = Layout::of(format, k).unwrap();
            let bytes: Vec<u8> = (0..3 * k * size).map(|i| i as u8 | 1).collect();
            let out = uploaded(&layout, &bytes, 20);
            assert_eq!((out.len(), layout.stride() * 4), (3 * filled * size, filled));
            for (from, to) in bytes.chunks(k * size).zip(out.chunks(filled * size)) {
                assert_eq!(&to[..k * size], from);
                assert!(to[k * size..].iter().all(|b| *b == 0));
            }
        }
    }

    #[test]
    fn shards_are_whole_rows_and_fit() {
        let layout = Layout::of(Format::Q8_0, 320).unwrap();
        let row = 340;
        let whole = layout.shards(1000, 1, 1000 * row).unwrap();
        assert!(whole.len() == 1 && whole[0] == (0..1000), "what fits is not divided: {whole:?}");
        let shards = layout.shards(1000, 1, 200 * row + 400).unwrap();
        assert_eq!(shards.first(), Some(&(0..192)), "whole workgroups");
        assert_eq!(shards.last(), Some(&(960..1000)));
        assert!(shards.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(shards.iter().all(|s| layout.bytes(s.len()).unwrap() <= 200 * row + 400));
        assert_eq!(layout.shards(1000, 100, 250 * row + 400).unwrap().len(), 5, "whole experts");
        assert_eq!(layout.shards(1000, 500, 250 * row), None);
        assert_eq!(layout.shards(1000, 1, 100), None);
        assert_eq!(layout.shards(usize::MAX, 1, 100), None);
    }
}
