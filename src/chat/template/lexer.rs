//! Cuts a template into literal text and tags, with Jinja's whitespace rules applied (`trim_blocks` and
//! `lstrip_blocks` on, one trailing newline dropped), and the inside of each tag into tokens.

use super::TemplateError;

/// One token inside a tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    Name(String),
    Str(String),
    /// An integer or float literal, in a form that every reader accepts.
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub tok: Tok,
    pub at: Pos,
}

/// A place in the template: both count from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pos {
    pub line: usize,
    pub column: usize,
}

impl Pos {
    pub fn syntax(self, message: impl Into<String>) -> TemplateError {
        TemplateError::Syntax { line: self.line, column: self.column, message: message.into() }
    }
}

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Piece {
    /// Literal text, never empty.
    Text { text: String, at: Pos },
    /// `{{ ... }}`
    Print(Vec<Token>),
    /// `{% ... %}`
    Block(Vec<Token>),
}

const OPERATORS: [&str; 24] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{",
    "}", ",", ":", ".",
];

struct Lexer<'a> {
    source: &'a str,
    offset: usize,
    at: Pos,
}

/// Cuts `source` into pieces.
pub(super) fn lex(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, offset: 0, at: Pos { line: 1, column: 1 } };
    let mut pieces = Vec::new();
    // Whether the text that follows begins a line (what came before it ended in a newline that was dropped).
    let mut line_start = true;
    // No `{{`, `{%` or `{#` stands before the next brace found, so this loop is linear.
    loop {
        let text_at = lexer.at;
        let rest = lexer.rest();
        let tag = rest.match_indices('{').find_map(|(i, _)| {
            let kind = *rest.as_bytes().get(i + 1)?;
            matches!(kind, b'{' | b'%' | b'#').then_some((i, kind))
        });
        let Some((text_len, kind)) = tag else {
            push_text(&mut pieces, rest, text_at);
            return Ok(pieces);
        };
        let sign = rest.as_bytes().get(text_len + 2).copied();
        let text = before_tag(&rest[..text_len], kind, sign, line_start);
        push_text(&mut pieces, text, text_at);
        lexer.advance(text_len);
        let tag_at = lexer.at;
        lexer.advance(2);
        if matches!(sign, Some(b'-' | b'+')) && !(kind == b'#' && lexer.rest().starts_with("-#}")) {
            lexer.advance(1);
        }
        match kind {
            b'#' => {
                let Some(end) = lexer.rest().find("#}") else {
                    return Err(tag_at.syntax("this comment is not closed"));
                };
                let sign = lexer.rest()[..end].chars().next_back();
                lexer.advance(end + 2);
                line_start = lexer.after_tag(sign, true);
            }
            b'%' if lexer.raw_tag("raw").is_some() => {
                let (len, sign) = lexer.raw_tag("raw").unwrap_or_default();
                lexer.advance(len);
                if sign == Some('-') {
                    lexer.skip_space();
                }
                line_start = lexer.raw_block(&mut pieces, tag_at)?;
            }
            _ => {
                let (tokens, sign) = lexer.tag(kind == b'%', tag_at)?;
                line_start = lexer.after_tag(sign, kind == b'%');
                pieces.push(if kind == b'%' { Piece::Block(tokens) } else { Piece::Print(tokens) });
            }
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, at: Pos) {
    if !text.is_empty() {
        pieces.push(Piece::Text { text: text.to_string(), at });
    }
}

/// What remains of the text before a tag: `-` takes all white space, `lstrip_blocks` the indentation of a block.
fn before_tag(text: &str, kind: u8, sign: Option<u8>, line_start: bool) -> &str {
    match sign {
        Some(b'-') => text.trim_end(),
        Some(b'+') => text,
        _ if kind == b'{' => text,
        _ => {
            let begin = text.rfind('\n').map_or(0, |i| i + 1);
            let on_line_start = begin > 0 || line_start;
            if on_line_start && text[begin..].chars().all(char::is_whitespace) {
                &text[..begin]
            } else {
                text
            }
        }
    }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.offset..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        let rest = self.rest();
        for c in rest.get(..bytes).unwrap_or(rest).chars() {
            if c == '\n' {
                self.at = Pos { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.offset += bytes.min(rest.len());
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start().len());
    }

    /// Applies the sign of a tag's end; whether the text that follows begins a line.
    fn after_tag(&mut self, sign: Option<char>, block: bool) -> bool {
        let before = self.offset;
        if sign == Some('-') {
            self.skip_space();
        } else if block && sign != Some('+') && self.rest().starts_with('\n') {
            self.advance(1);
        }
        self.offset > before && self.source[..self.offset].ends_with('\n')
    }

    /// Whether a tag that just began is `{% name %}`: its length up to and with `%}`, and the sign of its end.
    fn raw_tag(&self, name: &str) -> Option<(usize, Option<char>)> {
        let rest = self.rest();
        let inner = rest.trim_start().strip_prefix(name)?.trim_start();
        let sign = inner.chars().next().filter(|c| matches!(c, '-' | '+'));
        let inner = if sign.is_some() { &inner[1..] } else { inner };
        let after = inner.strip_prefix("%}")?;
        Some((rest.len() - after.len(), sign))
    }

    /// The text up to `{% endraw %}`, as one piece.
    fn raw_block(&mut self, pieces: &mut Vec<Piece>, tag_at: Pos) -> Result<bool, TemplateError> {
        let text_at = self.at;
        let begin = self.offset;
        loop {
            let Some(found) = self.rest().find("{%") else {
                return Err(tag_at.syntax("{% raw %} has no {% endraw %}"));
            };
            let text_end = self.offset + found;
            self.advance(found + 2);
            let sign = self.rest().bytes().next();
            let signed = matches!(sign, Some(b'-' | b'+'));
            if signed {
                self.advance(1);
            }
            if let Some((len, end_sign)) = self.raw_tag("endraw") {
                let text = before_tag(&self.source[begin..text_end], b'%', sign, false);
                push_text(pieces, text, text_at);
                self.advance(len);
                return Ok(self.after_tag(end_sign, true));
            }
        }
    }

    /// The tokens of a tag up to its end, and the sign of that end.
    fn tag(&mut self, block: bool, tag_at: Pos) -> Result<(Vec<Token>, Option<char>), TemplateError> {
        let close = if block { "%}" } else { "}}" };
        let mut tokens = Vec::new();
        let mut open = Vec::new();
        loop {
            self.skip_space();
            let at = self.at;
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                return Err(tag_at.syntax("this tag is not closed"));
            };
            if open.is_empty() {
                let signed = matches!(c, '-' | '+') && rest[1..].starts_with(close);
                if signed || rest.starts_with(close) {
                    self.advance(close.len() + usize::from(signed));
                    tokens.push(Token { tok: Tok::End, at });
                    return Ok((tokens, signed.then_some(c)));
                }
            }
            let tok = if c == '"' || c == '\'' {
                self.string(c, at)?
            } else if c.is_ascii_digit() {
                self.number(at)?
            } else if c == '_' || c.is_alphabetic() {
                let len = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.advance(len);
                Tok::Name(rest[..len].to_string())
            } else if c == '|' {
                self.advance(1);
                Tok::Op("|")
            } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                self.advance(op.len());
                match *op {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" if open.pop() != Some(*op) => {
                        return Err(at.syntax(format!("unexpected '{op}'")));
                    }
                    _ => {}
                }
                Tok::Op(op)
            } else {
                return Err(at.syntax(format!("unexpected character {c:?}")));
            };
            tokens.push(Token { tok, at });
        }
    }

    fn number(&mut self, at: Pos) -> Result<Tok, TemplateError> {
        let rest = self.rest();
        let bad = || at.syntax("this number is not valid");
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if rest.get(..2).is_some_and(|p| p.eq_ignore_ascii_case(prefix)) {
                let len = rest[2..]
                    .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                    .unwrap_or(rest.len() - 2);
                self.advance(2 + len);
                let digits = rest[2..2 + len].replace('_', "");
                return i128::from_str_radix(&digits, radix).map(Tok::Int).map_err(|_| bad());
            }
        }
        let digits = |s: &str| s.find(|c: char| c != '_' && !c.is_ascii_digit()).unwrap_or(s.len());
        let mut len = digits(rest);
        let mut float = false;
        let fraction = rest[len..].strip_prefix('.').map_or(0, digits);
        if fraction > 0 {
            float = true;
            len += 1 + fraction;
        }
        if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                float = true;
                len += 1 + sign + count;
            }
        }
        self.advance(len);
        let text = rest[..len].replace('_', "");
        if float {
            text.parse().map(Tok::Float).map_err(|_| bad())
        } else {
            text.parse().map(Tok::Int).map_err(|_| bad())
        }
    }

    /// A string literal, with Python's escapes.
    fn string(&mut self, quote: char, at: Pos) -> Result<Tok, TemplateError> {
        let rest = self.rest();
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        let unclosed = || at.syntax("this string is not closed");
        loop {
            let (i, c) = chars.next().ok_or_else(unclosed)?;
            if c == quote {
                self.advance(i + 1);
                return Ok(Tok::Str(text));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let (i, c) = chars.next().ok_or_else(unclosed)?;
            let digits = match c {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            match c {
                '\n' => {}
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'a' => text.push('\u{7}'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'v' => text.push('\u{b}'),
                '\\' | '\'' | '"' => text.push(c),
                'x' | 'u' | 'U' => {
                    let code =
                        rest.get(i + 1..i + 1 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                    let decoded = code.and_then(char::from_u32);
                    text.push(decoded.ok_or_else(|| at.syntax("this string has an invalid escape"))?);
                    for _ in 0..digits {
                        chars.next();
                    }
                }
                '0'..='7' => {
                    let octal: String =
                        rest[i..].chars().take(3).take_while(|c| ('0'..='7').contains(c)).collect();
                    let code = u32::from_str_radix(&octal, 8).ok().and_then(char::from_u32);
                    text.push(code.unwrap_or_default());
                    for _ in 1..octal.len() {
                        chars.next();
                    }
                }
                other => {
                    text.push('\\');
                    text.push(other);
                }
            }
        }
    }
}
