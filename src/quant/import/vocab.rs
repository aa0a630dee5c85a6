//! The vocabulary: tokens, kinds, merges or scores, from `tokenizer.json` or `tokenizer.model`.

use std::collections::HashMap;
use std::path::Path;

use super::json::{Field, Json};
use super::{ImportError, pretokenizer, sentencepiece};

/// What a token is for, by the numbers of `tokenizer.ggml.token_type`, which are SentencePiece's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    pub(super) fn from_id(id: u64) -> Option<Kind> {
        let all = [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];
        all.into_iter().find(|kind| *kind as u64 == id)
    }
}

/// Tokens by their ids, each once.
pub(super) struct Tokens {
    texts: Vec<Option<String>>,
    kinds: Vec<Kind>,
}

impl Tokens {
    /// As many as the embedding has rows, all still missing. (The caller has seen to it that the number is no whim.)
    pub(super) fn new(n_vocab: u64) -> Tokens {
        let n = n_vocab as usize;
        Tokens { texts: vec![None; n], kinds: vec![Kind::Unused; n] }
    }

    /// Give a token its text. That two have one id, or that one lies beyond the embedding, is the error.
    pub(super) fn set(&mut self, id: u64, text: &str, kind: Kind) -> Result<(), String> {
        if let Some(there) = self.text(id)
            && there != text
        {
            return Err(format!("tokens {there:?} and {text:?} both have the id {id}"));
        }
        self.replace(id, text, kind)
    }

    /// As [`Tokens::set`], whatever is there.
    pub(super) fn replace(&mut self, id: u64, text: &str, kind: Kind) -> Result<(), String> {
        let n = self.texts.len();
        let at = usize::try_from(id).unwrap_or(usize::MAX);
        let (Some(slot), Some(own)) = (self.texts.get_mut(at), self.kinds.get_mut(at)) else {
            return Err(format!("token {text:?} has the id {id}, but vocab_size is {n}"));
        };
        *slot = Some(text.to_owned());
        *own = kind;
        Ok(())
    }

    pub(super) fn text(&self, id: u64) -> Option<&str> {
        self.texts.get(usize::try_from(id).ok()?)?.as_deref()
    }

    pub(super) fn kind(&self, id: u64) -> Option<Kind> {
        self.texts.get(usize::try_from(id).ok()?)?.as_ref()?;
        self.kinds.get(id as usize).copied()
    }

    /// The id of each text.
    pub(super) fn ids(&self) -> HashMap<&str, u32> {
        let known = self.texts.iter().zip(0..).filter_map(|(text, id)| Some((text.as_deref()?, id)));
        known.collect()
    }

    /// Texts and kinds; ids that no token has are filled up with what is never used, as llama.cpp's converter does.
    pub(super) fn finish(self) -> (Vec<String>, Vec<i32>) {
        let text = |(id, text): (usize, Option<String>)| text.unwrap_or_else(|| format!("[PAD{id}]"));
        let texts = self.texts.into_iter().enumerate().map(text).collect();
        (texts, self.kinds.into_iter().map(|kind| kind as i32).collect())
    }
}

/// What the post-processor puts at one end of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edge {
    /// It says nothing of it.
    Unsaid,
    Nothing,
    Token(String),
}

/// A vocabulary.
pub(super) struct Vocabulary {
    /// `tokenizer.ggml.model`.
    pub model: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre: String,
    pub tokens: Tokens,
    pub scores: Option<Vec<f32>>,
    /// Pairs parted by a space.
    pub merges: Option<Vec<String>>,
    pub add_space_prefix: Option<bool>,
    /// What `tokenizer.json` puts before and behind a text.
    pub around: [Edge; 2],
}

impl Vocabulary {
    pub(super) fn new(model: &'static str, pre: &str, tokens: Tokens) -> Vocabulary {
        Vocabulary {
            model,
            pre: pre.to_owned(),
            tokens,
            scores: None,
            merges: None,
            add_space_prefix: None,
            around: [Edge::Unsaid, Edge::Unsaid],
        }
    }
}

/// Whether a token is one that steers the model, though nothing says so: llama.cpp's converter goes by these forms.
pub(super) fn looks_special(text: &str) -> bool {
    let between =
        |open: &str, close: &str| text.starts_with(open) && text.ends_with(close) && text.len() > open.len();
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]") || between("<|", "|>") || between("<｜", "｜>")
}

/// Read the vocabulary of a folder.
pub(super) fn read(folder: &Path, n_vocab: u64, pre: Option<&str>) -> Result<Vocabulary, ImportError> {
    let json = Json::read_if_there(&folder.join("tokenizer.json"))?;
    let has_model = folder.join("tokenizer.model").is_file();
    match json {
        Some(json) if is_byte_level(&json.get("pre_tokenizer"), 0)? => byte_level(&json, n_vocab, pre),
        _ if pre.is_some() => Err(ImportError::bad(
            folder,
            "--pre-tokenizer",
            "has no effect: there is no tokenizer.json of byte-level byte-pair encoding",
        )),
        json if has_model => {
            let mut vocabulary = sentencepiece::read(folder, n_vocab)?;
            if let Some(json) = json {
                vocabulary.around = around(&json)?;
            }
            Ok(vocabulary)
        }
        Some(json) => escaped_spaces(&json, n_vocab),
        None => Err(ImportError::bad(
            folder,
            "the tokenizer",
            "there is neither tokenizer.json nor tokenizer.model",
        )),
    }
}

/// Whether text becomes GPT-2's alphabet of bytes.
fn is_byte_level(step: &Field<'_>, depth: usize) -> Result<bool, ImportError> {
    let parts = if depth < 4 { step.get("pretokenizers").elements()? } else { Vec::new() };
    for part in parts {
        if is_byte_level(&part, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(step.get("type").value().and_then(serde_json::Value::as_str) == Some("ByteLevel"))
}

/// The model of `tokenizer.json`, if it is byte-pair encoding without anything that is not done here.
fn pairs(json: &Json) -> Result<Field<'_>, ImportError> {
    let model = json.get("model");
    let kind = model.get("type");
    if kind.text()?.is_some_and(|name| name != "BPE") {
        return Err(kind.bad("is not BPE, the only kind of tokenizer.json that can be imported"));
    }
    for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if !model.get(name).text()?.unwrap_or_default().is_empty() {
            return Err(model.get(name).bad("is not empty, which no tokenizer here does"));
        }
    }
    Ok(model)
}

/// The merges, in both spellings: `"a b"` and `["a", "b"]`.
fn merges(model: &Field<'_>) -> Result<Vec<String>, ImportError> {
    let field = model.get("merges");
    if !field.is_there() {
        return Err(field.bad("is missing"));
    }
    let of = |merge: &Field<'_>| -> Result<String, ImportError> {
        let (left, right) = match merge.value().and_then(serde_json::Value::as_array) {
            Some(_) => match &merge.elements()?[..] {
                [left, right] => (left.need_text()?, right.need_text()?),
                _ => return Err(merge.bad("is no pair")),
            },
            None => merge
                .need_text()?
                .split_once(' ')
                .ok_or_else(|| merge.bad("has no space between two tokens"))?,
        };
        if left.is_empty() || right.is_empty() || left.contains(' ') || right.contains(' ') {
            return Err(merge.bad("is no pair of tokens without spaces"));
        }
        Ok(format!("{left} {right}"))
    };
    field.elements()?.iter().map(of).collect()
}

/// The tokens of the model, then those that were added.
fn tokens(
    json: &Json,
    model: &Field<'_>,
    n_vocab: u64,
    kind_of: impl Fn(&str) -> Kind,
) -> Result<Tokens, ImportError> {
    let vocab = model.get("vocab");
    let entries =
        vocab.value().and_then(serde_json::Value::as_object).ok_or_else(|| vocab.bad("is no object"))?;
    let mut tokens = Tokens::new(n_vocab);
    for (text, id) in entries {
        let id = id.as_u64().ok_or_else(|| vocab.bad(format!("gives {text:?} the id {id}")))?;
        tokens.set(id, text, kind_of(text)).map_err(|why| vocab.bad(why))?;
    }
    for added in json.get("added_tokens").elements()? {
        let text = added.get("content").need_text()?;
        let special = added.get("special").flag()?.unwrap_or(false) || looks_special(text);
        let id = u64::from(added.get("id").need_count()?);
        if id >= n_vocab {
            tracing::warn!(
                "tokenizer.json adds token {text:?} with the id {id}, for which the embedding has no row: left out"
            );
            continue;
        }
        // Bytes and the unknown token are added by some, and stay what they are.
        let own = tokens.kind(id).filter(|kind| matches!(kind, Kind::Unknown | Kind::Byte));
        let kind = own.unwrap_or(if special { Kind::Control } else { Kind::UserDefined });
        tokens.set(id, text, kind).map_err(|why| added.bad(why))?;
    }
    Ok(tokens)
}

/// Byte-level byte-pair encoding, as GPT-2's.
fn byte_level(json: &Json, n_vocab: u64, pre: Option<&str>) -> Result<Vocabulary, ImportError> {
    let model = pairs(json)?;
    refuse_normalizer(&json.get("normalizer"), 0)?;
    let pre = match pre {
        Some(name) => name,
        None => pretokenizer::recognise(json)?,
    };
    let tokens = tokens(json, &model, n_vocab, |_| Kind::Normal)?;
    let merges = Some(merges(&model)?);
    Ok(Vocabulary { merges, around: around(json)?, ..Vocabulary::new("gpt2", pre, tokens) })
}

/// Refuse normalizers that change text. NFC is passed over, as llama.cpp does: most text is composed already.
fn refuse_normalizer(normalizer: &Field<'_>, depth: usize) -> Result<(), ImportError> {
    if !normalizer.is_there() {
        return Ok(());
    }
    let kind = normalizer.get("type");
    match kind.need_text()? {
        "NFC" => {
            tracing::info!(
                "tokenizer.json brings text into Unicode's form NFC first; that is left out, as llama.cpp does"
            );
            Ok(())
        }
        "Sequence" if depth < 4 => {
            let parts = normalizer.get("normalizers").elements()?;
            parts.iter().try_for_each(|part| refuse_normalizer(part, depth + 1))
        }
        _ => Err(kind.bad("changes text in a way that no byte-level tokenizer here does")),
    }
}

/// What the post-processor puts around a text, as llama.cpp's converter reads it: a byte-level step alone puts nothing.
fn around(json: &Json) -> Result<[Edge; 2], ImportError> {
    let step = json.get("post_processor");
    let mut steps = step.get("processors").elements()?;
    steps.push(step);
    let mut edges = [Edge::Unsaid, Edge::Unsaid];
    for step in steps {
        match step.get("type").text()? {
            Some("ByteLevel") => {
                let unsaid = edges.iter_mut().filter(|edge| **edge == Edge::Unsaid);
                unsaid.for_each(|edge| *edge = Edge::Nothing);
            }
            Some("TemplateProcessing") => {
                let parts = step.get("single").elements()?;
                let token = |part: Option<&Field<'_>>| -> Result<Option<Edge>, ImportError> {
                    let id =
                        part.map(|part| part.get("SpecialToken").get("id").text()).transpose()?.flatten();
                    Ok(id.filter(|_| parts.len() > 1).map(|id| Edge::Token(id.to_owned())))
                };
                for (edge, part) in edges.iter_mut().zip([parts.first(), parts.last()]) {
                    if let Some(token) = token(part)? {
                        *edge = token;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(edges)
}

/// SentencePiece's vocabulary as `tokenizer.json`: visible spaces, bytes as `<0xHH>`, and merges in place of scores.
///
/// The library that wrote it made the merges from the scores, the best first. So the score of a token is the place of the
/// first merge that gives it, counted down. Tokens that no merge gives are single characters, or out of reach.
fn escaped_spaces(json: &Json, n_vocab: u64) -> Result<Vocabulary, ImportError> {
    let model = pairs(json)?;
    let fallback = model.get("byte_fallback");
    if fallback.flag()? != Some(true) {
        return Err(fallback
            .bad("is not true: neither byte-level nor SentencePiece's vocabulary, which are what is read"));
    }
    let unknown = model.get("unk_token").text()?;
    let is_byte = |text: &str| text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
    let kind_of = |text: &str| match text {
        _ if Some(text) == unknown => Kind::Unknown,
        _ if is_byte(text) => Kind::Byte,
        _ => Kind::Normal,
    };
    let tokens = tokens(json, &model, n_vocab, kind_of)?;
    let merges = merges(&model)?;
    let mut scores = vec![-(merges.len() as f32) - 1.0; n_vocab as usize];
    let ids = tokens.ids();
    for (rank, merge) in merges.iter().enumerate().rev() {
        if let Some(id) = ids.get(merge.replacen(' ', "", 1).as_str())
            && let Some(score) = scores.get_mut(*id as usize)
        {
            *score = -(rank as f32);
        }
    }
    let space = space_before(&json.get("normalizer"), &json.get("pre_tokenizer"))?;
    let around = around(json)?;
    Ok(Vocabulary {
        scores: Some(scores),
        add_space_prefix: Some(space),
        around,
        ..Vocabulary::new("llama", "default", tokens)
    })
}

/// Whether a visible space is put before a text.
fn space_before(normalizer: &Field<'_>, pre_tokenizer: &Field<'_>) -> Result<bool, ImportError> {
    let mut steps = normalizer.get("normalizers").elements()?;
    steps.push(normalizer.clone());
    for step in &steps {
        match step.get("type").text()? {
            None | Some("Sequence" | "Replace") => {}
            Some("Prepend") => return Ok(true),
            Some(_) => return Err(step.get("type").bad("changes text in a way that no tokenizer here does")),
        }
    }
    match pre_tokenizer.get("type").text()? {
        None => Ok(false),
        Some("Metaspace") => {
            let scheme = pre_tokenizer.get("prepend_scheme");
            let old = pre_tokenizer.get("add_prefix_space").flag()?;
            Ok(scheme.text()?.map_or(old.unwrap_or(true), |scheme| scheme != "never"))
        }
        Some(_) => {
            Err(pre_tokenizer.get("type").bad("is not Metaspace, which a vocabulary with visible spaces has"))
        }
    }
}
