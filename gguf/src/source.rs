//! Where the bytes of a file come from: a map, a static slice, or a buffer of our own.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::MmapMut;

use crate::{Error, Result, sniff};

/// Gives a value the alignment that a mapped file has in practice: 64 bytes.
///
/// `include_bytes!` alone is 1-aligned, which no block of a tensor can be borrowed from:
///
/// ```
/// use chaski_gguf::Aligned;
/// static MODEL: &Aligned<[u8]> = &Aligned(*b"in truth: *include_bytes!(\"model.gguf\")");
/// assert_eq!(MODEL.0.as_ptr().addr() % 64, 0);
/// ```
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

/// No system has smaller pages.
const MIN_PAGE: usize = 4096;
/// Bytes that a thread reads at a time.
const PIECE: usize = 8 << 20;
/// Threads that read a file: more than one keep a disk busy and share the copying; more than a few wait for each other.
const READERS: usize = 4;

/// The least alignment of a file's first byte in memory, and the least `general.alignment`.
pub(crate) const MIN_ALIGNMENT: usize = 8;

/// Large pages of the systems that have them for the asking.
const LARGE_PAGE: usize = 2 << 20;

/// Memory of our own, whose first byte is 64-aligned; for large files it begins at a large page and asks for more of them:
/// weights are read from end to end for every token, and with pages of 4096 bytes much of that time goes into finding them.
pub(crate) struct Buffer {
    map: Option<MmapMut>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zeros; `None` if there is no memory for it.
    fn zeroed(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self { map: None, start: 0, len });
        }
        let large = len >= LARGE_PAGE;
        // Zeros that the system gives when they are first touched: here, by the threads that read into them.
        let map = MmapMut::map_anon(if large { len.checked_add(LARGE_PAGE)? } else { len }).ok()?;
        let at = map.as_ptr().addr();
        let start = if large { at.next_multiple_of(LARGE_PAGE) - at } else { 0 };
        #[cfg(target_os = "linux")]
        if large {
            // Only advice: without them the buffer is as right, and slower.
            let _ = map.advise_range(memmap2::Advice::HugePage, start, len);
        }
        Some(Self { map: Some(map), start, len })
    }

    fn bytes(&self) -> &[u8] {
        let map = self.map.as_deref().unwrap_or_default();
        map.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let map = self.map.as_deref_mut().unwrap_or_default();
        map.get_mut(self.start..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }
}

/// The bytes of one file.
pub(crate) enum Source {
    /// Borrowed from the page cache. The file stays open so that its length can be asked again.
    Mapped {
        map: memmap2::Mmap,
        file: File,
    },
    Static(&'static [u8]),
    Owned(Buffer),
}

impl Source {
    /// Map the file at `path`, or read it if `mmap` is false. What is no GGUF file is named as what it is.
    pub fn open(path: &Path, mmap: bool) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let kind = std::fs::metadata(path).map_err(io)?;
        let name = path.display().to_string();
        if kind.is_dir() {
            return Err(Error::unsupported(name, "is a folder; name the .gguf file in it"));
        }
        // Opening a pipe would wait for its other end, and a device has no length.
        if !kind.is_file() {
            return Err(Error::unsupported(
                name,
                "is neither a file nor a link to one (a pipe or a device?)",
            ));
        }
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut head = Vec::with_capacity(sniff::HEAD);
        (&mut file).take(sniff::HEAD as u64).read_to_end(&mut head).map_err(io)?;
        sniff::require_gguf(&name, &head, len)?;
        let too_large = || {
            Error::unsupported(name.clone(), format!("its {len} bytes do not fit into this machine's memory"))
        };
        if mmap {
            usize::try_from(len).map_err(|_| too_large())?;
            // SAFETY: the map is read-only and private to this value. That no one else changes or shortens the
            // file while it is mapped cannot be enforced; `Gguf::require_tensor` re-checks the length, and
            // the crate's documentation says what remains.
            let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
            // What is not yet in memory is to come as large pages, where the file system has them: only advice.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Ok(Self::Mapped { map, file });
        }
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let mut buffer = Buffer::zeroed(len).ok_or_else(too_large)?;
        read_whole(&mut file, buffer.bytes_mut()).map_err(io)?;
        Ok(Self::Owned(buffer))
    }

    /// A copy of `bytes`, aligned.
    pub fn copied(bytes: &[u8]) -> Result<Self> {
        sniff::require_gguf("these bytes", bytes, bytes.len() as u64)?;
        let mut buffer = Buffer::zeroed(bytes.len())
            .ok_or_else(|| Error::unsupported("these bytes", "there is no memory for a copy of them"))?;
        buffer.bytes_mut().copy_from_slice(bytes);
        Ok(Self::Owned(buffer))
    }

    /// The slice itself, which must be aligned.
    pub fn fixed(bytes: &'static [u8]) -> Result<Self> {
        sniff::require_gguf("these bytes", bytes, bytes.len() as u64)?;
        if !bytes.as_ptr().addr().is_multiple_of(MIN_ALIGNMENT) {
            return Err(Error::unsupported(
                "these bytes",
                format!("begin at an address that {MIN_ALIGNMENT} does not divide; wrap them in `Aligned`"),
            ));
        }
        Ok(Self::Static(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Static(bytes) => bytes,
            Self::Owned(buffer) => buffer.bytes(),
        }
    }

    /// How many bytes may be touched now: a mapped file may have been cut since it was opened.
    pub fn len_now(&self) -> std::io::Result<u64> {
        match self {
            Self::Mapped { file, map } => Ok(file.metadata()?.len().min(map.len() as u64)),
            _ => Ok(self.bytes().len() as u64),
        }
    }

    /// Bring the pages of `range` into memory and into the page tables of this process, as far as the file still has them.
    pub fn populate(&self, range: std::ops::Range<usize>) -> std::io::Result<()> {
        let Self::Mapped { map, .. } = self else { return Ok(()) };
        let there = usize::try_from(self.len_now()?).unwrap_or(usize::MAX);
        let Some(bytes) = map.get(range.clone()).filter(|_| range.end <= there) else {
            let why = format!("the file was cut to {there} bytes since it was opened");
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why));
        };
        #[cfg(target_os = "linux")]
        {
            // No WILLNEED before it: what that reads comes in small pages.
            match map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len()) {
                // Linux before 5.14 does not know it: there the pages are touched, as elsewhere.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        for page in bytes.chunks(MIN_PAGE) {
            std::hint::black_box(page.first());
        }
        Ok(())
    }

    /// Keep a mapped file's pages in memory; false where there is no map to keep.
    pub fn lock(&self) -> std::io::Result<bool> {
        match self {
            #[cfg(unix)]
            Self::Mapped { map, .. } => map.lock().map(|()| true),
            _ => Ok(false),
        }
    }
}

/// Read a file from its start until `bytes` are full, by several threads where the system can read at an offset.
#[cfg(unix)]
fn read_whole(file: &mut File, bytes: &mut [u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    use std::sync::{Mutex, PoisonError};

    let file = &*file;
    let readers = READERS.min(bytes.len() / PIECE + 1);
    let pieces = Mutex::new(bytes.chunks_mut(PIECE).enumerate());
    let work = || -> std::io::Result<()> {
        loop {
            let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, piece)) = piece else { return Ok(()) };
            file.read_exact_at(piece, (i * PIECE) as u64)?;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..readers).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let panicked = || std::io::Error::other("a reading thread panicked");
            result = result.and(other.join().unwrap_or_else(|_| Err(panicked())));
        }
        result
    })
}

/// Read a file from its start until `bytes` are full.
#[cfg(not(unix))]
fn read_whole(file: &mut File, bytes: &mut [u8]) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom};

    file.seek(SeekFrom::Start(0))?;
    file.read_exact(bytes)
}
