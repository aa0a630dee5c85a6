//! The small pattern language of the pre-tokenizers, and its matcher.
//!
//! The pre-tokenizers of published models are regular expressions of very few shapes. Written in these shapes they are
//! matched without backtracking in linear time, whatever the text; a general engine needs look-ahead for them.

use std::ops::Range;

use super::class::{self, L, LL, LM, LO, LT, LU, M, N, ND, NL, WORD, WS};

/// A set of characters.
#[derive(Clone, Copy)]
pub(super) enum Set {
    /// Those with any of these class bits.
    In(u16),
    /// Those with none of these class bits.
    NotIn(u16),
    /// Those in these ranges, ends included.
    Ranges(&'static [(char, char)]),
    /// Those with any of these class bits, and these characters.
    InOr(u16, &'static str),
    /// Those with none of these class bits that are none of these characters.
    NotInNor(u16, &'static str),
}

/// A set, `min` to `max` times, as many as there are.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub set: Set,
    pub min: u32,
    pub max: u32,
}

/// `set?`
pub(super) const fn opt(set: Set) -> Item {
    Item { set, min: 0, max: 1 }
}

/// `set*`
pub(super) const fn any(set: Set) -> Item {
    Item { set, min: 0, max: u32::MAX }
}

/// `set+`
pub(super) const fn some(set: Set) -> Item {
    Item { set, min: 1, max: u32::MAX }
}

/// `set{min,max}`
pub(super) const fn times(set: Set, min: u32, max: u32) -> Item {
    Item { set, min, max }
}

/// One alternative of a pattern.
#[derive(Clone, Copy)]
pub(super) enum Alt {
    /// Items one after the other. Each takes all it can; only an optional first item is given back where the rest
    /// then matches, so no later item may need what an earlier one takes.
    Seq(&'static [Item]),
    /// `'s|'t|'re|'ve|'m|'ll|'d`, in lower case only or in any.
    Contraction { any_case: bool },
    /// `\s*[\r\n]+`: white space up to its last line end.
    SpacesToLineEnd,
    /// `\s+(?!\S)`: white space, but for its last character where text follows.
    SpacesBeforeLast,
    /// `[^\r\n\p{L}\p{N}]?U*L+` or, failing that, `[^\r\n\p{L}\p{N}]?U+L*`, where U is any letter or mark that is not
    /// lower case, L any that is not upper or title case, and neither has a class of `except`; then, if so asked, an
    /// optional contraction in any case.
    CasedWord { except: u16, contraction: bool },
}

/// One step of pre-tokenization: it cuts every piece that the steps before have left.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The first alternative that matches at the leftmost place is a piece; so is what lies between matches.
    Match(&'static [Alt]),
    /// `\s+$`: white space at the end of the piece.
    TrailingSpace,
    /// `\d{1,3}(?=(?:\d{3})*\b)`: a number in groups of three digits, counted from its end.
    DigitsFromRight,
}

const UPPER: u16 = LU | LT | LM | LO | M;
const LOWER: u16 = LL | LM | LO | M;

/// Cut `text` by the stages in turn and hand out the pieces in order, none empty.
pub(super) fn split(stages: &[Stage], text: &[u8], mut emit: impl FnMut(Range<usize>)) {
    let table = class::table();
    cut(table, stages, text, 0..text.len(), &mut emit);
}

fn cut(
    table: &[u16],
    stages: &[Stage],
    text: &[u8],
    piece: Range<usize>,
    emit: &mut dyn FnMut(Range<usize>),
) {
    if piece.is_empty() {
        return;
    }
    let Some((stage, rest)) = stages.split_first() else { return emit(piece) };
    let scan = Scan { table, text: &text[..piece.end] };
    let mut next = |from: usize, to: usize| cut(table, rest, text, from..to, emit);
    let mut done = piece.start;
    match stage {
        Stage::Match(alts) => {
            let mut at = piece.start;
            while at < piece.end {
                match alts.iter().find_map(|alt| scan.alt(alt, at)) {
                    Some(end) => {
                        next(done, at);
                        next(at, end);
                        (at, done) = (end, end);
                    }
                    None => at = scan.get(at).1,
                }
            }
        }
        Stage::TrailingSpace => {
            let (mut at, mut tail) = (piece.start, piece.start);
            while at < piece.end {
                let (c, end) = scan.get(at);
                at = end;
                if scan.class(c) & WS == 0 {
                    tail = end;
                }
            }
            next(piece.start, tail);
            done = tail;
        }
        Stage::DigitsFromRight => {
            let mut at = piece.start;
            while at < piece.end {
                let (run, n) = scan.run(Set::In(ND), at, u32::MAX);
                let goes_on = scan.peek(run).is_some_and(|(c, _)| scan.class(c) & WORD != 0);
                if n == 0 || goes_on {
                    at = if n == 0 { scan.get(at).1 } else { run };
                    continue;
                }
                next(done, at);
                let mut group = if n % 3 == 0 { 3 } else { n % 3 };
                while at < run {
                    done = scan.run(Set::In(ND), at, group).0;
                    next(at, done);
                    (at, group) = (done, 3);
                }
            }
        }
    }
    next(done, piece.end);
}

struct Scan<'a> {
    table: &'a [u16],
    /// The text up to the end of the piece: nothing looks past it.
    text: &'a [u8],
}

impl Scan<'_> {
    /// The character at `at` and where it ends; nothing is there at the end of the piece.
    #[inline]
    fn peek(&self, at: usize) -> Option<(u32, usize)> {
        let (c, len) = class::decode(self.text.get(at..)?)?;
        Some((c, at + len))
    }

    /// The character at `at`, which is inside the piece, and where it ends.
    #[inline]
    fn get(&self, at: usize) -> (u32, usize) {
        self.peek(at).unwrap_or((0xFFFD, at + 1))
    }

    #[inline]
    fn class(&self, c: u32) -> u16 {
        self.table.get(c as usize).copied().unwrap_or(0)
    }

    #[inline]
    fn has(&self, set: Set, c: u32) -> bool {
        match set {
            Set::In(bits) => self.class(c) & bits != 0,
            Set::NotIn(bits) => self.class(c) & bits == 0,
            Set::Ranges(ranges) => ranges.iter().any(|(a, b)| (*a as u32..=*b as u32).contains(&c)),
            Set::InOr(bits, chars) => self.class(c) & bits != 0 || chars.chars().any(|x| x as u32 == c),
            Set::NotInNor(bits, chars) => self.class(c) & bits == 0 && !chars.chars().any(|x| x as u32 == c),
        }
    }

    /// Where the characters of `set` from `at` on end, `max` at most, and how many they are.
    #[inline]
    fn run(&self, set: Set, mut at: usize, max: u32) -> (usize, u32) {
        let mut n = 0;
        while n < max {
            match self.peek(at) {
                Some((c, end)) if self.has(set, c) => at = end,
                _ => break,
            }
            n += 1;
        }
        (at, n)
    }

    /// Where the match of an alternative at `at` ends, if it matches.
    fn alt(&self, alt: &Alt, at: usize) -> Option<usize> {
        match *alt {
            Alt::Seq(items) => self.seq(items, at).or_else(|| match items {
                [first, rest @ ..] if first.min == 0 => self.seq(rest, at),
                _ => None,
            }),
            Alt::Contraction { any_case } => self.contraction(at, any_case),
            Alt::SpacesToLineEnd => self.spaces(at).1,
            Alt::SpacesBeforeLast => {
                let (end, _, last) = self.spaces(at);
                let end = if end == self.text.len() { end } else { last };
                (end > at).then_some(end)
            }
            Alt::CasedWord { except, contraction } => {
                let lead = self.run(Set::NotIn(NL | L | N), at, 1).0;
                let starts = [Some(lead).filter(|lead| *lead > at), Some(at)];
                let starts = || starts.iter().copied().flatten();
                let end = starts()
                    .find_map(|at| self.upper_then_lower(at, except))
                    .or_else(|| starts().find_map(|at| self.upper_run(at, except)))?;
                Some(if contraction { self.contraction(end, true).unwrap_or(end) } else { end })
            }
        }
    }

    fn seq(&self, items: &[Item], mut at: usize) -> Option<usize> {
        let start = at;
        for item in items {
            let (end, n) = self.run(item.set, at, item.max);
            if n < item.min {
                return None;
            }
            at = end;
        }
        (at > start).then_some(at)
    }

    fn contraction(&self, at: usize, any_case: bool) -> Option<usize> {
        let fold =
            |i: usize| self.text.get(at + i).map(|b| if any_case { b.to_ascii_lowercase() } else { *b });
        if fold(0)? != b'\'' {
            return None;
        }
        match (fold(1)?, fold(2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(at + 3),
            _ => None,
        }
    }

    /// The white space at `at`: where it ends, where its last line end ends, and where its last character starts.
    fn spaces(&self, mut at: usize) -> (usize, Option<usize>, usize) {
        let (mut line_end, mut last) = (None, at);
        while let Some((c, end)) = self.peek(at) {
            let class = self.class(c);
            if class & WS == 0 {
                break;
            }
            if class & NL != 0 {
                line_end = Some(end);
            }
            last = at;
            at = end;
        }
        (at, line_end, last)
    }

    /// `U*L+` from `at` on.
    fn upper_then_lower(&self, at: usize, except: u16) -> Option<usize> {
        let member = |c: u32, bits: u16| self.class(c) & bits != 0 && self.class(c) & except == 0;
        // U takes all it can; if no L follows, it gives back as little as leaves L one character.
        let (mut end, mut both) = (at, None);
        while let Some((c, next)) = self.peek(end).filter(|(c, _)| member(*c, UPPER)) {
            if member(c, LOWER) {
                both = Some(next);
            }
            end = next;
        }
        let upper = end;
        while let Some((_, next)) = self.peek(end).filter(|(c, _)| member(*c, LOWER)) {
            end = next;
        }
        if end > upper { Some(end) } else { both }
    }

    /// `U+L*` from `at` on, where no `U*L+` matches: then no L follows.
    fn upper_run(&self, at: usize, except: u16) -> Option<usize> {
        let mut end = at;
        while let Some((c, next)) = self.peek(end) {
            if self.class(c) & UPPER == 0 || self.class(c) & except != 0 {
                break;
            }
            end = next;
        }
        (end > at).then_some(end)
    }
}
