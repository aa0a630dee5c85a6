//! Writes a template anew for minijinja: white space is settled, expressions call this module's functions,
//! and statements that minijinja lacks become ones that it has.

use std::sync::Arc;

use super::TemplateError;
use super::expr::{Parser, literal};
use super::lexer::{Piece, Tok, Token, lex};

/// How many `elif` one `if` may have: minijinja's parser recurses into each.
const MAX_ELIF: usize = 256;

/// A template as minijinja takes it.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The source, with every tag on the line where the original has it.
    pub source: String,
    /// The literal texts, by the number that `__raw` takes.
    pub raw: Vec<Arc<str>>,
    /// The string literals in expressions: what the template may look for.
    pub literals: Vec<String>,
}

struct Writer {
    out: String,
    line: usize,
    raw: Vec<Arc<str>>,
    open: Vec<Open>,
    captures: usize,
}

/// A statement that is open, where its end needs to know more than its name.
enum Open {
    If {
        elifs: usize,
    },
    /// `{% set x %}` or `{% filter f %}`: what to write after the captured text.
    Capture {
        end: &'static str,
        after: String,
    },
}

/// Rewrites a template.
pub(super) fn rewrite(source: &str) -> Result<Rewritten, TemplateError> {
    let mut writer = Writer { out: String::new(), line: 1, raw: Vec::new(), open: Vec::new(), captures: 0 };
    let mut literals = Vec::new();
    for piece in lex(source)? {
        if let Piece::Print(tokens) | Piece::Block(tokens) = &piece {
            literals.extend(tokens.iter().filter_map(|t| match &t.tok {
                Tok::Str(text) => Some(text.clone()),
                _ => None,
            }));
        }
        match piece {
            Piece::Text { text, at } => {
                let number = writer.raw.len();
                writer.raw.push(text.into());
                writer.tag("{{", &format!("__raw({number})"), "}}", at.line);
            }
            Piece::Print(tokens) => {
                let mut parser = Parser::new(&tokens);
                let line = parser.at().line;
                let code = parser.tuple(true)?;
                parser.end()?;
                writer.tag("{{", &code.text, "}}", line);
            }
            Piece::Block(tokens) => writer.statement(&tokens)?,
        }
    }
    literals.sort();
    literals.dedup();
    Ok(Rewritten { source: writer.out, raw: writer.raw, literals })
}

impl Writer {
    /// Writes a tag, with newlines inside it where the original is on a later line.
    fn tag(&mut self, open: &str, inner: &str, close: &str, line: usize) {
        self.out.push_str(open);
        self.out.push(' ');
        while self.line < line {
            self.out.push('\n');
            self.line += 1;
        }
        self.out.push_str(inner);
        self.line += inner.matches('\n').count();
        self.out.push(' ');
        self.out.push_str(close);
    }

    fn statement(&mut self, tokens: &[Token]) -> Result<(), TemplateError> {
        let mut parser = Parser::new(tokens);
        let p = &mut parser;
        let at = p.at();
        let name = p.name()?;
        let inner = match name.as_str() {
            "if" | "elif" => {
                if name == "if" {
                    self.open.push(Open::If { elifs: 0 });
                } else if let Some(Open::If { elifs }) = self.open.last_mut() {
                    *elifs += 1;
                    if *elifs > MAX_ELIF {
                        return Err(at.syntax("too many elif branches"));
                    }
                }
                format!("{name} {}", p.tuple(true)?.text)
            }
            "endif" => {
                if matches!(self.open.last(), Some(Open::If { .. })) {
                    self.open.pop();
                }
                name
            }
            "else" | "endfor" | "endwith" | "endcall" | "break" | "continue" => name,
            "endmacro" => {
                // Some templates repeat the macro's name here.
                if !matches!(p.peek(), Tok::End) {
                    p.name()?;
                }
                name
            }
            "for" => {
                let target = target(p)?;
                if !p.skip_name("in") {
                    return p.unexpected("'in'");
                }
                let iter = p.tuple(false)?;
                let mut text = format!("for {target} in __iter({})", iter.text);
                if p.skip_name("if") {
                    text.push_str(" if ");
                    text.push_str(&p.expression()?.text);
                }
                if p.skip_name("recursive") {
                    text.push_str(" recursive");
                }
                text
            }
            "set" => match self.set(p)? {
                Some(text) => text,
                None => return p.end(),
            },
            "endset" | "endfilter" => {
                p.end()?;
                let Some(Open::Capture { end, after }) = self.open.pop() else {
                    return Err(at.syntax(format!("unexpected '{name}'")));
                };
                if end != name {
                    return Err(at.syntax(format!("expected '{end}', found '{name}'")));
                }
                self.tag("{%", "endset", "%}", at.line);
                self.out.push_str(&after);
                return Ok(());
            }
            "filter" => {
                self.captures += 1;
                let variable = format!("__capture{}", self.captures);
                let code = p.filter_chain_of(&variable)?;
                self.open.push(Open::Capture { end: "endfilter", after: format!("{{{{ {} }}}}", code.text) });
                format!("set {variable}")
            }
            "macro" => {
                let macro_name = p.name()?;
                format!("macro {macro_name}{}", signature(p)?)
            }
            "call" => {
                let caller = if p.is_op("(") { signature(p)? } else { String::new() };
                format!("call{caller} {}", p.expression()?.text)
            }
            "with" => {
                let mut parts = Vec::new();
                while !matches!(p.peek(), Tok::End) {
                    let target = target(p)?;
                    p.expect_op("=")?;
                    parts.push(format!("{target}={}", p.expression()?.text));
                    if !p.skip_op(",") {
                        break;
                    }
                }
                format!("with {}", parts.join(", "))
            }
            "do" => format!("set __ignored = {}", p.tuple(true)?.text),
            // Marks the model's own text for training; it renders as if it were not there.
            "generation" | "endgeneration" => return p.end(),
            other => return Err(at.syntax(format!("the statement '{other}' is not known here"))),
        };
        p.end()?;
        self.tag("{%", &inner, "%}", at.line);
        Ok(())
    }

    /// `{% set %}` in its forms; none when the block form was written already.
    fn set(&mut self, p: &mut Parser<'_>) -> Result<Option<String>, TemplateError> {
        let at = p.at();
        let target = target(p)?;
        if p.skip_op(".") {
            let attribute = p.name()?;
            p.expect_op("=")?;
            let value = p.tuple(true)?;
            return Ok(Some(format!(
                "set __ignored = __setattr({target},{},{})",
                literal(&attribute),
                value.text
            )));
        }
        if p.skip_op("=") {
            return Ok(Some(format!("set {target} = {}", p.tuple(true)?.text)));
        }
        if target.contains(',') {
            return p.unexpected("'='");
        }
        let mut after = String::new();
        if p.skip_op("|") {
            after = format!("{{% set {target} = {} %}}", p.filter_chain_of(&target)?.text);
        }
        p.end()?;
        self.open.push(Open::Capture { end: "endset", after });
        self.tag("{%", &format!("set {target}"), "%}", at.line);
        Ok(None)
    }
}

/// What is assigned to: a name, or names with commas and parentheses.
fn target(p: &mut Parser<'_>) -> Result<String, TemplateError> {
    let mut text = String::new();
    let mut open = 0_usize;
    loop {
        while p.skip_op("(") {
            open += 1;
            text.push('(');
        }
        text.push_str(&p.name()?);
        while open > 0 && p.skip_op(")") {
            open -= 1;
            text.push(')');
        }
        if open > 16 {
            return p.unexpected("fewer parentheses");
        }
        if !p.skip_op(",") {
            return if open == 0 { Ok(text) } else { p.unexpected("')'") };
        }
        text.push_str(", ");
    }
}

/// The parameters of a macro, with their defaults.
fn signature(p: &mut Parser<'_>) -> Result<String, TemplateError> {
    p.expect_op("(")?;
    let mut params = Vec::new();
    while !p.is_op(")") {
        let name = p.name()?;
        params.push(if p.skip_op("=") { format!("{name}={}", p.expression()?.text) } else { name });
        if !p.skip_op(",") {
            break;
        }
    }
    p.expect_op(")")?;
    Ok(format!("({})", params.join(", ")))
}
