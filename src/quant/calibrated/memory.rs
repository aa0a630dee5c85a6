//! What calibrated rounding holds, worked out before it begins: so that a cap on it can be kept, and told.

use std::collections::BTreeSet;

use chaski_gguf::Gguf;

use super::fold;
use super::layers::Settings;
use super::moments::Moments;
use crate::quant::Planned;

/// A layer's number; none for what lies outside of layers.
pub(super) type Layer = Option<usize>;

/// The layer that a tensor belongs to.
pub(super) fn layer_of(name: &str) -> Layer {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// A tensor's name without layer, `.weight` and `.bias`.
pub(super) fn part(name: &str) -> &str {
    let rest = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, rest)| rest);
    rest.strip_suffix(".weight").or_else(|| rest.strip_suffix(".bias")).unwrap_or(rest)
}

/// Whether compensated rounding, or a weighted search, has something to do for this tensor.
pub(super) fn is_rounded(t: &Planned) -> bool {
    t.from != t.to && t.to.info().block_len > 1
}

/// What of a model has to do with calibration, and in which way.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) source: &'a Gguf,
    pub(super) settings: &'a Settings,
}

impl Scope<'_> {
    /// Whether channels are scaled.
    fn scales(&self) -> bool {
        self.settings.smooth.is_some() || self.settings.activation_aware
    }

    /// Whether a tensor outside of layers is multiplied with: the output matrix, or the embedding where it is that too.
    pub(super) fn is_head(&self, name: &str) -> bool {
        name == "output.weight"
            || name == "token_embd.weight" && self.source.tensor_info("output.weight").is_none()
    }

    /// Whether what meets this tensor has to be seen: it is rounded, or its channels are scaled.
    pub(super) fn is_watched(&self, t: &Planned) -> bool {
        let member = || fold::GROUPS.iter().any(|g| g.members.contains(&part(&t.name)));
        let matrix = t.name.ends_with(".weight") && (is_rounded(t) || self.scales() && member());
        matrix && (layer_of(&t.name).is_some() || self.is_head(&t.name))
    }

    /// Whether a tensor may come out otherwise than it went in, so that the rounded model needs it: scales go into norms and
    /// biases too.
    pub(super) fn may_change(&self, t: &Planned) -> bool {
        self.is_watched(t) || self.scales() && layer_of(&t.name).is_some()
    }

    /// Whether the original model's activations are held against those of a matrix: an expert meets others in each model.
    fn crosses(&self, t: &Planned) -> bool {
        self.settings.sequential && layer_of(&t.name).is_some() && t.shape.len() < 3
    }

    /// Bytes that the moments of a layer take, at most: inputs that matrices share are known only when they are seen, so the
    /// matrices of a group count once by their names.
    pub(super) fn layer_bytes(&self, tensors: &[Planned], layer: Layer) -> u64 {
        let mut seen: Vec<&str> = Vec::new();
        let mut bytes = 0u64;
        for t in tensors.iter().filter(|t| layer_of(&t.name) == layer && self.is_watched(t)) {
            let name = part(&t.name);
            let group = fold::GROUPS.iter().find(|g| g.members.contains(&name));
            let key = group.and_then(|g| g.members.first()).unwrap_or(&name);
            if seen.contains(key) && !name.ends_with("_exps") {
                continue;
            }
            seen.push(*key);
            let experts = t.shape.get(2).copied().unwrap_or(1);
            let of_one = Moments::bytes(columns(t), self.crosses(t));
            bytes = bytes.saturating_add(of_one.saturating_mul(experts));
        }
        bytes
    }

    /// Bytes that rounding a tensor takes besides what is gathered: the factor of its moments and what it is made from; its
    /// values, what is lost of them, and as many twice more to measure that.
    fn rounding_bytes(&self, t: &Planned, measure: bool) -> u64 {
        let n = columns(t);
        let factor = if self.settings.compensate { n.saturating_mul(n).saturating_mul(8) } else { 0 };
        let copies = if measure { 4 } else { 2 };
        factor.saturating_add(t.n_values().saturating_mul(4 * copies)).saturating_add(t.bytes.1)
    }

    /// Bytes that the search for the scales of a group takes: its matrices' values, and its moments once more.
    fn scaling_bytes(&self, of_layer: &[&Planned]) -> u64 {
        let group = |g: &fold::Group| {
            let members = of_layer.iter().filter(|t| t.shape.len() < 3 && g.members.contains(&part(&t.name)));
            members.fold((0u64, 0u64), |(moments, values), t| {
                let of_one = Moments::bytes(columns(t), self.crosses(t));
                (moments.max(of_one), values.saturating_add(t.n_values().saturating_mul(4)))
            })
        };
        let all = fold::GROUPS.iter().map(group).map(|(moments, values)| moments.saturating_add(values));
        if self.scales() { all.max().unwrap_or(0) } else { 0 }
    }
}

/// Values of a row.
fn columns(t: &Planned) -> u64 {
    t.shape.first().copied().unwrap_or(0)
}

/// Bytes that it takes to hand a rounded tensor to the second model, besides what stays: its values, and its bytes twice more.
fn handing_bytes(t: &Planned) -> u64 {
    t.n_values().saturating_mul(4).saturating_add(t.bytes.0.saturating_mul(2))
}

/// Bytes that calibrated rounding takes besides the engines, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The statistics of the largest layer.
    pub statistics: u64,
    /// What it takes to round by them: factors, the values of a matrix, and a layer's rounded bytes until they are written.
    pub rounding: u64,
    /// With sequential calibration: the rounded layers that the second model runs with, in the formats of the source. All but
    /// the last, which nothing comes after.
    pub rounded: u64,
    /// Those of the rounded layers that are kept in memory; the others lie in scratch files that are mapped.
    pub kept: u64,
    /// What meets the matrices of the largest layer in a window, as the engines show it.
    pub activations: u64,
}

impl Memory {
    /// What rounding these tensors of `source` takes on windows of `ctx` tokens; with `measure`, losses are measured too.
    pub fn new(source: &Gguf, settings: &Settings, tensors: &[Planned], ctx: usize, measure: bool) -> Memory {
        let scope = Scope { source, settings };
        let layers: BTreeSet<Layer> = tensors.iter().map(|t| layer_of(&t.name)).collect();
        let of = |layer: Layer| -> Vec<&Planned> {
            tensors.iter().filter(|t| layer_of(&t.name) == layer && scope.may_change(t)).collect()
        };
        let (mut statistics, mut rounding, mut activations) = (0u64, 0u64, 0u64);
        let sum = |of: &mut dyn Iterator<Item = u64>| of.fold(0u64, u64::saturating_add);
        for layer in &layers {
            let changed = of(*layer);
            statistics = statistics.max(scope.layer_bytes(tensors, *layer));
            let one = |t: &&Planned| {
                let handed = if settings.sequential { handing_bytes(t) } else { 0 };
                scope.rounding_bytes(t, measure).max(handed)
            };
            let largest = changed.iter().map(one).max().unwrap_or(0);
            // What waits to be written, and to be handed to the second model.
            let copies = if settings.sequential { 2 } else { 1 };
            let waiting = sum(&mut changed.iter().map(|t| t.bytes.1.saturating_mul(copies)));
            let at_once = largest.max(scope.scaling_bytes(&changed));
            rounding = rounding.max(at_once.saturating_add(waiting));
            let watched = || changed.iter().filter(|t| scope.is_watched(t));
            let values = sum(&mut watched().map(|t| columns(t))).saturating_mul(ctx as u64);
            // Each engine keeps them for a micro-batch; where there are two, those of the first are kept until the second has them.
            let times = if settings.sequential { 3 } else { 1 };
            activations = activations.max(values.saturating_mul(4 * times));
        }
        let last = layers.iter().next_back().copied().flatten();
        let before = layers.iter().filter(|layer| settings.sequential && **layer != last);
        let rounded = before.map(|layer| sum(&mut of(*layer).iter().map(|t| t.bytes.0)));
        let rounded = rounded.fold(0u64, u64::saturating_add);
        let least = statistics.saturating_add(rounding);
        let kept = rounded.min(settings.budget.saturating_sub(least));
        Memory { statistics, rounding, rounded, kept, activations }
    }

    /// The least that a cap ([`Settings::budget`]) can be.
    pub fn least(&self) -> u64 {
        self.statistics.saturating_add(self.rounding)
    }

    /// What a cap is kept for: statistics, rounding, and the rounded layers that are in memory.
    pub fn total(&self) -> u64 {
        self.least().saturating_add(self.kept)
    }

    /// Bytes of the scratch files.
    pub fn scratch(&self) -> u64 {
        self.rounded.saturating_sub(self.kept)
    }
}
