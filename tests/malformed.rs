//! Damaged model files, through the whole path from the file to logits and through the built command: each is refused
//! with an error, or runs where the change did no harm. Never a panic, never memory far above the file's size.
//! (The reader's own corpus, field by field, is in `gguf/tests/malformed.rs`.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::engine::{BatchToken, Engine, EngineOptions};
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski::tokenizer::{EncodeOptions, Tokenizer};
use chaski_gguf::Gguf;

mod common;

/// Counts what the current thread holds.
struct Watched;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn note(change: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// What does not grow with the file: tables of Unicode classes, the plan's steps, messages.
const SLACK: usize = 4 << 20;

/// From bytes to the logits of a few tokens.
fn use_all(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let file = Gguf::from_bytes(bytes)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let tokens = tokenizer.encode("hello abc", EncodeOptions { add_special: true, parse_special: true });
    let model = Arc::new(Model::new(Arc::new(file), &RopeOptions::default())?);
    let options = EngineOptions {
        cpu: CpuOptions {
            threads: 1,
            threads_batch: 1,
            isa: Isa::detect(),
            exact: false,
            invariant: false,
            check: false,
        },
        n_ctx: 16,
        n_sequences: 1,
        n_ubatch: 8,
        n_outputs: 1,
        kv: KvChoice::new(KvFormat::F16, KvFormat::F16),
    };
    let mut engine = Engine::new(model, options)?;
    let batch: Vec<BatchToken> = tokens
        .iter()
        .take(16)
        .enumerate()
        .map(|(i, id)| BatchToken { id: *id, position: i as u32, sequence: 0, logits: true })
        .collect();
    engine.decode(&batch, &mut Vec::new())?;
    Ok(())
}

/// As `use_all`, with the memory held against the file's size; whether it went well.
fn try_all(bytes: &[u8]) -> bool {
    let before = LIVE.get();
    PEAK.set(before);
    let ok = use_all(bytes).is_ok();
    let peak = (PEAK.get() - before) as usize;
    assert!(peak <= 12 * bytes.len() + SLACK, "{peak} bytes for a file of {}", bytes.len());
    ok
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Where the header ends and the tensors' data begins.
fn header_len(bytes: &[u8]) -> usize {
    let file = Gguf::from_bytes(bytes).unwrap();
    file.tensors().iter().map(|info| file.file_offset(info)).min().unwrap() as usize
}

/// A few bytes changed, most of them in the header.
fn damaged(bytes: &[u8], header: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = if random.below(4) == 0 { random.below(bytes.len()) } else { random.below(header) };
        bytes[at] = match random.below(4) {
            0 => 0,
            1 => 0xFF,
            2 => bytes[at] ^ (1 << random.below(8)),
            _ => random.below(256) as u8,
        };
    }
    bytes
}

#[test]
fn the_whole_file_runs() {
    use_all(&common::tiny_llama().bytes()).unwrap();
}

#[test]
fn thousands_of_damaged_files_are_refused_or_run() {
    let bytes = common::tiny_llama().bytes();
    let header = header_len(&bytes);
    let mut random = Random(1);
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..4000 {
        if try_all(&damaged(&bytes, header, &mut random)) {
            ran += 1;
        } else {
            refused += 1;
        }
    }
    eprintln!("{ran} ran, {refused} were refused");
    assert!(ran > 100 && refused > 100, "{ran} ran, {refused} were refused: the damage is of one kind only");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = common::tiny_llama().bytes();
    let header = header_len(&bytes);
    let mut random = Random(2);
    for i in 0..500 {
        let cut = random.below(if i % 5 == 0 { bytes.len() - 64 } else { header });
        assert!(!try_all(&bytes[..cut]), "ran although cut at byte {cut} of {}", bytes.len());
    }
}

#[test]
fn the_command_answers_or_ends_with_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = common::tiny_llama().bytes();
    let header = header_len(&bytes);
    let mut random = Random(3);
    let path = folder.path().join("damaged.gguf");
    for i in 0..60 {
        let damaged = if i % 4 == 0 {
            bytes[..random.below(bytes.len() - 64)].to_vec()
        } else {
            damaged(&bytes, header, &mut random)
        };
        std::fs::write(&path, &damaged).unwrap();
        let model = common::arg(&path);
        let run = common::run(&["run", model, "--raw", "-p", "hello", "-n", "2", "--temp", "0", "-t", "1"]);
        assert!(matches!(run.code, Some(0 | 3)), "file {i}: {run:?}");
        assert!(run.code == Some(0) || run.stderr.contains("error"), "file {i}: {run:?}");
        let verify = common::run(&["verify", model]);
        assert!(matches!(verify.code, Some(0 | 3)), "file {i}: {verify:?}");
    }
}
