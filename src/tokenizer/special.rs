//! The tokens that steer the model: which they are, and which of them end a generation.
//!
//! Files name some of them by id; the rest are recognised by their texts, as llama.cpp recognises them
//! (`llama_vocab::impl::load`).

use hashbrown::HashMap;

use super::Error;
use super::vocab::{TokenKind, Vocab};

/// The ids of the special tokens that the vocabulary has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Ends a turn.
    pub eot: Option<u32>,
    /// Ends a message that a tool answers.
    pub eom: Option<u32>,
    /// Stands for what cannot be spelled.
    pub unknown: Option<u32>,
    /// Parts two texts.
    pub separator: Option<u32>,
    /// Fills up a batch.
    pub padding: Option<u32>,
    /// Stands for what is to be guessed.
    pub mask: Option<u32>,
    /// Fill in the middle: before the text that comes first.
    pub fim_prefix: Option<u32>,
    /// Fill in the middle: before the text that comes last.
    pub fim_suffix: Option<u32>,
    /// Fill in the middle: before the answer.
    pub fim_middle: Option<u32>,
    /// Fill in the middle: padding.
    pub fim_padding: Option<u32>,
    /// Fill in the middle: before a repository's name.
    pub fim_repository: Option<u32>,
    /// Fill in the middle: between files.
    pub fim_separator: Option<u32>,
}

type Slot = fn(&mut SpecialTokens) -> &mut Option<u32>;

/// The metadata key of each special token. A later key of the same token overrides an earlier one.
const KEYS: &[(&str, Slot)] = &[
    ("tokenizer.ggml.bos_token_id", |s| &mut s.bos),
    ("tokenizer.ggml.eos_token_id", |s| &mut s.eos),
    ("tokenizer.ggml.eot_token_id", |s| &mut s.eot),
    ("tokenizer.ggml.eom_token_id", |s| &mut s.eom),
    ("tokenizer.ggml.unknown_token_id", |s| &mut s.unknown),
    ("tokenizer.ggml.seperator_token_id", |s| &mut s.separator),
    ("tokenizer.ggml.padding_token_id", |s| &mut s.padding),
    ("tokenizer.ggml.mask_token_id", |s| &mut s.mask),
    // The older names of the next three.
    ("tokenizer.ggml.prefix_token_id", |s| &mut s.fim_prefix),
    ("tokenizer.ggml.suffix_token_id", |s| &mut s.fim_suffix),
    ("tokenizer.ggml.middle_token_id", |s| &mut s.fim_middle),
    ("tokenizer.ggml.fim_pre_token_id", |s| &mut s.fim_prefix),
    ("tokenizer.ggml.fim_suf_token_id", |s| &mut s.fim_suffix),
    ("tokenizer.ggml.fim_mid_token_id", |s| &mut s.fim_middle),
    ("tokenizer.ggml.fim_pad_token_id", |s| &mut s.fim_padding),
    ("tokenizer.ggml.fim_rep_token_id", |s| &mut s.fim_repository),
    ("tokenizer.ggml.fim_sep_token_id", |s| &mut s.fim_separator),
];

/// The texts by which a special token that the file does not name is found, the likeliest first.
const TEXTS: &[(Slot, &[&str])] = &[
    (
        |s| &mut s.eot,
        &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
    ),
    (|s| &mut s.eom, &["<|eom_id|>"]),
    (
        |s| &mut s.fim_prefix,
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        |s| &mut s.fim_suffix,
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        |s| &mut s.fim_middle,
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (|s| &mut s.fim_padding, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (|s| &mut s.fim_repository, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (|s| &mut s.fim_separator, &["<|file_sep|>"]),
];

/// The texts that end a generation wherever they are tokens.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The parts of a message in the harmony format: always matched, always shown.
const HARMONY: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Other texts that the rules below ask for.
const OTHERS: &[&str] = &["<|plamo:eos|>", "<unk>", "<s>", "<mask>", "[MASK]"];

/// Where the well-known texts are in the vocabulary.
pub(super) struct Known(HashMap<&'static str, Option<u32>>);

impl Known {
    /// Look for every text that the rules name.
    pub fn new(texts: &[&str]) -> Known {
        let names = TEXTS.iter().flat_map(|(_, names)| names.iter()).chain(ENDS).chain(HARMONY).chain(OTHERS);
        let mut known: HashMap<&'static str, Option<u32>> = names.map(|name| (*name, None)).collect();
        for (id, text) in texts.iter().enumerate() {
            // Every name starts with one of these, and few tokens do.
            if text.starts_with(['<', '[', '_', '▁'])
                && let Some(slot) = known.get_mut::<str>(text)
            {
                *slot = Some(id as u32);
            }
        }
        Known(known)
    }

    /// The token with this text, which one of the rules must name.
    pub fn get(&self, text: &str) -> Option<u32> {
        self.0.get(text).copied().flatten()
    }
}

impl SpecialTokens {
    /// Take over the ids that the file gives: `given` are (key, id) pairs, where 0xFFFFFFFF or -1 stands for none.
    pub(super) fn apply(&mut self, given: &[(&'static str, i64)], tokens: usize) -> Result<(), Error> {
        for (key, slot) in KEYS {
            let Some((_, id)) = given.iter().find(|(k, _)| k == key) else { continue };
            *slot(self) = match *id {
                -1 | 0xFFFF_FFFF => None,
                id if (0..tokens as i64).contains(&id) => Some(id as u32),
                id => return Err(Error::Id { key, id, tokens }),
            };
        }
        Ok(())
    }

    /// The keys that [`SpecialTokens::apply`] knows.
    pub(super) fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|(key, _)| *key)
    }

    /// Find by their texts the tokens that the file does not name, make control tokens of them, and collect those that
    /// end a generation, in the order of their ids.
    pub(super) fn complete(&mut self, vocab: &mut Vocab, known: &Known) -> Vec<u32> {
        for (slot, names) in TEXTS {
            let slot = slot(self);
            if slot.is_none() {
                *slot = names.iter().find_map(|name| known.get(name));
                if let Some(id) = *slot {
                    vocab.set_kind(id, TokenKind::Control);
                }
            }
        }
        let mut ends: Vec<u32> = ENDS.iter().filter_map(|name| known.get(name)).collect();
        for id in &ends {
            vocab.set_kind(*id, TokenKind::Control);
        }
        HARMONY
            .iter()
            .filter_map(|name| known.get(name))
            .for_each(|id| vocab.set_kind(id, TokenKind::UserDefined));
        ends.extend([self.eos, self.eot, self.eom].iter().flatten());
        ends.extend([self.fim_padding, self.fim_repository, self.fim_separator].iter().flatten());

        // In these formats a message ends and the turn goes on: harmony (return, call) and solar-open (calls, flush).
        let has = |name: &str| known.get(name).is_some();
        let called = has("<|call|>") || has("<|calls|>");
        if called
            && (has("<|return|>") || has("<|flush|>"))
            && let Some(end) = known.get("<|end|>")
        {
            ends.retain(|id| *id != end);
            vocab.set_kind(end, TokenKind::UserDefined);
        }
        // Here </s> is text like any other.
        if (has("<|tool_response>") || has("<|plamo:eos|>"))
            && let Some(end) = known.get("</s>")
        {
            ends.retain(|id| *id != end);
            vocab.set_kind(end, TokenKind::Normal);
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}
