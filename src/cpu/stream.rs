//! Asking for memory ahead of its use. Decoding is bound by memory: a kernel that waits for each block in turn leaves it
//! idle, and the processor's own prefetching ends with each page.

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// Weights that are read from the first byte to the last.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    start: *const u8,
    bytes: usize,
}

impl Stream {
    /// Bytes ahead whose memory is asked for: far enough for the answer to be in the second-level cache in time.
    const FAR: usize = 8192;
    /// Bytes ahead that are brought on to the first-level cache, which has room for fewer questions at a time.
    const NEAR: usize = 1024;

    /// A stream over `weights`, whose first bytes it asks for.
    #[inline]
    pub fn new(weights: &[u8]) -> Stream {
        let stream = Stream { start: weights.as_ptr(), bytes: weights.len() };
        stream.ask::<_MM_HINT_T1>(0, Stream::FAR);
        stream.ask::<_MM_HINT_T0>(0, Stream::NEAR);
        stream
    }

    /// Ask for what follows the `step` bytes at `at`. Nothing past the end is asked for: another thread may read it.
    #[inline]
    pub fn ahead(self, at: usize, step: usize) {
        self.ask::<_MM_HINT_T1>(at + Stream::FAR, step);
        self.ask::<_MM_HINT_T0>(at + Stream::NEAR, step);
    }

    #[inline]
    fn ask<const HINT: i32>(self, from: usize, bytes: usize) {
        if from < self.bytes {
            for line in (0..bytes).step_by(64) {
                // SAFETY: prefetching an address that is not mapped does nothing.
                unsafe { _mm_prefetch::<HINT>(self.start.wrapping_add(from + line).cast()) };
            }
        }
    }
}
