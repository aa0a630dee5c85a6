//! The vocabulary: every token's bytes in one arena, its kind, and the index from bytes to tokens.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Error;
use super::merge::NONE;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// No kind that is known; it renders as nothing.
    Undefined,
    /// A piece of ordinary text.
    Normal,
    /// Stands for what the vocabulary cannot spell.
    Unknown,
    /// Steers the model; text becomes one only where that is asked for.
    Control,
    /// Always matched whole in the text, before anything else.
    UserDefined,
    /// Reserved; it renders as nothing.
    Unused,
    /// One byte, spelled `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// The kind of a value of `tokenizer.ggml.token_type`.
    pub fn from_id(id: i64) -> TokenKind {
        match id {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Undefined,
        }
    }

    /// Whether it is rendered only when special tokens are asked for.
    pub fn is_special(self) -> bool {
        matches!(self, TokenKind::Control | TokenKind::Unknown)
    }

    /// Whether merging text may end in such a token. As in SentencePiece, what steers the model never comes out of
    /// merging: text that merely looks like a control token stays text.
    fn is_mergeable(self) -> bool {
        !matches!(self, TokenKind::Control | TokenKind::Unknown | TokenKind::Byte)
    }
}

/// How token texts are written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// UTF-8 with every space written U+2581 (SentencePiece).
    EscapedSpaces,
    /// One character of GPT-2's alphabet for each byte.
    ByteLevel,
}

impl Spelling {
    /// Append to `key` the bytes that a text of the file is found by; false if it is not spelled this way.
    pub fn spell(self, text: &str, key: &mut Vec<u8>) -> bool {
        match self {
            Spelling::EscapedSpaces => key.extend_from_slice(text.as_bytes()),
            Spelling::ByteLevel => {
                let from = key.len();
                for c in text.chars() {
                    let Some(byte) = byte_of_char(c) else {
                        key.truncate(from);
                        return false;
                    };
                    key.push(byte);
                }
            }
        }
        true
    }
}

/// U+2581, the visible space of SentencePiece.
pub(super) const VISIBLE_SPACE: &[u8] = "\u{2581}".as_bytes();

pub(super) struct Vocab {
    arena: Vec<u8>,
    /// What each token renders as.
    pieces: Vec<Range<u32>>,
    /// What each token is found by while merging: as in the file for escaped spaces, the plain bytes for byte level.
    keys: Vec<Range<u32>>,
    kinds: Vec<TokenKind>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The token of each single byte.
    bytes: Box<[u32; 256]>,
    max_key: usize,
    duplicates: usize,
}

const TOKENS: &str = "tokenizer.ggml.tokens";

impl Vocab {
    /// Take over the texts and kinds of the file. `kinds` is as long as `texts`, or empty: then all are normal.
    pub fn new(spelling: Spelling, texts: &[&str], kinds: &[TokenKind]) -> Result<Vocab, Error> {
        let total: usize = texts.iter().map(|t| t.len()).sum();
        // Twice: a piece that differs from its key has its own copy.
        if texts.len() >= NONE as usize || total > u32::MAX as usize / 2 {
            let why = format!("{} tokens with {total} bytes of text, at most 2 GiB", texts.len());
            return Err(Error::TooLarge { key: TOKENS, why });
        }
        let mut vocab = Vocab {
            arena: Vec::with_capacity(total + total / 2),
            pieces: Vec::with_capacity(texts.len()),
            keys: Vec::with_capacity(texts.len()),
            kinds: if kinds.is_empty() { vec![TokenKind::Normal; texts.len()] } else { kinds.to_vec() },
            index: HashTable::with_capacity(texts.len()),
            hasher: DefaultHashBuilder::default(),
            bytes: Box::new([NONE; 256]),
            max_key: 0,
            duplicates: 0,
        };
        let mut hex_bytes = [NONE; 256];
        for (index, text) in texts.iter().enumerate() {
            let id = index as u32;
            let byte = hex_byte(text);
            if let Some(byte) = byte {
                hex_bytes[byte as usize] = id;
            } else if vocab.kinds[index] == TokenKind::Byte {
                let why = format!("a byte token must be spelled <0xHH>, this one is {text:?}");
                return Err(Error::Element { key: TOKENS, index, why });
            }
            vocab.add(spelling, text, byte);
            vocab.enter(id);
        }
        for byte in 0..=255u8 {
            let hex = hex_bytes[byte as usize];
            let plain = vocab.find(&[byte]).unwrap_or(NONE);
            let (first, second) = if spelling == Spelling::ByteLevel { (plain, hex) } else { (hex, plain) };
            vocab.bytes[byte as usize] = if first == NONE { second } else { first };
        }
        Ok(vocab)
    }

    /// Append the piece and the key of the next token to the arena.
    fn add(&mut self, spelling: Spelling, text: &str, byte: Option<u8>) {
        let kind = self.kinds[self.pieces.len()];
        let start = self.arena.len();
        let span = |from: usize, to: usize| from as u32..to as u32;
        let as_it_is = kind.is_special() || kind == TokenKind::UserDefined;
        // Beyond ASCII, a token that is matched as it is written is no bytes of GPT-2's alphabet: ÿ is not byte 255.
        let spelled = (spelling == Spelling::EscapedSpaces || !as_it_is || text.is_ascii())
            && spelling.spell(text, &mut self.arena);
        let key = span(start, self.arena.len());
        let from = self.arena.len();
        let as_key = match spelling {
            Spelling::EscapedSpaces => as_it_is || !text.contains('\u{2581}'),
            Spelling::ByteLevel => spelled,
        };
        let piece = match (kind, byte) {
            (TokenKind::Unused | TokenKind::Undefined, _) => span(from, from),
            (TokenKind::Byte, Some(byte)) => {
                self.arena.push(byte);
                span(from, from + 1)
            }
            _ if as_key => key.clone(),
            _ => {
                if spelling == Spelling::ByteLevel {
                    self.arena.extend_from_slice(text.as_bytes());
                } else {
                    self.arena.extend(text.replace('\u{2581}', " ").bytes());
                }
                span(from, self.arena.len())
            }
        };
        self.keys.push(key);
        self.pieces.push(piece);
    }

    /// Make the token findable by its key. Of equal keys the last wins, but none that merging may not produce takes
    /// the place of one that it may.
    fn enter(&mut self, id: u32) {
        let key = slice(&self.arena, &self.keys[id as usize]);
        if key.is_empty() {
            return;
        }
        self.max_key = self.max_key.max(key.len());
        let hash = self.hasher.hash_one(key);
        let found = self.index.find_mut(hash, |other| slice(&self.arena, &self.keys[*other as usize]) == key);
        if let Some(other) = found {
            self.duplicates += 1;
            let (new, old) = (self.kinds[id as usize], self.kinds[*other as usize]);
            if new.is_mergeable() || !old.is_mergeable() {
                *other = id;
            }
        } else {
            let rehash = |t: &u32| self.hasher.hash_one(slice(&self.arena, &self.keys[*t as usize]));
            self.index.insert_unique(hash, id, rehash);
        }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// How many tokens are spelled like another one.
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// What the token renders as; nothing for an id that is not in the vocabulary.
    pub fn piece(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).map_or(&[], |span| slice(&self.arena, span))
    }

    /// What the token is found by while merging.
    pub fn key(&self, id: u32) -> &[u8] {
        self.keys.get(id as usize).map_or(&[], |span| slice(&self.arena, span))
    }

    /// The kind of the token; undefined for an id that is not in the vocabulary.
    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Undefined)
    }

    /// Change the kind of a token; what it renders as stays.
    pub fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// The token with this key, of any kind.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        if key.len() > self.max_key {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |id| slice(&self.arena, &self.keys[*id as usize]) == key).copied()
    }

    /// Whether [`Vocab::find`] finds this token by this key; true only if so, and false where looking is needed.
    pub fn is_found(&self, id: u32, key: &[u8]) -> bool {
        self.duplicates == 0 && !key.is_empty() && self.key(id) == key
    }

    /// The token with this key, if merging may produce it.
    pub fn find_mergeable(&self, key: &[u8]) -> Option<u32> {
        self.find(key).filter(|id| self.is_mergeable(*id))
    }

    /// Whether merging text may end in this token.
    pub fn is_mergeable(&self, id: u32) -> bool {
        self.kind(id).is_mergeable()
    }

    /// The token of one byte, or [`NONE`].
    pub fn byte(&self, byte: u8) -> u32 {
        self.bytes[byte as usize]
    }

    /// The bytes that no token spells.
    pub fn missing_bytes(&self) -> impl Iterator<Item = u8> {
        (0..=255).filter(|byte| self.byte(*byte) == NONE)
    }
}

fn slice<'a>(arena: &'a [u8], span: &Range<u32>) -> &'a [u8] {
    &arena[span.start as usize..span.end as usize]
}

/// The byte of a text of the form `<0x0A>`.
fn hex_byte(text: &str) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = text.as_bytes() else { return None };
    let digit = |c: u8| (c as char).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// The byte that a character of GPT-2's alphabet stands for (`bytes_to_unicode` of its `encoder.py`): printable
/// Latin-1 stands for itself, the other 68 bytes are U+0100 and up in their order.
fn byte_of_char(c: char) -> Option<u8> {
    let c = u32::from(c);
    Some(match c {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => c as u8,
        0x100..=0x120 => (c - 0x100) as u8,
        0x121..=0x142 => (c - 0x121 + 0x7F) as u8,
        0x143 => 0xAD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpt2_alphabet_is_a_bijection_onto_bytes() {
        let mut seen = [0u32; 256];
        for c in (0..0x3000).filter_map(char::from_u32) {
            if let Some(b) = byte_of_char(c) {
                seen[b as usize] += 1;
            }
        }
        assert!(seen.iter().all(|n| *n == 1));
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char(' '), None);
    }

    #[test]
    fn byte_tokens_are_two_hex_digits() {
        assert_eq!(hex_byte("<0x0A>"), Some(10));
        assert_eq!(hex_byte("<0xff>"), Some(255));
        for bad in ["<0xA>", "<0x0G>", "<0x0A0>", "<0x+1>", "0x0A", ""] {
            assert_eq!(hex_byte(bad), None, "{bad}");
        }
        let error =
            Vocab::new(Spelling::EscapedSpaces, &["a", "<0x1>"], &[TokenKind::Normal, TokenKind::Byte]);
        assert!(matches!(error, Err(Error::Element { index: 1, .. })));
    }

    #[test]
    fn last_duplicate_wins_unless_it_steers_the_model() {
        use TokenKind::{Control, Normal};
        let vocab = |kinds: &[TokenKind]| Vocab::new(Spelling::EscapedSpaces, &["a", "a"], kinds).unwrap();
        assert_eq!(vocab(&[Normal, Normal]).find(b"a"), Some(1));
        assert_eq!(vocab(&[Normal, Control]).find(b"a"), Some(0));
        assert_eq!(vocab(&[Normal, Normal]).duplicates(), 1);
    }
}
