//! Reading a file and writing it again keeps every byte of metadata and tensor data.

use std::path::{Path, PathBuf};

use chaski_gguf::{Gguf, OpenOptions, Writer};

/// Every GGUF file of the shared data; says aloud that it skips where there are none.
fn shared_files() -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("SKIPPED: CHASKI_TEST_DATA is not set");
        return Vec::new();
    };
    let folders = ["conformance", "models", "vocab"].map(|folder| Path::new(&root).join(folder));
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| {
            std::fs::read_dir(folder).expect("the data folder").map(|entry| entry.unwrap().path())
        })
        .filter(|path| path.extension().is_some_and(|ext| ext == "gguf"))
        .collect();
    files.sort();
    assert!(files.len() > 50, "only {} files in {}", files.len(), root.display());
    files
}

#[test]
fn a_file_of_version_3_comes_out_byte_for_byte() {
    let mut versions = [0; 4];
    for path in shared_files() {
        let original = std::fs::read(&path).unwrap();
        let file = Gguf::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut copy = Vec::new();
        Writer::copy_of(&file).unwrap().write_to(&mut copy).unwrap();
        versions[file.version() as usize] += 1;
        if file.version() == 3 {
            // Writers differ in whether zeros follow the last tensor (or the header, where there is none).
            let n = original.len().min(copy.len());
            assert!(original[..n] == copy[..n], "{}", path.display());
            assert!(original[n..].iter().chain(&copy[n..]).all(|b| *b == 0), "{}", path.display());
        } else {
            let copy = Gguf::from_bytes(&copy).unwrap();
            assert_eq!(copy.version(), 3);
            assert_same(&file, &copy, &path);
        }
    }
    println!("files of version 1, 2, 3: {:?}", &versions[1..]);
}

#[test]
fn a_file_that_is_read_into_memory_is_the_same_as_mapped() {
    for path in shared_files().into_iter().filter(|path| path.metadata().unwrap().len() < 1 << 20) {
        let unmapped = Gguf::open_with(&path, &OpenOptions { mmap: false }).unwrap();
        assert_same(&Gguf::open(&path).unwrap(), &unmapped, &path);
    }
}

fn assert_same(a: &Gguf, b: &Gguf, path: &Path) {
    assert_eq!(a.metadata().count(), b.metadata().count());
    for ((key, value), (copied_key, copied)) in a.metadata().zip(b.metadata()) {
        assert_eq!(key, copied_key);
        match (value.as_array(), copied.as_array()) {
            (Some(v), Some(c)) => {
                assert!(v.len == c.len && v.iter().eq(c.iter()), "{}: {key}", path.display());
            }
            _ => assert_eq!(value, copied, "{}: {key}", path.display()),
        }
    }
    assert_eq!(a.tensors().len(), b.tensors().len());
    for (info, copied) in a.tensors().iter().zip(b.tensors()) {
        assert_eq!((&info.name, info.shape, info.format), (&copied.name, copied.shape, copied.format));
        let (data, copy) = (a.require_tensor(&info.name).unwrap(), b.require_tensor(&info.name).unwrap());
        assert!(data.bytes == copy.bytes, "{}: {}", path.display(), info.name);
        assert_eq!(data.bytes.as_ptr().addr() % 8, 0);
    }
}
