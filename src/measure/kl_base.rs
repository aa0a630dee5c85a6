//! A base: what a model predicts for every scored token of a text, on the disk, so that other forms of the model can be held
//! against it. Compact: the most likely tokens of each prediction, and how much probability is left for all the others.
//!
//! # The file
//!
//! All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `chaskikl` |
//! | 4 | u32: the version of the format, 1 |
//! | 4 | u32: the length of the header |
//! | that | the header, JSON: [`Header`] |
//! | the rest | `windows * (ctx - 1 - ctx / 2)` predictions, in the order of the text |
//!
//! A prediction, with `k` as `top` of the header:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | f32: the natural logarithm of the probability of the token that follows |
//! | 4 | f32: the probability of all tokens together that are not among the `k` |
//! | 4 k | f32: the logarithms of the probabilities of the `k` most likely tokens, the most likely first |
//! | 2 k or 4 k | their ids: u16 where the vocabulary has at most 65536 tokens, else u32 |
//!
//! With 256 of 65536 tokens that is 1544 bytes a prediction, where all logarithms in 16 bits take 131072.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::text::{Fnv, Text};
use crate::engine::EngineError;
use crate::model::Model;

const MAGIC: &[u8; 8] = b"chaskikl";
const VERSION: u32 = 1;
/// A header is some hundred bytes.
const MOST_HEADER: u32 = 1 << 16;
/// Vocabularies up to this have ids of two bytes.
const SHORT_IDS: usize = 1 << 16;

/// Why a divergence was not measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KlError {
    /// The model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file is no base, or a damaged one.
    #[error("{0}")]
    Damaged(String),
    /// The base is of something else.
    #[error("the base is of another {what}: {why}")]
    Other {
        /// Of what: `model`, `text`, `context`.
        what: &'static str,
        /// What is in the base, and what it should be.
        why: String,
    },
    /// The base cannot be read.
    #[error("cannot read the base")]
    Read(#[source] io::Error),
    /// The base cannot be written.
    #[error("cannot write the base")]
    Write(#[source] io::Error),
}

/// From what a base was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The model's name, for people.
    pub model: String,
    /// Its architecture.
    pub arch: String,
    /// Its layers.
    pub n_layer: usize,
    /// Its width.
    pub n_embd: usize,
    /// The entries of its vocabulary.
    pub n_vocab: usize,
    /// The text's name, for people.
    pub text: String,
    /// The FNV-1a hash (64 bits, hexadecimal) of the text's bytes.
    pub text_hash: String,
}

impl About {
    /// Of this model and the bytes of this text, with names for people.
    pub fn new(model: &Model, name: &str, text_name: &str, text: &[u8]) -> About {
        let mut hash = Fnv::default();
        hash.add(text);
        let hp = model.hparams();
        About {
            model: name.to_owned(),
            arch: model.arch().to_owned(),
            n_layer: hp.n_layer,
            n_embd: hp.n_embd,
            n_vocab: hp.n_vocab,
            text: text_name.to_owned(),
            text_hash: format!("{:016x}", hash.0),
        }
    }

    fn shape(&self) -> String {
        format!(
            "{} ({}, {} layers of {}, {} tokens)",
            self.model, self.arch, self.n_layer, self.n_embd, self.n_vocab
        )
    }
}

/// What a base begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// From what it was made.
    #[serde(flatten)]
    pub about: About,
    /// Tokens of a window.
    pub ctx: usize,
    /// Windows.
    pub windows: usize,
    /// The most likely tokens of each prediction that are kept.
    pub top: usize,
    /// The FNV-1a hash (64 bits, hexadecimal) of the ids evaluated, each as four bytes: see [`Text::hash`].
    pub tokens_hash: String,
}

impl Header {
    /// Of a text to be scored, keeping the `top` most likely tokens.
    pub fn new(about: About, text: &Text<'_>, top: usize) -> Header {
        let windows = text.windows();
        Header {
            top: top.clamp(1, about.n_vocab.max(1)),
            ctx: text.ctx,
            windows,
            tokens_hash: format!("{:016x}", text.hash(windows)),
            about,
        }
    }

    /// Bytes of a prediction.
    pub fn record(&self) -> usize {
        8 + self.top * (4 + if self.short_ids() { 2 } else { 4 })
    }

    /// Predictions of a window.
    pub fn scored(&self) -> usize {
        self.ctx.saturating_sub(1 + self.ctx / 2)
    }

    fn short_ids(&self) -> bool {
        self.about.n_vocab <= SHORT_IDS
    }

    /// The bytes behind the header; none where the numbers of a damaged header overflow or make no sense.
    fn payload(&self) -> Option<u64> {
        let about = &self.about;
        let sound = self.top > 0 && self.top <= about.n_vocab && u32::try_from(about.n_vocab).is_ok();
        let record = self.top.checked_mul(8)?.checked_add(8).map(|_| self.record())?;
        let bytes = self.windows.checked_mul(self.scored())?.checked_mul(record)?;
        (sound && self.windows > 0 && self.scored() > 0).then_some(bytes as u64)
    }

    /// Whether the predictions are those that `about` and `text` would give in another form of the model. `text` may have been
    /// told to take fewer windows.
    ///
    /// # Errors
    /// What is another one: the model, the size of a window, or the text.
    pub fn check(&self, about: &About, text: &Text<'_>) -> Result<(), KlError> {
        let own = &self.about;
        let shape = |a: &About| (a.arch.clone(), a.n_layer, a.n_embd, a.n_vocab);
        let other = |what, why| Err(KlError::Other { what, why });
        if shape(own) != shape(about) {
            return other("model", format!("{}, not {}", own.shape(), about.shape()));
        }
        if self.ctx != text.ctx {
            return other("context", format!("windows of {} tokens, not {} (-c)", self.ctx, text.ctx));
        }
        let there = text.tokens.len() / text.ctx.max(1);
        let names = format!("{}, not {}", own.text, about.text);
        if there < self.windows {
            let has = format!("{there} windows of {} tokens, the base {}", self.ctx, self.windows);
            return other("text", format!("{names}, which has {has}"));
        }
        if self.tokens_hash != format!("{:016x}", text.hash(self.windows)) {
            return if own.text_hash == about.text_hash {
                let why = "gives other tokens for the same text (another vocabulary, or another BOS)";
                other("model", format!("{}; this one, {}, {why}", own.model, about.model))
            } else {
                other("text", names)
            };
        }
        Ok(())
    }
}

/// A prediction: the distribution over the token that follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prediction {
    /// Log-probability of the token that does follow.
    pub target: f32,
    /// Probability of all tokens that are not in `top`.
    pub tail: f32,
    /// The most likely tokens with their log-probabilities, the most likely first.
    pub top: Vec<(u32, f32)>,
}

/// A base under way.
#[derive(Debug)]
pub struct BaseWriter<W> {
    out: W,
    header: Header,
    record: Vec<u8>,
}

impl<W: Write> BaseWriter<W> {
    /// Begin a base.
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn new(mut out: W, header: Header) -> Result<BaseWriter<W>, KlError> {
        let json = serde_json::to_vec(&header).map_err(|e| KlError::Write(io::Error::other(e)))?;
        let begin = [&MAGIC[..], &VERSION.to_le_bytes(), &(json.len() as u32).to_le_bytes(), &json].concat();
        out.write_all(&begin).map_err(KlError::Write)?;
        Ok(BaseWriter { out, header, record: Vec::new() })
    }

    /// What it begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn push(&mut self, p: &Prediction) -> Result<(), KlError> {
        self.record.clear();
        self.record.extend(p.target.to_le_bytes());
        self.record.extend(p.tail.to_le_bytes());
        for (_, log_p) in &p.top {
            self.record.extend(log_p.to_le_bytes());
        }
        for (id, _) in &p.top {
            let bytes = id.to_le_bytes();
            self.record.extend(if self.header.short_ids() { &bytes[..2] } else { &bytes[..] });
        }
        self.out.write_all(&self.record).map_err(KlError::Write)
    }

    /// Everything is written.
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn finish(mut self) -> Result<W, KlError> {
        self.out.flush().map_err(KlError::Write)?;
        Ok(self.out)
    }
}

/// A base to be read from its beginning to its end.
#[derive(Debug)]
pub struct Base<R> {
    input: R,
    header: Header,
    record: Vec<u8>,
    /// The number of the next prediction.
    next: usize,
}

impl Base<BufReader<File>> {
    /// Open a base.
    ///
    /// # Errors
    /// It cannot be read, is no base, is of a later version, or is cut short.
    pub fn open(path: &Path) -> Result<Self, KlError> {
        let file = File::open(path).map_err(KlError::Read)?;
        let bytes = file.metadata().map_err(KlError::Read)?.len();
        Base::new(BufReader::with_capacity(1 << 18, file), bytes)
    }
}

impl<R: Read> Base<R> {
    /// Read the header of a base of `bytes` bytes.
    ///
    /// # Errors
    /// As [`Base::open`].
    pub fn new(mut input: R, bytes: u64) -> Result<Base<R>, KlError> {
        let damaged = |what: String| KlError::Damaged(what);
        let mut begin = [0; 16];
        let whole = input.read_exact(&mut begin);
        if whole.is_err() || !begin.starts_with(MAGIC) {
            return Err(damaged("not a base of --save-kl-base: it does not begin with `chaskikl`".into()));
        }
        let [_, _, version, length] = [0, 4, 8, 12]
            .map(|at| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]));
        if version != VERSION {
            return Err(damaged(format!(
                "version: {version} at byte 8; this chaski reads version {VERSION} of bases"
            )));
        }
        if length > MOST_HEADER {
            return Err(damaged(format!(
                "length of the header: {length} at byte 12, more than {MOST_HEADER}"
            )));
        }
        let mut json = vec![0; length as usize];
        input
            .read_exact(&mut json)
            .map_err(|_| damaged(format!("cut short in its header, at byte {bytes}")))?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|error| damaged(format!("the header (from byte 16 on): {error}")))?;
        let Some(payload) = header.payload() else {
            return Err(damaged("the header (from byte 16 on): its numbers make no sense".into()));
        };
        let expected = payload.saturating_add(16 + u64::from(length));
        if bytes != expected {
            let short = if bytes < expected { "cut short: " } else { "" };
            return Err(damaged(format!("{short}{bytes} bytes instead of {expected}")));
        }
        let record = vec![0; header.record()];
        Ok(Base { input, header, record, next: 0 })
    }

    /// What it begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next prediction.
    pub(super) fn read(&mut self) -> Result<Prediction, KlError> {
        let at = self.next;
        self.input.read_exact(&mut self.record).map_err(KlError::Read)?;
        self.next += 1;
        let (begin, rest) = self.record.split_at(8);
        let (log_ps, ids) = rest.split_at(4 * self.header.top);
        let float = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        let mut floats = begin.as_chunks::<4>().0.iter().map(float);
        let (target, tail) = (floats.next().unwrap_or(0.0), floats.next().unwrap_or(0.0));
        let ids: Vec<u32> = if self.header.short_ids() {
            ids.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()
        } else {
            ids.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
        };
        let top: Vec<(u32, f32)> = ids.into_iter().zip(log_ps.as_chunks::<4>().0.iter().map(float)).collect();
        // Rounding of the model's own sums is allowed for.
        let log_p = |p: f32| p <= 1e-3 && p.is_finite();
        let sound = log_p(target)
            && (0.0..=1.001).contains(&tail)
            && top.iter().all(|(id, p)| (*id as usize) < self.header.about.n_vocab && log_p(*p))
            && top.is_sorted_by(|a, b| a.1 >= b.1);
        if sound {
            Ok(Prediction { target, tail, top })
        } else {
            Err(KlError::Damaged(format!("prediction {at} is none: it is damaged")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [u32; 9] = [1, 2, 3, 4, 1, 2, 3, 4, 9];

    fn about() -> About {
        let name = |s: &str| s.to_owned();
        About {
            model: name("m"),
            arch: name("llama"),
            n_layer: 2,
            n_embd: 8,
            n_vocab: 10,
            text: name("t"),
            text_hash: name("0"),
        }
    }

    fn text() -> Text<'static> {
        Text { tokens: &TOKENS, bos: None, ctx: 4, most: None }
    }

    fn predictions() -> Vec<Prediction> {
        let of = |i: u32| Prediction { target: -1.5, tail: 0.25, top: vec![(i, -0.5), (7, -2.0), (0, -3.0)] };
        vec![of(1), of(2)]
    }

    fn written() -> Vec<u8> {
        let mut writer = BaseWriter::new(Vec::new(), Header::new(about(), &text(), 3)).unwrap();
        for p in predictions() {
            writer.push(&p).unwrap();
        }
        writer.finish().unwrap()
    }

    fn opened(bytes: &[u8]) -> Result<Base<&[u8]>, KlError> {
        Base::new(bytes, bytes.len() as u64)
    }

    #[test]
    fn what_was_written_is_read_again() {
        let bytes = written();
        let mut base = opened(&bytes).unwrap();
        assert_eq!(base.header(), &Header::new(about(), &text(), 3));
        assert_eq!(base.header().record(), 8 + 3 * 6);
        for p in predictions() {
            assert_eq!(base.read().unwrap(), p);
        }
        base.header().check(&about(), &text()).unwrap();
        // Fewer windows of the same text are the same text; a longer text begins with it.
        base.header().check(&about(), &Text { most: Some(1), ..text() }).unwrap();
    }

    #[test]
    fn ids_of_large_vocabularies_have_four_bytes() {
        let large = About { n_vocab: 70_000, ..about() };
        let mut writer = BaseWriter::new(Vec::new(), Header::new(large, &text(), 1)).unwrap();
        let p = Prediction { target: -1.0, tail: 0.5, top: vec![(69_999, -0.7)] };
        for _ in 0..2 {
            writer.push(&p).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(opened(&bytes).unwrap().read().unwrap(), p);
    }

    #[test]
    fn what_is_of_something_else_is_refused_by_name() {
        let bytes = written();
        let header = opened(&bytes).unwrap().header().clone();
        let refused = |about: &About, text: &Text<'_>| header.check(about, text).unwrap_err().to_string();
        let said = refused(&About { n_layer: 3, model: "big".into(), ..about() }, &text());
        assert!(
            said.contains("another model: m (llama, 2 layers") && said.contains("not big (llama, 3"),
            "{said}"
        );
        let said = refused(&about(), &Text { ctx: 5, ..text() });
        assert!(said.contains("another context: windows of 4 tokens, not 5"), "{said}");
        let elsewhere = About { text: "u".into(), text_hash: "1".into(), ..about() };
        let other = [1, 2, 3, 4, 1, 2, 3, 5];
        let said = refused(&elsewhere, &Text { tokens: &other, ..text() });
        assert!(said.contains("another text: t, not u"), "{said}");
        let said = refused(&elsewhere, &Text { tokens: &TOKENS[..7], ..text() });
        assert!(said.contains("another text: t, not u, which has 1 windows"), "{said}");
        let said = refused(&about(), &Text { tokens: &other, ..text() });
        assert!(said.contains("another model") && said.contains("other tokens for the same text"), "{said}");
    }

    #[test]
    fn whatever_is_cut_or_changed_is_refused() {
        let whole = written();
        for cut in 0..whole.len() {
            assert!(opened(&whole[..cut]).is_err(), "{cut}");
        }
        let mut version = whole.clone();
        version[8] = 9;
        assert!(opened(&version).unwrap_err().to_string().contains("version: 9"));
        let mut huge = whole.clone();
        huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(opened(&huge).unwrap_err().to_string().contains("length of the header"));
        let begin = whole.len() - 2 * 26;
        for (at, bytes) in [
            (begin, f32::NAN.to_le_bytes()),
            (begin + 4, 2f32.to_le_bytes()),
            (begin + 8, (-9f32).to_le_bytes()),
            (begin + 20, 60_000u32.to_le_bytes()),
        ] {
            let mut damaged = whole.clone();
            damaged[at..at + 4].copy_from_slice(&bytes);
            assert!(matches!(opened(&damaged).unwrap().read(), Err(KlError::Damaged(_))), "{at}");
        }
    }

    #[test]
    fn numbers_of_a_hostile_header_are_not_believed() {
        for (key, value) in
            [("\"top\":3", "\"top\":99"), ("\"windows\":2", "\"windows\":18446744073709551615")]
        {
            let json = serde_json::to_string(&Header::new(about(), &text(), 3)).unwrap().replace(key, value);
            let length = (json.len() as u32).to_le_bytes();
            let bytes = [MAGIC, &VERSION.to_le_bytes()[..], &length, json.as_bytes()].concat();
            assert!(opened(&bytes).unwrap_err().to_string().contains("make no sense"), "{key}");
        }
    }
}
