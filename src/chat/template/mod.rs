//! Chat templates: the Jinja programs that turn a conversation into the text a model was trained on.
//!
//! A template is somebody else's program and the conversation is somebody else's text, so both are untrusted.
//! The template runs in minijinja within [`Limits`]; it is first rewritten (see `rewrite`) so that every
//! operator, filter and method follows Python's rules, which is what the authors of templates test against,
//! and draws on a budget. The text that comes out says which of its bytes may not become special tokens
//! (see [`Rendered`]).

mod defaults;
mod engine;
mod expr;
mod filters;
mod format;
mod json;
mod lexer;
mod marks;
mod methods;
mod ops;
mod probe;
mod repr;
mod rewrite;
mod strftime;
mod value;

use std::ops::Range;
use std::path::Path;

pub use defaults::{DEFAULT, DEFAULTS, NamedTemplate};
pub use probe::fold_system;
pub use strftime::{CivilTime, local_now, parse_time};

use rewrite::Rewritten;

/// What can go wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja, or uses what is not supported.
    #[error("chat template, line {line}, column {column}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The template called `raise_exception`: it refuses this conversation.
    #[error("the chat template refuses this conversation: {message} (line {line})")]
    Raised {
        /// The line, from 1.
        line: usize,
        /// What the template said.
        message: String,
    },
    /// The template failed while it ran.
    #[error("chat template, line {line}: {message}")]
    Render {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template wanted more than [`Limits`] allows.
    #[error("chat template, line {line}: {what} is exceeded")]
    Limit {
        /// The line, from 1.
        line: usize,
        /// Which limit.
        what: String,
    },
    /// The messages are not a JSON array.
    #[error("the messages of a conversation are a JSON array of objects")]
    Messages,
    /// A name that is neither in the table of default templates nor a file that can be read.
    #[error("{name:?} is no template file ({cause}) and no name of a template; the names are {names}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Why it could not be read as a file.
        cause: String,
        /// The names there are.
        names: String,
    },
}

/// What one rendering may use. What the input itself needs is added: its size, and steps and work for it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the template's source.
    pub source: usize,
    /// Steps of the virtual machine.
    pub fuel: u64,
    /// Bytes written and elements made (64 units each), which bounds memory as well as time.
    pub work: u64,
    /// Bytes of output, and of any one string on the way.
    pub output: usize,
    /// Nested frames; a macro's call takes several.
    pub recursion: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { source: 1 << 20, fuel: 2_000_000, work: 64 << 20, output: 1 << 20, recursion: 240 }
    }
}

/// What a template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct RenderInput {
    /// The conversation: an array of objects with `role` and `content`, in OpenAI's form.
    pub messages: serde_json::Value,
    /// The tools on offer: an array, in OpenAI's form. Without it `tools` is not defined in the template.
    pub tools: Option<serde_json::Value>,
    /// Whether the text ends where the assistant is to speak.
    pub add_generation_prompt: bool,
    /// The text of the beginning-of-sequence token, empty if the vocabulary has none.
    pub bos_token: String,
    /// The text of the end-of-sequence token, empty if the vocabulary has none.
    pub eos_token: String,
    /// What `strftime_now` tells; the local time when none is given.
    pub now: Option<CivilTime>,
    /// More variables, such as `enable_thinking`. One of a name above replaces it.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The texts of the vocabulary's special tokens which data must not produce (its control tokens).
    /// Without any, [`Rendered::user_spans`] is empty.
    pub special_tokens: Vec<String>,
    /// Those special tokens which not even the assistant's own past messages may produce: the tokens that
    /// begin or end a turn. Its other special tokens (reasoning marks, tool calls) keep their meaning there.
    pub turn_tokens: Vec<String>,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text, exactly what Python's jinja2 renders.
    pub text: String,
    /// Byte ranges of `text`, sorted and apart, in which no special token may begin, end or lie: they hold
    /// bytes of messages, tools and variables that are part of a special token's text, or could become one
    /// together with their neighbours. Only ranges that matter are listed, so for most conversations there
    /// are none.
    ///
    /// A tokenizer looks for special tokens in the whole text and drops each match for which
    /// [`Rendered::allows_special`] is false; the text between the remaining ones is then plain, in one piece.
    pub user_spans: Vec<Range<usize>>,
}

impl Rendered {
    /// Whether a special token may stand at this byte range of the text.
    pub fn allows_special(&self, range: &Range<usize>) -> bool {
        let first = self.user_spans.partition_point(|span| span.end <= range.start);
        self.user_spans.get(first).is_none_or(|span| span.start >= range.end)
    }
}

/// A chat template, parsed.
#[derive(Debug)]
pub struct Template {
    source: String,
    rewritten: Rewritten,
    limits: Limits,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] with the place, or [`TemplateError::Limit`] for a source above 1 MiB.
    pub fn parse(source: &str) -> Result<Template, TemplateError> {
        let limits = Limits::default();
        if source.len() > limits.source {
            let what = format!("the limit of {} bytes for a template", limits.source);
            return Err(TemplateError::Limit { line: 1, what });
        }
        let rewritten = rewrite::rewrite(source)?;
        engine::check(&rewritten)?;
        Ok(Template { source: source.to_string(), rewritten, limits })
    }

    /// The default template of a name (see [`DEFAULTS`]), or the template in a file.
    ///
    /// # Errors
    /// [`TemplateError::Unknown`] when it is neither; what [`Template::parse`] gives for the file's text.
    pub fn from_name_or_file(name: &str) -> Result<Template, TemplateError> {
        if let Some(named) = DEFAULTS.iter().find(|t| t.name == name) {
            return Template::parse(named.source);
        }
        let source =
            read_limited(Path::new(name), Limits::default().source).map_err(|e| TemplateError::Unknown {
                name: name.to_string(),
                cause: e.to_string(),
                names: DEFAULTS.iter().map(|t| t.name).collect::<Vec<_>>().join(", "),
            })?;
        Template::parse(&source)
    }

    /// The template of a model file without one: [`DEFAULT`].
    ///
    /// # Errors
    /// As [`Template::parse`]; for the built-in text there is none.
    pub fn default_template() -> Result<Template, TemplateError> {
        Template::from_name_or_file(DEFAULT)
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Replaces the limits that later renderings keep to.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Template {
        self.limits = limits;
        self
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] when the template refuses the conversation, [`TemplateError::Limit`] when
    /// it wants too much, [`TemplateError::Render`] when it fails.
    pub fn render(&self, input: &RenderInput) -> Result<Rendered, TemplateError> {
        marks::render(&self.rewritten, input, &self.limits)
    }
}

/// Reads a text file of at most `limit` bytes.
fn read_limited(path: &Path, limit: usize) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(limit as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
