//! Byte-pair encoding (`gpt2`, `gemma4`): within each word that the pre-tokenizer cuts, the neighbours whose merge
//! stands first in the file's list are joined first, the leftmost of equals.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::merge::{Merger, NONE, Symbol};
use super::pre::PreTokenizer;
use super::spm::{MAX_WORD, char_len, spell};
use super::vocab::{Spelling, VISIBLE_SPACE, Vocab};
use super::{Error, class, scan};

const MERGES: &str = "tokenizer.ggml.merges";

/// What merging needs besides the vocabulary.
pub(super) struct Bpe {
    /// (left, right) to (rank, joined).
    merges: HashMap<(u32, u32), (u32, u32)>,
    pre: &'static PreTokenizer,
    /// Every byte has a token, so that text need not be UTF-8.
    all_bytes: bool,
}

impl Bpe {
    /// `merges` are the file's: two tokens and a space between them, the best first.
    pub fn new(vocab: &Vocab, pre: &'static PreTokenizer, merges: &[&str]) -> Result<Bpe, Error> {
        if merges.len() >= NONE as usize {
            return Err(Error::TooLarge {
                key: MERGES,
                why: format!("{} merges, at most 2^32 - 2", merges.len()),
            });
        }
        let spelling = pre.spelling();
        let mut map = HashMap::with_capacity(merges.len());
        let mut joined = Vec::new();
        let mut last = 0;
        for (index, merge) in merges.iter().enumerate() {
            let fail = |why: String| Error::Element { key: MERGES, index, why };
            // The space that parts the two is never the first byte: a token may start with one.
            let Some(cut) = merge.as_bytes().iter().skip(1).position(|b| *b == b' ') else {
                return Err(fail(format!("{merge:?} has no space between two tokens")));
            };
            let parts = [&merge[..=cut], &merge[cut + 2..]];
            joined.clear();
            let mut ids = [NONE; 2];
            for (part, id) in parts.iter().zip(&mut ids) {
                let from = joined.len();
                let spelled = spelling.spell(part, &mut joined);
                *id = Some(&joined[from..])
                    .filter(|_| spelled)
                    .and_then(|key| vocab.find(key))
                    .ok_or_else(|| fail(format!("{part:?} of {merge:?} is not a token")))?;
            }
            // Most lists are in the order of the tokens that they make: that spares a search of the whole vocabulary.
            let near = [last, last + 1].into_iter().find(|id| vocab.is_found(*id, &joined));
            let Some(result) = near.or_else(|| vocab.find(&joined)) else {
                return Err(fail(format!("{merge:?} joins to what is not a token")));
            };
            last = result;
            // A merge into a token that steers the model is left out, so that text stays text.
            if vocab.is_mergeable(result) {
                map.entry((ids[0], ids[1])).or_insert((index as u32, result));
            }
        }
        Ok(Bpe { merges: map, pre, all_bytes: vocab.missing_bytes().next().is_none() })
    }

    /// Append the tokens of `text`. Text is bytes: where it is not UTF-8, each byte that starts no character counts as
    /// U+FFFD for the pre-tokenizer and is spelled as the byte that it is. Only if the vocabulary lacks some bytes
    /// (often those that UTF-8 never has) is it U+FFFD in the tokens too.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut text = Cow::Borrowed(text);
        if !self.all_bytes && std::str::from_utf8(&text).is_err() {
            text = Cow::Owned(replace_invalid(&text));
        }
        if self.pre.escaped_spaces {
            text = Cow::Owned(escape(&text));
        }
        scan::split(self.pre.stages, &text, |piece| {
            for word in text[piece].chunks(MAX_WORD) {
                self.word(vocab, &mut merger, word, out);
            }
        });
    }

    fn word(&self, vocab: &Vocab, merger: &mut Merger, word: &[u8], out: &mut Vec<u32>) {
        let whole = self.pre.ignore_merges || (self.pre.whole_newlines && word.iter().all(|b| *b == b'\n'));
        if let Some(id) = Some(word).filter(|_| whole).and_then(|word| vocab.find_mergeable(word)) {
            out.push(id);
            return;
        }
        if self.pre.escaped_spaces {
            let mut rest = word;
            while let [lead, ..] = rest {
                let (symbol, tail) = rest.split_at(char_len(*lead).min(rest.len()));
                merger.push(symbol.len(), vocab.find_mergeable(symbol).unwrap_or(NONE));
                rest = tail;
            }
        } else {
            for byte in word {
                merger.push(1, vocab.byte(*byte));
            }
        }
        let join = |left: &Symbol, right: &Symbol| self.merges.get(&(left.id, right.id)).copied();
        merger.run(join, |symbol| {
            if symbol.id != NONE {
                out.push(symbol.id);
                return;
            }
            let start = symbol.start as usize;
            spell(vocab, &word[start..start + symbol.len as usize], None, out);
        });
    }
}

impl PreTokenizer {
    /// How the tokens of a vocabulary with this pre-tokenizer are spelled.
    pub(super) fn spelling(&self) -> Spelling {
        if self.escaped_spaces { Spelling::EscapedSpaces } else { Spelling::ByteLevel }
    }
}

/// The text with U+FFFD for each byte that starts no character.
fn replace_invalid(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((c, len)) = class::decode(rest) {
        let (head, tail) = rest.split_at(len);
        out.extend_from_slice(if c == 0xFFFD { "\u{FFFD}".as_bytes() } else { head });
        rest = tail;
    }
    out
}

fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    for byte in text {
        if *byte == b' ' {
            out.extend_from_slice(VISIBLE_SPACE);
        } else {
            out.push(*byte);
        }
    }
    out
}
