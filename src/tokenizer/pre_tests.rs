//! Each pre-tokenizer against its regular expressions, run by a general engine, on random text.

use super::super::scan::split;
use super::{PRE_TOKENIZERS, find};

const CONTRACTION: &str = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const SIGNS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SIGNS_SLASH: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const UPPER: &str = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}";
const LOWER: &str = r"\p{Ll}\p{Lm}\p{Lo}\p{M}";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DEEPSEEK_CJK: &str = "[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";
const CJK: &str = "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+";
const DEEPSEEK3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+\
                         | ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

fn cased(suffix: &str, except: &str) -> String {
    let lead = r"[^\r\n\p{L}\p{N}]?";
    let upper = format!("[[{UPPER}]{except}]");
    let lower = format!("[[{LOWER}]{except}]");
    format!("{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}")
}

/// The expressions of a name, in the order in which they cut. None for `deepseek-llm`, whose first is a list of ranges
/// that the table itself copies, and for those that cut lines.
fn expressions(name: &str) -> Option<Vec<String>> {
    let words =
        |letters: &str, digits: &str| format!(r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}|");
    let own = |s: &[&str]| Some(s.iter().map(|s| (*s).to_owned()).collect());
    let one = |s: String| Some(vec![s]);
    let optional = format!("{CONTRACTION}?");
    match name {
        "default" => own(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        "gpt-2" | "modern-bert" => own(&[GPT2]),
        "starcoder" => own(&[r"\p{N}", GPT2]),
        "falcon" => own(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
        "llama3" | "glm4" | "dbrx" => one(words(r"\p{L}", r"\p{N}{1,3}") + SIGNS),
        "qwen2" => one(words(r"\p{L}", r"\p{N}") + SIGNS),
        "qwen35" => one(words(r"[\p{L}\p{M}]", r"\p{N}") + &SIGNS.replacen(r"\p{L}", r"\p{L}\p{M}", 1)),
        "minicpm5" => Some(vec![r"\p{N}{1,3}".into(), words(r"\p{L}", r"\p{N}+") + SIGNS]),
        "bailingmoe" => one(words(r"\p{L}", r"\p{N}") + &SIGNS.replacen(r"\s*[\r\n]+", r"\s*[\r\n]", 1)),
        "seed-coder" => {
            one(words(r"\p{L}", r"\p{N}") + &SIGNS.replacen(r"\p{N}]+[\r\n]*", r"\p{N}\r\n]+", 1))
        }
        "ufakzeka" => one(format!(r"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{SIGNS}")),
        "laguna" => Some(vec![r"[^\n]+|[\n]+".into(), words(r"\p{L}", r"\p{N}") + SIGNS]),
        "deepseek-coder" => own(&["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
        "deepseek-v3" => own(&[r"\p{N}{1,3}", CJK, DEEPSEEK3]),
        "youtu" => Some(vec![
            "[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\
             \u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+|"
                .to_owned()
                + CJK,
            cased(&optional, "") + r"|\p{N}|" + SIGNS_SLASH,
        ]),
        "tekken" => one(cased("", "") + r"|\p{N}|" + SIGNS_SLASH),
        "gpt-4o" => one(cased(&optional, "") + r"|\p{N}{1,3}|" + SIGNS_SLASH),
        "tiny_aya" => Some(vec![
            r"\d{1,3}(?=(?:\d{3})*\b)".into(),
            cased(&optional, "") + r"|\p{N}{1,3}|" + SIGNS_SLASH,
        ]),
        "kimi-k2" => {
            one(r"[\p{Han}]+|".to_owned() + &cased(&optional, r"&&[^\p{Han}]") + r"|\p{N}{1,3}|" + SIGNS)
        }
        "poro-chat" => own(&[BLOOM]),
        "viking" => own(&[BLOOM, r"\p{N}"]),
        "gemma4" | "sarvam-moe" => own(&[r"[^\n]+|[\n]+"]),
        "deepseek-llm" => None,
        _ => panic!("{name}: give its expressions"),
    }
}

fn by_regex(expressions: &[fancy_regex::Regex], text: &str) -> Vec<String> {
    let mut pieces = vec![text.to_owned()];
    for expression in expressions {
        let mut next = Vec::new();
        for piece in pieces {
            let mut done = 0;
            for found in expression.find_iter(&piece) {
                let found = found.unwrap();
                next.push(piece[done..found.start()].to_owned());
                next.push(found.as_str().to_owned());
                done = found.end();
            }
            next.push(piece[done..].to_owned());
        }
        next.retain(|piece| !piece.is_empty());
        pieces = next;
    }
    pieces
}

fn by_name(name: &str, text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    split(find(name).unwrap().stages, text.as_bytes(), |range| pieces.push(text[range].to_owned()));
    pieces
}

/// Text of characters on which the expressions turn, and of any others now and then.
fn random_text(state: &mut u64) -> String {
    let chars: Vec<char> =
        "aAzZbsStTrRvVeEmMlLdD''''   \t\n\n\r\u{85}\u{A0}\u{3000}\u{2028}019½٣Ⅷ.,!?-/_#$+<^~|`(){}\"éÉßǅʰªªªª中文あン가ㄱ।۔،…。，、！’“\u{301}\u{93E}กั🦙😶\u{200D}\u{FE0F}\u{FFFD}\u{E000}\u{378}\u{1F1E6}"
            .chars()
            .collect();
    let mut random = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    let len = random() % 40;
    (0..len)
        .map(|_| match random() % 32 {
            0 => char::from_u32((random() % 0x11_0000) as u32).unwrap_or('x'),
            _ => chars[(random() % chars.len() as u64) as usize],
        })
        .collect()
}

#[test]
fn pieces_are_those_of_the_regular_expressions() {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    for (names, pre) in PRE_TOKENIZERS {
        let Some(expressions) = expressions(names[0]) else { continue };
        let expressions: Vec<_> = expressions.iter().map(|e| fancy_regex::Regex::new(e).unwrap()).collect();
        for _ in 0..400 {
            let text = random_text(&mut state);
            let mut pieces = Vec::new();
            split(pre.stages, text.as_bytes(), |range| pieces.push(text[range].to_owned()));
            assert_eq!(pieces, by_regex(&expressions, &text), "{}: {text:?}", names[0]);
        }
    }
}

#[test]
fn deepseek_llm_pieces() {
    assert_eq!(
        by_name("deepseek-llm", " Hello, мир\n中文 123  "),
        [" Hello", ",", " мир", "\n", "中文", " ", "123", "  "]
    );
}

#[test]
fn pieces_make_up_the_text_whatever_its_bytes() {
    let mut state = 42;
    for (names, pre) in PRE_TOKENIZERS {
        for _ in 0..50 {
            let mut bytes = random_text(&mut state).into_bytes();
            for at in (0..bytes.len()).step_by(5) {
                bytes[at] = bytes[at].wrapping_add(state as u8);
            }
            let mut at = 0;
            split(pre.stages, &bytes, |range| {
                assert!(range.start == at && range.end > at, "{names:?}: {bytes:?}");
                at = range.end;
            });
            assert_eq!(at, bytes.len(), "{names:?}: {bytes:?}");
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
