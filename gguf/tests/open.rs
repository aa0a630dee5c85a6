//! Where a file may come from, and what is said of things that are no GGUF file.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use chaski_gguf::{Aligned, Error, FileKind, Gguf, OpenOptions, Writer};

mod support;
use support::*;

/// Write `bytes` into a new folder and open them, mapped and unmapped: both say the same.
fn open_error(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let mapped = Gguf::open(&path).unwrap_err().to_string();
    let read = Gguf::open_with(&path, &OpenOptions { mmap: false }).unwrap_err().to_string();
    assert_eq!(mapped, read);
    mapped
}

#[test]
fn what_is_no_gguf_file_is_named_as_what_it_is() {
    for (bytes, words) in [
        (&b""[..], "an empty file"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123\n",
            "Git LFS pointer for a file of 123",
        ),
        (b"PK\x03\x04archive/data.pkl", "PyTorch"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":  {}      }", "safetensors"),
        (b"tjgg\x01\0\0\0", "ggjt"),
        (b"just some text", "begins with just"),
    ] {
        let error = open_error(bytes);
        assert!(error.contains("model.gguf: is ") && error.contains(words), "{error}");
    }
}

#[test]
fn a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Gguf::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[test]
fn a_missing_file_is_an_error_of_the_system() {
    let error = Gguf::open("no/such/file.gguf").unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    assert!(error.to_string().starts_with("no/such/file.gguf: "));
}

#[cfg(unix)]
#[test]
fn a_device_is_refused_without_reading_it() {
    let error = Gguf::open("/dev/zero").unwrap_err().to_string();
    assert!(error.contains("neither a file"), "{error}");
}

#[test]
fn a_broken_file_is_refused_alike_from_every_source() {
    let bytes = Raw::header(3, 0, 1).key("k", 13, &[0; 8]).done();
    assert_eq!(open_error(&bytes), Gguf::from_bytes(&bytes).unwrap_err().to_string());
}

/// A file in the program's data, aligned.
static FIXED: &Aligned<[u8]> = &Aligned(
    *b"GGUF\x03\0\0\0\
    \x01\0\0\0\0\0\0\0\
    \0\0\0\0\0\0\0\0\
    \x01\0\0\0\0\0\0\0t\
    \x01\0\0\0\
    \x01\0\0\0\0\0\0\0\
    \0\0\0\0\
    \0\0\0\0\0\0\0\0\
    \0\0\0\0\0\0\0\
    \0\0\x80\x3f",
);

#[test]
fn a_static_slice_is_borrowed_in_place() {
    let file = Gguf::from_static(&FIXED.0).unwrap();
    let bytes = file.require_tensor("t").unwrap().bytes;
    assert_eq!(bytes, 1f32.to_le_bytes());
    assert_eq!(bytes.as_ptr(), FIXED.0[64..].as_ptr());
}

#[test]
fn a_static_slice_that_is_not_aligned_is_refused() {
    static SHIFTED: &Aligned<[u8]> = &Aligned(*b".GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let error = Gguf::from_static(&SHIFTED.0[1..]).unwrap_err().to_string();
    assert!(error.contains("Aligned"), "{error}");
}

#[test]
fn tensors_can_be_borrowed_as_what_they_hold() {
    let bytes = small(3).bytes;
    let file = Gguf::from_bytes(&bytes).unwrap();
    let values: &[f32] = bytemuck::try_cast_slice(file.tensor("token_embd.weight").unwrap().bytes).unwrap();
    assert_eq!((values.len(), values[1], values[63]), (64, 0.25, 15.75));
    let none: &[f32] = bytemuck::try_cast_slice(file.tensor("none").unwrap().bytes).unwrap();
    assert!(none.is_empty());
    let info = file.tensor_info("scalar").unwrap();
    assert_eq!((info.shape, info.n_dims, info.bytes, info.n_values()), ([1; 4], 0, 2, 1));
}

#[test]
fn a_tensor_that_is_not_there_is_an_error_with_its_name() {
    let file = Gguf::from_bytes(&small(3).bytes).unwrap();
    assert!(file.tensor("blk.7.attn_q.weight").is_none());
    let error = file.require_tensor("blk.7.attn_q.weight").unwrap_err();
    assert_eq!(error.to_string(), "tensor blk.7.attn_q.weight: missing");
}

#[test]
fn a_file_that_is_cut_after_it_was_mapped_is_an_error_and_not_a_fault() {
    let mut temporary = tempfile::NamedTempFile::new().unwrap();
    let mut raw = Raw::header(3, 2, 0);
    raw.tensor("first", &[4096], 0, 0).tensor("second", &[4096], 0, 16384);
    temporary.write_all(&raw.data(32768)).unwrap();
    let file = Gguf::open(temporary.path()).unwrap();
    assert_eq!(file.require_tensor("second").unwrap().bytes.len(), 16384);
    temporary.as_file().set_len(20000).unwrap();
    assert_eq!(file.require_tensor("first").unwrap().bytes, vec![0; 16384]);
    let error = file.require_tensor("second").unwrap_err().to_string();
    assert!(error.contains("tensor second") && error.contains("cut to 20000"), "{error}");
    assert!(file.tensor("second").is_none());
    assert!(file.check_payload(|_, _| ()).is_err());
}

#[cfg(unix)]
#[test]
fn a_mapped_file_can_be_locked_into_memory() {
    let temporary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temporary.path(), &small(3).bytes).unwrap();
    Gguf::open(temporary.path()).unwrap().lock().unwrap();
    let unmapped = Gguf::open_with(temporary.path(), &OpenOptions { mmap: false }).unwrap();
    assert!(unmapped.lock().unwrap_err().to_string().contains("only a mapped file"));
}

#[test]
fn what_a_file_is_for_is_told_by_its_metadata() {
    let kind = |key: &str, value: &str, tensor: bool| {
        let mut writer = Writer::new();
        writer.set(key, value).unwrap();
        if tensor {
            writer.tensor("t", &[1], chaski_gguf::Format::F32, &[0; 4]).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        Gguf::from_bytes(&bytes).unwrap().kind()
    };
    assert_eq!(kind("general.architecture", "llama", true), FileKind::Model);
    assert_eq!(kind("general.architecture", "llama", false), FileKind::Vocab);
    assert_eq!(kind("general.type", "model", true), FileKind::Model);
    assert_eq!(kind("general.type", "adapter", true), FileKind::Adapter);
    assert_eq!(kind("adapter.type", "lora", true), FileKind::Adapter);
    assert_eq!(kind("general.type", "imatrix", true), FileKind::Imatrix);
    assert_eq!(kind("imatrix.datasets", "text", true), FileKind::Imatrix);
    assert_eq!(kind("general.type", "mmproj", true), FileKind::Projector);
    assert_eq!(kind("general.architecture", "clip", true), FileKind::Projector);
    assert_eq!(kind("general.architecture", "controlvector", true), FileKind::ControlVector);
}

#[test]
fn the_shared_vocabularies_open_in_milliseconds() {
    let Some(root) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("SKIPPED: CHASKI_TEST_DATA is not set");
        return;
    };
    // The largest of them: 255,029 tokens and 262,144 tokens.
    for name in ["command-r", "gemma-4"] {
        let path = Path::new(&root).join(format!("vocab/{name}.gguf"));
        let open = || {
            let start = std::time::Instant::now();
            let file = Gguf::open(&path).unwrap();
            let time = start.elapsed();
            assert!(file.string_array("tokenizer.ggml.tokens").unwrap().unwrap().len > 250_000);
            time
        };
        let best = (0..5).map(|_| open()).min().unwrap();
        println!("{name}: {best:?}");
        // Some 5 ms in release; a debug build on a busy machine is given more.
        assert!(best.as_millis() < 1000, "{name}: {best:?}");
    }
}

/// A file whose tensors take several of the pieces in which files are read.
fn large_file(folder: &Path) -> (std::path::PathBuf, u64) {
    let path = folder.join("large.gguf");
    let values: Vec<u8> =
        (0..20u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x3f).collect();
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.tensor("a", &[values.len() as u64 / 4], chaski_gguf::Format::F32, &values).unwrap();
    writer.save(&path).unwrap();
    (path, values.len() as u64)
}

#[test]
fn reading_ahead_tells_how_far_it_is_and_may_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = large_file(folder.path());
    let file = Gguf::open(&path).unwrap();
    for threads in [0, 1, 5] {
        let mut told = Vec::new();
        let whole = file.read_ahead(threads, &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        });
        assert!(whole.unwrap() && told.len() > 1 && told.is_sorted(), "{told:?}");
        assert!(told.iter().all(|(_, total)| *total == bytes), "{told:?}");
        assert_eq!(told.last(), Some(&(bytes, bytes)));
    }
    assert!(!file.read_ahead(1, &mut |_, _| ControlFlow::Break(())).unwrap(), "it was ended");
    let in_memory = Gguf::open_with(&path, &OpenOptions { mmap: false }).unwrap();
    let untold = &mut |_, _| panic!("there is nothing to read");
    assert!(in_memory.read_ahead(2, untold).unwrap());
}

#[test]
fn reading_ahead_of_a_file_that_was_cut_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = large_file(folder.path());
    let file = Gguf::open(&path).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10 << 20).unwrap();
    let error = file.read_ahead(2, &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("large.gguf"), "{error}");
}

#[test]
fn a_file_read_by_several_threads_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = large_file(folder.path());
    let (mapped, read) =
        (Gguf::open(&path).unwrap(), Gguf::open_with(&path, &OpenOptions { mmap: false }).unwrap());
    assert!(mapped.tensor("a").unwrap().bytes == read.tensor("a").unwrap().bytes);
}
