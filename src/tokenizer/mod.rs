//! Text to token ids and back, from a file's own metadata.
//!
//! Two algorithms, chosen by `tokenizer.ggml.model`: SentencePiece-style merging by score (`llama`, in `spm`) and
//! byte-pair encoding by a list of merges (`gpt2` and `gemma4`, in `bpe`), whose words a named pre-tokenizer cuts
//! (`pre`). What they do is what llama.cpp does with the same file, with these exceptions, each on purpose:
//!
//! - merging never produces a control, unknown or byte token, so text that looks like one stays text;
//! - bytes that are not UTF-8 are kept where the vocabulary has tokens for them: they come back when the ids are
//!   decoded (llama.cpp's BPE puts U+FFFD);
//! - where special tokens overlap in the text, the leftmost is taken and the longest of several;
//! - an id of 0xFFFFFFFF means that there is no such token, also where the kind has a default;
//! - a `gpt2` file that names no BOS or EOS token has none (llama.cpp takes token 11, which was Falcon's);
//! - an ideographic space counts among `deepseek-llm`'s punctuation, as its pattern says;
//! - upper and lower case count beyond ASCII where the model's own pattern says so (`tekken`, `gpt-4o`, ...).

mod bpe;
mod class;
mod detokenize;
mod error;
mod merge;
mod partition;
mod pre;
mod scan;
mod source;
mod special;
mod spm;
mod vocab;

use std::ops::Range;
use std::sync::Arc;

use chaski_gguf::Gguf;

pub use detokenize::Detokenizer;
pub use error::Error;
pub use source::Source;
pub use special::SpecialTokens;
pub use vocab::TokenKind;

use bpe::Bpe;
use partition::{Fragment, Partition, Strip};
use special::Known;
use spm::Spm;
use vocab::{Spelling, Vocab};

/// A tokenizer. Cloning it is cheap: clones share everything.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    vocab: Vocab,
    algorithm: Algorithm,
    partition: Partition,
    special: SpecialTokens,
    /// Ascending.
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    kind: String,
    pre: Option<String>,
    warnings: Vec<String>,
}

enum Algorithm {
    Spm(Spm),
    Bpe(Bpe),
}

/// The algorithms that a file may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Spm,
    Bpe,
}

const SUPPORTED: &str = "'llama' (SentencePiece), 'gpt2' and 'gemma4' (byte-pair encoding)";

impl Kind {
    fn of(model: &str) -> Result<Kind, Error> {
        let later = |name| Err(Error::LaterKind { kind: model.into(), name, supported: SUPPORTED });
        match model {
            "llama" => Ok(Kind::Spm),
            "gpt2" | "gemma4" => Ok(Kind::Bpe),
            "bert" => later("WordPiece"),
            "t5" => later("unigram"),
            "rwkv" => later("RWKV"),
            "plamo2" => later("PLaMo-2"),
            "hybriddna" => later("HybridDNA"),
            "whitespace" => later("white-space"),
            "none" | "no_vocab" => later("empty"),
            _ => Err(Error::UnknownKind { kind: model.into(), supported: SUPPORTED }),
        }
    }
}

/// How a text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the BOS and EOS tokens around the text where the model wants them.
    pub add_special: bool,
    /// Control tokens written in the text become those tokens; otherwise they are plain text. User-defined tokens
    /// match in any case.
    pub parse_special: bool,
}

/// A part of a text that is put together from trusted and other text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The text.
    pub text: &'a str,
    /// Whether control tokens written in it become those tokens.
    pub parse_special: bool,
}

impl Tokenizer {
    /// Build the tokenizer that the file's metadata describes.
    ///
    /// # Errors
    /// Of a kind or with a pre-tokenizer that is not known, or metadata that contradicts itself: see [`Error`].
    pub fn from_gguf(file: &Gguf) -> Result<Tokenizer, Error> {
        Source::from_gguf(file).and_then(|source| Tokenizer::new(&source)).map_err(|error| {
            match file.key_offset(error.key()) {
                Some(offset) => Error::At { error: Box::new(error), offset },
                None => error,
            }
        })
    }

    /// Build a tokenizer from its parts.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn new(source: &Source<'_>) -> Result<Tokenizer, Error> {
        let kind = Kind::of(source.model)?;
        let tokens = source.tokens.len();
        for (key, len) in [
            ("tokenizer.ggml.token_type", source.kinds.len()),
            ("tokenizer.ggml.scores", source.scores.len()),
        ] {
            if len != 0 && len != tokens {
                return Err(Error::Length { key, len, tokens });
            }
        }
        let mut warnings = Vec::new();
        let pre = match kind {
            Kind::Spm => None,
            Kind::Bpe => Some(pre_tokenizer(source, &mut warnings)?),
        };
        let spelling = pre.map_or(Spelling::EscapedSpaces, pre::PreTokenizer::spelling);
        let mut vocab = Vocab::new(spelling, &source.tokens, &source.kinds)?;
        if vocab.duplicates() > 0 {
            warnings.push(format!(
                "tokenizer.ggml.tokens: {} tokens are spelled like another; of equal ones the last is used",
                vocab.duplicates()
            ));
        }

        let mut special = SpecialTokens::default();
        if kind == Kind::Spm {
            let default = |id| Some(id).filter(|id| (*id as usize) < tokens);
            special = SpecialTokens { bos: default(1), eos: default(2), unknown: default(0), ..special };
        }
        special.apply(&source.ids, tokens)?;
        let known = Known::new(&source.tokens);
        let ends = special.complete(&mut vocab, &known);

        let algorithm = match pre {
            None => Algorithm::Spm(Spm::new(&vocab, &source.scores, special.unknown)?),
            Some(pre) => Algorithm::Bpe(Bpe::new(&vocab, pre, &source.merges)?),
        };
        // That a vocabulary lacks the bytes that UTF-8 never has is common and does no harm.
        let missing = vocab.missing_bytes().filter(|byte| !matches!(byte, 0xC0 | 0xC1 | 0xF5..)).count();
        if missing > 0 {
            let unknown = kind == Kind::Spm && special.unknown.is_some();
            let instead = if unknown { "become the unknown token" } else { "are left out" };
            warnings.push(format!(
                "tokenizer.ggml.tokens: {missing} of the bytes of UTF-8 have no token: where text needs them, they {instead}"
            ));
        }
        let strips = strips(source, &vocab, &known);
        let partition = Partition::new(&vocab, &source.tokens, &strips)?;

        // Of Gemma 4 there are files that say no and are wrong; llama.cpp overrides them as well.
        let always_bos = pre.is_some_and(|pre| pre.whole_newlines);
        let add_bos =
            always_bos || source.add_bos.unwrap_or(kind == Kind::Spm || pre.is_some_and(|pre| pre.add_bos));
        let add_eos = source.add_eos.unwrap_or(false);
        for (add, id, name) in [(add_bos, special.bos, "bos"), (add_eos, special.eos, "eos")] {
            if add && id.is_none() {
                warnings
                    .push(format!("tokenizer.ggml.add_{name}_token: there is no such token, none is added"));
            }
        }
        let add_space_prefix = kind == Kind::Spm && source.add_space_prefix.unwrap_or(true);
        Ok(Tokenizer {
            inner: Arc::new(Inner {
                vocab,
                algorithm,
                partition,
                special,
                ends,
                add_bos,
                add_eos,
                add_space_prefix,
                kind: source.model.to_owned(),
                pre: source.pre.map(str::to_owned),
                warnings,
            }),
        })
    }

    /// The token ids of a text. Text is bytes, and need not be UTF-8: no byte is lost, unless the
    /// vocabulary is byte-pair encoded and lacks tokens for some bytes; then what is not UTF-8 becomes U+FFFD.
    pub fn encode(&self, text: impl AsRef<[u8]>, options: EncodeOptions) -> Vec<u32> {
        let text = text.as_ref();
        let parsed = 0..text.len();
        self.inner.encode(
            text,
            if options.parse_special { std::slice::from_ref(&parsed) } else { &[] },
            options.add_special,
        )
    }

    /// The token ids of the text that the parts make together. It is tokenized as one text: only, a control token
    /// counts as one only where it lies wholly in parts that may have some (`parse_special`).
    pub fn encode_parts(&self, parts: &[Part<'_>], add_special: bool) -> Vec<u32> {
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.text.len()).sum());
        let mut parsed: Vec<Range<usize>> = Vec::new();
        for part in parts {
            let range = text.len()..text.len() + part.text.len();
            text.extend_from_slice(part.text.as_bytes());
            if !part.parse_special || range.is_empty() {
                continue;
            }
            match parsed.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => parsed.push(range),
            }
        }
        self.inner.encode(&text, &parsed, add_special)
    }

    /// What a token renders as: the bytes that it adds to a text, which may be a part of a character. A special token
    /// renders as its name, unused tokens and ids that are not in the vocabulary as nothing.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.inner.vocab.piece(id)
    }

    /// The bytes of the text that the ids make, from the start of a text: the space that [`Tokenizer::encode`] has put
    /// before it (`add_space_prefix`) is taken away again. Control tokens are left out unless `show_special` is set.
    pub fn decode(&self, ids: &[u32], show_special: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let mut prefixed = self.inner.add_space_prefix;
        for id in ids {
            let piece = self.inner.shown(*id, show_special);
            // BOS may stand before the first text.
            let at_start = prefixed && !self.inner.vocab.kind(*id).is_special();
            prefixed &= !at_start;
            text.extend_from_slice(piece.strip_prefix(b" ").filter(|_| at_start).unwrap_or(piece));
        }
        text
    }

    /// As [`Tokenizer::decode`], with U+FFFD for what is not UTF-8.
    pub fn decode_lossy(&self, ids: &[u32], show_special: bool) -> String {
        String::from_utf8_lossy(&self.decode(ids, show_special)).into_owned()
    }

    /// A decoder for ids that come one by one, in the midst of a text: a leading space is kept.
    pub fn detokenizer(&self, show_special: bool) -> Detokenizer {
        Detokenizer::new(self.inner.clone(), show_special)
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab.len()
    }

    /// What a token is for.
    pub fn token_kind(&self, id: u32) -> TokenKind {
        self.inner.vocab.kind(id)
    }

    /// The tokens that steer the model.
    pub fn special(&self) -> &SpecialTokens {
        &self.inner.special
    }

    /// Whether this token ends a generation.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.inner.ends.binary_search(&id).is_ok()
    }

    /// Every token that ends a generation, in ascending order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.inner.ends
    }

    /// Whether [`EncodeOptions::add_special`] puts a BOS token before a text.
    pub fn adds_bos(&self) -> bool {
        self.inner.add_bos && self.inner.special.bos.is_some()
    }

    /// Whether [`EncodeOptions::add_special`] puts an EOS token after a text.
    pub fn adds_eos(&self) -> bool {
        self.inner.add_eos && self.inner.special.eos.is_some()
    }

    /// Whether a space is put before a text (SentencePiece).
    pub fn adds_space_prefix(&self) -> bool {
        self.inner.add_space_prefix
    }

    /// The kind, as the file names it (`tokenizer.ggml.model`).
    pub fn kind(&self) -> &str {
        &self.inner.kind
    }

    /// The pre-tokenizer's name, if the file gives one (`tokenizer.ggml.pre`).
    pub fn pre(&self) -> Option<&str> {
        self.inner.pre.as_deref()
    }

    /// What the user should know about this vocabulary, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }
}

impl Inner {
    fn encode(&self, text: &[u8], parsed: &[Range<usize>], add_special: bool) -> Vec<u32> {
        // A guess that spares most reallocations: few texts have more than a token every three bytes.
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.add_bos {
            out.extend(self.special.bos);
        }
        let mut after_special = true;
        for fragment in self.partition.split(text, parsed) {
            match fragment {
                Fragment::Token(id) => out.push(id),
                Fragment::Text(ref range) => match &self.algorithm {
                    Algorithm::Spm(spm) => {
                        let prefix = self.add_space_prefix && after_special;
                        spm.encode(&self.vocab, prefix, &text[range.clone()], &mut out);
                    }
                    Algorithm::Bpe(bpe) => bpe.encode(&self.vocab, &text[range.clone()], &mut out),
                },
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        if add_special && self.add_eos {
            out.extend(self.special.eos);
        }
        out
    }

    fn shown(&self, id: u32, show_special: bool) -> &[u8] {
        if !show_special && self.vocab.kind(id).is_special() { &[] } else { self.vocab.piece(id) }
    }
}

fn pre_tokenizer(
    source: &Source<'_>,
    warnings: &mut Vec<String>,
) -> Result<&'static pre::PreTokenizer, Error> {
    let name = match (source.model, source.pre) {
        // This kind has its own, whatever the file says.
        ("gemma4", _) => "gemma4",
        (_, Some(name)) if !name.is_empty() => name,
        _ => {
            warnings.push(
                "tokenizer.ggml.pre: missing, 'default' is used; words may be cut otherwise than in training, and \
                 answers suffer: a newer conversion of the model helps"
                    .to_owned(),
            );
            "default"
        }
    };
    pre::find(name).ok_or_else(|| Error::UnknownPre { pre: name.to_owned(), known: pre::names() })
}

/// The tokens that take neighbouring white space along. Files do not say; the names are those that llama.cpp goes by.
fn strips(source: &Source<'_>, vocab: &Vocab, known: &Known) -> Vec<(u32, Strip)> {
    let name = source.name.to_lowercase();
    let pre = source.pre.unwrap_or_default();
    let left = |token: &str| {
        known.get(token).map(|id| (id, Strip { left: true, right: false })).into_iter().collect()
    };
    if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].iter().any(|p| pre.contains(p)) {
        left("<mask>")
    } else if name.contains("phi-3") || name.contains("phi3") {
        let keeps = ["<unk>", "<s>", "<|endoftext|>"].map(|token| known.get(token));
        (0..vocab.len() as u32)
            .filter(|id| vocab.kind(*id).is_special() || vocab.kind(*id) == TokenKind::UserDefined)
            .filter(|id| !keeps.contains(&Some(*id)))
            .map(|id| (id, Strip { left: false, right: true }))
            .collect()
    } else if name.contains("modern-bert") {
        left("[MASK]")
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
