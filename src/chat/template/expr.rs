//! Parses Jinja's expressions and writes them for minijinja, every operator, filter, method and container
//! as a call of one of this module's functions: they follow Python's rules and draw on the budget.

use std::fmt::Write as _;

use super::TemplateError;
use super::lexer::{Pos, Tok, Token};

/// How deep expressions may nest. minijinja's own parser takes a little more than the calls this makes.
const MAX_NESTING: usize = 36;

/// An expression, already written for minijinja.
///
/// Building text instead of a tree keeps this short: every rule of the grammar knows its operands' text
/// before its own.
pub(super) struct Code {
    pub text: String,
    /// What the expression is, where a rule needs to know.
    shape: Shape,
    depth: usize,
}

enum Shape {
    Name(String),
    Attr {
        object: Box<Code>,
        name: String,
    },
    /// An operand of a chain of this operator, still to be closed.
    Chain(&'static str),
    Other,
}

/// Reads the tokens of one tag.
pub(super) struct Parser<'t> {
    tokens: &'t [Token],
    next: usize,
    nesting: usize,
}

type Parse<T = Code> = Result<T, TemplateError>;

/// Writes a string literal as minijinja reads it.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<'t> Parser<'t> {
    pub fn new(tokens: &'t [Token]) -> Parser<'t> {
        Parser { tokens, next: 0, nesting: 0 }
    }

    pub fn peek(&self) -> &'t Tok {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &'t Tok {
        self.tokens.get(self.next + ahead).map_or(&Tok::End, |t| &t.tok)
    }

    pub fn at(&self) -> Pos {
        let token = self.tokens.get(self.next).or(self.tokens.last());
        token.map_or(Pos { line: 1, column: 1 }, |t| t.at)
    }

    pub fn bump(&mut self) -> &'t Tok {
        let tok = self.peek();
        self.next += 1;
        tok
    }

    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(o) if *o == op)
    }

    pub fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.next += usize::from(found);
        found
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Tok::Name(n) if n == name)
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.next += usize::from(found);
        found
    }

    pub fn unexpected<T>(&self, wanted: &str) -> Parse<T> {
        let found = match self.peek() {
            Tok::Name(n) => format!("'{n}'"),
            Tok::Str(_) => "a string".into(),
            Tok::Int(_) | Tok::Float(_) => "a number".into(),
            Tok::Op(op) => format!("'{op}'"),
            Tok::End => "the end of the tag".into(),
        };
        Err(self.at().syntax(format!("expected {wanted}, found {found}")))
    }

    pub fn expect_op(&mut self, op: &str) -> Parse<()> {
        if self.skip_op(op) { Ok(()) } else { self.unexpected(&format!("'{op}'")) }
    }

    pub fn name(&mut self) -> Parse<String> {
        match self.peek() {
            Tok::Name(name) => {
                self.next += 1;
                Ok(name.clone())
            }
            _ => self.unexpected("a name"),
        }
    }

    pub fn end(&self) -> Parse<()> {
        if matches!(self.peek(), Tok::End) { Ok(()) } else { self.unexpected("the end of the tag") }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.at().syntax("this expression nests too deeply"));
        }
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn code(&self, depth: usize, text: String) -> Parse {
        if depth > MAX_NESTING {
            return Err(self.at().syntax("this expression nests too deeply"));
        }
        Ok(Code { text, shape: Shape::Other, depth })
    }

    fn call(&self, function: &str, args: &[&Code]) -> Parse {
        let depth = 1 + args.iter().map(|a| a.depth).max().unwrap_or(0);
        let texts: Vec<&str> = args.iter().map(|a| a.text.as_str()).collect();
        self.code(depth, format!("{function}({})", texts.join(",")))
    }

    /// An expression; a comma makes a tuple.
    pub fn tuple(&mut self, with_condition: bool) -> Parse {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if comma
                && (matches!(self.peek(), Tok::End)
                    || self.is_op(")")
                    || self.is_op("=")
                    || self.is_name("in"))
            {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.or()? });
            if !self.skip_op(",") {
                break;
            }
            comma = true;
        }
        match items.pop() {
            Some(only) if items.is_empty() && !comma => Ok(only),
            last => {
                items.extend(last);
                self.call("__tuple", &items.iter().collect::<Vec<_>>())
            }
        }
    }

    /// An expression without commas.
    pub fn expression(&mut self) -> Parse {
        self.nested(|p| {
            let mut value = p.or()?;
            while p.skip_name("if") {
                let condition = p.or()?;
                let depth = 1 + value.depth.max(condition.depth);
                if p.skip_name("else") {
                    let other = p.expression()?;
                    let depth = depth.max(1 + other.depth);
                    value = p.code(
                        depth,
                        format!("(({}) if ({}) else ({}))", value.text, condition.text, other.text),
                    )?;
                } else {
                    value = p.code(depth, format!("(({}) if ({}))", value.text, condition.text))?;
                }
            }
            Ok(value)
        })
    }

    /// Operands of `and` and `or`: minijinja has Python's meaning for them (the operand, not a bool).
    fn logic(&mut self, word: &str, operand: fn(&mut Self) -> Parse) -> Parse {
        let first = operand(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut depth = first.depth;
        let mut text = format!("(({})", first.text);
        while self.skip_name(word) {
            let next = operand(self)?;
            depth = depth.max(next.depth);
            let _ = write!(text, " {word} ({})", next.text);
        }
        text.push(')');
        self.code(depth + 2, text)
    }

    fn or(&mut self) -> Parse {
        self.logic("or", Self::and)
    }

    fn and(&mut self) -> Parse {
        self.logic("and", Self::not)
    }

    fn not(&mut self) -> Parse {
        if self.skip_name("not") {
            return self.nested(|p| {
                let operand = p.not()?;
                p.code(operand.depth + 1, format!("(not ({}))", operand.text))
            });
        }
        self.compare()
    }

    fn compare(&mut self) -> Parse {
        let first = self.sum()?;
        let mut depth = first.depth;
        let mut text = String::new();
        loop {
            let op = match self.peek() {
                Tok::Op(op @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => op,
                Tok::Name(n) if n == "in" => "in",
                Tok::Name(n) if n == "not" && matches!(self.peek_at(1), Tok::Name(n) if n == "in") => {
                    self.next += 1;
                    "not in"
                }
                _ => break,
            };
            self.next += 1;
            let operand = self.sum()?;
            depth = depth.max(operand.depth);
            let _ = write!(text, ",\"{op}\",{}", operand.text);
        }
        if text.is_empty() {
            Ok(first)
        } else {
            self.code(depth + 1, format!("__compare({}{text})", first.text))
        }
    }

    /// A chain of left-associative operators of one strength. A run of the same operator becomes one call,
    /// so that a sum of a hundred strings does not nest a hundred deep.
    fn chain(&mut self, ops: &[(&'static str, &'static str)], operand: fn(&mut Self) -> Parse) -> Parse {
        let mut value = operand(self)?;
        while let Some((op, function)) = ops.iter().find(|(op, _)| self.is_op(op)).copied() {
            self.next += 1;
            let next = operand(self)?;
            let same = matches!(value.shape, Shape::Chain(open) if open == op);
            let depth = if same { value.depth.max(next.depth + 1) } else { value.depth.max(next.depth) + 1 };
            let text = if same {
                // Reopen the call that the last operator closed.
                let mut text = value.text;
                text.pop();
                text.extend([",", &next.text, ")"]);
                text
            } else {
                format!("{function}({},{})", value.text, next.text)
            };
            value = self.code(depth, text)?;
            value.shape = Shape::Chain(op);
        }
        value.shape = match value.shape {
            Shape::Chain(_) => Shape::Other,
            shape => shape,
        };
        Ok(value)
    }

    fn sum(&mut self) -> Parse {
        self.chain(&[("+", "__add"), ("-", "__sub")], Self::concat)
    }

    fn concat(&mut self) -> Parse {
        self.chain(&[("~", "__concat")], Self::product)
    }

    fn product(&mut self) -> Parse {
        self.chain(&[("*", "__mul"), ("/", "__div"), ("//", "__floordiv"), ("%", "__mod")], Self::power)
    }

    fn power(&mut self) -> Parse {
        self.chain(&[("**", "__pow")], |p| p.unary(true))
    }

    fn unary(&mut self, with_filter: bool) -> Parse {
        let function = match self.peek() {
            Tok::Op("-") => "__neg",
            Tok::Op("+") => "__pos",
            _ => "",
        };
        let value = if function.is_empty() {
            self.primary()?
        } else {
            self.next += 1;
            let operand = self.nested(|p| p.unary(false))?;
            self.call(function, &[&operand])?
        };
        let value = self.postfix(value)?;
        if with_filter { self.filters(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Parse {
        let lines = self.newlines_before();
        let mut code = match self.peek() {
            Tok::Name(name) => {
                self.next += 1;
                match name.as_str() {
                    "true" | "True" => self.code(1, "true".into())?,
                    "false" | "False" => self.code(1, "false".into())?,
                    "none" | "None" => self.code(1, "none".into())?,
                    "if" | "else" | "and" | "or" | "in" | "is" => {
                        self.next -= 1;
                        return self.unexpected("an expression");
                    }
                    _ => {
                        let mut code = self.code(1, name.clone())?;
                        code.shape = Shape::Name(name.clone());
                        code
                    }
                }
            }
            Tok::Str(_) => {
                let mut text = String::new();
                while let Tok::Str(part) = self.peek() {
                    text.push_str(part);
                    self.next += 1;
                }
                self.code(1, literal(&text))?
            }
            Tok::Int(i) => {
                self.next += 1;
                self.code(1, i.to_string())?
            }
            Tok::Float(f) => {
                self.next += 1;
                if f.is_finite() {
                    self.code(1, format!("{f:?}"))?
                } else {
                    return Err(self.at().syntax("this number is too large"));
                }
            }
            Tok::Op("(") => {
                self.next += 1;
                if self.skip_op(")") {
                    self.code(1, "__tuple()".into())?
                } else {
                    let inner = self.nested(|p| p.tuple(true))?;
                    self.expect_op(")")?;
                    inner
                }
            }
            Tok::Op("[") => {
                self.next += 1;
                let items = self.sequence("]", |p, items| {
                    items.push(p.expression()?);
                    Ok(())
                })?;
                self.call("__list", &items.iter().collect::<Vec<_>>())?
            }
            Tok::Op("{") => {
                self.next += 1;
                let items = self.sequence("}", |p, items| {
                    items.push(p.expression()?);
                    p.expect_op(":")?;
                    items.push(p.expression()?);
                    Ok(())
                })?;
                self.call("__dict", &items.iter().collect::<Vec<_>>())?
            }
            _ => return self.unexpected("an expression"),
        };
        if lines > 0 {
            code.text.insert_str(0, &"\n".repeat(lines));
        }
        Ok(code)
    }

    /// How many lines lie between the last token and this one: written before the operand, so that an error
    /// names the line where it stands.
    fn newlines_before(&self) -> usize {
        let line = |i: usize| self.tokens.get(i).map(|t| t.at.line);
        match (self.next.checked_sub(1).and_then(line), line(self.next)) {
            (Some(before), Some(here)) => here.saturating_sub(before),
            _ => 0,
        }
    }

    fn sequence(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self, &mut Vec<Code>) -> Parse<()>,
    ) -> Parse<Vec<Code>> {
        let mut items = Vec::new();
        while !self.is_op(close) {
            item(self, &mut items)?;
            if !self.skip_op(",") {
                break;
            }
        }
        self.expect_op(close)?;
        Ok(items)
    }

    fn postfix(&mut self, mut value: Code) -> Parse {
        loop {
            if self.skip_op(".") {
                let (depth, text, name) = match self.bump() {
                    Tok::Name(name) => {
                        (value.depth + 1, format!("__attr({},{})", value.text, literal(name)), name.clone())
                    }
                    Tok::Int(i) => (value.depth + 1, format!("__item({},{i})", value.text), String::new()),
                    _ => {
                        self.next -= 1;
                        return self.unexpected("an attribute name");
                    }
                };
                let mut code = self.code(depth, text)?;
                if !name.is_empty() {
                    code.shape = Shape::Attr { object: Box::new(value), name };
                }
                value = code;
            } else if self.skip_op("[") {
                value = self.nested(|p| p.subscript(&value))?;
                self.expect_op("]")?;
            } else if self.skip_op("(") {
                value = self.finish_call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, value: &Code) -> Parse {
        let first = if self.is_op(":") { self.code(1, "none".into())? } else { self.expression()? };
        let mut parts = vec![first];
        while parts.len() < 3 && self.skip_op(":") {
            let part = if self.is_op(":") || self.is_op("]") {
                self.code(1, "none".into())?
            } else {
                self.expression()?
            };
            parts.push(part);
        }
        match parts.as_slice() {
            [index] if self.is_op(",") => {
                // x[a, b] is x[(a, b)].
                let mut items = vec![index];
                let mut more = Vec::new();
                while self.skip_op(",") && !self.is_op("]") {
                    more.push(self.expression()?);
                }
                items.extend(more.iter());
                let key = self.call("__tuple", &items)?;
                self.call("__item", &[value, &key])
            }
            [index] => self.call("__item", &[value, index]),
            parts => {
                let mut args = vec![value];
                args.extend(parts);
                self.call("__slice", &args)
            }
        }
    }

    /// The arguments of a call whose `(` was read, each preceded by a comma, and their depth.
    fn arguments(&mut self) -> Parse<(String, usize)> {
        self.nested(|p| {
            let mut text = String::new();
            let mut depth = 0;
            while !p.is_op(")") {
                let star = if p.skip_op("**") {
                    "**"
                } else if p.skip_op("*") {
                    "*"
                } else {
                    ""
                };
                let keyword = match (p.peek(), p.peek_at(1)) {
                    (Tok::Name(name), Tok::Op("=")) if star.is_empty() => {
                        p.next += 2;
                        format!("{name}=")
                    }
                    _ => String::new(),
                };
                let value = p.expression()?;
                depth = depth.max(value.depth);
                let _ = write!(text, ",{star}{keyword}{}", value.text);
                if !p.skip_op(",") {
                    break;
                }
            }
            p.expect_op(")")?;
            Ok((text, depth))
        })
    }

    fn finish_call(&mut self, callee: Code) -> Parse {
        let (args, depth) = self.arguments()?;
        match callee.shape {
            Shape::Attr { object, name } => {
                let depth = depth.max(object.depth) + 1;
                self.code(depth, format!("__method({},{}{args})", object.text, literal(&name)))
            }
            Shape::Name(name) => {
                let args = args.strip_prefix(',').unwrap_or_default();
                let indent = callee.text.strip_suffix(name.as_str()).unwrap_or_default();
                self.code(depth + 1, format!("{indent}{name}({args})"))
            }
            _ => {
                let depth = depth.max(callee.depth) + 1;
                self.code(depth, format!("__call({}{args})", callee.text))
            }
        }
    }

    fn filters(&mut self, mut value: Code) -> Parse {
        loop {
            if self.skip_op("|") {
                value = self.filter(&value)?;
            } else if self.is_name("is") {
                self.next += 1;
                value = self.test(&value)?;
            } else if self.skip_op("(") {
                value = self.finish_call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter whose `|` was read, applied to `value`.
    pub fn filter(&mut self, value: &Code) -> Parse {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        let (args, depth) = if self.skip_op("(") { self.arguments()? } else { (String::new(), 0) };
        self.code(depth.max(value.depth) + 1, format!("__filter({},{}{args})", literal(&name), value.text))
    }

    /// A filter that applies to the text in the variable `name`.
    pub fn filter_chain_of(&mut self, variable: &str) -> Parse {
        let code = self.code(1, variable.into())?;
        let mut code = self.filter(&code)?;
        while self.skip_op("|") {
            code = self.filter(&code)?;
        }
        Ok(code)
    }

    fn test(&mut self, value: &Code) -> Parse {
        let negated = self.skip_name("not");
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        let (args, depth) = if self.skip_op("(") {
            self.arguments()?
        } else {
            let takes_operand = match self.peek() {
                Tok::Name(n) => {
                    !matches!(n.as_str(), "else" | "or" | "and" | "is" | "if" | "in" | "not" | "recursive")
                }
                Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("(" | "[" | "{") => true,
                _ => false,
            };
            if takes_operand {
                let operand = self.nested(Self::primary)?;
                let operand = self.postfix(operand)?;
                (format!(",{}", operand.text), operand.depth)
            } else {
                (String::new(), 0)
            }
        };
        let depth = depth.max(value.depth) + 1;
        let text = format!("__test({},{}{args})", literal(&name), value.text);
        if negated { self.code(depth + 1, format!("(not {text})")) } else { self.code(depth, text) }
    }
}
