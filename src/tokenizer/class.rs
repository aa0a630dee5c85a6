//! Unicode classes of characters, as one flat table of bit sets, filled from `regex-syntax`'s data at first use.

use std::sync::OnceLock;

/// Uppercase letter.
pub(super) const LU: u16 = 1;
/// Lowercase letter.
pub(super) const LL: u16 = 1 << 1;
/// Titlecase letter.
pub(super) const LT: u16 = 1 << 2;
/// Modifier letter.
pub(super) const LM: u16 = 1 << 3;
/// Other letter.
pub(super) const LO: u16 = 1 << 4;
/// Mark.
pub(super) const M: u16 = 1 << 5;
/// Number.
pub(super) const N: u16 = 1 << 6;
/// Punctuation.
pub(super) const P: u16 = 1 << 7;
/// Symbol.
pub(super) const S: u16 = 1 << 8;
/// White space, `\s`.
pub(super) const WS: u16 = 1 << 9;
/// The script Han.
pub(super) const HAN: u16 = 1 << 10;
/// `\r` and `\n`.
pub(super) const NL: u16 = 1 << 11;
/// U+0020 alone.
pub(super) const SPACE: u16 = 1 << 12;
/// `/` alone.
pub(super) const SLASH: u16 = 1 << 13;
/// Decimal digit, `\d`.
pub(super) const ND: u16 = 1 << 14;
/// What words are made of, `\w`.
pub(super) const WORD: u16 = 1 << 15;
/// Any letter.
pub(super) const L: u16 = LU | LL | LT | LM | LO;

const UNICODE: [(&str, u16); 13] = [
    (r"\p{Lu}", LU),
    (r"\p{Ll}", LL),
    (r"\p{Lt}", LT),
    (r"\p{Lm}", LM),
    (r"\p{Lo}", LO),
    (r"\p{M}", M),
    (r"\p{N}", N),
    (r"\p{P}", P),
    (r"\p{S}", S),
    (r"\s", WS),
    (r"\p{Han}", HAN),
    (r"\d", ND),
    (r"\w", WORD),
];

/// The bits of every character, indexed by code point.
pub(super) fn table() -> &'static [u16] {
    static TABLE: OnceLock<Vec<u16>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = vec![0u16; 0x11_0000];
        for (pattern, bit) in UNICODE {
            let parsed = regex_syntax::parse(pattern).map(regex_syntax::hir::Hir::into_kind);
            let Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) = parsed
            else {
                unreachable!("{pattern} is a class of Unicode characters");
            };
            for range in class.ranges() {
                table[range.start() as usize..=range.end() as usize].iter_mut().for_each(|t| *t |= bit);
            }
        }
        for (c, bit) in [('\r', NL), ('\n', NL), (' ', SPACE), ('/', SLASH)] {
            table[c as usize] |= bit;
        }
        table
    })
}

/// The character at the start of `text` and its length. A byte that starts no valid character stands alone, as U+FFFD.
#[inline]
pub(super) fn decode(text: &[u8]) -> Option<(u32, usize)> {
    let lead = *text.first()?;
    if lead < 0x80 {
        return Some((u32::from(lead), 1));
    }
    let (len, min) = match lead {
        0xC2..0xE0 => (2, 0x80),
        0xE0..0xF0 => (3, 0x800),
        0xF0..0xF5 => (4, 0x1_0000),
        _ => return Some((0xFFFD, 1)),
    };
    let mut c = u32::from(lead) & (0x7F >> len);
    for i in 1..len {
        match text.get(i) {
            Some(b) if b & 0xC0 == 0x80 => c = c << 6 | u32::from(b & 0x3F),
            _ => return Some((0xFFFD, 1)),
        }
    }
    if c < min || (0xD800..0xE000).contains(&c) || c > 0x10_FFFF {
        return Some((0xFFFD, 1));
    }
    Some((c, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_the_standard_library_does() {
        let mut buf = [0; 4];
        for c in ('\0'..=char::MAX).step_by(7) {
            let text = c.encode_utf8(&mut buf).as_bytes();
            assert_eq!(decode(text), Some((c as u32, text.len())));
        }
        for bad in [
            &b"\xFF"[..],
            b"\x80",
            b"\xC0\x80",
            b"\xE0\x80\x80",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\xE2\x96",
        ] {
            assert_eq!(decode(bad), Some((0xFFFD, 1)), "{bad:?}");
        }
    }

    #[test]
    fn classes() {
        let of = |c: char| table()[c as usize];
        assert_eq!(of('a'), LL | WORD);
        assert_eq!(of('É'), LU | WORD);
        assert_eq!(of('ǅ'), LT | WORD);
        assert_eq!(of('中'), LO | HAN | WORD);
        assert_eq!(of('½'), N);
        assert_eq!(of('٣'), N | ND | WORD);
        assert_eq!(of('\u{301}'), M | WORD);
        assert_eq!(of('\u{85}'), WS);
        assert_eq!(of('\u{1C}'), 0);
        assert_eq!(of('\n'), WS | NL);
        assert_eq!(of('🦙'), S);
    }
}
