//! The algorithms on vocabularies small enough to follow by hand.

use super::{EncodeOptions, Error, Part, Source, TokenKind, Tokenizer};
use TokenKind::{Byte, Control, Normal, Unknown, UserDefined};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const WHOLE: EncodeOptions = EncodeOptions { add_special: true, parse_special: false };

/// `<unk>`, `<s>`, `</s>`, the 256 byte tokens from 3 on, then these from 259 on, with their scores.
fn spm(pieces: &[(&str, f32, TokenKind)], edit: impl FnOnce(&mut Source<'_>)) -> Result<Tokenizer, Error> {
    let bytes: Vec<String> = (0..256).map(|b| format!("<0x{b:02X}>")).collect();
    let mut tokens = vec!["<unk>", "<s>", "</s>"];
    tokens.extend(bytes.iter().map(String::as_str));
    let mut kinds = vec![Unknown, Control, Control];
    kinds.resize(259, Byte);
    let mut scores = vec![0.0; 259];
    for (text, score, kind) in pieces {
        tokens.push(text);
        scores.push(*score);
        kinds.push(*kind);
    }
    let mut source = Source { model: "llama", tokens, kinds, scores, ..Source::default() };
    edit(&mut source);
    Tokenizer::new(&source)
}

fn small_spm() -> Tokenizer {
    let normal = |text, score| (text, score, Normal);
    let pieces = [
        normal("▁", -9.0),            // 259
        normal("a", -9.0),            // 260
        normal("b", -9.0),            // 261
        normal("ab", -2.0),           // 262
        normal("aa", -1.0),           // 263
        normal("▁a", -3.0),           // 264
        normal("▁▁", -1.0),           // 265
        normal("<", -9.0),            // 266
        normal("s", -9.0),            // 267
        normal(">", -9.0),            // 268
        normal("<s", -1.0),           // 269
        ("<tool>", 0.0, UserDefined), // 270
        ("<end>", 0.0, Control),      // 271
    ];
    spm(&pieces, |_| ()).unwrap()
}

/// GPT-2's alphabet in the order of the bytes, then these tokens from 256 on.
fn bpe(pre: &str, tokens: &[(&str, TokenKind)], merges: &[&str]) -> Result<Tokenizer, Error> {
    let mut next = 0x100;
    let alphabet: Vec<String> = (0..=255u8)
        .map(|b| {
            let c = match b {
                0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(b),
                _ => {
                    next += 1;
                    char::from_u32(next - 1).unwrap()
                }
            };
            c.to_string()
        })
        .collect();
    let mut all: Vec<&str> = alphabet.iter().map(String::as_str).collect();
    all.extend(tokens.iter().map(|(text, _)| *text));
    let mut kinds = vec![Normal; 256];
    kinds.extend(tokens.iter().map(|(_, kind)| *kind));
    let source = Source {
        model: "gpt2",
        pre: Some(pre).filter(|pre| !pre.is_empty()),
        tokens: all,
        kinds,
        merges: merges.to_vec(),
        ..Source::default()
    };
    Tokenizer::new(&source)
}

#[test]
fn spm_merges_by_score_then_from_the_left() {
    let t = small_spm();
    // "aa" (-1) goes before "ab" (-2) and "▁a" (-3); of two "aa" the left one.
    assert_eq!(t.encode("aab", PLAIN), [259, 263, 261]);
    assert_eq!(t.encode("aaa", PLAIN), [259, 263, 260]);
    assert_eq!(t.encode("ab", PLAIN), [259, 262]);
    assert_eq!(t.encode("a a", PLAIN), [264, 264]);
    assert_eq!(t.encode("", PLAIN), [0u32; 0]);
}

#[test]
fn spm_spells_by_bytes_what_it_has_no_token_for() {
    let t = small_spm();
    assert_eq!(t.encode("é", PLAIN), [259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(t.encode(b"\xFFa".as_slice(), PLAIN), [259, 3 + 0xFF, 3 + b'a' as u32]);
    assert_eq!(t.decode(&t.encode(b"\xFFa\x80".as_slice(), PLAIN), false), b"\xFFa\x80");
}

#[test]
fn spm_without_byte_tokens_uses_the_unknown_token_and_warns() {
    let source =
        Source { model: "llama", tokens: vec!["<unk>", "<s>", "</s>", "▁", "a"], ..Source::default() };
    let t = Tokenizer::new(&source).unwrap();
    assert_eq!(t.encode("aé", PLAIN), [3, 4, 0, 0]);
    assert!(t.warnings().iter().any(|w| w.contains("bytes of UTF-8")), "{:?}", t.warnings());
}

#[test]
fn spm_space_prefix_comes_and_goes() {
    let t = small_spm();
    assert_eq!(t.encode("b", WHOLE), [1, 259, 261]);
    assert_eq!(t.decode(&[1, 259, 261], false), b"b");
    assert_eq!(t.decode(&[264, 264], false), b"a a");
    // In the midst of a text the space stays.
    assert_eq!(t.detokenizer(false).push(264), " a");
    // After a special token the text gets a space of its own, as after BOS.
    assert_eq!(t.encode("<end>b", PARSE), [271, 259, 261]);
    let bare = spm(&[("▁", 0.0, Normal), ("a", 0.0, Normal)], |s| s.add_space_prefix = Some(false)).unwrap();
    assert_eq!(bare.encode(" a", PLAIN), [259, 260]);
    assert_eq!(bare.decode(&[259, 260], false), b" a");
}

#[test]
fn spm_token_over_a_space_is_found() {
    // With such a token words cannot be merged one by one.
    let t =
        spm(&[("▁", -9.0, Normal), ("a", -9.0, Normal), ("a▁", -2.0, Normal), ("a▁a", -1.0, Normal)], |_| ())
            .unwrap();
    assert_eq!(t.encode("a a", PLAIN), [259, 262]);
}

#[test]
fn text_that_looks_like_a_control_token_stays_text() {
    let t = small_spm();
    // "<s" and ">" would make "<s>", token 1.
    assert_eq!(t.encode("<s>", PLAIN), [259, 269, 268]);
    assert_eq!(t.encode("<s>", PARSE), [1]);

    let t = bpe("gpt-2", &[("<s", Normal), ("<s>", Control)], &["< s", "<s >"]).unwrap();
    assert_eq!(t.encode("<s>", PLAIN).last(), Some(&u32::from(b'>')));
    assert_eq!(t.encode("<s>", PARSE), [257]);
    let t = bpe("llama3", &[("<|", Control)], &[]).unwrap();
    assert_eq!(t.encode("<|", PLAIN), [u32::from(b'<'), u32::from(b'|')]);
}

#[test]
fn user_defined_tokens_match_in_any_text() {
    let t = small_spm();
    assert_eq!(t.encode("a<tool>a", PLAIN), [264, 270, 264]);
    assert_eq!(t.decode(&[270], false), b"<tool>");
    assert_eq!(t.decode(&[271], false), b"");
    assert_eq!(t.decode(&[271], true), b"<end>");
}

#[test]
fn parts_are_one_text_but_for_control_tokens() {
    let t = small_spm();
    let part = |text, parse_special| Part { text, parse_special };
    let encode = |parts: &[Part<'_>]| t.encode_parts(parts, false);
    // Trusted parts that touch may make a control token together; with other text between or in it, none.
    assert_eq!(encode(&[part("<e", true), part("nd>", true)]), [271]);
    for parts in [
        [part("<e", true), part("nd>", false)],
        [part("<e", false), part("nd>", true)],
        [part("<e", false), part("nd>", false)],
    ] {
        assert!(!encode(&parts).contains(&271), "{parts:?}");
    }
    assert_eq!(encode(&[part("<end>", true), part("<end>", false), part("<end>", true)])[0], 271);
    assert_eq!(
        encode(&[part("<end>", true), part("<end>", false), part("<end>", true)])
            .iter()
            .filter(|id| **id == 271)
            .count(),
        2
    );
    // User-defined tokens match across parts; merging goes over their borders.
    assert_eq!(encode(&[part("<to", true), part("ol>", false)]), [270]);
    assert_eq!(encode(&[part("a", true), part("b", false)]), t.encode("ab", PLAIN));
}

#[test]
fn longest_special_token_at_the_leftmost_place() {
    let t = bpe("gpt-2", &[("<a>", Control), ("<a><b>", UserDefined), ("<a", Control)], &[]).unwrap();
    assert_eq!(t.encode("<a><b><a><a", PARSE), [257, 256, 258]);
    // The longest is not allowed here, a shorter one is; and the other way round.
    let part = |text, parse_special| Part { text, parse_special };
    assert_eq!(t.encode_parts(&[part("<a", true), part(">", false)], false), [258, u32::from(b'>')]);
    assert_eq!(t.encode("<a><b>", PLAIN), [257]);
}

#[test]
fn bpe_merges_in_the_order_of_the_list() {
    let tokens = [("bc", Normal), ("ab", Normal), ("abc", Normal)];
    let t = bpe("gpt-2", &tokens, &["b c", "a b", "a bc"]).unwrap();
    assert_eq!(t.encode("abc", PLAIN), [258]);
    let t = bpe("gpt-2", &tokens, &["a b", "b c", "a bc"]).unwrap();
    assert_eq!(t.encode("abc", PLAIN), [257, u32::from(b'c')]);
}

#[test]
fn bpe_ignores_merges_where_the_pre_tokenizer_says_so() {
    let tokens = [("abc", Normal)];
    assert_eq!(bpe("llama-bpe", &tokens, &[]).unwrap().encode("abc", PLAIN), [256]);
    assert_eq!(bpe("gpt-2", &tokens, &[]).unwrap().encode("abc", PLAIN).len(), 3);
}

#[test]
fn bpe_keeps_every_byte() {
    let t = bpe("llama-bpe", &[("Ġa", Normal)], &["Ġ a"]).unwrap();
    let all: Vec<u8> = (0..=255).chain([0xF0, 0x9F, b' ', b'a', 0xE2, 0x96]).collect();
    let ids = t.encode(&all, PLAIN);
    assert!(ids.contains(&256));
    assert_eq!(t.decode(&ids, false), all);
}

#[test]
fn bpe_with_visible_spaces() {
    let bytes: Vec<String> = (0..256).map(|b| format!("<0x{b:02X}>")).collect();
    let mut tokens: Vec<&str> = bytes.iter().map(String::as_str).collect();
    tokens.extend(["<bos>", "▁", "a", "▁a", "\n", "\n\n"]);
    let mut kinds = vec![Byte; 256];
    kinds.extend([Control, Normal, Normal, Normal, Normal, Normal]);
    let source = Source {
        model: "gemma4",
        tokens,
        kinds,
        merges: vec!["▁ a"],
        ids: vec![("tokenizer.ggml.bos_token_id", 256)],
        ..Source::default()
    };
    let t = Tokenizer::new(&source).unwrap();
    assert_eq!(t.encode(" a\n\né", PLAIN), [259, 261, 0xC3, 0xA9]);
    assert_eq!(t.encode("a", WHOLE), [256, 258]);
    assert_eq!(t.decode(&[259, 261, 0xC3, 0xA9], false), " a\n\né".as_bytes());
}

#[test]
fn detokenizer_never_gives_half_a_character() {
    let t = bpe("gpt-2", &[], &[]).unwrap();
    let mut d = t.detokenizer(false);
    let emoji: Vec<u32> = "🦙".bytes().map(u32::from).collect();
    let shown: Vec<String> = emoji.iter().map(|id| d.push(*id).to_owned()).collect();
    assert_eq!(shown, ["", "", "", "🦙"]);
    // What cannot become a character any more is shown at once.
    assert_eq!(d.push(0xF0), "");
    assert_eq!(d.push(u32::from(b'a')), "\u{FFFD}a");
    assert_eq!(d.push(0xFF), "\u{FFFD}");
    assert_eq!(d.push(0xE2), "");
    assert_eq!(d.finish(), "\u{FFFD}");
    assert_eq!(d.finish(), "");
    assert_eq!(d.push(9999), "");
}

#[test]
fn special_tokens_by_id_and_by_text() {
    let tokens = [("<|im_end|>", Normal), ("<|endoftext|>", Control), ("<|fim_prefix|>", Control)];
    let t = bpe("qwen2", &tokens, &[]).unwrap();
    assert_eq!(t.special().eot, Some(256));
    assert_eq!(t.special().fim_prefix, Some(258));
    assert_eq!(t.end_of_generation(), [256, 257]);
    assert!(t.is_end_of_generation(256) && !t.is_end_of_generation(258));
    // Found by its text, it steers the model, whatever the file says.
    assert_eq!(t.token_kind(256), Control);
    assert_eq!((t.special().bos, t.adds_bos()), (None, false));
}

#[test]
fn harmony_end_is_no_end_of_generation() {
    let tokens =
        [("<|end|>", Control), ("<|return|>", Control), ("<|call|>", Control), ("<|channel|>", Control)];
    let t = bpe("gpt-4o", &tokens, &[]).unwrap();
    assert_eq!(t.end_of_generation(), [257, 258]);
    assert_eq!(t.token_kind(259), UserDefined);
}

#[test]
fn bos_and_eos_rules() {
    let rule = |bos, eos| {
        let t = spm(&[("▁", 0.0, Normal)], |s| (s.add_bos, s.add_eos) = (bos, eos)).unwrap();
        t.encode("", WHOLE)
    };
    assert_eq!(rule(None, None), [1]);
    assert_eq!(rule(Some(false), Some(true)), [2]);
    assert_eq!(rule(Some(true), Some(true)), [1, 2]);
    // 0xFFFFFFFF stands for none.
    let t = spm(&[], |s| s.ids = vec![("tokenizer.ggml.bos_token_id", 0xFFFF_FFFF)]).unwrap();
    assert_eq!(t.encode("", WHOLE), [0u32; 0]);
    assert!(t.warnings().iter().any(|w| w.contains("add_bos_token")), "{:?}", t.warnings());
}

#[test]
fn phi3_special_tokens_take_the_white_space_after_them() {
    let pieces = [("▁", -1.0, Normal), ("a", -1.0, Normal), ("<|end|>", 0.0, Control)];
    let t = spm(&pieces, |s| s.name = "Phi-3 mini").unwrap();
    assert_eq!(t.encode("<|end|>\n \ta<s> a", PARSE), [261, 259, 260, 1, 259, 259, 260]);
    let t = spm(&pieces, |_| ()).unwrap();
    assert_eq!(t.encode("<|end|>\na", PARSE), [261, 259, 3 + 10, 260]);
}

#[test]
fn contradictions_are_named() {
    let error =
        |edit: &dyn Fn(&mut Source<'_>)| spm(&[("a", 0.0, Normal)], |s| edit(s)).err().unwrap().to_string();
    assert_eq!(error(&|s| s.kinds.truncate(5)), "tokenizer.ggml.token_type: 5 elements for 260 tokens");
    assert_eq!(error(&|s| s.scores.push(0.0)), "tokenizer.ggml.scores: 261 elements for 260 tokens");
    assert_eq!(error(&|s| s.scores[7] = f32::NAN), "tokenizer.ggml.scores[7]: not a number");
    assert_eq!(
        error(&|s| s.ids = vec![("tokenizer.ggml.padding_token_id", 260)]),
        "tokenizer.ggml.padding_token_id: token 260 of a vocabulary of 260"
    );
    assert_eq!(
        error(&|s| s.tokens[13] = "<0x0>"),
        "tokenizer.ggml.tokens[13]: a byte token must be spelled <0xHH>, this one is \"<0x0>\""
    );
    assert!(error(&|s| s.model = "bert").contains("WordPiece"));
    assert!(error(&|s| s.model = "klingon").contains("unknown kind 'klingon'"));

    let error = |merges: &[&str]| bpe("gpt-2", &[("ab", Normal)], merges).err().unwrap().to_string();
    assert_eq!(error(&["a b", "a xy"]), "tokenizer.ggml.merges[1]: \"xy\" of \"a xy\" is not a token");
    assert_eq!(error(&["a c"]), "tokenizer.ggml.merges[0]: \"a c\" joins to what is not a token");
    assert!(error(&["ab"]).starts_with("tokenizer.ggml.merges[0]"));
    assert!(error(&[""]).starts_with("tokenizer.ggml.merges[0]"));
    let unknown = bpe("klingon", &[], &[]).err().unwrap().to_string();
    assert!(unknown.contains("'klingon'") && unknown.contains("llama-bpe"), "{unknown}");
}

#[test]
fn missing_pre_tokenizer_is_the_default_with_a_warning() {
    let t = bpe("", &[], &[]).unwrap();
    assert!(t.warnings().iter().any(|w| w.contains("tokenizer.ggml.pre")), "{:?}", t.warnings());
    assert!(bpe("default", &[], &[]).unwrap().warnings().is_empty());
}

#[test]
fn duplicates_and_empty_tokens_only_warn() {
    let t = spm(&[("a", 0.0, Normal), ("a", 0.0, Normal), ("", 0.0, Normal)], |_| ()).unwrap();
    assert_eq!(t.encode("a", PLAIN).last(), Some(&260));
    assert_eq!(t.warnings().len(), 1, "{:?}", t.warnings());
    assert_eq!(t.token_bytes(261), b"");
}

#[test]
fn very_long_tokens() {
    let long = "a".repeat(1 << 20);
    let t = spm(&[("a", 0.0, Normal), (&long, 0.0, Normal)], |_| ()).unwrap();
    assert_eq!(t.encode("aa", PLAIN).len(), 5);
    assert_eq!(t.token_bytes(260).len(), 1 << 20);
    let t = spm(&[(&long, 0.0, Control)], |_| ()).unwrap();
    assert_eq!(t.encode(&long, PARSE), [259]);
    assert_eq!(t.encode(&long[1..], PARSE).len(), (1 << 20) - 1 + 3);
}

/// A run of one character takes about as long as any other text; quadratic time would take minutes here.
#[test]
fn a_long_run_of_one_character_is_no_worse_than_another_text() {
    let doubling = |unit: &str| -> Vec<String> { (0..6).map(|n| unit.repeat(1 << n)).collect() };
    let mut texts = doubling("a");
    texts.extend(doubling("▁"));
    let pieces: Vec<(&str, f32, TokenKind)> = texts.iter().map(|t| (t.as_str(), -1.0, Normal)).collect();
    let check = |name: &str, t: &Tokenizer, len: usize| {
        let units = ["a", "A", " ", "\n", "7", "'", " \n", "aA ", "🦙", "\u{301}"].map(str::as_bytes);
        for unit in units.into_iter().chain([&b"\xFF"[..]]) {
            let text = unit.repeat(len / unit.len());
            let start = std::time::Instant::now();
            let ids = t.encode(&text, PLAIN);
            let took = start.elapsed().as_secs_f64();
            assert!(took < 10.0, "{name}: {unit:?} took {took} s");
            assert_eq!(t.decode(&ids, false), text, "{name}: {unit:?}");
        }
    };
    check("spm", &spm(&pieces, |_| ()).unwrap(), 1 << 20);
    let (a, g) = (doubling("a"), doubling("Ġ"));
    let tokens: Vec<(&str, TokenKind)> = a[1..].iter().chain(&g[1..]).map(|t| (t.as_str(), Normal)).collect();
    let merges: Vec<String> = a[..5].iter().chain(&g[..5]).map(|t| format!("{t} {t}")).collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    check("llama-bpe", &bpe("llama-bpe", &tokens, &merges).unwrap(), 1 << 20);
    for (names, pre) in super::pre::PRE_TOKENIZERS {
        for unit in ["a", "A", " ", "\n", "7", "'", " \n", "aA ", "\u{301}", "ʰ"] {
            let text = unit.repeat((1 << 18) / unit.len());
            let (start, mut n) = (std::time::Instant::now(), 0);
            super::scan::split(pre.stages, text.as_bytes(), |_| n += 1);
            let took = start.elapsed().as_secs_f64();
            assert!(n > 0 && took < 10.0, "{names:?}: {unit:?} took {took} s");
        }
    }
}
