//! Calibration: a text is run through the model, and for every matrix the squares of the activations that meet each of its
//! columns are summed up. As llama-imatrix does it: windows of the text, each beginning with BOS where the model adds one;
//! every token of a window counts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::imatrix::{Imatrix, Statistics};
use crate::engine::{BatchToken, Engine, EngineError, Observed};

/// What to gather, and from what.
#[derive(Debug)]
pub struct Calibration<'a> {
    /// The text's tokens.
    pub tokens: &'a [u32],
    /// What stands at the beginning of every window.
    pub bos: Option<u32>,
    /// Tokens of a window.
    pub ctx: usize,
    /// At most this many windows.
    pub most: Option<usize>,
    /// Gather for the output matrix too.
    pub output: bool,
    /// The text's name.
    pub dataset: String,
}

/// Sums in binary64, since a text has many tokens.
#[derive(Default)]
struct Sums {
    squares: Vec<f64>,
    counts: Vec<u64>,
}

impl Sums {
    fn add(&mut self, seen: &Observed<'_>) {
        let experts = seen.experts.as_ref().map_or(1, |e| e.count);
        self.squares.resize(seen.row * experts, 0.0);
        self.counts.resize(experts, 0);
        let Some(chosen) = &seen.experts else {
            for row in seen.x.chunks_exact(seen.row.max(1)) {
                self.add_row(0, row);
            }
            return;
        };
        for (t, ids) in chosen.ids.chunks_exact(chosen.slots.max(1)).enumerate() {
            for (slot, id) in ids.iter().enumerate() {
                // One row for the token, or one for each of its slots.
                let at = t * chosen.rows + slot % chosen.rows.max(1);
                let row = seen.x.get(at * seen.row..(at + 1) * seen.row);
                if let (Some(row), Ok(expert)) = (row, usize::try_from(*id))
                    && expert < experts
                {
                    self.add_row(expert, row);
                }
            }
        }
    }

    fn add_row(&mut self, expert: usize, row: &[f32]) {
        let from = expert * row.len();
        for (sum, x) in self.squares[from..from + row.len()].iter_mut().zip(row) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        self.counts[expert] += 1;
    }
}

/// Run the text through the model. `watch` is told the windows done and those in all, before each, and may end it: what was
/// gathered until then is the result.
///
/// # Errors
/// As [`Engine::decode`].
pub fn calibrate(
    engine: &mut Engine,
    wanted: &Calibration<'_>,
    watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Imatrix, EngineError> {
    let mut found: BTreeMap<String, Sums> = BTreeMap::new();
    let ctx = wanted.ctx.max(1);
    let total = crate::measure::windows(wanted.tokens.len(), ctx, wanted.most);
    let mut done = 0;
    let mut logits = Vec::new();
    for window in wanted.tokens.chunks_exact(ctx).take(total) {
        if watch(done, total).is_break() {
            break;
        }
        engine.cells().clear();
        let token = |(i, id): (usize, &u32)| BatchToken {
            id: if i == 0 { wanted.bos.unwrap_or(*id) } else { *id },
            position: i as u32,
            sequence: 0,
            // After the last layer's attention only wanted rows are computed; all of them are.
            logits: true,
        };
        let batch: Vec<BatchToken> = window.iter().enumerate().map(token).collect();
        let ubatch = engine.options().n_ubatch.max(1);
        for part in batch.chunks(ubatch) {
            logits.clear();
            engine.observe(part, &mut logits, &mut |seen| {
                let of_layer = seen.weight.starts_with("blk.") && !seen.weight.contains("ffn_gate_inp");
                if of_layer || wanted.output && seen.weight == "output.weight" {
                    found.entry(seen.weight.to_owned()).or_default().add(seen);
                }
            })?;
        }
        done += 1;
    }
    engine.cells().clear();
    let entries = found.into_iter().map(|(name, sums)| {
        let statistics = Statistics {
            sums: sums.squares.iter().map(|s| *s as f32).collect(),
            counts: sums.counts.iter().map(|n| *n as f32).collect(),
        };
        (name, statistics)
    });
    Ok(Imatrix {
        entries: entries.collect(),
        datasets: vec![wanted.dataset.clone()],
        chunks: done as u32,
        chunk_size: ctx as u32,
    })
}
