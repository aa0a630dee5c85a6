//! Which cell of the cache holds which position of which sequences. Pure bookkeeping: the rows lie elsewhere.
//!
//! A sequence is a list of [`Span`]s sorted by position; a cell counts the sequences that share it and is free when
//! none is left. New tokens go right behind the last cell of their sequence where they can, otherwise to the start
//! of a free page, so that sequences decoded side by side do not end up cell by cell between each other and a
//! kernel finds long runs of consecutive rows.

use std::ops::Range;

use super::visible::{Span, View, Visible};

/// Cells of a page: a sequence that cannot go on where it is starts a page that is wholly free, if there is one.
pub const PAGE: u32 = 64;

/// A token's place in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqPos {
    /// The sequence.
    pub seq: u32,
    /// The position in it, from 0.
    pub pos: u32,
}

/// Why a batch or a copy is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CellsError {
    /// No room for the batch.
    #[error("the KV cache is full: {needed} cells are needed, {free} of {capacity} are free")]
    Full {
        /// Tokens of the batch.
        needed: usize,
        /// Free cells.
        free: usize,
        /// All cells.
        capacity: usize,
    },
    /// A number that names no sequence.
    #[error("sequence {seq}: there are {sequences}, counted from 0")]
    UnknownSequence {
        /// The number.
        seq: u32,
        /// How many there are.
        sequences: usize,
    },
    /// A token that does not come after all others of its sequence.
    #[error("sequence {seq}: position {pos} does not follow the last one, {last}")]
    Order {
        /// The sequence.
        seq: u32,
        /// The position asked for.
        pos: u32,
        /// The last position held (or earlier in the batch).
        last: u32,
    },
    /// A position that cannot be counted past.
    #[error("sequence {seq}: position {pos} is too large")]
    Position {
        /// The sequence.
        seq: u32,
        /// The position asked for.
        pos: u32,
    },
    /// A copy to where the target holds a cell of its own.
    #[error("sequence {seq} already holds another cell at position {pos}")]
    Occupied {
        /// The target.
        seq: u32,
        /// The first such position.
        pos: u32,
    },
}

/// The cells of a cache.
#[derive(Debug, Clone)]
pub struct Cells {
    /// For every cell how many sequences hold it.
    owners: Vec<u32>,
    /// For every page how many of its cells are in use.
    pages: Vec<u32>,
    /// For every sequence its spans, sorted by position, neighbours merged.
    seqs: Vec<Vec<Span>>,
    used: usize,
}

impl Cells {
    /// `capacity` free cells and sequences numbered from 0 up to `sequences`, all empty.
    pub fn new(capacity: u32, sequences: u32) -> Cells {
        Cells {
            owners: vec![0; capacity as usize],
            pages: vec![0; capacity.div_ceil(PAGE) as usize],
            seqs: vec![Vec::new(); sequences as usize],
            used: 0,
        }
    }

    /// All cells.
    pub fn capacity(&self) -> usize {
        self.owners.len()
    }
    /// Cells that a sequence holds; one that several share counts once.
    pub fn used(&self) -> usize {
        self.used
    }
    /// Cells that a batch may still take.
    pub fn free(&self) -> usize {
        self.capacity() - self.used
    }
    /// How many sequences there may be.
    pub fn sequences(&self) -> usize {
        self.seqs.len()
    }
    /// The position after the last of a sequence; 0 where it is empty or unknown.
    pub fn next_pos(&self, seq: u32) -> u32 {
        self.spans(seq).last().map_or(0, Span::end)
    }
    /// The first position that a sequence holds; 0 where it is empty or unknown.
    pub fn first_pos(&self, seq: u32) -> u32 {
        self.spans(seq).first().map_or(0, |span| span.pos)
    }
    /// Cells of a sequence, sorted by position; none where it is unknown.
    pub fn spans(&self, seq: u32) -> &[Span] {
        self.seqs.get(seq as usize).map_or(&[], Vec::as_slice)
    }

    /// Give every token of a batch a cell: `cells[i]` is that of `batch[i]`. To take a batch back, for example after
    /// an error while it ran, [`truncate`](Cells::truncate) its sequences to where they were.
    ///
    /// # Errors
    /// A sequence that does not exist, a token that does not come after all others of its sequence, or too little
    /// room. Nothing has changed then, and `cells` is empty.
    pub fn append(&mut self, batch: &[SeqPos], cells: &mut Vec<u32>) -> Result<(), CellsError> {
        cells.clear();
        if batch.len() > self.free() {
            return Err(CellsError::Full {
                needed: batch.len(),
                free: self.free(),
                capacity: self.capacity(),
            });
        }
        for (i, &at) in batch.iter().enumerate() {
            match self.append_one(at) {
                Ok(cell) => cells.push(cell),
                Err(e) => {
                    // Backwards, each token is the last of its sequence.
                    for back in batch[..i].iter().rev() {
                        self.remove_range(back.seq as usize, back.pos..back.pos + 1);
                    }
                    cells.clear();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn append_one(&mut self, SeqPos { seq, pos }: SeqPos) -> Result<u32, CellsError> {
        let last = self.check(seq)?.last().copied();
        if pos >= i32::MAX as u32 {
            // Positions are signed 32-bit numbers to the kernels.
            return Err(CellsError::Position { seq, pos });
        }
        if let Some(last) = last
            && pos < last.end()
        {
            return Err(CellsError::Order { seq, pos, last: last.end() - 1 });
        }
        let Some(cell) = self.place(last) else {
            return Err(CellsError::Full { needed: 1, free: self.free(), capacity: self.capacity() });
        };
        self.hold(cell..cell + 1);
        push(&mut self.seqs[seq as usize], Span { start: cell, len: 1, pos });
        Ok(cell)
    }

    /// A free cell for the token after a sequence's last span.
    fn place(&self, last: Option<Span>) -> Option<u32> {
        let next = last.map_or(0, |span| span.start + span.len);
        let is_free = |cell: u32| self.owners.get(cell as usize) == Some(&0);
        if last.is_some()
            && is_free(next)
            && (!next.is_multiple_of(PAGE) || self.pages[(next / PAGE) as usize] == 0)
        {
            return Some(next);
        }
        if let Some(page) = self.pages.iter().position(|used| *used == 0) {
            return Some(page as u32 * PAGE);
        }
        if last.is_some() && is_free(next) {
            return Some(next);
        }
        // No page is free: the middle of the longest run of free cells, so that whoever grows into the run from
        // below, and this sequence, both have room to go on.
        let mut best: Range<usize> = 0..0;
        let mut start = 0;
        for run in self.owners.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
            if run[0] == 0 && run.len() > best.len() {
                best = start..start + run.len();
            }
            start += run.len();
        }
        (!best.is_empty()).then(|| usize::midpoint(best.start, best.end) as u32)
    }

    /// Forget the positions of a range; none of them need exist. Cells that another sequence shares stay.
    ///
    /// # Errors
    /// The sequence does not exist.
    pub fn remove(&mut self, seq: u32, positions: Range<u32>) -> Result<(), CellsError> {
        self.check(seq)?;
        self.remove_range(seq as usize, positions);
        Ok(())
    }

    /// Forget every position from `from` on.
    ///
    /// # Errors
    /// The sequence does not exist.
    pub fn truncate(&mut self, seq: u32, from: u32) -> Result<(), CellsError> {
        self.remove(seq, from..u32::MAX)
    }

    /// Forget every other sequence.
    ///
    /// # Errors
    /// The sequence does not exist.
    pub fn keep(&mut self, seq: u32) -> Result<(), CellsError> {
        self.check(seq)?;
        for other in (0..self.seqs.len()).filter(|s| *s != seq as usize) {
            self.remove_range(other, 0..u32::MAX);
        }
        Ok(())
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.owners.fill(0);
        self.pages.fill(0);
        self.seqs.iter_mut().for_each(Vec::clear);
        self.used = 0;
    }

    /// Let `to` hold the cells that `from` holds at the positions of a range, along with its own: no row is copied.
    ///
    /// # Errors
    /// A sequence does not exist, or `to` holds a cell of its own at one of the positions. Nothing has changed then.
    pub fn copy(&mut self, from: u32, to: u32, positions: Range<u32>) -> Result<(), CellsError> {
        self.check(from)?;
        self.check(to)?;
        if from == to {
            return Ok(());
        }
        let (mine, theirs) = (&self.seqs[to as usize], &self.seqs[from as usize]);
        let copied = || theirs.iter().filter_map(|span| clip(*span, &positions));
        // Both lists are sorted: a merge, with the pieces that `to` already shares passed over.
        let mut merged = Vec::with_capacity(mine.len() + theirs.len());
        let mut added = Vec::new();
        let mut own = mine.iter().copied().peekable();
        for mut span in copied() {
            while let Some(o) = own.next_if(|o| o.end() <= span.pos) {
                push(&mut merged, o);
            }
            while span.len > 0 {
                let Some(o) = own.peek().copied().filter(|o| o.pos < span.end()) else {
                    push(&mut merged, span);
                    added.push(span);
                    break;
                };
                if let Some(before) = clip(span, &(0..o.pos)) {
                    push(&mut merged, before);
                    added.push(before);
                }
                let shared = span.pos.max(o.pos)..span.end().min(o.end());
                if span.cell(shared.start) != o.cell(shared.start) {
                    return Err(CellsError::Occupied { seq: to, pos: shared.start });
                }
                // What is left of `o` behind `span` waits for the next span; a span is pushed once whole.
                let rest = span.end().saturating_sub(o.end());
                span = Span { start: span.start + span.len - rest, len: rest, pos: span.end() - rest };
                if rest > 0 {
                    push(&mut merged, o);
                    own.next();
                }
            }
        }
        own.for_each(|o| push(&mut merged, o));
        self.seqs[to as usize] = merged;
        for span in added {
            self.hold(span.start..span.start + span.len);
        }
        Ok(())
    }

    /// Fill `out` with what each token of a batch sees: the cells of its sequence at positions that are not after its
    /// own where `causal`, and above its own minus `window` where there is one. The tokens themselves count among
    /// them once they are appended. A token of an unknown sequence sees nothing.
    pub fn visible(&self, batch: &[SeqPos], window: Option<u32>, causal: bool, out: &mut Visible) {
        out.clear();
        // While lists are gathered: `lists` holds their sequences, in order of appearance.
        for at in batch {
            let spans = self.spans(at.seq);
            let (first, end) = (self.first_pos(at.seq), spans.last().map_or(0, Span::end));
            let from = window.map_or(0, |w| at.pos.saturating_add(1).saturating_sub(w)).max(first);
            let to = if causal { end.min(at.pos.saturating_add(1)) } else { end };
            // Batches bring few sequences, mostly in runs.
            let list = match out.tokens.last() {
                Some(last) if out.lists[last.list as usize] == at.seq => last.list as usize,
                _ => out.lists.iter().position(|seq| *seq == at.seq).unwrap_or_else(|| {
                    out.lists.push(at.seq);
                    out.lists.len() - 1
                }),
            };
            out.tokens.push(View { list: list as u32, from: from.min(to), to });
        }
        for list in 0..out.lists.len() {
            let spans = self.spans(out.lists[list]);
            let views = out.tokens.iter().filter(|view| view.list as usize == list && view.from < view.to);
            let (from, to) = views.fold((u32::MAX, 0), |(from, to), v| (from.min(v.from), to.max(v.to)));
            out.lists[list] = out.spans.len() as u32;
            let skipped = spans.partition_point(|span| span.end() <= from);
            out.spans.extend(spans[skipped..].iter().take_while(|span| span.pos < to));
        }
        out.lists.push(out.spans.len() as u32);
    }

    fn check(&self, seq: u32) -> Result<&[Span], CellsError> {
        match self.seqs.get(seq as usize) {
            Some(spans) => Ok(spans),
            None => Err(CellsError::UnknownSequence { seq, sequences: self.seqs.len() }),
        }
    }

    fn hold(&mut self, cells: Range<u32>) {
        for cell in cells {
            let owners = &mut self.owners[cell as usize];
            if *owners == 0 {
                self.used += 1;
                self.pages[(cell / PAGE) as usize] += 1;
            }
            *owners += 1;
        }
    }

    fn release(&mut self, cells: Range<u32>) {
        for cell in cells {
            let owners = &mut self.owners[cell as usize];
            *owners -= 1;
            if *owners == 0 {
                self.used -= 1;
                self.pages[(cell / PAGE) as usize] -= 1;
            }
        }
    }

    fn remove_range(&mut self, seq: usize, positions: Range<u32>) {
        if positions.is_empty() {
            return;
        }
        let spans = &self.seqs[seq];
        let first = spans.partition_point(|span| span.end() <= positions.start);
        let last = spans.partition_point(|span| span.pos < positions.end).max(first);
        let touched: Vec<Span> = spans[first..last].to_vec();
        // What of the outer two lies outside of the range stays.
        let before = touched.first().and_then(|span| clip(*span, &(0..positions.start)));
        let after = touched.last().and_then(|span| clip(*span, &(positions.end..u32::MAX)));
        self.seqs[seq].splice(first..last, before.into_iter().chain(after));
        for span in touched.iter().filter_map(|span| clip(*span, &positions)) {
            self.release(span.start..span.start + span.len);
        }
    }
}

/// Put a span behind all others, as part of the last where it goes on from there.
fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.end() == span.pos && last.start + last.len == span.start => last.len += span.len,
        _ => spans.push(span),
    }
}

/// The part of a span that lies in a range of positions.
fn clip(span: Span, positions: &Range<u32>) -> Option<Span> {
    let (from, to) = (span.pos.max(positions.start), span.end().min(positions.end));
    (from < to).then(|| Span { start: span.cell(from), len: to - from, pos: from })
}

#[cfg(test)]
#[path = "cells_tests.rs"]
mod tests;
