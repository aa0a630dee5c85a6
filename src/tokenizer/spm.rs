//! SentencePiece-style merging (`llama`): of all neighbours that together spell a token, the pair with the best score
//! merges first, the leftmost of equals. What no token spells becomes byte tokens.

use super::Error;
use super::merge::{Merger, NONE};
use super::vocab::{VISIBLE_SPACE, Vocab};

const SCORES: &str = "tokenizer.ggml.scores";

/// The longest stretch that is merged as one: positions are 32 bits wide.
pub(super) const MAX_WORD: usize = 1 << 30;

/// What merging needs besides the vocabulary.
pub(super) struct Spm {
    /// The rank of each token's score: lower merges first.
    priority: Vec<u32>,
    /// No token goes on over a visible space after another character, so each word can be merged by itself.
    split_words: bool,
    unknown: Option<u32>,
}

impl Spm {
    /// `scores` is as long as the vocabulary, or empty: then all are equal.
    pub fn new(vocab: &Vocab, scores: &[f32], unknown: Option<u32>) -> Result<Spm, Error> {
        if let Some(index) = scores.iter().position(|s| s.is_nan()) {
            return Err(Error::Element { key: SCORES, index, why: "not a number".into() });
        }
        let ids = 0..vocab.len() as u32;
        let split_words = !ids.clone().any(|id| vocab.is_mergeable(id) && goes_over_a_space(vocab.key(id)));
        let priority =
            if scores.is_empty() { vec![0; vocab.len()] } else { scores.iter().map(|s| rank(*s)).collect() };
        Ok(Spm { priority, split_words, unknown })
    }

    /// Append the tokens of `text`, after a space if `prefix` is set.
    ///
    /// Text is bytes: where it is not UTF-8, the leading byte alone says how long a character is (as in llama.cpp), and
    /// what no token spells goes out byte by byte, so nothing is lost.
    pub fn encode(&self, vocab: &Vocab, prefix: bool, text: &[u8], out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut word: Vec<u8> = Vec::new();
        let mut escaped = Escaped { text, at: 0, inside: &[], prefix };
        let mut last_was_space = true;
        let mut symbol = [0u8; 4];
        while let Some(len) = escaped.symbol(&mut symbol) {
            let symbol = &symbol[..len];
            let is_space = symbol == VISIBLE_SPACE;
            if (self.split_words && is_space && !last_was_space) || word.len() >= MAX_WORD {
                self.merge(vocab, &mut merger, &word, out);
                word.clear();
            }
            last_was_space = is_space;
            word.extend_from_slice(symbol);
            merger.push(len, vocab.find_mergeable(symbol).unwrap_or(NONE));
        }
        self.merge(vocab, &mut merger, &word, out);
    }

    fn merge(&self, vocab: &Vocab, merger: &mut Merger, word: &[u8], out: &mut Vec<u32>) {
        let join = |left: &super::merge::Symbol, right: &super::merge::Symbol| {
            let pair = &word[left.start as usize..(right.start + right.len) as usize];
            let id = vocab.find_mergeable(pair)?;
            Some((self.priority[id as usize], id))
        };
        merger.run(join, |symbol| {
            if symbol.id != NONE {
                out.push(symbol.id);
                return;
            }
            let start = symbol.start as usize;
            spell(vocab, &word[start..start + symbol.len as usize], self.unknown, out);
        });
    }
}

/// Append the byte tokens of `bytes`; the unknown token, if there is one, for a byte that has none.
pub(super) fn spell(vocab: &Vocab, bytes: &[u8], unknown: Option<u32>, out: &mut Vec<u32>) {
    out.extend(bytes.iter().filter_map(|b| Some(vocab.byte(*b)).filter(|id| *id != NONE).or(unknown)));
}

/// The number of bytes of a character by its leading byte alone; a stray continuation byte counts as one.
pub(super) fn char_len(lead: u8) -> usize {
    match lead {
        0..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    }
}

/// Map a score to an unsigned number that falls as the score rises; both zeros are the same score.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !rising
}

fn goes_over_a_space(key: &[u8]) -> bool {
    let mut last_was_space = true;
    let mut at = 0;
    while at < key.len() {
        let end = (at + char_len(key[at])).min(key.len());
        let is_space = &key[at..end] == VISIBLE_SPACE;
        if is_space && !last_was_space {
            return true;
        }
        last_was_space = is_space;
        at = end;
    }
    false
}

/// The text with its spaces made visible, one symbol at a time.
struct Escaped<'a> {
    text: &'a [u8],
    at: usize,
    /// What is still to come of a visible space.
    inside: &'static [u8],
    prefix: bool,
}

impl Escaped<'_> {
    /// The next byte of the escaped text.
    fn byte(&mut self) -> Option<u8> {
        if let [first, rest @ ..] = self.inside {
            self.inside = rest;
            return Some(*first);
        }
        let byte = if std::mem::take(&mut self.prefix) {
            b' '
        } else {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            byte
        };
        if byte != b' ' {
            return Some(byte);
        }
        self.inside = &VISIBLE_SPACE[1..];
        Some(VISIBLE_SPACE[0])
    }

    /// The next symbol and its length. A leading byte may promise more bytes than there are.
    fn symbol(&mut self, out: &mut [u8; 4]) -> Option<usize> {
        out[0] = self.byte()?;
        let mut len = 1;
        while len < char_len(out[0]) {
            let Some(byte) = self.byte() else { break };
            out[len] = byte;
            len += 1;
        }
        Some(len)
    }
}
