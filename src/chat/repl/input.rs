//! Where messages come from: the keyboard, or the lines of a pipe.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Behavior, Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler,
    Helper, Highlighter, Hinter, KeyCode, KeyEvent, Modifiers, RepeatCount, Validator,
};

use super::commands::COMMANDS;

/// What begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";
/// What stands before the line to type. A message of several lines has nothing before the others, so that
/// they can be copied as they are.
const PROMPT: &str = "> ";
/// Messages that are remembered.
const HISTORY: usize = 2000;
/// The longest line of a pipe, in bytes.
const MAX_LINE: usize = 64 << 20;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A message or a command, possibly of several lines.
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Nothing more will come.
    End,
}

/// Where messages come from.
pub trait Input {
    /// The next message; `initial` is put before the cursor where there is one.
    ///
    /// # Errors
    /// Reading fails.
    fn read(&mut self, initial: Option<&str>) -> io::Result<Line>;
    /// Whether somebody is there to react.
    fn interactive(&self) -> bool;
}

/// What stands, unseen (it is U+2060, the word joiner), between a backslash at the end of a line and the new line that it
/// made. A backslash before a line break that was pasted has none, and is part of the message.
const JOINER: char = '\u{2060}';

/// The message without the backslashes that made new lines.
fn joined(text: &str) -> String {
    text.replace(&format!("\\{JOINER}\n"), "\n")
}

/// Whether a message that began with a fence has not ended yet.
fn in_fence(text: &str) -> bool {
    let text = text.trim();
    text.strip_prefix(FENCE).is_some_and(|rest| !rest.ends_with(FENCE))
}

/// Whether the line goes on: it ends with a backslash that no other one stands before.
fn continues(text: &str) -> bool {
    text.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// The message without its fences, and without the line breaks inside of them.
fn unfenced(text: String) -> String {
    let inner = text.trim().strip_prefix(FENCE).and_then(|rest| rest.strip_suffix(FENCE));
    let Some(inner) = inner else { return text };
    let inner = inner.strip_prefix('\n').unwrap_or(inner);
    inner.strip_suffix('\n').unwrap_or(inner).to_owned()
}

/// The keyboard, with editing, completion and history.
pub struct Keyboard {
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
}

impl Keyboard {
    /// Take over the terminal while lines are read. `history` is the file that messages are remembered in.
    ///
    /// # Errors
    /// The terminal cannot be used. A history that cannot be read is told as a warning.
    pub fn new(history: Option<PathBuf>, color: bool) -> io::Result<Keyboard> {
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .max_history_size(HISTORY)
            .map_err(into_io)?
            .history_ignore_space(true)
            .color_mode(if color { rustyline::ColorMode::Enabled } else { rustyline::ColorMode::Disabled })
            .bracketed_paste(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(into_io)?;
        editor.set_helper(Some(Completion { files: FilenameCompleter::new() }));
        editor.bind_sequence(
            KeyEvent(KeyCode::Enter, Modifiers::NONE),
            EventHandler::Conditional(Box::new(Enter)),
        );
        let newline = || EventHandler::Simple(Cmd::Newline);
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), newline());
        editor.bind_sequence(KeyEvent(KeyCode::Char('J'), Modifiers::CTRL), newline());
        if let Some(path) = history.as_ref().filter(|p| p.exists())
            && let Err(error) = editor.load_history(path)
        {
            tracing::warn!("{}: the history cannot be read: {error}", path.display());
        }
        Ok(Keyboard { editor, history })
    }

    fn remember(&mut self, text: &str) {
        let Some(path) = &self.history else { return };
        let new = self.editor.add_history_entry(text);
        let made = path.parent().map_or(Ok(()), crate::chat::transcript::create_private_dir);
        let saved = match (new, made) {
            (Ok(false), _) => return,
            (Ok(true), Ok(())) => self.editor.append_history(path),
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
        };
        if let Err(error) = saved {
            tracing::warn!("{}: the history cannot be written: {error}", path.display());
            // Once is enough.
            self.history = None;
        }
    }
}

impl Input for Keyboard {
    fn read(&mut self, initial: Option<&str>) -> io::Result<Line> {
        match self.editor.readline_with_initial(PROMPT, (initial.unwrap_or_default(), "")) {
            Ok(text) => {
                let text = joined(&text);
                if !text.trim().is_empty() {
                    self.remember(&text);
                }
                Ok(Line::Text(unfenced(text)))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(into_io(error)),
        }
    }
    fn interactive(&self) -> bool {
        true
    }
}

fn into_io(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// Enter sends a message, unless it goes on.
struct Enter;

impl ConditionalEventHandler for Enter {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let line = context.line();
        if in_fence(line) {
            return Some(Cmd::Newline);
        }
        let at_end = context.pos() == line.len();
        (at_end && continues(line)).then(|| Cmd::Insert(1, format!("{JOINER}\n")))
    }
}

/// Completes commands, and the names of files after those that take one.
#[derive(Helper, Hinter, Highlighter, Validator)]
struct Completion {
    files: FilenameCompleter,
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..pos).unwrap_or_default();
        let Some(rest) = typed.strip_prefix('/') else { return Ok((pos, Vec::new())) };
        let Some((name, _)) = rest.split_once(' ') else {
            let names = COMMANDS.iter().filter_map(|e| e.names.first().map(|n| (n, e.usage)));
            let fit = names.filter(|(n, _)| n.starts_with(rest)).map(|(n, usage)| {
                let space = if usage.is_empty() { "" } else { " " };
                Pair { display: format!("/{n}"), replacement: format!("/{n}{space}") }
            });
            return Ok((0, fit.collect()));
        };
        let takes_file = COMMANDS.iter().any(|e| e.names.contains(&name) && e.usage == "FILE");
        if takes_file { self.files.complete_path(line, pos) } else { Ok((pos, Vec::new())) }
    }
}

/// The lines of a pipe or a file: each is a message, but for those that go on.
pub struct Lines<R> {
    reader: R,
    prompt: bool,
}

impl<R: BufRead> Lines<R> {
    /// Read lines from here.
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, prompt: false }
    }
    /// The same for somebody who types into a terminal that cannot move its cursor: with a prompt, on standard error.
    pub fn typed(reader: R) -> Lines<R> {
        Lines { reader, prompt: true }
    }
    /// A line without its end; none at the end of the file.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = io::Read::take(&mut self.reader, MAX_LINE as u64 + 1).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        if bytes.len() > MAX_LINE {
            let why = format!("a line of standard input is longer than {} MiB", MAX_LINE >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
            bytes.pop_if(|b| *b == b'\r');
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("standard input is not UTF-8: {e}"))
        })?;
        Ok(Some(text))
    }
}

impl<R: BufRead> Input for Lines<R> {
    fn read(&mut self, _: Option<&str>) -> io::Result<Line> {
        if self.prompt {
            let _ = write!(io::stderr(), "{PROMPT}");
        }
        let Some(mut text) = self.line()? else { return Ok(Line::End) };
        // A fence is looked for once and its end only in new lines: a message of many lines costs no more than its length.
        if in_fence(&text) {
            while let Some(line) = self.line()? {
                text.push('\n');
                text.push_str(&line);
                if line.trim_end().ends_with(FENCE) {
                    break;
                }
            }
            return Ok(Line::Text(unfenced(text)));
        }
        while continues(&text) {
            text.pop();
            let Some(line) = self.line()? else { break };
            text.push('\n');
            text.push_str(&line);
        }
        Ok(Line::Text(unfenced(text)))
    }
    fn interactive(&self) -> bool {
        self.prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let mut lines = Lines::new(text.as_bytes());
        let next = || match lines.read(None).unwrap() {
            Line::Text(text) => Some(text),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn each_line_is_a_message() {
        assert_eq!(all("a\nb\r\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(all(""), [""; 0]);
    }

    #[test]
    fn a_backslash_at_the_end_goes_on() {
        assert_eq!(all("a\\\nb\\\nc\nd\\\\\ne\\"), ["a\nb\nc", "d\\\\", "e"]);
    }

    #[test]
    fn fences_hold_several_lines_as_they_are() {
        assert_eq!(all("\"\"\"\na\\\n\nb\n\"\"\"\nc\n\"\"\"d\"\"\""), ["a\\\n\nb", "c", "d"]);
        assert_eq!(all("\"\"\"one\ntwo\"\"\""), ["one\ntwo"]);
        assert_eq!(all("say \"\"\" here"), ["say \"\"\" here"]);
    }

    #[test]
    fn what_is_not_text_is_an_error() {
        let error = Lines::new(&b"\xff\n"[..]).read(None).unwrap_err();
        assert!(error.to_string().contains("not UTF-8"));
    }
}
