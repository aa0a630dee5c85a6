//! Matrix products in tiles: one indirect call computes a whole tile over all of K.
//!
//! Kernels of one format and activation format agree up to rounding whatever their instruction set. Within one
//! form of a kernel an element is always computed by the same sequence of float operations, wherever it stands in the
//! tile: how rows and columns are dealt to threads, or to tiles, never shows in the result. A kernel may have a second
//! form for many columns ([`Wide`]); which one runs depends on the number of columns of the whole product alone.

use std::marker::PhantomData;

use super::isa::Isa;
use super::scratch::Scratch;
use super::table::table;
use crate::tensor::{Act, Format};

/// Where the elements of a tile go: row `r` of column `c` to `out[c * stride + r]`.
///
/// It is a pointer and not a slice because tiles of one output interleave: several threads write disjoint
/// elements of it at one time.
#[derive(Clone, Copy)]
pub struct OutTile<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> OutTile<'a> {
    /// A tile at the start of `out`, which it borrows whole; `stride` values from a column to the next.
    pub fn new(out: &'a mut [f32], stride: usize) -> OutTile<'a> {
        OutTile { start: out.as_mut_ptr(), len: out.len(), stride, lifetime: PhantomData }
    }

    /// A tile of an output that other threads write too: `len` values from `start` are within it.
    ///
    /// # Safety
    /// `start` is aligned, and `start .. start + len` lies in one allocation that outlives `'a`. Of these, the
    /// elements `c * stride + r` for the rows and columns of the tile it serves are valid for writes and are
    /// touched by nobody else during `'a`.
    pub unsafe fn from_raw(start: *mut f32, len: usize, stride: usize) -> OutTile<'a> {
        OutTile { start, len, stride, lifetime: PhantomData }
    }

    /// Write one element.
    ///
    /// # Safety
    /// `row < rows` and `col < cols` of the tile, which [`Kernel::run`] has checked against `len`.
    #[inline]
    pub(super) unsafe fn set(&self, row: usize, col: usize, value: f32) {
        debug_assert!(col * self.stride + row < self.len);
        // SAFETY: in bounds by this function's contract, ours to write by the constructor's.
        unsafe { self.start.add(col * self.stride + row).write(value) }
    }

    /// Write neighbouring rows of one column.
    ///
    /// # Safety
    /// As for [`OutTile::set`], for each of them.
    #[inline]
    pub(super) unsafe fn set_rows(&self, row: usize, col: usize, values: &[f32]) {
        debug_assert!(col * self.stride + row + values.len() <= self.len);
        let (whole, rest) = values.as_chunks::<16>();
        // SAFETY: in bounds by this function's contract, ours to write by the constructor's.
        unsafe {
            let mut to = self.start.add(col * self.stride + row);
            for values in whole {
                to.cast::<[f32; 16]>().write_unaligned(*values);
                to = to.add(16);
            }
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to, rest.len());
        }
    }
}

/// A tile of a matrix product: rows of weights times columns of activations.
pub struct Tile<'a> {
    /// The first row's blocks, the other rows `row_bytes` apart.
    pub weights: &'a [u8],
    /// Bytes from a row to the next.
    pub row_bytes: usize,
    /// Rows of the tile.
    pub rows: usize,
    /// The first column's activations, the other columns `act_bytes` apart; aligned to 4 bytes.
    pub acts: &'a [u8],
    /// Bytes from a column to the next: `Act::row_bytes(k)` or more, a multiple of 4.
    pub act_bytes: usize,
    /// Columns of the tile.
    pub cols: usize,
    /// Values of a row and of a column: a whole number of blocks of both.
    pub k: usize,
    /// Where the products go.
    pub out: OutTile<'a>,
}

/// A row of an instruction set's table.
pub struct Kernel {
    /// The format of the weights.
    pub format: Format,
    /// The format of the activations.
    pub act: Act,
    /// The instruction set and what is particular about it, for reports.
    pub name: &'static str,
    /// Compute a tile that `run` has checked, on a machine that has the instruction set. It is given its own
    /// row as well, for functions that serve several formats.
    pub(super) tile: unsafe fn(&Kernel, &Tile),
    /// How many columns are better computed, if not in the same way.
    pub wide: Option<Wide>,
}

/// The form of a kernel for many columns: weights are unpacked once for all of them, which pays from some number of
/// columns on. It agrees with the other form up to rounding.
pub struct Wide {
    /// The instruction set and what is particular about it, for reports.
    pub name: &'static str,
    /// Columns from which on it pays.
    pub from: usize,
    /// Rows of a tile are best a multiple of this.
    pub rows: usize,
    /// As [`Kernel::tile`].
    pub(super) tile: unsafe fn(&Kernel, &Tile, &mut Scratch),
}

impl Kernel {
    /// Compute a tile, each column by itself.
    ///
    /// # Panics
    /// Where the slices are too short for what the tile says, `k` is no whole number of blocks, or activations
    /// are not aligned to 4 bytes: all of it is decided by the caller and none by a file.
    pub fn run(&self, tile: &Tile) {
        if self.check(tile) {
            // SAFETY: the lengths are checked. Kernels are only handed out by `choose` and `all`, which go
            // through `table`: the machine has the instruction set.
            unsafe { (self.tile)(self, tile) }
        }
    }

    /// The form for this many columns, if it is not [`Kernel::run`].
    pub fn wide(&self, cols: usize) -> Option<&Wide> {
        self.wide.as_ref().filter(|wide| cols >= wide.from)
    }

    /// Compute a tile in the form for many columns, however many there are; in the usual form where the kernel has no other.
    ///
    /// # Panics
    /// As [`Kernel::run`].
    pub fn run_wide(&self, tile: &Tile, scratch: &mut Scratch) {
        let Some(wide) = &self.wide else { return self.run(tile) };
        if self.check(tile) {
            // SAFETY: as in `run`.
            unsafe { (wide.tile)(self, tile, scratch) }
        }
    }

    /// Whether there is anything to compute.
    fn check(&self, tile: &Tile) -> bool {
        if tile.rows == 0 || tile.cols == 0 {
            return false;
        }
        let row = self.row_bytes(tile.k);
        let col = self.act.row_bytes(tile.k);
        assert!(
            holds(tile.weights.len(), tile.rows, tile.row_bytes, row),
            "{}: weights too short",
            self.name
        );
        assert!(
            holds(tile.acts.len(), tile.cols, tile.act_bytes, col),
            "{}: activations too short",
            self.name
        );
        assert!(
            holds(tile.out.len, tile.cols, tile.out.stride, tile.rows),
            "{}: output too short",
            self.name
        );
        assert!(
            tile.acts.as_ptr().addr().is_multiple_of(4) && tile.act_bytes.is_multiple_of(4),
            "{}: activations not aligned",
            self.name
        );
        true
    }

    /// Bytes of a row of `k` weights.
    ///
    /// # Panics
    /// Where `k` is no whole number of blocks of both formats.
    pub fn row_bytes(&self, k: usize) -> usize {
        let info = self.format.info();
        assert!(
            k.is_multiple_of(info.block_len) && k.is_multiple_of(self.act.block_len()),
            "{}: rows of {k} values are no whole number of blocks",
            self.name
        );
        k / info.block_len * info.block_bytes
    }
}

/// Whether `len` holds `n` (not 0) stretches of `last`, `stride` apart.
fn holds(len: usize, n: usize, stride: usize, last: usize) -> bool {
    (n - 1).checked_mul(stride).and_then(|start| start.checked_add(last)).is_some_and(|end| end <= len)
}

/// The kernels of one instruction set, without those of the sets below it.
///
/// # Panics
/// Where this machine does not have it.
pub fn all(isa: Isa) -> impl Iterator<Item = &'static Kernel> {
    table(isa).kernels.iter().copied().flatten()
}

/// The best kernel for a format: of `isa`'s table, or of its parent's, down to the reference, which has one for
/// every format. `exact` asks for activations that are not rounded.
///
/// # Panics
/// Where this machine does not have `isa`.
pub fn choose(isa: Isa, format: Format, exact: bool) -> &'static Kernel {
    std::iter::successors(Some(isa), |isa| isa.parent())
        .flat_map(all)
        .find(|kernel| kernel.format == format && (!exact || kernel.act == Act::F32))
        .expect("the reference table has an exact kernel for every format")
}
