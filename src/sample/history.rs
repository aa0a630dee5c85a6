//! The last tokens of the conversation: what the penalties look back at.

use std::collections::VecDeque;

/// The last tokens, up to a fixed number of them.
#[derive(Debug, Clone)]
pub(super) struct Window {
    tokens: VecDeque<u32>,
    capacity: usize,
}

impl Window {
    /// `last_n` tokens; a negative number means all.
    pub(super) fn new(last_n: i32) -> Self {
        // Nothing is allocated yet: last_n is a limit that a user may set high.
        Window { tokens: VecDeque::new(), capacity: usize::try_from(last_n).unwrap_or(usize::MAX) }
    }

    /// Adds a token, and returns the one that left for it.
    pub(super) fn push(&mut self, token: u32) -> Option<u32> {
        if self.capacity == 0 {
            return Some(token);
        }
        let oldest = if self.tokens.len() == self.capacity { self.tokens.pop_front() } else { None };
        self.tokens.push_back(token);
        oldest
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// From the newest to the oldest.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = u32> + '_ {
        self.tokens.iter().rev().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_last_tokens() {
        let mut w = Window::new(2);
        let left: Vec<_> = [1, 2, 3, 4].map(|t| w.push(t)).to_vec();
        assert_eq!(left, [None, None, Some(1), Some(2)]);
        assert_eq!(w.newest_first().collect::<Vec<_>>(), [4, 3]);
        w.clear();
        assert_eq!(w.len(), 0);

        let mut none = Window::new(0);
        assert_eq!(none.push(5), Some(5));
        assert_eq!(none.len(), 0);

        let mut all = Window::new(-1);
        assert!((0..1000).all(|t| all.push(t).is_none()));
        assert_eq!(all.len(), 1000);
    }
}
