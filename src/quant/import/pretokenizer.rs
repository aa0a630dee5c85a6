//! Which of the named pre-tokenizers does what `tokenizer.json` says.
//!
//! `pre_tokenizer` is a list of cuts. They are brought into one form, a regular expression each, and looked up in a table:
//! the name follows from the rules themselves, not from who published them.

use super::ImportError;
use super::json::{Field, Json};

/// What GPT-2's byte-level step cuts by itself unless it is told not to (`use_regex`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same cuts in the possessive spelling of tiktoken's `cl100k_base`.
const CL100K: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const CJK_WIDE: &str = "[一-龥ࠀ-一가-\u{D7FF}]+";
/// Stands for any number of ranges of letters that follow.
const AND_SO_ON: char = '…';

/// The cuts in their order, whether whole words that are tokens are never cut (`ignore_merges`; none: either), and the name.
type Row = (&'static [&'static str], Option<bool>, &'static str);

const TABLE: &[Row] = &[
    (&[LLAMA3], Some(true), "llama-bpe"),
    (&[LLAMA3], Some(false), "smaug-bpe"),
    (&[CL100K], Some(true), "llama-bpe"),
    (&[CL100K], Some(false), "smaug-bpe"),
    (&[QWEN2], Some(false), "qwen2"),
    (&[QWEN35], Some(false), "qwen35"),
    (&[TEKKEN], Some(true), "tekken"),
    (&[GPT4O], Some(false), "gpt-4o"),
    (&[GPT2], Some(false), "gpt-2"),
    (&[DIGIT, GPT2], Some(false), "starcoder"),
    (&["punctuation, contiguous", GPT2, DIGITS, "[0-9][0-9][0-9]"], Some(false), "falcon"),
    (&[r"\p{N}{1,3}", "[一-龥\u{3040}-ゟ゠-ヿ]+", DEEPSEEK3], Some(false), "deepseek-v3"),
    (&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_WIDE, DIGIT], Some(false), "deepseek-coder"),
    (
        &[
            r"[\r\n]",
            "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯ…",
            "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            CJK_WIDE,
            DIGIT,
        ],
        Some(false),
        "deepseek-llm",
    ),
];

/// The name of the pre-tokenizer that does what `tokenizer.json` says.
pub(super) fn recognise(json: &Json) -> Result<&'static str, ImportError> {
    let field = json.get("pre_tokenizer");
    let mut cuts = Vec::new();
    if field.is_there() {
        collect(&field, 0, &mut cuts)?;
    }
    let ignore_merges = json.get("model").get("ignore_merges").flag()?.unwrap_or(false);
    let matches = |row: &&Row| {
        let same = |(known, cut): (&&str, &String)| match known.strip_suffix(AND_SO_ON) {
            Some(start) => cut.starts_with(start),
            None => *known == cut,
        };
        row.1.is_none_or(|merges| merges == ignore_merges)
            && row.0.len() == cuts.len()
            && row.0.iter().zip(&cuts).all(same)
    };
    TABLE.iter().find(matches).map(|row| row.2).ok_or_else(|| {
        let merges = if ignore_merges { " (with ignore_merges)" } else { "" };
        field.bad(format!(
            "cuts text in a way that no pre-tokenizer here is known for{merges}: {}; --pre-tokenizer names the one to take",
            if cuts.is_empty() { "not at all".to_owned() } else { cuts.join(", then ") }
        ))
    })
}

/// The cuts of a step, each as a regular expression.
fn collect(step: &Field<'_>, depth: usize, cuts: &mut Vec<String>) -> Result<(), ImportError> {
    match step.get("type").need_text()? {
        "Sequence" if depth < 4 => {
            for step in step.get("pretokenizers").elements()? {
                collect(&step, depth + 1, cuts)?;
            }
        }
        "ByteLevel" => {
            let prefix = step.get("add_prefix_space");
            if prefix.flag()? == Some(true) {
                return Err(prefix.bad("is true, which no tokenizer here does"));
            }
            if step.get("use_regex").flag()?.unwrap_or(true) {
                cuts.push(GPT2.to_owned());
            }
        }
        "Split" => {
            let pattern = step.get("pattern");
            let Some(text) = pattern.get("Regex").text()? else {
                return Err(pattern.bad("is no regular expression"));
            };
            // What the expression matches are the words; or what it does not match is thrown away, and it matches all.
            let invert = step.get("invert").flag()?.unwrap_or(false);
            let behavior = step.get("behavior");
            match (behavior.need_text()?, invert) {
                ("Isolated", false) | ("Removed", true) => cuts.push(text.to_owned()),
                (other, _) => {
                    let why = format!(
                        "is {other} with invert {invert}; Isolated and Removed with invert are known"
                    );
                    return Err(behavior.bad(why));
                }
            }
        }
        "Digits" => {
            let each = step.get("individual_digits").flag()?.unwrap_or(false);
            cuts.push(if each { DIGIT } else { DIGITS }.to_owned());
        }
        "Punctuation" => {
            let behavior = step.get("behavior").text()?.unwrap_or("Isolated");
            cuts.push(format!("punctuation, {}", behavior.to_lowercase()));
        }
        other => cuts.push(format!("a step of type {other}")),
    }
    Ok(())
}
