//! The pre-tokenizers by name: how a text is cut into words before bytes are merged within each.
//!
//! Names and what they stand for are llama.cpp's (`llama-vocab.cpp`); the patterns are those of the models' own
//! `tokenizer.json`. To add a name, add it to its line of [`PRE_TOKENIZERS`].

use super::class::{HAN, L, M, N, NL, P, S, SLASH, SPACE, WS};
use super::scan::{Alt, Item, Set, Stage, any, opt, some, times};

/// What a name in `tokenizer.ggml.pre` stands for.
#[derive(Clone, Copy)]
pub(super) struct PreTokenizer {
    /// The cuts, in their order.
    pub stages: &'static [Stage],
    /// A word that is a token as it stands is that token, whatever merging would give.
    pub ignore_merges: bool,
    /// Whether a BOS token is added if the file does not say.
    pub add_bos: bool,
    /// Words are UTF-8 with visible spaces and `<0xHH>` byte tokens, not GPT-2's byte alphabet.
    pub escaped_spaces: bool,
    /// A run of line ends that is a token is that token, whatever merging would give.
    pub whole_newlines: bool,
}

const fn plain(stages: &'static [Stage]) -> PreTokenizer {
    PreTokenizer {
        stages,
        ignore_merges: false,
        add_bos: false,
        escaped_spaces: false,
        whole_newlines: false,
    }
}

const fn whole_words(stages: &'static [Stage]) -> PreTokenizer {
    PreTokenizer { ignore_merges: true, ..plain(stages) }
}

const fn whole_words_bos(stages: &'static [Stage]) -> PreTokenizer {
    PreTokenizer { add_bos: true, ..whole_words(stages) }
}

const fn lines() -> PreTokenizer {
    PreTokenizer { escaped_spaces: true, ..plain(&[Stage::Match(LINES)]) }
}

const fn gemma4() -> PreTokenizer {
    PreTokenizer { whole_newlines: true, add_bos: true, ..lines() }
}

/// Every name that is known, with what it stands for.
pub(super) const PRE_TOKENIZERS: &[(&[&str], PreTokenizer)] = &[
    (&["default"], plain(DEFAULT)),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
        ],
        plain(GPT2_STAGES),
    ),
    (&["modern-bert", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"], plain(GPT2_STAGES)),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        plain(&[DIGIT, Stage::Match(GPT2)]),
    ),
    (&["falcon"], plain(FALCON)),
    (
        &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        whole_words_bos(LLAMA3),
    ),
    (&["glm4", "glm5"], whole_words(LLAMA3)),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], plain(LLAMA3)),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        plain(QWEN2_STAGES),
    ),
    (&["qwen35"], plain(QWEN35)),
    (&["minicpm5"], whole_words(MINICPM5)),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], plain(QWEN2_STAGES)),
    (&["seed-coder"], plain(SEED_CODER)),
    (&["ufakzeka"], plain(&[Stage::Match(NO_CONTRACTIONS)])),
    (&["laguna"], plain(&[Stage::Match(LINES), Stage::Match(QWEN2)])),
    (&["deepseek-llm"], plain(DEEPSEEK_LLM)),
    (&["deepseek-coder"], plain(DEEPSEEK_CODER)),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], plain(DEEPSEEK3)),
    (&["youtu"], whole_words(YOUTU)),
    (&["tekken"], whole_words_bos(TEKKEN)),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], plain(GPT4O)),
    (&["tiny_aya", "cohere2moe"], plain(TINY_AYA)),
    (&["kimi-k2"], plain(KIMI_K2)),
    (&["poro-chat", "bloom", "gpt3-finnish"], plain(&[Stage::Match(BLOOM)])),
    (&["viking"], plain(&[Stage::Match(BLOOM), DIGIT])),
    (&["gemma4", "granite-embed-multi-311m"], gemma4()),
    (&["sarvam-moe"], lines()),
];

/// The pre-tokenizer of this name.
pub(super) fn find(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|(names, _)| names.contains(&name)).map(|(_, pre)| pre)
}

/// Every known name, for messages.
pub(super) fn names() -> String {
    let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    names.join(", ")
}

// Sets, items and alternatives that several patterns share.

const LETTER: Set = Set::In(L);
const NUMBER: Set = Set::In(N);
const SPACE_OPT: Item = opt(Set::In(SPACE));
/// `[^\s\p{L}\p{N}]`
const OTHER: Set = Set::NotIn(WS | L | N);
/// `[^\r\n\p{L}\p{N}]?`
const LEAD: Item = opt(Set::NotIn(NL | L | N));
const LINE_ENDS: Item = any(Set::In(NL));
const LINE_ENDS_OR_SLASHES: Item = any(Set::In(NL | SLASH));
/// `\s+`
const SPACES: Alt = Alt::Seq(&[some(Set::In(WS))]);
/// `\p{N}{1,3}`
const DIGITS_3: Alt = Alt::Seq(&[times(NUMBER, 1, 3)]);
/// `\p{N}`
const DIGIT_1: Alt = Alt::Seq(&[times(NUMBER, 1, 1)]);
const DIGIT: Stage = Stage::Match(&[DIGIT_1]);
/// `[^\r\n\p{L}\p{N}]?\p{L}+`
const WORD: Alt = Alt::Seq(&[LEAD, some(LETTER)]);
/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const SIGNS: Alt = Alt::Seq(&[SPACE_OPT, some(OTHER), LINE_ENDS]);
/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
const SIGNS_SLASH: Alt = Alt::Seq(&[SPACE_OPT, some(OTHER), LINE_ENDS_OR_SLASHES]);
const CONTRACTION: Alt = Alt::Contraction { any_case: true };
/// `[^\n]+|[\n]+`
const LINES: &[Alt] =
    &[Alt::Seq(&[some(Set::NotInNor(0, "\n"))]), Alt::Seq(&[some(Set::Ranges(&[('\n', '\n')]))])];
/// `[!-/:-~]` in parts: ASCII punctuation and symbols before letters, `[...][A-Za-z]+`
const ASCII_SIGN_WORD: Alt = Alt::Seq(&[
    times(Set::Ranges(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]), 1, 1),
    some(Set::Ranges(&[('A', 'Z'), ('a', 'z')])),
]);
/// `[0-9][0-9][0-9]`
const THREE_DIGITS: Alt = Alt::Seq(&[times(Set::Ranges(&[('0', '9')]), 3, 3)]);
/// `\u4E00-\u9FA5`, hiragana, katakana
const CJK: Alt = Alt::Seq(&[some(Set::Ranges(&[
    ('\u{4E00}', '\u{9FA5}'),
    ('\u{3040}', '\u{309F}'),
    ('\u{30A0}', '\u{30FF}'),
]))]);
/// As deepseek's first tokenizers have it: `\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF`
const CJK_WIDE: Alt = Alt::Seq(&[some(Set::Ranges(&[
    ('\u{4E00}', '\u{9FA5}'),
    ('\u{800}', '\u{4E00}'),
    ('\u{AC00}', '\u{D7FF}'),
]))]);
const LINE_END: Stage = Stage::Match(&[Alt::Seq(&[times(Set::In(NL), 1, 1)])]);

// The patterns.

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const GPT2: &[Alt] = &[
    Alt::Contraction { any_case: false },
    Alt::Seq(&[SPACE_OPT, some(LETTER)]),
    Alt::Seq(&[SPACE_OPT, some(NUMBER)]),
    Alt::Seq(&[SPACE_OPT, some(OTHER)]),
    Alt::SpacesBeforeLast,
    SPACES,
];
const GPT2_STAGES: &[Stage] = &[Stage::Match(GPT2)];

/// `[\p{P}\$\+<=>\^~\|]+`, GPT-2's, `\p{N}+`, `[0-9][0-9][0-9]`
const DEFAULT: &[Stage] = &[
    Stage::Match(&[Alt::Seq(&[some(Set::InOr(P, "$+<=>^~|"))])]),
    Stage::Match(GPT2),
    Stage::Match(&[Alt::Seq(&[some(NUMBER)])]),
    Stage::Match(&[THREE_DIGITS]),
];

const FALCON: &[Stage] = &[
    Stage::Match(&[Alt::Seq(&[some(Set::InOr(P, "$+<=>^~|`"))])]),
    Stage::Match(GPT2),
    Stage::Match(&[THREE_DIGITS]),
];

/// `(?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const LLAMA3: &[Stage] = &[Stage::Match(&[
    CONTRACTION,
    WORD,
    DIGITS_3,
    SIGNS,
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
])];

/// As llama-3's, with digits one by one.
const QWEN2: &[Alt] =
    &[CONTRACTION, WORD, DIGIT_1, SIGNS, Alt::SpacesToLineEnd, Alt::SpacesBeforeLast, SPACES];
const QWEN2_STAGES: &[Stage] = &[Stage::Match(QWEN2)];

/// As qwen2's, with marks among the letters.
const QWEN35: &[Stage] = &[Stage::Match(&[
    CONTRACTION,
    Alt::Seq(&[LEAD, some(Set::In(L | M))]),
    DIGIT_1,
    Alt::Seq(&[SPACE_OPT, some(Set::NotIn(WS | L | M | N)), LINE_ENDS]),
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
])];

const MINICPM5: &[Stage] = &[
    Stage::Match(&[DIGITS_3]),
    Stage::Match(&[
        CONTRACTION,
        WORD,
        Alt::Seq(&[some(NUMBER)]),
        SIGNS,
        Alt::SpacesToLineEnd,
        Alt::SpacesBeforeLast,
        SPACES,
    ]),
];

/// As qwen2's, with line ends apart from signs.
const SEED_CODER: &[Stage] = &[Stage::Match(&[
    CONTRACTION,
    WORD,
    DIGIT_1,
    Alt::Seq(&[SPACE_OPT, some(Set::NotIn(WS | L | N | NL))]),
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
])];

const NO_CONTRACTIONS: &[Alt] = &[WORD, DIGIT_1, SIGNS, Alt::SpacesToLineEnd, Alt::SpacesBeforeLast, SPACES];

const DEEPSEEK_LLM: &[Stage] = &[
    LINE_END,
    Stage::Match(&[Alt::Seq(&[opt(Set::In(WS)), some(Set::Ranges(CASED_LETTERS))])]),
    Stage::Match(&[Alt::Seq(&[opt(Set::In(WS)), some(Set::Ranges(WIDE_AND_ASCII_SIGNS))])]),
    Stage::TrailingSpace,
    Stage::Match(&[CJK_WIDE]),
    Stage::Match(&[Alt::Seq(&[some(NUMBER)])]),
];

const DEEPSEEK_CODER: &[Stage] = &[
    LINE_END,
    Stage::Match(&[Alt::Seq(&[opt(Set::In(WS)), some(LETTER)])]),
    Stage::Match(&[Alt::Seq(&[opt(Set::In(WS)), some(Set::In(P))])]),
    Stage::Match(&[CJK_WIDE]),
    DIGIT,
];

const DEEPSEEK3_WORDS: Stage = Stage::Match(&[
    ASCII_SIGN_WORD,
    Alt::Seq(&[opt(Set::NotIn(NL | L | P | S)), some(Set::In(L | M))]),
    Alt::Seq(&[SPACE_OPT, some(Set::In(P | S)), LINE_ENDS]),
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
]);
const DEEPSEEK3: &[Stage] = &[Stage::Match(&[DIGITS_3]), Stage::Match(&[CJK]), DEEPSEEK3_WORDS];

const YOUTU: &[Stage] = &[
    Stage::Match(&[
        Alt::Seq(&[some(Set::Ranges(&[('\u{AC00}', '\u{D7A3}'), ('\u{3131}', '\u{318E}')]))]),
        Alt::Seq(&[some(Set::Ranges(WIDE_PUNCTUATION))]),
        Alt::Seq(&[some(Set::Ranges(&[('\u{3105}', '\u{312F}')]))]),
        CJK,
    ]),
    Stage::Match(&[
        Alt::CasedWord { except: 0, contraction: true },
        DIGIT_1,
        SIGNS_SLASH,
        Alt::SpacesToLineEnd,
        Alt::SpacesBeforeLast,
        SPACES,
    ]),
];

const TEKKEN: &[Stage] = &[Stage::Match(&[
    Alt::CasedWord { except: 0, contraction: false },
    DIGIT_1,
    SIGNS_SLASH,
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
])];

const GPT4O_WORDS: Stage = Stage::Match(&[
    Alt::CasedWord { except: 0, contraction: true },
    DIGITS_3,
    SIGNS_SLASH,
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
]);
const GPT4O: &[Stage] = &[GPT4O_WORDS];
const TINY_AYA: &[Stage] = &[Stage::DigitsFromRight, GPT4O_WORDS];

const KIMI_K2: &[Stage] = &[Stage::Match(&[
    Alt::Seq(&[some(Set::In(HAN))]),
    Alt::CasedWord { except: HAN, contraction: true },
    DIGITS_3,
    SIGNS,
    Alt::SpacesToLineEnd,
    Alt::SpacesBeforeLast,
    SPACES,
])];

/// ` ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+`
const BLOOM: &[Alt] = &[Alt::Seq(&[
    SPACE_OPT,
    some(Set::NotInNor(WS, "(|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})")),
])];

// Sets given as ranges.

const WIDE_AND_ASCII_SIGNS: &[(char, char)] = &[
    ('!', '/'),
    (':', '~'),
    ('\u{FF01}', '\u{FF0F}'),
    ('\u{FF1A}', '\u{FF5E}'),
    ('\u{2018}', '\u{201F}'),
    ('\u{3000}', '\u{3002}'),
];

const WIDE_PUNCTUATION: &[(char, char)] = &[
    ('\u{FF01}', '\u{FF01}'),
    ('\u{2026}', '\u{2026}'),
    ('\u{201C}', '\u{201D}'),
    ('\u{2018}', '\u{2019}'),
    ('\u{2014}', '\u{2014}'),
    ('\u{FF1A}', '\u{FF1B}'),
    ('\u{FF0C}', '\u{FF0C}'),
    ('\u{3001}', '\u{303F}'),
    ('\u{FE30}', '\u{FE4F}'),
];

/// Letters of the scripts that have case, as deepseek-llm's `tokenizer.json` lists them.
const CASED_LETTERS: &[(char, char)] = &[
    ('A', 'Z'),
    ('a', 'z'),
    ('\u{B5}', '\u{B5}'),
    ('\u{C0}', '\u{D6}'),
    ('\u{D8}', '\u{F6}'),
    ('\u{F8}', '\u{1BA}'),
    ('\u{1BC}', '\u{1BF}'),
    ('\u{1C4}', '\u{293}'),
    ('\u{295}', '\u{2AF}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{376}'),
    ('\u{377}', '\u{377}'),
    ('\u{37B}', '\u{37D}'),
    ('\u{37F}', '\u{37F}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38A}'),
    ('\u{38C}', '\u{38C}'),
    ('\u{38E}', '\u{3A1}'),
    ('\u{3A3}', '\u{3F5}'),
    ('\u{3F7}', '\u{481}'),
    ('\u{48A}', '\u{52F}'),
    ('\u{531}', '\u{556}'),
    ('\u{10A0}', '\u{10C5}'),
    ('\u{13A0}', '\u{13F5}'),
    ('\u{13F8}', '\u{13FD}'),
    ('\u{1C90}', '\u{1CBA}'),
    ('\u{1CBD}', '\u{1CBF}'),
    ('\u{1D00}', '\u{1D2B}'),
    ('\u{1D6B}', '\u{1D77}'),
    ('\u{1D79}', '\u{1D9A}'),
    ('\u{1E00}', '\u{1F15}'),
    ('\u{1F18}', '\u{1F1D}'),
    ('\u{1F20}', '\u{1F45}'),
    ('\u{1F48}', '\u{1F4D}'),
    ('\u{1F50}', '\u{1F57}'),
    ('\u{1F59}', '\u{1F59}'),
    ('\u{1F5B}', '\u{1F5B}'),
    ('\u{1F5D}', '\u{1F5D}'),
    ('\u{1F5F}', '\u{1F7D}'),
    ('\u{1F80}', '\u{1FB4}'),
    ('\u{1FB6}', '\u{1FBC}'),
    ('\u{1FBE}', '\u{1FBE}'),
    ('\u{1FC2}', '\u{1FC4}'),
    ('\u{1FC6}', '\u{1FCC}'),
    ('\u{1FD0}', '\u{1FD3}'),
    ('\u{1FD6}', '\u{1FDB}'),
    ('\u{1FE0}', '\u{1FEC}'),
    ('\u{1FF2}', '\u{1FF4}'),
    ('\u{1FF6}', '\u{1FFC}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210A}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211D}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212A}', '\u{212D}'),
    ('\u{212F}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213C}', '\u{213F}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214E}', '\u{214E}'),
    ('\u{2183}', '\u{2183}'),
    ('\u{2184}', '\u{2184}'),
    ('\u{2C00}', '\u{2C7B}'),
    ('\u{2C7E}', '\u{2CE4}'),
    ('\u{2CEB}', '\u{2CEE}'),
    ('\u{2CF2}', '\u{2CF2}'),
    ('\u{2CF3}', '\u{2CF3}'),
    ('\u{A640}', '\u{A66D}'),
    ('\u{A680}', '\u{A69B}'),
    ('\u{A722}', '\u{A76F}'),
    ('\u{A771}', '\u{A787}'),
    ('\u{A78B}', '\u{A78E}'),
    ('\u{AB70}', '\u{ABBF}'),
    ('\u{FB00}', '\u{FB06}'),
    ('\u{FB13}', '\u{FB17}'),
    ('\u{FF21}', '\u{FF3A}'),
    ('\u{FF41}', '\u{FF5A}'),
    ('\u{10400}', '\u{1044F}'),
    ('\u{104B0}', '\u{104D3}'),
    ('\u{104D8}', '\u{104FB}'),
    ('\u{10C80}', '\u{10CB2}'),
    ('\u{10CC0}', '\u{10CF2}'),
    ('\u{118A0}', '\u{118DF}'),
    ('\u{1E900}', '\u{1E943}'),
];

#[cfg(test)]
#[path = "pre_tests.rs"]
mod tests;
