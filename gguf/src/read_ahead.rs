//! Bringing the tensors of mapped files into memory before they are used: by several threads in large pieces, as a disk
//! likes it, where the first use would fetch them in order and a few pages at a time.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::source::Source;
use crate::{Error, Gguf, Result, pages};

/// Bytes that a thread asks for at a time: many of a disk's requests, a small part of a model, and whole large pages.
const PIECE: usize = 8 << 20;

impl Gguf {
    /// Bytes of the files that lie in large pages, as this process sees them; none where the system does not tell.
    pub fn large_page_bytes(&self) -> Option<u64> {
        (0..self.n_shards())
            .filter_map(|index| self.shard(index))
            .map(|s| pages::large(s.source.bytes()))
            .sum()
    }

    /// Bring every byte of the tensors into memory by `threads` threads (at least one), and into this process's page
    /// tables. `watch` is told the bytes done and the bytes in all, from one of the threads at a time, and may end it.
    /// What is not mapped is in memory already: then nothing is done. True where it came to its end.
    ///
    /// # Errors
    /// A file cannot be read, or was cut since it was opened.
    pub fn read_ahead(
        &self,
        threads: usize,
        watch: &mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send),
    ) -> Result<bool> {
        let mut pieces: Vec<(usize, &Source, Range<usize>)> = Vec::new();
        for index in 0..self.n_shards() {
            let Some(shard) = self.shard(index) else { continue };
            if let Source::Mapped { map, .. } = &shard.source {
                let start = usize::try_from(shard.header.data_start).unwrap_or(usize::MAX).min(map.len());
                // Cut where large pages begin, so that two threads never ask for halves of one.
                let starts = (start / PIECE * PIECE..map.len()).step_by(PIECE);
                pieces.extend(
                    starts.map(|at| (index, &shard.source, at.max(start)..map.len().min(at + PIECE))),
                );
            }
        }
        let total: u64 = pieces.iter().map(|(.., range)| range.len() as u64).sum();
        let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let watch = Mutex::new(watch);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            while let Some((index, source, range)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = source.populate(range.clone()) {
                    let path = self.shard(*index).and_then(|s| s.path.clone()).unwrap_or_default();
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Error::io(path, error));
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
                let bytes = range.len() as u64;
                let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
                // Counted under the lock, so that what is told only grows.
                let so_far = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if watch(so_far, total).is_break() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, pieces.len().max(1)) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(done.into_inner() == total),
        }
    }
}
