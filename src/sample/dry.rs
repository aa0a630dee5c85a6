//! DRY ("don't repeat yourself"): a penalty on tokens that would continue a sequence seen before.

use rustc_hash::FxHashMap;

use super::Params;
use super::candidates::{Candidates, clamp_finite};
use super::history::Window;

/// What DRY must know of a tokenizer to find its sequence breakers among tokens.
pub trait Pieces {
    /// Appends the text of one token to `text`, special tokens as they are written.
    fn piece(&self, token: u32, text: &mut Vec<u8>);

    /// The tokens of the rest of a breaker, with no BOS and no special tokens read from the text. `None` where the
    /// rest is not text that can be tokenized (it may begin inside a character).
    fn tokenize(&self, text: &[u8]) -> Option<Vec<u32>>;
}

/// Sequence breakers as tokens: a first token, and what must follow it, which is often nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Breakers {
    /// Per first token, the alternatives of what follows.
    tails: FxHashMap<u32, Vec<Vec<u32>>>,
}

/// A breaker's tail is compared up to this many tokens, so that looking for it takes linear time.
const MAX_TAIL: usize = 20;

impl Breakers {
    /// Breakers that are known as tokens. Empty sequences are no breakers and are passed over.
    pub fn from_tokens<S: AsRef<[u32]>>(sequences: impl IntoIterator<Item = S>) -> Self {
        let mut breakers = Breakers::default();
        for sequence in sequences {
            if let Some((&head, tail)) = sequence.as_ref().split_first() {
                breakers.add(head, tail);
            }
        }
        breakers
    }

    /// Looks the breakers' texts up in a vocabulary of `n_vocab` tokens, once per sampler.
    ///
    /// A token whose text contains a breaker is one by itself. A token that ends with the beginning of a breaker
    /// is one where the tokens of the breaker's rest follow it.
    pub fn from_text(texts: &[String], n_vocab: usize, pieces: &dyn Pieces) -> Self {
        let mut breakers = Breakers::default();
        let mut rests: FxHashMap<&[u8], Option<Vec<u32>>> = FxHashMap::default();
        let mut piece = Vec::new();
        for token in 0..u32::try_from(n_vocab).unwrap_or(u32::MAX) {
            piece.clear();
            pieces.piece(token, &mut piece);
            for text in texts.iter().map(String::as_bytes).filter(|text| !text.is_empty()) {
                if piece.windows(text.len()).any(|w| w == text) {
                    breakers.add(token, &[]);
                    continue;
                }
                for begun in 1..text.len() {
                    let (begin, rest) = text.split_at(begun);
                    if piece.ends_with(begin) {
                        let tail = rests.entry(rest).or_insert_with(|| pieces.tokenize(rest));
                        // A rest of no tokens would make every such token a breaker by itself.
                        if let Some(tail) = tail.as_deref().filter(|tail| !tail.is_empty()) {
                            breakers.add(token, tail);
                        }
                    }
                }
            }
        }
        breakers
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }

    fn add(&mut self, head: u32, tail: &[u32]) {
        let tail = &tail[..tail.len().min(MAX_TAIL)];
        let tails = self.tails.entry(head).or_default();
        if !tails.iter().any(|t| t == tail) {
            tails.push(tail.to_vec());
        }
    }

    fn is_single(&self, token: u32) -> bool {
        self.tails.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// How many tokens stand after the last breaker; all of them when there is none. Newest first.
    ///
    /// Where several breakers begin at one token the longest counts; a shorter breaker inside a longer one hides
    /// it, because the scan meets its head first.
    fn tokens_since(&self, newest_first: &[u32]) -> usize {
        if self.is_empty() {
            return newest_first.len();
        }
        for (i, token) in newest_first.iter().enumerate() {
            let follows = |tail: &Vec<u32>| {
                tail.len() <= i && newest_first[i - tail.len()..i].iter().rev().eq(tail.iter())
            };
            let longest = self
                .tails
                .get(token)
                .and_then(|tails| tails.iter().filter(|tail| follows(tail)).map(Vec::len).max());
            if let Some(longest) = longest {
                return i - longest;
            }
        }
        newest_first.len()
    }
}

/// For a token that would make the last L tokens and itself a repetition of a sequence among the last
/// `dry_penalty_last_n`, with L at least `dry_allowed_length` and the greatest such:
///
/// logit <- logit - multiplier * base ^ (L - allowed length)
///
/// No sequence reaches back over a breaker, and a token that is a breaker by itself is never penalised.
///
/// From text-generation-webui, pull request 5677 (p-e-w, 2024); matching in linear time and breakers of several
/// tokens from koboldcpp, pull request 982 (pi6am), as in llama.cpp, pull request 9702.
#[derive(Debug)]
pub(super) struct Dry {
    breakers: Breakers,
    window: Window,
    // Kept between tokens for their memory only.
    newest_first: Vec<u32>,
    matches: Vec<usize>,
    longest: FxHashMap<u32, usize>,
}

impl Dry {
    pub(super) fn new(params: &Params, breakers: Breakers) -> Self {
        // Off, it need not remember anything.
        let last_n = if params.dry_multiplier == 0.0 { 0 } else { params.dry_penalty_last_n };
        Dry {
            breakers,
            window: Window::new(last_n),
            newest_first: Vec::new(),
            matches: Vec::new(),
            longest: FxHashMap::default(),
        }
    }

    pub(super) fn accept(&mut self, token: u32) {
        self.window.push(token);
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
    }

    pub(super) fn apply(&mut self, params: &Params, candidates: &mut Candidates) {
        let allowed = params.dry_allowed_length as usize;
        if params.dry_multiplier == 0.0 || self.window.len() <= allowed {
            return;
        }
        self.newest_first.clear();
        self.newest_first.extend(self.window.newest_first());
        let limit = self.breakers.tokens_since(&self.newest_first);
        if limit < allowed {
            return;
        }

        prefix_matches(&self.newest_first, &mut self.matches);
        self.longest.clear();
        // The tokens that end k before the newest repeat the last `len`; what followed there would continue it.
        for (k, &len) in self.matches.iter().enumerate().skip(1) {
            let len = len.min(limit);
            let next = self.newest_first[k - 1];
            if len >= allowed && !self.breakers.is_single(next) {
                let longest = self.longest.entry(next).or_default();
                *longest = len.max(*longest);
            }
        }

        let (multiplier, base) = (f64::from(params.dry_multiplier), f64::from(params.dry_base));
        candidates.adjust(&self.longest, |logit, &len| {
            let penalty = multiplier * libm::pow(base, (len - allowed) as f64);
            clamp_finite((f64::from(logit) - penalty) as f32)
        });
    }
}

/// `matches[k]`: how many tokens from `k` on equal those from 0 on (the Z function; Gusfield, "Algorithms on
/// Strings, Trees, and Sequences", 1997, section 1.3). Linear time: the right end of the box only moves right.
fn prefix_matches(s: &[u32], matches: &mut Vec<usize>) {
    matches.clear();
    matches.resize(s.len(), 0);
    // s[left..right] is known to equal s[..right - left], with the furthest right found so far.
    let (mut left, mut right) = (0, 0);
    for k in 1..s.len() {
        let mut len = if k < right { matches[k - left].min(right - k) } else { 0 };
        while k + len < s.len() && s[len] == s[k + len] {
            len += 1;
        }
        if k + len > right {
            (left, right) = (k, k + len);
        }
        matches[k] = len;
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{assert_close, from_probs, probs};
    use super::super::rng::Rng;
    use super::*;

    fn params(multiplier: f32, base: f32, allowed: u32, last_n: i32) -> Params {
        Params {
            dry_multiplier: multiplier,
            dry_base: base,
            dry_allowed_length: allowed,
            dry_penalty_last_n: last_n,
            ..Params::default()
        }
    }

    fn dried(p: &Params, breakers: &[&[u32]], history: &[u32], given: &[f32]) -> Vec<f32> {
        let mut dry = Dry::new(p, Breakers::from_tokens(breakers));
        for &t in history {
            dry.accept(t);
        }
        let mut c = from_probs(given);
        dry.apply(p, &mut c);
        probs(c)
    }

    #[test]
    fn the_token_that_would_continue_a_repetition_is_penalised() {
        let quarters = [0.25; 4];
        let fifths = [0.2; 5];
        // Nothing repeats yet.
        assert_close(&dried(&params(1.0, 1.1, 2, 4), &[], &[0, 1], &quarters), &quarters);
        // 0 1 2 0 1: token 2 would repeat "0 1" (length 2, the exponent is 0, the penalty 1).
        let one = dried(&params(1.0, 1.1, 2, 5), &[], &[0, 1, 2, 0, 1], &quarters);
        assert_close(&one, &[0.296_923, 0.296_923, 0.109_232, 0.296_923]);
        let two = dried(&params(2.0, 1.1, 2, 5), &[], &[0, 1, 2, 0, 1], &fifths);
        assert_close(&two, &[0.241_818, 0.241_818, 0.032_727, 0.241_818, 0.241_818]);
        // A length of 2 is free when 4 are allowed.
        let free = dried(&params(1.0, 1.1, 4, 7), &[], &[0, 1, 2, 3, 4, 0, 1], &fifths);
        assert_close(&free, &fifths);
        // The first "0 1" lies outside the last 4 tokens.
        assert_close(&dried(&params(1.0, 1.1, 2, 4), &[], &[0, 1, 2, 0, 1], &quarters), &quarters);
        // All tokens.
        let mut long = vec![0, 1, 2];
        long.extend(10..500);
        long.extend([0, 1]);
        assert_close(&dried(&params(1.0, 1.1, 2, -1), &[], &long, &quarters), &one);
        assert_close(&dried(&params(1.0, 1.1, 2, 0), &[], &[0, 1, 2, 0, 1], &quarters), &quarters);
    }

    #[test]
    fn the_penalty_grows_with_the_length_of_the_repetition() {
        // 0 1 2 3 0 1 2: token 3 continues a length of 3, so the penalty is 1.5 * 2^(3-2) = 3.
        let p = dried(&params(1.5, 2.0, 2, 64), &[], &[0, 1, 2, 3, 0, 1, 2], &[0.25; 4]);
        assert!((p[3] / p[0] - (-3.0f32).exp()).abs() < 1e-6, "{p:?}");
        // In a b c c b c y a b c the last three tokens came before c, the last two before y, the last before b:
        // lengths 3, 2 and 1, penalties 2^2, 2^1 and 2^0.
        let (a, b, c, y) = (0, 1, 2, 3);
        let p = dried(&params(1.0, 2.0, 1, 64), &[], &[a, b, c, c, b, c, y, a, b, c], &[0.25; 4]);
        let costs: Vec<f32> = p.iter().map(|x| -(x / p[0]).ln()).collect();
        assert_close(&costs, &[0.0, 1.0, 4.0, 2.0]);
    }

    #[test]
    fn a_repetition_does_not_reach_back_over_a_breaker() {
        let p = params(1.0, 1.1, 2, 64);
        let fifths = [0.2; 5];
        // "0 1" repeats after the breaker; only the breaker itself would continue it, and that costs nothing.
        assert_close(&dried(&p, &[&[3]], &[0, 1, 3, 4, 0, 1], &fifths), &fifths);
        assert!(dried(&p, &[], &[0, 1, 3, 4, 0, 1], &fifths)[3] < 0.1, "without the breaker it is penalised");
        // Token 1 is the breaker: no two tokens stand after it.
        assert_close(&dried(&p, &[&[1]], &[0, 1, 2, 0, 1], &fifths), &fifths);
        // 4 0 1 2 | 4 0 1: three tokens repeat; with 4 as the breaker only two count.
        let p = params(1.0, 3.0, 2, 64);
        let three = dried(&p, &[], &[4, 0, 1, 2, 4, 0, 1], &fifths);
        let two = dried(&p, &[&[4]], &[4, 0, 1, 2, 4, 0, 1], &fifths);
        assert!((three[2] / three[0] - (-3.0f32).exp()).abs() < 1e-6);
        assert!((two[2] / two[0] - (-1.0f32).exp()).abs() < 1e-6);
    }

    #[test]
    fn a_breaker_of_several_tokens_counts_only_as_a_whole() {
        let breakers = Breakers::from_tokens([vec![7, 8], vec![7, 8, 9], vec![5], vec![]]);
        let since = |history: &[u32]| {
            let newest_first: Vec<u32> = history.iter().rev().copied().collect();
            breakers.tokens_since(&newest_first)
        };
        assert_eq!(since(&[1, 2, 3]), 3);
        assert_eq!(since(&[7, 8, 1, 2]), 2);
        assert_eq!(since(&[7, 8, 9, 1]), 1, "the longest alternative counts");
        assert_eq!(since(&[7, 1, 8, 1]), 4, "8 does not follow 7");
        assert_eq!(since(&[1, 7]), 2, "the breaker is not complete");
        assert_eq!(since(&[5, 1, 7, 8]), 0);
        assert_eq!(since(&[5, 1, 7]), 2);
        assert_eq!(since(&[]), 0);
    }

    #[test]
    fn breakers_are_found_in_the_text_of_tokens() {
        struct Words([&'static str; 7]);
        impl Pieces for Words {
            fn piece(&self, token: u32, text: &mut Vec<u8>) {
                text.extend_from_slice(self.0[token as usize].as_bytes());
            }
            fn tokenize(&self, text: &[u8]) -> Option<Vec<u32>> {
                // One token per byte, by its own spelling.
                text.iter()
                    .map(|&b| self.0.iter().position(|w| w.as_bytes() == [b]).map(|i| i as u32))
                    .collect()
            }
        }
        let words = Words(["a", "b", ".\n", "xa", "\n", "abc", "c"]);
        let found = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            Breakers::from_text(&texts, 7, &words)
        };
        assert_eq!(found(&["\n"]), Breakers::from_tokens([[2], [4]]));
        assert_eq!(found(&["ab"]), Breakers::from_tokens([vec![5], vec![0, 1], vec![3, 1]]));
        assert_eq!(found(&["\n", "\n"]), found(&["\n"]));
        // The rest "?" has no tokens here: "a" alone must not become a breaker.
        assert_eq!(found(&["a?"]), Breakers::default());
        assert!(found(&[]).is_empty());
    }

    #[test]
    fn matches_agree_with_counting_and_take_linear_time() {
        let mut rng = Rng::new(3, 0);
        let mut matches = Vec::new();
        for n in 0..60 {
            let s: Vec<u32> = (0..n).map(|_| (rng.uniform() * 2.5) as u32).collect();
            prefix_matches(&s, &mut matches);
            for k in 1..s.len() {
                let counted = s.iter().zip(&s[k..]).take_while(|(a, b)| a == b).count();
                assert_eq!(matches[k], counted, "{s:?} at {k}");
            }
        }
        // A quadratic search would compare 10^12 times here.
        prefix_matches(&vec![5; 1_000_000], &mut matches);
        assert_eq!(matches[1], 999_999);
    }

    #[test]
    fn a_huge_penalty_leaves_a_finite_logit() {
        let p = params(1e38, 1e38, 1, -1);
        let mut dry = Dry::new(&p, Breakers::default());
        (0..200).for_each(|_| dry.accept(0));
        let mut c = from_probs(&[0.5, 0.5]);
        dry.apply(&p, &mut c);
        assert_eq!(c.as_slice()[0].logit, f32::MIN);
    }
}
