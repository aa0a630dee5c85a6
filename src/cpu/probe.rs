//! What this machine gives, measured with the plainest loops there are: bytes read from memory and 8-bit multiplications, a
//! second, by as many threads as a run uses. A run's figures are held against these, taken in the same minute.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::isa::Isa;

/// Bytes dealt to a thread at a time, tried in turn: which is best depends on how the machine's memory is interleaved, and
/// changes within minutes where it is shared. Each thread having one stretch of its own is tried as well.
const DEALS: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Prefetch so many bytes ahead, or leave it to the processor: both are tried.
const AHEAD: [usize; 2] = [0, 8 << 10];
/// How often memory is read once more in the way that was fastest.
const MORE: usize = 6;
const WORD: usize = size_of::<u64>();
/// The buffer is read in lines of so many words, a cache line.
const LINE: usize = 8;

/// Memory to be read, larger than the caches.
pub struct ReadProbe {
    memory: MmapMut,
    isa: Isa,
    threads: usize,
}

/// The best rate of reading that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadRate {
    /// Bytes a second, all threads together.
    pub bytes_per_second: f64,
    /// Bytes that were dealt to a thread at a time.
    pub deal: usize,
    /// How many bytes ahead the program asked for; 0 where it did not.
    pub ahead: usize,
}

impl ReadProbe {
    /// Take `bytes` of memory (in large pages where the system gives them) and fill it.
    ///
    /// # Errors
    /// The memory is refused.
    ///
    /// # Panics
    /// Where this machine does not have `isa`.
    pub fn new(isa: Isa, threads: usize, bytes: usize) -> std::io::Result<ReadProbe> {
        assert!(isa.is_available());
        let threads = threads.max(1);
        let bytes = bytes.next_multiple_of(threads * DEALS[DEALS.len() - 1]);
        let mut memory = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
            tracing::debug!("no large pages for the read probe: {error}");
        }
        // Written, since the system would let all pages that were not share one page of zeros; by the threads that read it,
        // so that each finds memory near it.
        let share = bytes / threads;
        thread::scope(|scope| {
            for part in memory.chunks_mut(share) {
                scope.spawn(move || part.fill(1));
            }
        });
        Ok(ReadProbe { memory, isa, threads })
    }

    /// Read all of it in every way, then a few times more in the one that was fastest: its best rate.
    pub fn run(&self) -> ReadRate {
        let words: &[u64] = bytemuck::cast_slice(&self.memory);
        let whole = self.memory.len() / self.threads;
        let mut best = ReadRate { bytes_per_second: 0.0, deal: whole, ahead: 0 };
        let rate = |deal, ahead| {
            let time = self.pass(words, deal, ahead);
            let bytes_per_second = self.memory.len() as f64 / time.as_secs_f64().max(1e-9);
            ReadRate { bytes_per_second, deal, ahead }
        };
        let better = |a: ReadRate, b: ReadRate| if b.bytes_per_second > a.bytes_per_second { b } else { a };
        for deal in DEALS.into_iter().chain([whole]) {
            best = AHEAD.into_iter().map(|ahead| rate(deal, ahead)).fold(best, better);
        }
        (0..MORE).map(|_| rate(best.deal, best.ahead)).fold(best, better)
    }

    fn pass(&self, words: &[u64], deal: usize, ahead: usize) -> Duration {
        let next = AtomicUsize::new(0);
        let deal = deal / WORD;
        together(self.threads, || {
            let mut sum = 0u64;
            loop {
                let start = next.fetch_add(1, Ordering::Relaxed) * deal;
                let Some(rest) = words.get(start..).filter(|rest| !rest.is_empty()) else { break };
                sum = sum.wrapping_add(read(self.isa, &rest[..deal.min(rest.len())], ahead));
            }
            black_box(sum);
        })
    }
}

/// Run `work` on so many threads at once; from the common start to the end of the last.
fn together(threads: usize, work: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads);
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || {
                    start.wait();
                    let begin = Instant::now();
                    work();
                    (begin, Instant::now())
                })
            })
            .collect();
        let spans: Vec<_> = running.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let begin = spans.iter().map(|s| s.0).min();
        let end = spans.iter().map(|s| s.1).max();
        begin.zip(end).map_or(Duration::MAX, |(begin, end)| end - begin)
    })
}

/// The sum of `words`, `ahead` bytes asked for ahead of their use. The instruction set decides how wide the loads are.
fn read(isa: Isa, words: &[u64], ahead: usize) -> u64 {
    match isa {
        Isa::Reference => sum(words, ahead),
        // SAFETY: `ReadProbe::new` has made sure of the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { x86::sum_avx2(words, ahead) },
        // SAFETY: as above; what is left has AVX-512.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { x86::sum_avx512(words, ahead) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => sum(words, ahead),
    }
}

#[inline(always)]
fn sum(words: &[u64], ahead: usize) -> u64 {
    let mut sums = [0u64; 4 * LINE];
    let mut lines = words.chunks_exact(sums.len());
    for group in &mut lines {
        if ahead > 0 {
            for line in group.chunks_exact(LINE) {
                prefetch(line.as_ptr().wrapping_byte_add(ahead));
            }
        }
        for (sum, word) in sums.iter_mut().zip(group) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let rest = lines.remainder().iter();
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

#[inline(always)]
fn prefetch(at: *const u64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The best rate of multiplying 8-bit integers and adding up the products in 32 bits, from registers alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntegerRate {
    /// Multiplications and additions a second, all threads together.
    pub ops_per_second: f64,
    /// By which instructions.
    pub by: &'static str,
}

/// A loop of multiplications: so many turns of it, of so many operations each.
struct IntegerLoop {
    by: &'static str,
    ops_per_turn: u64,
    run: unsafe fn(u64) -> i32,
}

const PLAIN: IntegerLoop = IntegerLoop { by: "plain code", ops_per_turn: 2 * 256, run: plain };

/// The loop of `isa`, or of the bundle that it falls back on.
fn integer_loops(isa: Isa) -> IntegerLoop {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::MADD_256,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => x86::DOT_256,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::MADD_512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => x86::DOT_512,
        other => other.parent().map_or(PLAIN, integer_loops),
    }
}

/// Measure the integer arithmetic of `threads` threads, the best of several short runs.
///
/// # Panics
/// Where this machine does not have `isa`.
pub fn integer_rate(isa: Isa, threads: usize) -> IntegerRate {
    const TIMES: usize = 8;
    const AIM: Duration = Duration::from_millis(8);
    assert!(isa.is_available());
    let of = integer_loops(isa);
    let threads = threads.max(1);
    let run = |turns: u64| {
        together(threads, || {
            // SAFETY: `integer_loops` gives loops of an instruction set that this machine has.
            black_box(unsafe { (of.run)(turns) });
        })
    };
    let mut turns = 1 << 12;
    while run(turns) < AIM && turns < 1 << 40 {
        turns *= 2;
    }
    let best = (0..TIMES).map(|_| run(turns)).min().unwrap_or(Duration::MAX);
    let ops = of.ops_per_turn as f64 * turns as f64 * threads as f64;
    IntegerRate { ops_per_second: ops / best.as_secs_f64(), by: of.by }
}

/// As the compiler makes it for the baseline of the target.
fn plain(turns: u64) -> i32 {
    let mut a = [0i16; 256];
    let mut sums = [0i32; 128];
    for (i, a) in a.iter_mut().enumerate() {
        *a = i as i16 & 127;
    }
    for _ in 0..turns {
        let (a, b) = (black_box(&a), black_box(&a));
        for ((sum, a), b) in sums.iter_mut().zip(a.chunks_exact(2)).zip(b.chunks_exact(2)) {
            *sum = sum.wrapping_add(i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_cvtsi128_si32, _mm256_add_epi32, _mm256_castsi256_si128,
        _mm256_dpbusd_avx_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_set1_epi32, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_madd_epi16,
        _mm512_maddubs_epi16, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_epi16,
        _mm512_set1_epi32,
    };
    use std::hint::black_box;

    use super::IntegerLoop;

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(words: &[u64], ahead: usize) -> u64 {
        super::sum(words, ahead)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sum_avx512(words: &[u64], ahead: usize) -> u64 {
        super::sum(words, ahead)
    }

    /// Chains that do not wait for each other: latency 5, two a cycle, and some to spare.
    const CHAINS: usize = 16;

    pub(super) const DOT_512: IntegerLoop =
        IntegerLoop { by: "vpdpbusd, 512 bits", ops_per_turn: 2 * 64 * CHAINS as u64, run: dot_512 };
    pub(super) const DOT_256: IntegerLoop =
        IntegerLoop { by: "vpdpbusd, 256 bits", ops_per_turn: 2 * 32 * CHAINS as u64, run: dot_256 };
    pub(super) const MADD_512: IntegerLoop = IntegerLoop {
        by: "vpmaddubsw, vpmaddwd, vpaddd, 512 bits",
        ops_per_turn: 2 * 64 * CHAINS as u64,
        run: madd_512,
    };
    pub(super) const MADD_256: IntegerLoop = IntegerLoop {
        by: "vpmaddubsw, vpmaddwd, vpaddd, 256 bits",
        ops_per_turn: 2 * 32 * CHAINS as u64,
        run: madd_256,
    };

    // Each chain begins with another value, which the compiler cannot know: equal chains it would compute once.

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn dot_512(turns: u64) -> i32 {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
        let mut chains: [__m512i; CHAINS] = std::array::from_fn(|i| _mm512_set1_epi32(black_box(i as i32)));
        for _ in 0..turns {
            for chain in &mut chains {
                *chain = _mm512_dpbusd_epi32(*chain, a, b);
            }
        }
        chains.iter().fold(0, |sum, chain| sum ^ _mm512_reduce_add_epi32(*chain))
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn madd_512(turns: u64) -> i32 {
        let (b, ones) = (_mm512_set1_epi8(black_box(5)), _mm512_set1_epi16(black_box(1)));
        let mut chains: [__m512i; CHAINS] = std::array::from_fn(|i| _mm512_set1_epi32(black_box(i as i32)));
        for _ in 0..turns {
            for chain in &mut chains {
                let products = _mm512_maddubs_epi16(*chain, b);
                *chain = _mm512_add_epi32(*chain, _mm512_madd_epi16(products, ones));
            }
        }
        chains.iter().fold(0, |sum, chain| sum ^ _mm512_reduce_add_epi32(*chain))
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn dot_256(turns: u64) -> i32 {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
        let mut chains: [__m256i; CHAINS] = std::array::from_fn(|i| _mm256_set1_epi32(black_box(i as i32)));
        for _ in 0..turns {
            for chain in &mut chains {
                *chain = _mm256_dpbusd_avx_epi32(*chain, a, b);
            }
        }
        chains.iter().fold(0, |sum, chain| sum ^ _mm_cvtsi128_si32(_mm256_castsi256_si128(*chain)))
    }

    #[target_feature(enable = "avx2")]
    fn madd_256(turns: u64) -> i32 {
        let (b, ones) = (_mm256_set1_epi8(black_box(5)), _mm256_set1_epi16(black_box(1)));
        let mut chains: [__m256i; CHAINS] = std::array::from_fn(|i| _mm256_set1_epi32(black_box(i as i32)));
        for _ in 0..turns {
            for chain in &mut chains {
                let products = _mm256_maddubs_epi16(*chain, b);
                *chain = _mm256_add_epi32(*chain, _mm256_madd_epi16(products, ones));
            }
        }
        chains.iter().fold(0, |sum, chain| sum ^ _mm_cvtsi128_si32(_mm256_castsi256_si128(*chain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_reads_the_same_words() {
        let words: Vec<u64> = (0..5000).map(|i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let want = words.iter().fold(0, |a: u64, b| a.wrapping_add(*b));
        for isa in Isa::all_available() {
            for ahead in AHEAD {
                assert_eq!(read(isa, &words, ahead), want, "{isa}");
                assert_eq!(
                    read(isa, &words[..31], ahead),
                    words[..31].iter().fold(0, |a: u64, b| a.wrapping_add(*b))
                );
            }
        }
    }

    #[test]
    fn every_word_is_dealt_once_whatever_the_deal() {
        for threads in [1, 3] {
            let probe = ReadProbe::new(Isa::Reference, threads, 1 << 20).unwrap();
            assert!(probe.memory.iter().all(|b| *b == 1), "filled");
            let rate = probe.run();
            assert!(rate.bytes_per_second > 0.0 && rate.bytes_per_second.is_finite());
            assert!(rate.deal <= probe.memory.len() && AHEAD.contains(&rate.ahead));
        }
    }

    #[test]
    fn integer_loops_do_every_turn_they_are_told() {
        for isa in Isa::all_available() {
            let of = integer_loops(isa);
            // Long enough that a loop which the compiler took out would show.
            let time = |turns| {
                (0..3)
                    .map(|_| {
                        together(1, || {
                            // SAFETY: the loop is one of an instruction set that this machine has.
                            black_box(unsafe { (of.run)(turns) });
                        })
                    })
                    .min()
                    .unwrap()
            };
            let (short, long) = (time(20_000), time(2_000_000));
            assert!(long > short * 20, "{isa}: {short:?} and {long:?}");
        }
    }
}
