//! What a comparison found: everything that the report shows, and what goes into the JSON beside it.

use serde::Serialize;

use crate::measure::{Divergence, Perplexity};
use crate::quant::{Difference, Measures};

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    /// The version of chaski.
    pub(super) chaski: &'static str,
    /// When the report was made.
    pub(super) made: String,
    /// The model's name.
    pub(super) model: String,
    /// On what.
    pub(super) machine: Machine,
    /// By what text.
    pub(super) text: TextFacts,
    /// What calibrated files were calibrated on; none where there are none.
    pub(super) calibration: Option<CalibrationFacts>,
    /// The format of the K and of the V cache where nothing else is said.
    pub(super) cache: [String; 2],
    /// The most likely tokens of each prediction that divergences are made of.
    pub(super) kl_top: usize,
    /// What all others are held against.
    pub(super) source: Entry,
    /// The others.
    pub(super) entries: Vec<Entry>,
    /// What each format of the cache takes.
    pub(super) cache_memory: Vec<CacheMemory>,
    /// The context that the model was trained for.
    pub(super) n_ctx_train: usize,
    /// What formats of the cache cost.
    pub(super) cache_quality: Vec<CacheQuality>,
}

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) isa: String,
    pub(super) threads: usize,
    pub(super) threads_batch: usize,
    pub(super) cpu_exact: bool,
}

/// The text.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TextFacts {
    pub(super) name: String,
    pub(super) hash: String,
    pub(super) ctx: usize,
    pub(super) windows: usize,
    pub(super) scored_tokens: usize,
}

/// The calibration text.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CalibrationFacts {
    pub(super) name: String,
    pub(super) ctx: usize,
    pub(super) windows: usize,
    /// Whether it is the text that is scored, too.
    pub(super) scored_too: bool,
}

/// A model file.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    /// What it is called in the report: unique.
    pub(super) label: String,
    /// Its file type.
    pub(super) format: String,
    /// How it was rounded, as the file says it (`nearest`, `imatrix`, `gptq`, `awq+gptq`); `source`, or `file` for one that was
    /// there.
    pub(super) method: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Bits of its tensors for each value.
    pub(super) bits_per_weight: f64,
    /// How long it took to make; none where it was there.
    pub(super) quantize_seconds: Option<f64>,
    /// Its perplexity.
    pub(super) perplexity: f64,
    pub(super) stderr: f64,
    /// How far its predictions are from the source's; none of the source itself.
    pub(super) divergence: Option<Divergence>,
    /// How fast it is; nothing where that was not measured.
    pub(super) speed: Vec<Speed>,
    /// What 8-bit activations alone cost it.
    pub(super) activations: Option<Activations>,
    /// What became of its tensors; nothing where their channels were scaled, which makes them other tensors.
    pub(super) tensors: Vec<TensorFacts>,
    /// The same by layers.
    pub(super) layers: Vec<LayerFacts>,
}

impl Entry {
    /// Whether channels were scaled, so that its tensors cannot be held against the source's one by one.
    pub(super) fn is_scaled(&self) -> bool {
        self.method.split('+').any(|method| method == "awq" || method == "smooth")
    }

    /// The loss of perplexity against another's, as a ratio: 0.01 is 1 % more.
    pub(super) fn loss(&self, source: &Entry) -> f64 {
        self.perplexity / source.perplexity - 1.0
    }

    /// Set what was measured of its predictions.
    pub(super) fn set(&mut self, p: &Perplexity, divergence: Option<Divergence>) {
        (self.perplexity, self.stderr, self.divergence) = (p.perplexity, p.stderr, divergence);
    }
}

/// A speed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Speed {
    /// `pp256`, `tg32`.
    pub(super) test: String,
    /// Tokens a second.
    pub(super) mean: f64,
    pub(super) stddev: f64,
    pub(super) samples: Vec<f64>,
}

/// The same file with float activations, and how far it is from there to the default.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Activations {
    /// Perplexity with float activations.
    pub(super) exact_perplexity: f64,
    /// Of the default from that.
    pub(super) divergence: Divergence,
}

/// What became of a tensor.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TensorFacts {
    pub(super) name: String,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    #[serde(flatten)]
    pub(super) measures: Measures,
}

/// What became of the tensors of a layer together.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LayerFacts {
    pub(super) layer: usize,
    /// `sum (x - y)^2 / sum x^2` over all values of the layer's tensors.
    pub(super) noise_to_signal: f64,
}

/// The cache in one format.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CacheMemory {
    pub(super) format: &'static str,
    /// Of K and V together, over all layers.
    pub(super) bytes_per_token: u64,
}

/// The source with a cache of these formats.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CacheQuality {
    pub(super) k: &'static str,
    pub(super) v: &'static str,
    pub(super) bytes_per_token: u64,
    pub(super) perplexity: f64,
    pub(super) divergence: Divergence,
}

/// What became of tensors, one by one and by layers.
pub(super) fn of_tensors(differences: &[Difference]) -> (Vec<TensorFacts>, Vec<LayerFacts>) {
    let mut layers: Vec<(usize, f64, f64)> = Vec::new();
    let tensors = differences.iter().map(|d| {
        if let Some(layer) = layer_of(&d.name) {
            let (noise, signal) = d.sums.noise_and_signal();
            match layers.iter_mut().find(|(l, ..)| *l == layer) {
                Some((_, n, s)) => (*n, *s) = (*n + noise, *s + signal),
                None => layers.push((layer, noise, signal)),
            }
        }
        TensorFacts {
            name: d.name.clone(),
            from: d.formats.0.info().name,
            to: d.formats.1.info().name,
            measures: d.sums.measures(),
        }
    });
    let tensors = tensors.collect();
    layers.sort_by_key(|(layer, ..)| *layer);
    let ratio = |(layer, noise, signal): (usize, f64, f64)| LayerFacts {
        layer,
        noise_to_signal: if signal > 0.0 { noise / signal } else { 0.0 },
    };
    (tensors, layers.into_iter().map(ratio).collect())
}

/// The layer of a tensor by its name: `blk.3.attn_q.weight`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_by_its_tensors() {
        assert_eq!(layer_of("blk.12.attn_q.weight"), Some(12));
        assert_eq!(layer_of("output.weight"), None);
        assert_eq!(layer_of("blk.x.y"), None);
    }
}
