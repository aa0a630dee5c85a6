//! Memory of the CPU backend: buffers, and the typed windows through which ops touch them.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use chaski_gguf::Gguf;
use memmap2::MmapMut;

use super::kernel::OutTile;
use crate::backend::{Buffer, Weight};

/// Cache lines and the widest vectors are this long.
const ALIGN: usize = 64;

/// Large pages of the systems that have them for the asking.
const LARGE_PAGE: usize = 2 << 20;

/// Zeroed memory, aligned to 64 bytes. Several threads write to disjoint parts of it at once, so it
/// is only ever reached through [`Src`] and [`Dst`] windows.
pub(crate) struct CpuBuffer {
    start: NonNull<u8>,
    bytes: usize,
    /// What owns the memory.
    _map: MmapMut,
}

// SAFETY: the buffer owns its memory; who may touch which part when is the contract of the windows.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above.
unsafe impl Sync for CpuBuffer {}

impl CpuBuffer {
    /// `bytes` of zeroed memory; none if the system refuses. Pages come from the system when they are first touched, so a
    /// large cache costs what is used of it; where it gives large pages, a cache of some of them is asked for in these.
    pub(crate) fn new(bytes: usize) -> Option<CpuBuffer> {
        let large = bytes >= 4 * LARGE_PAGE;
        let align = if large { LARGE_PAGE } else { ALIGN };
        // The kernel takes lengths up to half of the address space.
        let len = bytes.checked_add(align).filter(|len| isize::try_from(*len).is_ok())?;
        let mut map = MmapMut::map_anon(len).ok()?;
        let at = map.as_mut_ptr();
        let skip = at.addr().next_multiple_of(align) - at.addr();
        #[cfg(target_os = "linux")]
        if large {
            // Only advice: without them the memory is as good, and slower.
            let _ = map.advise_range(memmap2::Advice::HugePage, skip, bytes);
        }
        // SAFETY: the map is `align` bytes longer than the buffer, and less than that is skipped.
        let start = NonNull::new(unsafe { at.add(skip) })?;
        Some(CpuBuffer { start, bytes, _map: map })
    }
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Buffer for CpuBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A weight as the CPU uses it: the mapped blocks.
pub(crate) struct CpuWeight {
    file: Arc<Gguf>,
    index: usize,
}

impl CpuWeight {
    pub(crate) fn new(file: Arc<Gguf>, index: usize) -> Option<CpuWeight> {
        file.tensors().get(index)?;
        Some(CpuWeight { file, index })
    }
    /// The blocks; none if the file does not hold them any more.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        let info = self.file.tensors().get(self.index)?;
        self.file.tensor(&info.name).map(|t| t.bytes)
    }
}

impl Weight for CpuWeight {}

/// A window for reading, fixed when a plan is made.
#[derive(Clone, Copy)]
pub(crate) struct Src {
    ptr: *const u8,
    bytes: usize,
}

/// A window for writing, fixed when a plan is made.
#[derive(Clone, Copy)]
pub(crate) struct Dst {
    ptr: *mut u8,
    bytes: usize,
}

// SAFETY: a window is an address and a length; the contract of its constructor and of `Dst::slice`
// says who may touch what when.
unsafe impl Send for Src {}
// SAFETY: as above.
unsafe impl Sync for Src {}
// SAFETY: as above.
unsafe impl Send for Dst {}
// SAFETY: as above.
unsafe impl Sync for Dst {}

impl Src {
    /// A window on `bytes` bytes at `ptr`.
    ///
    /// # Safety
    /// The memory stays valid as long as the window is used, and nobody writes to it while a step
    /// that holds the window runs.
    pub(crate) unsafe fn new(ptr: *const u8, bytes: usize) -> Src {
        Src { ptr, bytes }
    }
    /// Everything in the window. Regions of an arena are aligned for any `T`; a file's blocks are only read as bytes.
    pub(crate) fn slice<T: Pod>(&self) -> &[T] {
        if self.ptr.align_offset(align_of::<T>()) != 0 {
            debug_assert!(false, "a window is not aligned for its type");
            return &[];
        }
        // SAFETY: valid and unwritten by the contract of `new`, aligned as just checked, and any
        // bytes are a `T`, which is `Pod`.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.bytes / size_of::<T>()) }
    }
}

impl Dst {
    /// A window on `bytes` bytes at `ptr`.
    ///
    /// # Safety
    /// The memory stays valid as long as the window is used, it is aligned to 64 bytes, and only
    /// the step that holds the window touches it while that step runs.
    pub(crate) unsafe fn new(ptr: *mut u8, bytes: usize) -> Dst {
        Dst { ptr, bytes }
    }
    /// The elements of `range`, cut to the window.
    ///
    /// # Safety
    /// No two slices that exist at once overlap: a chunk of a step asks only for its own part.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        let len = self.bytes / size_of::<T>();
        let (start, end) = (range.start.min(len), range.end.min(len));
        // SAFETY: inside the window by the line above, valid by the contract of `new`, not aliased
        // by this function's, and aligned since `T` is no wider than 64 bytes.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.cast::<T>().add(start), end.max(start) - start) }
    }
    /// A tile of a matrix product that begins `at` values into the window, `stride` values from a column to the next.
    ///
    /// # Safety
    /// As [`Dst::slice`], for the rows and columns of the tile that it serves.
    pub(crate) unsafe fn tile(&self, at: usize, stride: usize) -> OutTile<'_> {
        let len = self.bytes / size_of::<f32>();
        let at = at.min(len);
        #[allow(
            clippy::cast_ptr_alignment,
            reason = "the window is aligned to 64 bytes by the contract of `new`"
        )]
        let start = self.ptr.cast::<f32>();
        // SAFETY: inside the window, which is valid by the contract of `new`, and not aliased by this function's.
        unsafe { OutTile::from_raw(start.add(at), len - at, stride) }
    }
    /// The same memory for reading, once the step has run.
    pub(crate) fn as_src(&self) -> Src {
        Src { ptr: self.ptr, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for bytes in [0, 1, 63, 64, 4097, 1 << 20, 9 << 20] {
            let buffer = CpuBuffer::new(bytes).unwrap();
            assert_eq!((buffer.ptr().addr() % ALIGN, Buffer::bytes(&buffer)), (0, bytes));
            // SAFETY: the buffer holds that many bytes and nobody writes to it.
            let window = unsafe { Src::new(buffer.ptr(), bytes) };
            assert!(window.slice::<u8>().iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn an_absurd_size_is_refused() {
        assert!(CpuBuffer::new(usize::MAX).is_none());
        assert!(CpuBuffer::new(usize::MAX / 2).is_none());
    }

    #[test]
    fn slices_are_cut_to_their_window() {
        let buffer = CpuBuffer::new(64).unwrap();
        // SAFETY: the window is the buffer, and only this test touches it.
        let window = unsafe { Dst::new(buffer.ptr(), 64) };
        // SAFETY: one slice exists at a time.
        assert_eq!(unsafe { window.slice::<f32>(10..100) }.len(), 6);
        // SAFETY: as above.
        assert_eq!(unsafe { window.slice::<f32>(100..200) }.len(), 0);
    }
}
