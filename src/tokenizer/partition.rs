//! Finding special tokens in a text before anything else is cut.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

use super::Error;
use super::vocab::{TokenKind, Vocab};

/// The most text that the special tokens of a vocabulary may have together, in bytes.
const MAX_SPECIAL_TEXT: usize = 4 << 20;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Text to be tokenized.
    Text(Range<usize>),
    /// A special token that stands in the text.
    Token(u32),
}

/// White space that a special token takes along.
#[derive(Default, Clone, Copy)]
pub(super) struct Strip {
    /// What stands before it.
    pub left: bool,
    /// What stands after it.
    pub right: bool,
}

/// The searchers for special tokens. At each place the leftmost token that matches is taken, the longest of several.
pub(super) struct Partition {
    /// Control, unknown and user-defined tokens.
    all: Option<Searcher>,
    /// User-defined tokens alone: these match in any text.
    user_defined: Option<Searcher>,
    strips: hashbrown::HashMap<u32, Strip>,
}

struct Searcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Searcher {
    fn new(texts: &[&str], wanted: impl Fn(u32) -> bool) -> Result<Option<Searcher>, Error> {
        let ids: Vec<u32> =
            (0..texts.len() as u32).filter(|id| !texts[*id as usize].is_empty() && wanted(*id)).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let key = "tokenizer.ggml.tokens";
        let total: usize = ids.iter().map(|id| texts[*id as usize].len()).sum();
        if total > MAX_SPECIAL_TEXT {
            let why = format!("{total} bytes of special tokens, at most {MAX_SPECIAL_TEXT}");
            return Err(Error::TooLarge { key, why });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .start_kind(StartKind::Both)
            .build(ids.iter().map(|id| texts[*id as usize]))
            .map_err(|e| Error::TooLarge { key, why: format!("special tokens: {e}") })?;
        Ok(Some(Searcher { automaton, ids }))
    }

    fn find(&self, text: &[u8], span: Range<usize>, anchored: Anchored) -> Option<(Range<usize>, u32)> {
        let found = self.automaton.find(Input::new(text).span(span).anchored(anchored))?;
        Some((found.range(), self.ids[found.pattern().as_usize()]))
    }
}

impl Partition {
    /// `texts` are the tokens as the file spells them.
    pub fn new(vocab: &Vocab, texts: &[&str], strips: &[(u32, Strip)]) -> Result<Partition, Error> {
        let user_defined = |id| vocab.kind(id) == TokenKind::UserDefined;
        Ok(Partition {
            all: Searcher::new(texts, |id| user_defined(id) || vocab.kind(id).is_special())?,
            user_defined: Searcher::new(texts, user_defined)?,
            strips: strips.iter().copied().collect(),
        })
    }

    /// Cut `text` at its special tokens. Control and unknown tokens count only where they lie wholly within one of
    /// `parsed`, which are ascending ranges of the text that neither touch nor overlap; user-defined tokens everywhere.
    pub fn split(&self, text: &[u8], parsed: &[Range<usize>]) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        let mut from = 0;
        while let Some((found, id)) = self.next(text, from, parsed) {
            let strip = self.strips.get(&id).copied().unwrap_or_default();
            push(
                &mut fragments,
                from..if strip.left { trim_end(text, from..found.start) } else { found.start },
            );
            fragments.push(Fragment::Token(id));
            from = if strip.right { trim_start(text, found.end) } else { found.end };
        }
        push(&mut fragments, from..text.len());
        fragments
    }

    fn next(&self, text: &[u8], mut at: usize, parsed: &[Range<usize>]) -> Option<(Range<usize>, u32)> {
        if parsed.is_empty() {
            return self.user_defined.as_ref()?.find(text, at..text.len(), Anchored::No);
        }
        let all = self.all.as_ref()?;
        let find_user = |at: usize| self.user_defined.as_ref()?.find(text, at..text.len(), Anchored::Yes);
        loop {
            let (found, id) = all.find(text, at..text.len(), Anchored::No)?;
            let within = &parsed[parsed.partition_point(|range| range.end <= found.start)..];
            let within = within.first().filter(|range| range.start <= found.start);
            if self.is_user_defined(id) || within.is_some_and(|range| found.end <= range.end) {
                return Some((found, id));
            }
            // Not allowed to be a token here: what else starts at this place?
            let shorter = within.and_then(|range| all.find(text, found.start..range.end, Anchored::Yes));
            let user = find_user(found.start);
            match (shorter, user) {
                (Some(a), Some(b)) => return Some(if a.0.end > b.0.end { a } else { b }),
                (Some(one), None) | (None, Some(one)) => return Some(one),
                (None, None) => at = found.start + 1,
            }
        }
    }

    fn is_user_defined(&self, id: u32) -> bool {
        self.user_defined.as_ref().is_some_and(|s| s.ids.binary_search(&id).is_ok())
    }
}

fn push(fragments: &mut Vec<Fragment>, range: Range<usize>) {
    if !range.is_empty() {
        fragments.push(Fragment::Text(range));
    }
}

/// The white space of C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn trim_end(text: &[u8], range: Range<usize>) -> usize {
    text[range.clone()].iter().rposition(|b| !is_space(*b)).map_or(range.start, |last| range.start + last + 1)
}

fn trim_start(text: &[u8], start: usize) -> usize {
    text[start..].iter().position(|b| !is_space(*b)).map_or(text.len(), |first| start + first)
}
