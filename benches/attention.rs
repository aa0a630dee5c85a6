//! Speed of attention on its own: `cargo bench --bench attention [-- FILTER...]`.
//!
//! The shape is that of a 1B llama: 32 query heads, 8 K/V heads of 64 values. `decode` is one token against a cache that is full up
//! to a depth, by as many layers as make the caches larger than most processor caches; what counts is bytes of cache
//! per second, and their share of the speed at which the same threads read the same bytes and only add them up. `prompt` is 512 tokens that see what is before them and each other causally; what counts is
//! multiplications and additions of the pairs that are seen. Every figure is the best of
//! several runs, chunk by chunk where there is one thread. A filter keeps the lines that
//! contain all its words, such as `q8_0 8192`; `threads=2` and `isa=avx2` say how to run (default: 1 thread, the best set).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chaski::cpu::attention::{AttentionParams, KvRows, Scratch, Work, write_rows};
use chaski::cpu::isa::Isa;
use chaski::cpu::vector::vector;
use chaski::kv::{KvFormat, Span, View, Visible};

const HEADS: usize = 32;
const HEADS_KV: usize = 8;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let option = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let threads = option("threads").map_or(1, |n| n.parse().expect("a number of threads"));
    let isa = option("isa").map_or(Isa::detect(), |name| name.parse().expect("an instruction set"));
    let words: Vec<&String> = args.iter().filter(|arg| !arg.contains('=')).collect();
    println!("{isa}, {threads} thread(s), best of several runs");
    for d in [64, 128] {
        for (kind, tokens, depths) in [("decode", 1, [512, 8192, 32768]), ("prompt", 512, [0, 2048, 8192])] {
            for depth in depths {
                for &format in KvFormat::ALL {
                    let name = format!("{kind} {format:<8} depth {depth:<6} head {d}");
                    if words.iter().all(|word| name.split(' ').any(|part| part == *word)) {
                        let speed = measure(isa, threads, format, d, depth, tokens);
                        println!("{name:<40} {speed}");
                    }
                }
            }
        }
    }
}

/// Bytes that are read together where reading alone is timed.
const PART: usize = 64 << 10;

/// A layer's K and V.
struct Layer {
    k: Vec<u8>,
    v: Vec<u8>,
}

fn measure(isa: Isa, threads: usize, format: KvFormat, d: usize, depth: usize, tokens: usize) -> String {
    let cells = depth + tokens;
    let capacity = cells.next_multiple_of(64);
    let row_bytes = format.row_bytes(d);
    let layer_bytes = 2 * HEADS_KV * capacity * row_bytes;
    let layers = if tokens == 1 { ((512 << 20) / layer_bytes).clamp(1, 16) } else { 1 };
    let mut state = 1u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 2.0
    };
    let all_cells: Vec<i32> = (0..capacity as i32).collect();
    let mut rows = || {
        let mut bytes = vec![0u8; HEADS_KV * capacity * row_bytes];
        // The same 64 tokens over and over: the time to make all anew would be most of the run.
        let x: Vec<f32> = (0..64 * HEADS_KV * d).map(|_| number()).collect();
        for first in (0..capacity).step_by(64) {
            let mut place: Vec<Option<&mut [u8]>> = bytes.chunks_exact_mut(row_bytes).map(Some).collect();
            let row = |range: std::ops::Range<usize>| place[range.start / row_bytes].take().expect("a row");
            if first == 0 {
                write_rows(0..64, &x, (d, HEADS_KV), &all_cells[..64], (format, capacity), row);
            } else {
                drop(place);
                for head in 0..HEADS_KV {
                    let at = head * capacity * row_bytes;
                    bytes.copy_within(at..at + 64 * row_bytes, at + first * row_bytes);
                }
            }
        }
        bytes
    };
    let caches: Vec<Layer> = (0..layers).map(|_| Layer { k: rows(), v: rows() }).collect();
    let q: Vec<f32> = (0..tokens * HEADS * d).map(|_| number()).collect();
    let params = AttentionParams {
        n_head: HEADS,
        n_head_kv: HEADS_KV,
        d_k: d,
        d_v: d,
        scale: 1.0 / (d as f32).sqrt(),
        softcap: None,
        sinks: None,
    };
    let visible = Visible {
        spans: vec![Span { start: 0, len: cells as u32, pos: 0 }],
        lists: vec![0, 1],
        tokens: (0..tokens).map(|t| View { list: 0, from: 0, to: (depth + t + 1) as u32 }).collect(),
    };
    let mut work = Work::new(isa);
    let chunks = work.prepare(&visible, &params);
    let scratch: Vec<Mutex<Scratch>> = (0..threads).map(|_| Mutex::default()).collect();
    let mut out = vec![0.0f32; tokens * HEADS * d];
    let rows: Vec<Mutex<&mut [f32]>> = out.chunks_exact_mut(d).map(Mutex::new).collect();
    let (mut times, mut reads) = (vec![Best::default(); layers], vec![Best::default(); layers]);
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || begin.elapsed() < Duration::from_millis(600) {
        rounds += 1;
        for ((layer, time), reading) in caches.iter().zip(&mut times).zip(&mut reads) {
            let k = KvRows::new(format, &layer.k, capacity, HEADS_KV, d);
            let v = KvRows::new(format, &layer.v, capacity, HEADS_KV, d);
            // What is counted as done lasts for one pass.
            work.prepare(&visible, &params);
            time.run(threads, chunks, |thread, chunk| {
                let mut scratch = scratch[thread].lock().expect("no thread panics");
                let mut emit = |t: usize, h: usize, row: &[f32]| {
                    rows[t * HEADS + h].lock().expect("no thread panics").copy_from_slice(row);
                };
                work.run(chunk, &params, &q, &k, &v, &visible, &mut scratch, &mut emit);
            });
            if tokens == 1 {
                let parts: Vec<&[u8]> = [&layer.k, &layer.v].iter().flat_map(|x| x.chunks(PART)).collect();
                reading.run(threads, parts.len(), |_, i| {
                    // The allocator aligns what is as large as this.
                    std::hint::black_box(vector(isa).sum(bytemuck::cast_slice(parts[i])));
                });
            }
        }
    }
    let mean = |best: &[Best]| best.iter().map(Best::seconds).sum::<f64>() / layers as f64;
    let (seconds, reading) = (mean(&times), mean(&reads));
    std::hint::black_box(&out);
    if tokens == 1 {
        let bytes = 2 * HEADS_KV * cells * row_bytes;
        let each = seconds * 1e9 / (HEADS_KV * cells) as f64;
        let share = reading / seconds * 100.0;
        format!(
            "{:8.1} us a layer {:7.2} GB/s ({share:3.0}% of reading) {each:6.2} ns a position and head",
            seconds * 1e6,
            bytes as f64 / seconds / 1e9
        )
    } else {
        let pairs: usize = (0..tokens).map(|t| depth + t + 1).sum();
        let flops = (pairs * HEADS * d * 4) as f64;
        format!("{:8.2} ms a layer {:7.1} GFLOP/s", seconds * 1e3, flops / seconds / 1e9)
    }
}

/// The best times of some pieces of work.
#[derive(Clone, Default)]
struct Best(Vec<f64>);

impl Best {
    /// Run `n` pieces. With one thread each is timed on its own, so that what else runs on the machine spoils few of them; with
    /// more, all together.
    fn run(&mut self, threads: usize, n: usize, piece: impl Fn(usize, usize) + Sync) {
        if threads == 1 {
            self.0.resize(n, f64::INFINITY);
            for (i, best) in self.0.iter_mut().enumerate() {
                let start = Instant::now();
                piece(0, i);
                *best = best.min(start.elapsed().as_secs_f64());
            }
            return;
        }
        let next = AtomicUsize::new(0);
        let thread = |thread: usize| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                piece(thread, i);
            }
        };
        let thread = &thread;
        let start = Instant::now();
        std::thread::scope(|scope| {
            for i in 1..threads {
                scope.spawn(move || thread(i));
            }
            thread(0);
        });
        self.0.resize(1, f64::INFINITY);
        self.0[0] = self.0[0].min(start.elapsed().as_secs_f64());
    }

    fn seconds(&self) -> f64 {
        self.0.iter().sum()
    }
}
