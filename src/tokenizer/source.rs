//! What a tokenizer is built from, and reading that from a file's metadata.

use chaski_gguf::{Array, Gguf, Value, ValueType};

use super::special::SpecialTokens;
use super::{Error, TokenKind};

/// Everything that a tokenizer is built from, under the names of the metadata keys (`tokenizer.ggml.*`).
///
/// [`Source::from_gguf`] fills it from a file; tests and tools fill it by hand.
#[derive(Debug, Clone, Default)]
pub struct Source<'a> {
    /// The kind: `llama`, `gpt2` or `gemma4`.
    pub model: &'a str,
    /// The pre-tokenizer's name.
    pub pre: Option<&'a str>,
    /// The model's name (`general.name`): llama.cpp derives some attributes of tokens from it, and so does this.
    pub name: &'a str,
    /// The text of each token.
    pub tokens: Vec<&'a str>,
    /// The kind of each token; empty for all normal.
    pub kinds: Vec<TokenKind>,
    /// The score of each token (`llama`); empty for all equal.
    pub scores: Vec<f32>,
    /// Pairs of tokens parted by a space, the first to be merged first (`gpt2`, `gemma4`).
    pub merges: Vec<&'a str>,
    /// Special token ids by their full key, such as `tokenizer.ggml.bos_token_id`. 0xFFFFFFFF and -1 stand for none.
    pub ids: Vec<(&'static str, i64)>,
    /// Whether a BOS token is added; by default what the kind and the pre-tokenizer do.
    pub add_bos: Option<bool>,
    /// Whether an EOS token is added.
    pub add_eos: Option<bool>,
    /// Whether a space is put before a text (`llama`).
    pub add_space_prefix: Option<bool>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

impl<'a> Source<'a> {
    /// Read the keys that the file's kind of tokenizer uses; others may hold anything.
    ///
    /// # Errors
    /// A key is missing, of the wrong type, or its array's length is not that of the tokens.
    pub fn from_gguf(file: &'a Gguf) -> Result<Source<'a>, Error> {
        let model =
            string(file, "tokenizer.ggml.model")?.ok_or(Error::Missing { key: "tokenizer.ggml.model" })?;
        let mut source = Source { model, pre: string(file, "tokenizer.ggml.pre")?, ..Source::default() };
        // Before anything large is read.
        let kind = super::Kind::of(model)?;
        source.name = file.get("general.name").and_then(|v| v.as_str()).unwrap_or_default();
        source.tokens = strings(file, TOKENS)?.ok_or(Error::Missing { key: TOKENS })?;
        let tokens = source.tokens.len();
        if let Some(array) = array(file, TYPES, "an array of integers")? {
            check_len(TYPES, array, tokens)?;
            let kind = |v: Value<'_>| v.as_i64().map(TokenKind::from_id);
            source.kinds =
                all(array, kind).ok_or(Error::Type { key: TYPES, expected: "an array of integers" })?;
        }
        match kind {
            super::Kind::Spm => {
                let expected = "an array of numbers";
                if let Some(array) = array(file, SCORES, expected)? {
                    check_len(SCORES, array, tokens)?;
                    let score = |v: Value<'_>| v.as_f32().or_else(|| v.as_i64().map(|i| i as f32));
                    source.scores = all(array, score).ok_or(Error::Type { key: SCORES, expected })?;
                }
            }
            super::Kind::Bpe => {
                source.merges = strings(file, MERGES)?.ok_or(Error::Missing { key: MERGES })?;
            }
        }
        for key in SpecialTokens::keys() {
            if let Some(value) = file.get(key) {
                let id = value.as_i64().ok_or(Error::Type { key, expected: "a token id" })?;
                source.ids.push((key, id));
            }
        }
        source.add_bos = flag(file, "tokenizer.ggml.add_bos_token")?;
        source.add_eos = flag(file, "tokenizer.ggml.add_eos_token")?;
        source.add_space_prefix = flag(file, "tokenizer.ggml.add_space_prefix")?;
        Ok(source)
    }
}

fn string<'a>(file: &'a Gguf, key: &'static str) -> Result<Option<&'a str>, Error> {
    let Some(value) = file.get(key) else { return Ok(None) };
    value.as_str().map(Some).ok_or(Error::Type { key, expected: "a string" })
}

fn flag(file: &Gguf, key: &'static str) -> Result<Option<bool>, Error> {
    let Some(value) = file.get(key) else { return Ok(None) };
    value.as_bool().map(Some).ok_or(Error::Type { key, expected: "a bool" })
}

fn array<'a>(file: &'a Gguf, key: &'static str, expected: &'static str) -> Result<Option<Array<'a>>, Error> {
    let Some(value) = file.get(key) else { return Ok(None) };
    value.as_array().map(Some).ok_or(Error::Type { key, expected })
}

fn strings<'a>(file: &'a Gguf, key: &'static str) -> Result<Option<Vec<&'a str>>, Error> {
    let expected = "an array of strings";
    let Some(array) = array(file, key, expected)? else { return Ok(None) };
    if array.ty != ValueType::String {
        return Err(Error::Type { key, expected });
    }
    all(array, |v| v.as_str()).map(Some).ok_or(Error::Type { key, expected })
}

/// Every element, or nothing if one is not what it should be.
fn all<'a, T>(array: Array<'a>, get: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    // No element is smaller than a byte in the file, so a false length cannot make this allocation large.
    let mut out = Vec::with_capacity(array.len.min(array.bytes.len()));
    for value in array.iter() {
        out.push(get(value)?);
    }
    (out.len() == array.len).then_some(out)
}

fn check_len(key: &'static str, array: Array<'_>, tokens: usize) -> Result<(), Error> {
    if array.len == tokens { Ok(()) } else { Err(Error::Length { key, len: array.len, tokens }) }
}
