//! A calibration text, cut into windows.

use crate::engine::BatchToken;

/// The calibration text.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What stands at the beginning of every window.
    pub bos: Option<u32>,
    /// Tokens of a window.
    pub ctx: usize,
    /// At most this many windows.
    pub most: Option<usize>,
}

impl Text {
    /// Windows that it gives.
    pub fn windows(&self) -> usize {
        crate::measure::windows(self.tokens.len(), self.ctx, self.most)
    }

    /// The tokens of each window, as they are evaluated.
    pub fn batches(&self) -> impl Iterator<Item = Vec<BatchToken>> {
        self.tokens.chunks_exact(self.ctx.max(1)).take(self.windows()).map(|window| {
            let token = |(i, id): (usize, &u32)| BatchToken {
                id: if i == 0 { self.bos.unwrap_or(*id) } else { *id },
                position: i as u32,
                sequence: 0,
                logits: true,
            };
            window.iter().enumerate().map(token).collect()
        })
    }
}
