//! Token ids to text as they come, never half a character.

use std::sync::Arc;

use super::Inner;

/// Turns a stream of token ids into text.
///
/// A token may hold a part of a character. What is not yet a whole character waits for the next token; what can no
/// longer become one is shown as U+FFFD.
pub struct Detokenizer {
    inner: Arc<Inner>,
    show_special: bool,
    pending: Vec<u8>,
    text: String,
}

impl Detokenizer {
    pub(super) fn new(inner: Arc<Inner>, show_special: bool) -> Detokenizer {
        Detokenizer { inner, show_special, pending: Vec::new(), text: String::new() }
    }

    /// Take the next token and return the text that it completes; often its own, sometimes none.
    /// The first token's leading space, if it has one, is kept.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(self.inner.shown(id, self.show_special));
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            self.text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = done + invalid.len() == self.pending.len();
            if invalid.is_empty() || (at_end && may_go_on(invalid)) {
                break;
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.pending.drain(..done);
        &self.text
    }

    /// End the stream: U+FFFD if a character was left unfinished.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text
    }
}

/// Whether more bytes could make these one character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
