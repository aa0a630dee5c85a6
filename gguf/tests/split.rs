//! A model in several files: any of them opens the whole set, and what does not fit together is refused.

use std::path::{Path, PathBuf};

use chaski_gguf::{Format, Gguf, OpenOptions, Writer};

fn name(no: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.gguf", no + 1)
}

/// One file of a set: a tensor named after it; the first has a key of its own.
fn shard(no: u16, count: u16, n_tensors: i32, data: &[u8]) -> Writer<'_> {
    let mut writer = Writer::new();
    if no == 0 {
        writer.set("general.architecture", "llama").unwrap();
    }
    writer.set("split.no", no).unwrap().set("split.count", count).unwrap();
    writer.set("split.tensors.count", n_tensors).unwrap();
    writer.tensor(&format!("t{no}"), &[1], Format::F32, data).unwrap();
    writer
}

const VALUES: [[u8; 4]; 3] = [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]];

fn set(folder: &Path) -> Vec<PathBuf> {
    (0..3)
        .map(|no| {
            let path = folder.join(name(no, 3));
            shard(no as u16, 3, 3, &VALUES[no]).save(&path).unwrap();
            path
        })
        .collect()
}

fn error(path: &Path) -> String {
    Gguf::open(path).unwrap_err().to_string()
}

#[test]
fn any_file_opens_the_whole_set() {
    let folder = tempfile::tempdir().unwrap();
    for path in set(folder.path()) {
        for mmap in [true, false] {
            let file = Gguf::open_with(&path, &OpenOptions { mmap }).unwrap();
            assert_eq!(file.n_shards(), 3);
            assert_eq!(file.require_str("general.architecture").unwrap(), "llama");
            assert_eq!(file.require_u32("split.no").unwrap(), 0);
            for (no, info) in file.tensors().iter().enumerate() {
                assert_eq!((info.name.as_str(), info.shard), (format!("t{no}").as_str(), no));
                assert_eq!(file.require_tensor(&info.name).unwrap().bytes, VALUES[no]);
            }
            assert!(file.paths().eq((0..3).map(|no| folder.path().join(name(no, 3)))));
        }
    }
}

#[test]
fn a_set_is_written_again_as_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    let file = Gguf::open(&paths[1]).unwrap();
    let mut bytes = Vec::new();
    Writer::copy_of(&file).unwrap().write_to(&mut bytes).unwrap();
    let one = Gguf::from_bytes(&bytes).unwrap();
    assert_eq!((one.n_shards(), one.tensors().len(), one.get("split.count")), (1, 3, None));
}

#[test]
fn missing_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    std::fs::remove_file(&paths[0]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    let error = error(&paths[1]);
    for words in ["file 2 of a split set of 3", &name(0, 3), &name(2, 3)] {
        assert!(error.contains(words), "{error}");
    }
    // A set that claims to be huge costs neither a long message nor a long wait.
    let path = folder.path().join(name(0, 65_535));
    shard(0, 65_535, 1, &VALUES[0]).save(&path).unwrap();
    let error = Gguf::open(&path).unwrap_err().to_string();
    assert!(error.contains("and 65518 more") && error.len() < 1000, "{error}");
}

#[test]
fn a_file_that_is_named_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    for wrong in ["model.gguf", "model-00001-of-00003.gguf", "model-00002-of-00004.gguf", "model-2-of-3.gguf"]
    {
        let path = folder.path().join(wrong);
        let _ = std::fs::remove_file(&path);
        std::fs::rename(&paths[1], &path).unwrap();
        let error = error(&path);
        assert!(error.contains("split.no") && error.contains("-00002-of-00003.gguf"), "{error}");
        std::fs::rename(&path, &paths[1]).unwrap();
        set(folder.path());
    }
}

#[test]
fn numbers_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    let replaced = |no: u16, count: u16, n_tensors: i32| {
        shard(no, count, n_tensors, &VALUES[0]).save(&paths[1]).unwrap();
        let error = error(&paths[0]);
        set(folder.path());
        error
    };
    assert!(replaced(2, 3, 3).contains("should be 1 of 3"));
    assert!(replaced(1, 4, 3).contains("1 of 4"));
    let error = replaced(3, 3, 3);
    assert!(
        error.contains("split.no: is 3") && error.contains(&name(1, 3)) && error.contains("byte offset"),
        "{error}"
    );
    // The first file's number of tensors counts.
    shard(0, 3, 4, &VALUES[0]).save(&paths[0]).unwrap();
    let error = self::error(&paths[1]);
    assert!(error.contains("split.tensors.count: is 4") && error.contains("have 3 tensors"), "{error}");
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    let mut writer = Writer::new();
    writer.set("split.no", 1u16).unwrap().set("split.count", 3u16).unwrap();
    writer.tensor("t0", &[1], Format::F32, &VALUES[1]).unwrap();
    writer.save(&paths[1]).unwrap();
    assert!(error(&paths[2]).contains("tensor t0: is in two files"));
}

#[test]
fn a_broken_file_of_a_set_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = set(folder.path());
    std::fs::write(&paths[2], b"<html>").unwrap();
    let error = error(&paths[0]);
    assert!(error.contains(&name(2, 3)) && error.contains("web page"), "{error}");
    let bytes = std::fs::read(&paths[1]).unwrap();
    set(folder.path());
    // Without the padding the tensor ends 28 bytes before the file does.
    std::fs::write(&paths[1], &bytes[..bytes.len() - 29]).unwrap();
    let error = self::error(&paths[2]);
    assert!(error.contains(&name(1, 3)) && error.contains("tensor t1"), "{error}");
}

#[test]
fn one_file_of_a_set_cannot_be_opened_as_bytes() {
    let mut bytes = Vec::new();
    shard(1, 3, 3, &VALUES[1]).write_to(&mut bytes).unwrap();
    assert!(Gguf::from_bytes(&bytes).unwrap_err().to_string().contains("split.count"));
    let mut bytes = Vec::new();
    shard(0, 1, 1, &VALUES[1]).write_to(&mut bytes).unwrap();
    assert_eq!(Gguf::from_bytes(&bytes).unwrap().n_shards(), 1);
}
