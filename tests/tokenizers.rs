//! Real vocabularies: the ids of every text are those that llama.cpp gives, and the ids give the text back.
//!
//! The files are found through `CHASKI_TEST_DATA`; without it these tests say that they skip.

use std::path::{Path, PathBuf};

use chaski::tokenizer::{EncodeOptions, Error, Tokenizer};
use chaski_gguf::Gguf;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

fn vocab_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("CHASKI_TEST_DATA").map(|dir| PathBuf::from(dir).join("vocab"));
    if dir.is_none() {
        eprintln!("SKIPPED: CHASKI_TEST_DATA is not set, so there are no real vocabularies to test with");
    }
    dir
}

/// Every vocabulary of a kind that is built.
fn tokenizers() -> Vec<(PathBuf, Tokenizer)> {
    let Some(dir) = vocab_dir() else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "gguf"));
    paths.sort();
    let built = |path: PathBuf| match Tokenizer::from_gguf(&Gguf::open(&path).unwrap()) {
        Ok(tokenizer) => Some((path, tokenizer)),
        Err(Error::LaterKind { .. }) => None,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    paths.into_iter().filter_map(built).collect()
}

/// The texts beside a vocabulary, each with its expected ids.
fn cases(path: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    const SEPARATOR: &str = "\n__ggml_vocab_test__\n";
    let input = std::fs::read_to_string(path.with_extension("gguf.inp")).ok()?;
    let output = std::fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let texts: Vec<&str> = input.strip_suffix(SEPARATOR).unwrap_or(&input).split(SEPARATOR).collect();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(texts.len(), lines.len(), "{}", path.display());
    let ids = |line: &str| line.split_whitespace().map(|id| id.parse().unwrap()).collect();
    Some(texts.into_iter().zip(lines).map(|(text, line)| (text.to_owned(), ids(line))).collect())
}

#[test]
fn ids_are_those_of_llama_cpp() {
    let (mut files, mut compared, mut wrong) = (0, 0, Vec::new());
    for (path, tokenizer) in tokenizers() {
        let Some(cases) = cases(&path) else { continue };
        files += 1;
        for (text, ids) in cases {
            compared += 1;
            let got = tokenizer.encode(&text, PLAIN);
            if got != ids {
                wrong.push(format!("{}: {text:?}\n  expected {ids:?}\n  got      {got:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} texts:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(files > 10, vocab_dir().is_some(), "{files} vocabularies with texts");
    eprintln!("{compared} texts with {files} vocabularies");
}
