//! The merge loop that both algorithms share: join the best adjacent pair until none is left.
//!
//! A priority queue holds the candidate pairs. A candidate whose symbols have changed since it was queued is
//! recognised by its size alone: a symbol only ever grows to the right by swallowing its neighbour, so a pair that
//! starts at the same place and has the same total length is the same pair. n symbols cost O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// "No token", "no symbol".
pub(super) const NONE: u32 = u32::MAX;

/// A stretch of the word that is one token so far, or one that no token spells (`id` is [`NONE`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// Where it starts, in bytes of the word.
    pub start: u32,
    /// Its length in bytes; 0 once its left neighbour has swallowed it.
    pub len: u32,
    /// Its token.
    pub id: u32,
    prev: u32,
    next: u32,
}

/// What joining a pair would give. The order is the order of merging: the lowest priority first, then the leftmost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    size: u32,
    id: u32,
}

/// Reusable storage of the merge loop.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Append a symbol of `len` bytes to the word.
    pub fn push(&mut self, len: usize, id: u32) {
        let index = self.symbols.len() as u32;
        let start = self.symbols.last_mut().map_or(0, |last| {
            last.next = index;
            last.start + last.len
        });
        self.symbols.push(Symbol { start, len: len as u32, id, prev: index.wrapping_sub(1), next: NONE });
    }

    /// Merge the word and hand out its symbols from left to right; the word is empty afterwards.
    ///
    /// `join` gives the priority (lower merges first) and the token of a pair of neighbours that may be joined.
    pub fn run(
        &mut self,
        join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
        mut emit: impl FnMut(&Symbol),
    ) {
        self.queue.clear();
        for left in 1..self.symbols.len() {
            self.propose(left as u32 - 1, &join);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let left = self.symbols[best.left as usize];
            if left.len == 0 || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            if left.len + right.len != best.size {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = best.left;
            }
            let merged = &mut self.symbols[best.left as usize];
            merged.len = best.size;
            merged.id = best.id;
            merged.next = right.next;
            if left.prev != NONE {
                self.propose(left.prev, &join);
            }
            if right.next != NONE {
                self.propose(best.left, &join);
            }
        }
        self.symbols.iter().filter(|s| s.len > 0).for_each(&mut emit);
        self.symbols.clear();
    }

    fn propose(&mut self, left: u32, join: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let l = &self.symbols[left as usize];
        let r = &self.symbols[l.next as usize];
        if let Some((priority, id)) = join(l, r) {
            self.queue.push(Reverse(Candidate { priority, left, size: l.len + r.len, id }));
        }
    }
}
