//! Which cells each token of a batch sees.

/// Consecutive cells that hold consecutive positions of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first cell.
    pub start: u32,
    /// How many.
    pub len: u32,
    /// The position that the first cell holds.
    pub pos: u32,
}

impl Span {
    /// The position after the last.
    pub fn end(&self) -> u32 {
        self.pos + self.len
    }
    /// The cell of a position of this span.
    pub fn cell(&self, pos: u32) -> u32 {
        self.start + (pos - self.pos)
    }
}

/// What a token sees: the cells of a list that hold positions from `from` up to but without `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The list.
    pub list: u32,
    /// The first position.
    pub from: u32,
    /// The position after the last; equal to `from` where the token sees nothing.
    pub to: u32,
}

/// Which cells each token of a batch sees. Tokens of one sequence share a list of spans, sorted by position: the order
/// in which a softmax adds up depends on positions alone, never on where the cells happen to lie.
///
/// It is filled anew for every batch without giving its memory back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible {
    /// The spans of all lists, list after list.
    pub spans: Vec<Span>,
    /// For every list where its spans begin; then the number of all spans.
    pub lists: Vec<u32>,
    /// For every token of the batch what it sees.
    pub tokens: Vec<View>,
}

impl Visible {
    /// Nothing, for no token.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.lists.clear();
        self.tokens.clear();
    }

    /// The spans of a list, sorted by position, without an overlap.
    pub fn list(&self, list: u32) -> &[Span] {
        match self.lists.get(list as usize..).and_then(|lists| lists.first_chunk()) {
            Some(&[from, to]) => self.spans.get(from as usize..to as usize).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The cells that a token sees, by position.
    pub fn cells(&self, token: usize) -> impl Iterator<Item = u32> + '_ {
        let view = self.tokens.get(token).copied().unwrap_or(View { list: u32::MAX, from: 0, to: 0 });
        self.list(view.list).iter().flat_map(move |span| {
            let (from, to) = (span.pos.max(view.from), span.end().min(view.to));
            (from..to.max(from)).map(|pos| span.cell(pos))
        })
    }

    /// One more than the highest cell that any token sees: what a cache bucket must hold.
    pub fn cells_end(&self) -> u32 {
        self.spans.iter().map(|span| span.start + span.len).max().unwrap_or(0)
    }
}
