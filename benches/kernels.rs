//! Speed of every kernel of every instruction set on one thread: `cargo bench --bench kernels [-- FILTER]`.
//!
//! `decode` is one column against more weights than the second-level cache holds: what counts is bytes of weights per
//! second. `prompt` is 256 columns, in the form for many where the kernel has one, against weights that stay in that cache: what counts is multiplications. Each figure is the best
//! of several runs. A filter keeps the lines that contain it, such as `Q4_K` or `avx2`.

use std::time::{Duration, Instant};

use chaski::cpu::act::quantize;
use chaski::cpu::isa::Isa;
use chaski::cpu::kernel::{Kernel, OutTile, Tile, all};
use chaski::cpu::scratch::Scratch;
use chaski::tensor::Act;

const K: usize = 4096;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!("{:<46} {:>12} {:>8} {:>12} {:>8}", "", "decode", "", "prompt", "");
    println!("{:<46} {:>12} {:>8} {:>12} {:>8}", "kernel", "ns/block", "GB/s", "ns/block", "GFLOP/s");
    for isa in Isa::all_available() {
        for kernel in all(isa) {
            let name = format!(
                "{isa:<12} {:<7} {:<7} ({})",
                kernel.format,
                format!("{:?}", kernel.act),
                kernel.name
            );
            if name.contains(&filter) {
                let (decode, prompt) = (measure(kernel, 16 << 20, 1), measure(kernel, 256 << 10, 256));
                println!(
                    "{name:<46} {:>12.2} {:>8.2} {:>12.2} {:>8.1}",
                    decode.ns_per_block, decode.gb_per_s, prompt.ns_per_block, prompt.gflop_per_s
                );
            }
        }
    }
}

struct Speed {
    /// Of a block of weights times a block of activations.
    ns_per_block: f64,
    gb_per_s: f64,
    gflop_per_s: f64,
}

fn measure(kernel: &Kernel, bytes: usize, cols: usize) -> Speed {
    let row_bytes = kernel.row_bytes(K);
    let rows = bytes / row_bytes;
    // High bytes that make every float, as weight or as scale, finite and normal.
    let mut state = 1u64;
    let weights: Vec<u8> = (0..rows * row_bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8 & 0x3f | 0x20
        })
        .collect();
    let act_bytes = kernel.act.row_bytes(K);
    // Aligned as an arena aligns: to cache lines.
    let mut buffer = vec![[0u8; 64]; (cols * act_bytes).div_ceil(64) + 1];
    let start = buffer.as_flattened().as_ptr().align_offset(64);
    let acts = &mut buffer.as_flattened_mut()[start..][..cols * act_bytes];
    for (c, acts) in acts.chunks_mut(act_bytes).enumerate() {
        let x: Vec<f32> = (0..K).map(|i| ((i * 31 + c) % 17) as f32 - 8.0).collect();
        quantize(Isa::Reference, kernel.act, &x, acts);
    }
    let mut out = vec![0.0f32; rows * cols];
    let mut scratch = Scratch::default();
    let mut best = Duration::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(40) {
        let start = Instant::now();
        let tile = Tile {
            weights: &weights,
            row_bytes,
            rows,
            acts,
            act_bytes,
            cols,
            k: K,
            out: OutTile::new(&mut out, rows),
        };
        if kernel.wide(cols).is_some() {
            kernel.run_wide(&tile, &mut scratch);
        } else {
            kernel.run(&tile);
        }
        best = best.min(start.elapsed());
    }
    std::hint::black_box(&out);
    let seconds = best.as_secs_f64();
    let block = kernel.format.info().block_len.max(if kernel.act == Act::F32 { 1 } else { 32 });
    Speed {
        ns_per_block: seconds * 1e9 / (rows * cols * (K / block)) as f64,
        gb_per_s: (rows * row_bytes) as f64 / seconds / 1e9,
        gflop_per_s: 2.0 * (rows * cols * K) as f64 / seconds / 1e9,
    }
}
