//! Finds which bytes of a rendered text came from data and could be read as special tokens.
//!
//! The technique is substitution. In the data, each character that could begin or end a special token (`<` and
//! `>`, say) is replaced by a private-use character that occurs nowhere else, one for one; then the template
//! runs, and in its output the private characters tell where such a character of the data went, through
//! trimming, slicing, concatenation and JSON. Putting the characters back must give exactly what the unmarked
//! data renders to, or the marks are not used: a template may look into the data
//! (`content.startswith('<tool_response>')`) and choose otherwise when it is marked. Three ways, each tried
//! when the one before it changed the text:
//!
//! 1. Every character of data that begins or ends a special token is marked. No special token can then hold a
//!    byte of data at either end, and one whose ends both come from the template is the template's own.
//! 2. The same, but string literals of the template are left alone where the data holds them, so that what the
//!    template looks for is found; only literals which share nothing with any special token.
//! 3. Nothing is marked. Each special token whose text occurs in the data, or where two pieces of data would
//!    meet, is taken for data wherever it stands in the output, also where the template wrote it. The prompt
//!    may then lose its structure, but nothing gains a structure that it was not given.
//!
//! The assistant's messages are the model's own text, in which reasoning marks and the like keep their
//! meaning; there only whole tokens that begin or end a turn are marked.
//! A special token that begins or ends with a letter, a digit or white space is marked where it occurs whole.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::rewrite::Rewritten;
use super::{Limits, RenderInput, Rendered, TemplateError, engine};

/// How many comparisons a search for special tokens may take before it gives up.
const MAX_COMPARISONS: usize = 1 << 26;
/// How many string literals of a template the second way tries to leave alone.
const MAX_LITERALS: usize = 64;

/// Looks for any of a set of texts.
struct Finder<'a> {
    by_first: HashMap<char, Vec<&'a str>>,
}

impl<'a> Finder<'a> {
    fn new(texts: impl IntoIterator<Item = &'a str>) -> Finder<'a> {
        let mut by_first: HashMap<char, Vec<&str>> = HashMap::new();
        for text in texts {
            if let Some(first) = text.chars().next() {
                by_first.entry(first).or_default().push(text);
            }
        }
        Finder { by_first }
    }

    /// Calls `found` with every place where one of the texts stands, overlaps included. False if the search
    /// took too long and was given up.
    #[must_use]
    fn each(&self, text: &str, mut found: impl FnMut(Range<usize>, &'a str)) -> bool {
        let mut comparisons = 0_usize;
        for (at, c) in text.char_indices() {
            let Some(candidates) = self.by_first.get(&c) else { continue };
            for candidate in candidates {
                comparisons += 1 + candidate.len() / 32;
                if text[at..].starts_with(candidate) {
                    found(at..at + candidate.len(), candidate);
                }
            }
            if comparisons > MAX_COMPARISONS {
                return false;
            }
        }
        true
    }
}

/// Joins ranges that touch or overlap.
fn merge(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|s| s.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// The strings of a conversation, keys included, by who wrote them.
#[derive(Default)]
struct Strings<'a> {
    data: Vec<&'a str>,
    generated: Vec<&'a str>,
}

impl<'a> Strings<'a> {
    fn of(input: &'a RenderInput) -> Strings<'a> {
        let mut strings = Strings::default();
        for message in input.messages.as_array().into_iter().flatten() {
            let list = if is_generated(message) { &mut strings.generated } else { &mut strings.data };
            collect(message, list);
        }
        for value in input.tools.iter().chain(input.extra.values()) {
            collect(value, &mut strings.data);
        }
        strings
    }
}

/// Whether a message is the model's own.
pub(super) fn is_generated(message: &serde_json::Value) -> bool {
    message.get("role").and_then(serde_json::Value::as_str) == Some("assistant")
}

fn collect<'a>(json: &'a serde_json::Value, strings: &mut Vec<&'a str>) {
    // In the order of the text, which matters where two strings could meet.
    let mut open = vec![(None, json)];
    while let Some((key, value)) = open.pop() {
        strings.extend(key);
        match value {
            serde_json::Value::String(s) => strings.push(s),
            serde_json::Value::Array(items) => open.extend(items.iter().rev().map(|item| (None, item))),
            serde_json::Value::Object(entries) => {
                open.extend(entries.iter().rev().map(|(key, value)| (Some(key.as_str()), value)));
            }
            _ => {}
        }
    }
}

/// Replaces characters of data by private ones, and finds them again.
struct Marks<'a> {
    /// Characters that are marked wherever data holds them.
    edges: HashSet<char>,
    /// Special tokens that are marked where data holds them whole.
    wordy: Finder<'a>,
    /// What is marked, whole, in the assistant's messages.
    turns: Finder<'a>,
    /// What is left alone in data.
    exempt: Vec<&'a str>,
    to_private: HashMap<char, char>,
    from_private: HashMap<char, char>,
}

impl Marks<'_> {
    /// The string with its marks, or none if there is nothing to mark.
    fn mark(&self, text: &str, generated: bool) -> Option<String> {
        let mut whole = Vec::new();
        let finder = if generated { &self.turns } else { &self.wordy };
        let searched = finder.each(text, |range, _| whole.push(range));
        let mut left = Vec::new();
        for literal in self.exempt.iter().filter(|_| !generated) {
            left.extend(text.match_indices(literal).map(|(at, found)| at..at + found.len()));
        }
        let (whole, left) = (merge(whole), merge(left));
        let within = |spans: &[Range<usize>], at: usize| {
            let next = spans.partition_point(|s| s.end <= at);
            spans.get(next).is_some_and(|s| s.start <= at)
        };
        let mut marked = String::with_capacity(text.len());
        let mut any = false;
        for (at, c) in text.char_indices() {
            let edge = self.edges.contains(&c) && (!generated || !searched) && !within(&left, at);
            match self.to_private.get(&c) {
                Some(private) if edge || within(&whole, at) => {
                    marked.push(*private);
                    any = true;
                }
                _ => marked.push(c),
            }
        }
        any.then_some(marked)
    }

    /// The places of the marked characters in `plain`, if `marked` is `plain` with marks.
    fn recover(&self, marked: &str, plain: &str) -> Option<Vec<Range<usize>>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut expected = plain.char_indices();
        for c in marked.chars() {
            let (at, original) = expected.next()?;
            match self.from_private.get(&c) {
                Some(found) if *found == original => {
                    let end = at + original.len_utf8();
                    match spans.last_mut() {
                        Some(last) if last.end == at => last.end = end,
                        _ => spans.push(at..end),
                    }
                }
                None if c == original => {}
                _ => return None,
            }
        }
        expected.next().is_none().then_some(spans)
    }
}

/// Whether a special token could share a character with an occurrence of `literal`.
fn shares(literal: &str, special: &str) -> bool {
    literal.contains(special)
        || special.contains(literal)
        || literal.char_indices().any(|(i, _)| special.starts_with(&literal[i..]))
        || special.char_indices().any(|(i, _)| literal.starts_with(&special[i..]))
}

/// Renders, and marks what came from data.
pub(super) fn render(
    template: &Rewritten,
    input: &RenderInput,
    limits: &Limits,
) -> Result<Rendered, TemplateError> {
    let plain = engine::run(template, input, limits, &|_| None, &|_| None)?;
    let turns: Vec<&str> = input.turn_tokens.iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
    let mut specials: Vec<&str> =
        input.special_tokens.iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
    specials.extend(&turns);
    specials.sort_unstable();
    specials.dedup();
    if specials.is_empty() {
        return Ok(Rendered { text: plain, user_spans: Vec::new() });
    }
    let strings = Strings::of(input);
    let all = Finder::new(specials.iter().copied());

    let mut edges = HashSet::new();
    let mut wordy = Vec::new();
    for special in &specials {
        let ends = [special.chars().next(), special.chars().next_back()];
        if ends.iter().flatten().any(|c| c.is_alphanumeric() || c.is_whitespace() || *c == '_') {
            wordy.push(*special);
        } else {
            edges.extend(ends.into_iter().flatten());
        }
    }
    let mut marked_chars: Vec<char> = edges.iter().copied().collect();
    marked_chars.extend(wordy.iter().chain(&turns).flat_map(|s| s.chars()));
    marked_chars.sort_unstable();
    marked_chars.dedup();
    let private = private_chars(template, &plain, &strings, marked_chars.len());
    let to_private: HashMap<char, char> = marked_chars.into_iter().zip(private).collect();
    let mut marks = Marks {
        edges,
        wordy: Finder::new(wordy),
        turns: Finder::new(turns.iter().copied()),
        exempt: Vec::new(),
        from_private: to_private.iter().map(|(a, b)| (*b, *a)).collect(),
        to_private,
    };

    let mut spans = try_marks(&marks, template, input, limits, &strings, &plain);
    if spans.is_none() {
        let literals = template.literals.iter().map(String::as_str);
        let edged = literals.filter(|l| l.chars().count() > 1 && l.chars().any(|c| marks.edges.contains(&c)));
        let free = edged.filter(|l| l.len() <= 256 && !specials.iter().any(|s| shares(l, s)));
        marks.exempt = free.take(MAX_LITERALS).collect();
        if !marks.exempt.is_empty() {
            spans = try_marks(&marks, template, input, limits, &strings, &plain);
        }
    }
    let spans = match spans {
        Some(spans) => relevant(&all, &plain, spans),
        None => conservative(&all, &marks.turns, &strings, &plain),
    };
    Ok(Rendered { text: plain, user_spans: spans })
}

fn try_marks(
    marks: &Marks<'_>,
    template: &Rewritten,
    input: &RenderInput,
    limits: &Limits,
    strings: &Strings<'_>,
    plain: &str,
) -> Option<Vec<Range<usize>>> {
    let nothing = strings.data.iter().all(|s| marks.mark(s, false).is_none())
        && strings.generated.iter().all(|s| marks.mark(s, true).is_none());
    if nothing {
        return Some(Vec::new());
    }
    // A failure with marks where there was none without them is a difference like any other.
    let marked =
        engine::run(template, input, limits, &|s| marks.mark(s, false), &|s| marks.mark(s, true)).ok()?;
    marks.recover(&marked, plain)
}

/// Private-use characters that neither the template, nor the data, nor the output holds.
fn private_chars(template: &Rewritten, plain: &str, strings: &Strings<'_>, count: usize) -> Vec<char> {
    let texts = strings.data.iter().chain(&strings.generated).copied().chain([plain]);
    let texts =
        texts.chain(template.literals.iter().map(String::as_str)).chain(template.raw.iter().map(|r| &**r));
    let used: HashSet<char> = texts.flat_map(str::chars).filter(|c| *c as u32 >= 0xF_0000).collect();
    let planes = (0xF_0000..0xF_FFFE).chain(0x10_0000..0x10_FFFE);
    planes.filter_map(char::from_u32).filter(|c| !used.contains(c)).take(count).collect()
}

/// The spans that touch the text of a special token: no other can matter to a tokenizer.
fn relevant(all: &Finder<'_>, text: &str, spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if spans.is_empty() {
        return spans;
    }
    let mut occurrences = Vec::new();
    if !all.each(text, |range, _| occurrences.push(range)) {
        return spans;
    }
    let occurrences = merge(occurrences);
    let touches = |span: &Range<usize>| {
        let next = occurrences.partition_point(|o| o.end <= span.start);
        occurrences.get(next).is_some_and(|o| o.start < span.end)
    };
    spans.into_iter().filter(touches).collect()
}

/// Every occurrence of each special token that data holds, or could hold where two of its strings meet.
fn conservative(
    all: &Finder<'_>,
    turns: &Finder<'_>,
    strings: &Strings<'_>,
    text: &str,
) -> Vec<Range<usize>> {
    let mut suspects = HashSet::new();
    let mut searched = true;
    for trim in [false, true] {
        let join =
            |list: &[&str]| list.iter().map(|s| if trim { s.trim() } else { s }).collect::<Vec<_>>().concat();
        searched &= all.each(&join(&strings.data), |_, found| {
            suspects.insert(found);
        });
        searched &= turns.each(&join(&strings.generated), |_, found| {
            suspects.insert(found);
        });
    }
    let mut spans = Vec::new();
    searched &= Finder::new(suspects).each(text, |range, _| spans.push(range));
    if searched { merge(spans) } else { std::iter::once(0..text.len()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_left_alone_only_if_it_shares_nothing_with_a_special_token() {
        assert!(!shares("<tool_response>", "<|im_end|>"));
        assert!(shares("<|", "<|im_end|>"));
        assert!(shares("|>", "<|im_end|>"));
        assert!(shares("x<", "<|im_end|>"));
        assert!(shares("a<|im_end|>b", "<|im_end|>"));
    }

    #[test]
    fn a_search_that_takes_too_long_is_given_up() {
        let texts: Vec<String> = (0..4000).map(|i| format!("a{i}")).collect();
        let finder = Finder::new(texts.iter().map(String::as_str));
        assert!(!finder.each(&"a".repeat(100_000), |_, _| {}));
    }
}
