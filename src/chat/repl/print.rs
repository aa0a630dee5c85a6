//! What goes to the terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::chat::text::Piece;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// What the streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console {
    /// Standard output is a terminal.
    pub out_terminal: bool,
    /// Standard error is a terminal.
    pub err_terminal: bool,
    /// Escape sequences are wanted on standard error.
    pub color: bool,
    /// Progress bars are wanted on standard error.
    pub progress: bool,
}

impl Console {
    /// Say something beside the answer, on standard error.
    pub(super) fn say(self, text: &str) {
        let text = self.harmless_err(text);
        // Where standard error is gone there is no one left to tell.
        let _ = writeln!(io::stderr(), "{}", text.trim_end());
    }
    /// The same, dimmed.
    pub(super) fn note(self, text: &str) {
        if self.color {
            let text = self.harmless_err(text);
            let _ = writeln!(io::stderr(), "{DIM}{}{RESET}", text.trim_end());
        } else {
            self.say(text);
        }
    }
    fn harmless_err(self, text: &str) -> Cow<'_, str> {
        if self.err_terminal { harmless(text) } else { text.into() }
    }
}

/// Text that a terminal only shows. A model can be made to say anything, and escape sequences change a terminal's title,
/// its clipboard or what stands on it: all control characters but the newline and the tab are shown as pictures
/// (U+2400 and on), those of Latin-1 (U+0080 to U+009F) as U+FFFD; a carriage return is left out.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(shown) {
        return Cow::Borrowed(text);
    }
    let picture = |c: char| match c {
        c if shown(c) => Some(c),
        '\r' => None,
        '\x7f' => Some('\u{2421}'),
        c => Some(if c < ' ' { char::from_u32(0x2400 + c as u32) } else { None }.unwrap_or('\u{fffd}')),
    };
    text.chars().filter_map(picture).collect::<String>().into()
}

/// An answer on its way out: the answer to standard output, reasoning to standard error, each piece at once.
pub(super) struct Stream {
    console: Console,
    reasoning: bool,
    /// Whether the cursor stands at the beginning of a line, as far as we moved it.
    line_start: bool,
    spoken: bool,
}

impl Stream {
    pub fn new(console: Console) -> Stream {
        Stream { console, reasoning: false, line_start: true, spoken: false }
    }
    pub fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        if piece.text.is_empty() {
            return Ok(());
        }
        self.turn_to(piece.reasoning);
        self.line_start = piece.text.ends_with('\n');
        if piece.reasoning {
            // No answer is lost with it, so that an error here is none.
            let _ = io::stderr().write_all(self.console.harmless_err(&piece.text).as_bytes());
            return Ok(());
        }
        self.spoken = true;
        let mut out = io::stdout().lock();
        let text = if self.console.out_terminal { harmless(&piece.text) } else { piece.text.as_str().into() };
        out.write_all(text.as_bytes())?;
        out.flush()
    }
    /// Begin or end reasoning.
    fn turn_to(&mut self, reasoning: bool) {
        if self.reasoning == reasoning {
            return;
        }
        self.reasoning = reasoning;
        let dim = if reasoning { DIM } else { RESET };
        let mut err = io::stderr().lock();
        if self.console.color {
            let _ = err.write_all(dim.as_bytes());
        }
        if !reasoning {
            let _ = err.write_all(if self.line_start { b"\n" } else { b"\n\n" });
            self.line_start = true;
        }
    }
    /// The end: the answer's own newline, unless it stands at the beginning of a line on a terminal already.
    pub fn end(&mut self) -> io::Result<()> {
        self.turn_to(false);
        if self.console.out_terminal && self.line_start && self.spoken {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(b"\n")?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let text = "a\x1b]0;title\x07b\x1b[2J\tc\r\nd\u{9b}31m\x7f\x08 é 日本 🦙";
        assert_eq!(harmless(text), "a␛]0;title␇b␛[2J\tc\nd\u{fffd}31m␡␈ é 日本 🦙");
        assert!(matches!(harmless("plain\n\ttext é"), Cow::Borrowed(_)));
    }
}
