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
        Err(Error::At { error, .. }) if matches!(*error, Error::LaterKind { .. }) => None,
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

#[test]
fn ids_give_the_text_back() {
    for (path, tokenizer) in tokenizers() {
        for (text, ids) in cases(&path).unwrap_or_default() {
            assert_eq!(tokenizer.decode(&ids, true), text.as_bytes(), "{}", path.display());
            let mut stream = tokenizer.detokenizer(true);
            let mut streamed: String = ids.iter().map(|id| stream.push(*id).to_owned()).collect();
            streamed.push_str(stream.finish());
            let expected =
                if tokenizer.adds_space_prefix() && !text.is_empty() { format!(" {text}") } else { text };
            assert_eq!(streamed, expected, "{}", path.display());
        }
    }
}

#[test]
fn every_byte_comes_back() {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for (path, tokenizer) in tokenizers() {
        if tokenizer.warnings().iter().any(|w| w.contains("bytes of UTF-8")) {
            // Falcon and the StarCoder family have no tokens for some control characters.
            continue;
        }
        // Others lack only the bytes that UTF-8 never has.
        let whole = (0..=255).all(|b| tokenizer.decode(&tokenizer.encode([b], PLAIN), true) == [b]);
        let expected = if whole { bytes.clone() } else { replaced(&bytes) };
        let back = tokenizer.decode(&tokenizer.encode(&bytes, PLAIN), true);
        assert_eq!(back, expected, "{}", path.display());
    }
}

/// U+FFFD for each byte that starts no character.
fn replaced(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        out.extend(chunk.invalid().iter().flat_map(|_| "\u{FFFD}".bytes()));
    }
    out
}

#[test]
fn kinds_that_come_later_are_refused_by_name() {
    let Some(dir) = vocab_dir() else { return };
    for (file, name) in [("bert-bge.gguf", "WordPiece"), ("nomic-bert-moe.gguf", "unigram")] {
        let error = Tokenizer::from_gguf(&Gguf::open(dir.join(file)).unwrap()).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn special_tokens_of_real_models() {
    for (path, tokenizer) in tokenizers() {
        let ends: Vec<&[u8]> =
            tokenizer.end_of_generation().iter().map(|id| tokenizer.token_bytes(*id)).collect();
        let (bos, expected): (bool, &[&str]) = match path.file_stem().unwrap().to_str().unwrap() {
            "llama-bpe" => (true, &["<|end_of_text|>", "<|eot_id|>"]),
            "llama-spm" => (true, &["</s>"]),
            "phi-3" => (true, &["</s>", "<|endoftext|>", "<|end|>"]),
            "qwen2" => (false, &["</s>", "<|endoftext|>", "<|im_end|>"]),
            "gpt-2" => (false, &["<|endoftext|>"]),
            "deepseek-llm" => (true, &["<｜end▁of▁sentence｜>"]),
            _ => continue,
        };
        assert_eq!(tokenizer.adds_bos(), bos, "{}", path.display());
        assert_eq!(ends, expected.iter().map(|s| s.as_bytes()).collect::<Vec<_>>(), "{}", path.display());
    }
}
