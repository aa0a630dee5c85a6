//! Layer after layer: gather what meets its matrices, scale its channels, round it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use chaski_gguf::{Format, Gguf};
use rayon::ThreadPool;

use super::bring_up::Handed;
use super::compensate::Effort;
use super::fold::{self, Source};
use super::gather::Gathered;
use super::matrix::{Scales, round_matrix, scale, unscale};
use super::memory::{Layer, Memory, Scope, is_rounded, layer_of, part};
use super::moments::Moments;
use super::text::Text;
use crate::engine::Engine;
use crate::quant::measures::{Measures, Sums};
use crate::quant::{Planned, QuantError};

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Errors are pushed to the columns not yet rounded.
    pub compensate: bool,
    /// Channels are scaled by how strong they are.
    pub activation_aware: bool,
    /// Channels are smoothed, with this exponent.
    pub smooth: Option<f32>,
    /// Layer after layer by what the rounded layers before it give.
    pub sequential: bool,
    /// How hard compensated rounding tries.
    pub effort: Effort,
    /// Bytes that [`Memory::total`] may come to. Fewer layers are read in a pass, and rounded layers that have no room lie in
    /// scratch files; the result does not depend on it.
    pub budget: u64,
}

/// What was done to a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Its name.
    pub tensor: String,
    /// `E |W x - Q x|^2 / E |W x|^2`.
    pub relative_error: f64,
}

/// A tensor made ready for the file.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) measures: Option<Measures>,
}

/// Told what is being done; may end it.
pub(crate) type Tell<'a> = dyn FnMut(&str) -> ControlFlow<()> + 'a;

/// A model being rounded by calibration.
pub struct Calibrated<'a> {
    source: &'a Gguf,
    settings: Settings,
    text: Text,
    /// The model as it is.
    original: Engine,
    /// The model with the rounded layers in it.
    rounded: Option<Engine>,
    memory: Memory,
    handed: Handed,
    tensors: Vec<Planned>,
    pool: &'a ThreadPool,
    measure: bool,
    gathered: BTreeMap<Layer, Gathered>,
    ready: HashMap<String, Encoded>,
    ready_layers: Vec<Layer>,
    /// Rounded tensors of layers that are done, which the rounded model has not got yet.
    fresh: Vec<(Layer, Planned, Vec<u8>)>,
    reports: Vec<Report>,
}

/// Every check that needs no model to be run: what rounding these tensors of a source, of architecture `arch`, will take.
///
/// # Errors
/// The text has no whole window, the source is quantized already, its architecture's layers are not of the kind whose scales can
/// be folded, or it takes more memory than is allowed.
pub fn check(
    source: &Gguf,
    arch: &str,
    settings: &Settings,
    text: &Text,
    tensors: &[Planned],
    measure: bool,
) -> Result<Memory, QuantError> {
    let refused = |why: String| Err(QuantError::Calibration { why });
    if text.windows() == 0 {
        return refused(format!("{} tokens do not fill a window of {}", text.tokens.len(), text.ctx));
    }
    if let Some(t) = tensors.iter().find(|t| is_rounded(t) && t.from.info().block_len > 1) {
        return refused(format!(
            "tensor {} is {} already; calibration wants a source in floats",
            t.name, t.from
        ));
    }
    if (settings.activation_aware || settings.smooth.is_some()) && !fold::FOLDABLE.contains(&arch) {
        return refused(format!(
            "scales of channels can be folded into models of the architectures {}, not {arch}; gptq needs no scales",
            fold::FOLDABLE.join(", ")
        ));
    }
    let memory = Memory::new(source, settings, tensors, text.ctx, measure);
    if memory.least() > settings.budget {
        return Err(QuantError::Memory { memory, allowed: settings.budget });
    }
    Ok(memory)
}

impl<'a> Calibrated<'a> {
    fn scope(&self) -> Scope<'_> {
        Scope { source: self.source, settings: &self.settings }
    }

    /// Make ready. `engine` makes engines of the source, with windows of the text's length; `tensors` are those of the plan,
    /// layer after layer.
    ///
    /// # Errors
    /// As [`check`].
    pub fn new(
        source: &'a Gguf,
        settings: Settings,
        text: Text,
        tensors: Vec<Planned>,
        engine: &mut dyn FnMut() -> Result<Engine, QuantError>,
        pool: &'a ThreadPool,
        measure: bool,
    ) -> Result<Calibrated<'a>, QuantError> {
        let original = engine()?;
        let memory = check(source, original.model().arch(), &settings, &text, &tensors, measure)?;
        let rounded = if settings.sequential { Some(engine()?) } else { None };
        Ok(Calibrated {
            source,
            settings,
            text,
            original,
            rounded,
            memory,
            handed: Handed::new(memory.kept),
            tensors,
            pool,
            measure,
            gathered: BTreeMap::new(),
            ready: HashMap::new(),
            ready_layers: Vec::new(),
            fresh: Vec::new(),
            reports: Vec::new(),
        })
    }

    /// What the result depends on besides the plan and the source.
    pub(crate) fn fingerprint(&self) -> String {
        let Text { tokens, bos, ctx, most } = &self.text;
        // Memory is no part of the result: a run that was broken off for lack of it can be taken up with less.
        let settings = Settings { budget: 0, ..self.settings.clone() };
        let mut hash = std::collections::hash_map::DefaultHasher::new();
        std::hash::Hash::hash(&(tokens, bos, ctx, most), &mut hash);
        format!("{settings:?} {:016x}", std::hash::Hasher::finish(&hash))
    }

    /// What was done to the matrices that are rounded, in their order.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// What it takes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where scratch files lie, if there have to be any.
    pub(crate) fn scratch_in(&mut self, folder: &Path) {
        folder.clone_into(&mut self.handed.folder);
    }

    /// A tensor that an earlier run has rounded; they come in their order.
    ///
    /// # Errors
    /// The rounded model cannot have it.
    pub(crate) fn take_up(&mut self, planned: &Planned, bytes: &[u8]) -> Result<(), QuantError> {
        let layer = layer_of(&planned.name);
        // What lies outside of layers and is not multiplied with never is the rounded model's: see `encode`.
        if self.rounded.is_some() && self.scope().may_change(planned) {
            self.bring_up(layer)?;
            self.fresh.push((layer, planned.clone(), bytes.to_vec()));
        }
        Ok(())
    }

    /// The bytes of a tensor; none if calibration has nothing to say of it.
    pub(crate) fn encode(
        &mut self,
        planned: &Planned,
        tell: &mut Tell<'_>,
    ) -> Result<ControlFlow<(), Option<Encoded>>, QuantError> {
        let layer = layer_of(&planned.name);
        if !self.ready_layers.contains(&layer) {
            self.ready.clear();
            self.ready_layers = vec![layer];
            if self.round_layer(layer, tell)?.is_break() {
                self.ready_layers.clear();
                return Ok(ControlFlow::Break(()));
            }
        }
        let found = self.ready.remove(&planned.name);
        if let (Some(found), true) = (&found, self.rounded.is_some()) {
            self.fresh.push((layer, planned.clone(), found.bytes.clone()));
        }
        Ok(ControlFlow::Continue(found))
    }

    /// Give the rounded model what was rounded of layers before this one.
    fn bring_up(&mut self, layer: Layer) -> Result<(), QuantError> {
        let Some(engine) = &mut self.rounded else { return Ok(()) };
        let (done, rest) = std::mem::take(&mut self.fresh).into_iter().partition(|(of, ..)| *of < layer);
        self.fresh = rest;
        let done: Vec<(Layer, Planned, Vec<u8>)> = done;
        for (_, planned, bytes) in done {
            engine.replace(&self.handed.file(&planned, &bytes)?)?;
        }
        Ok(())
    }

    /// The moments of this layer, and of those behind it that fit in the same pass.
    fn gather(&mut self, layer: Layer, tell: &mut Tell<'_>) -> Result<ControlFlow<(), Gathered>, QuantError> {
        if let Some(found) = self.gathered.remove(&layer) {
            return Ok(ControlFlow::Continue(found));
        }
        self.bring_up(layer)?;
        let mut layers = vec![layer];
        if self.rounded.is_none() {
            let room = self.settings.budget.saturating_sub(self.memory.rounding);
            let mut bytes = self.scope().layer_bytes(&self.tensors, layer);
            let behind: std::collections::BTreeSet<Layer> =
                self.tensors.iter().map(|t| layer_of(&t.name)).filter(|l| *l > layer).collect();
            for other in behind {
                bytes = bytes.saturating_add(self.scope().layer_bytes(&self.tensors, other));
                if bytes > room {
                    break;
                }
                layers.push(other);
            }
        }
        let names: HashSet<String> = self
            .tensors
            .iter()
            .filter(|t| layers.contains(&layer_of(&t.name)) && self.scope().is_watched(t))
            .map(|t| t.name.clone())
            .collect();
        let wanted = |name: &str| names.contains(name);
        let mut all: BTreeMap<Layer, Gathered> = layers.iter().map(|l| (*l, Gathered::default())).collect();
        let total = self.text.windows();
        // The head is what it is by the original model: nothing is rounded yet when its turn comes.
        let both = self.rounded.is_some() && layer.is_some();
        for (at, batch) in self.text.batches().enumerate() {
            let what = layer.map_or_else(|| "the head".to_owned(), |l| format!("layer {l}"));
            if tell(&format!("{what}: window {} of {total}", at + 1)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let mut fault: Option<QuantError> = None;
            // What meets each distinct input of the original model, where both are needed.
            let mut original: HashMap<(String, usize), Vec<f32>> = HashMap::new();
            self.original.cells().clear();
            let (pool, mut sequence) = (self.pool, HashMap::<String, usize>::new());
            let mut number = |name: &str| -> usize {
                let n = sequence.entry(name.to_owned()).or_default();
                *n += 1;
                *n
            };
            self.original.observe_some(&batch, &wanted, &mut |seen| {
                if both && seen.experts.is_none() {
                    let key = (seen.weight.to_owned(), number(seen.weight));
                    original.insert(key, seen.x.to_vec());
                } else if !both {
                    let gathered = all.entry(layer_of(seen.weight)).or_default();
                    fault = fault.take().or(pool.install(|| gathered.add(seen, None, false)).err());
                }
            })?;
            if let (Some(engine), true) = (&mut self.rounded, both) {
                engine.cells().clear();
                sequence = HashMap::new();
                let mut number = |name: &str| -> usize {
                    let n = sequence.entry(name.to_owned()).or_default();
                    *n += 1;
                    *n
                };
                engine.observe_some(&batch, &wanted, &mut |seen| {
                    let other = original.get(&(seen.weight.to_owned(), number(seen.weight)));
                    let gathered = all.entry(layer_of(seen.weight)).or_default();
                    let added =
                        pool.install(|| gathered.add(seen, other.map(Vec::as_slice), seen.experts.is_none()));
                    fault = fault.take().or(added.err());
                })?;
            }
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        self.pool
            .install(|| all.values_mut().flat_map(|g| &mut g.moments).flatten().for_each(Moments::finish));
        let found = all.remove(&layer).unwrap_or_default();
        self.gathered.append(&mut all);
        Ok(ControlFlow::Continue(found))
    }

    /// Round everything of a layer that calibration has to do with.
    fn round_layer(&mut self, layer: Layer, tell: &mut Tell<'_>) -> Result<ControlFlow<()>, QuantError> {
        let tensors: Vec<Planned> =
            self.tensors.iter().filter(|t| layer_of(&t.name) == layer).cloned().collect();
        if !tensors.iter().any(|t| self.scope().is_watched(t)) {
            return Ok(ControlFlow::Continue(()));
        }
        let ControlFlow::Continue(mut gathered) = self.gather(layer, tell)? else {
            return Ok(ControlFlow::Break(()));
        };
        let scales = self.scales(&tensors, &mut gathered, tell)?;
        let Some(scales) = scales else { return Ok(ControlFlow::Break(())) };
        // Matrices that share moments follow each other, so that these are made ready once.
        let mut order: Vec<&Planned> = tensors.iter().collect();
        order.sort_by_key(|t| gathered.of.get(&t.name).copied());
        let mut factors: HashMap<usize, (f32, Vec<f32>)> = HashMap::new();
        let mut current = None;
        for t in order {
            if tell(&t.name).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let at = gathered.of.get(&t.name).copied();
            if at != current {
                factors.clear();
                current = at;
            }
            let moments = at.and_then(|at| gathered.moments.get(at)).filter(|_| is_rounded(t));
            if let Some(encoded) = self.round_tensor(t, &scales, moments, &mut factors)? {
                self.ready.insert(t.name.clone(), encoded);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The scales of the columns and of the rows of each tensor of a layer, by name. The moments are scaled with them.
    fn scales(
        &self,
        tensors: &[Planned],
        gathered: &mut Gathered,
        tell: &mut Tell<'_>,
    ) -> Result<Option<Scales>, QuantError> {
        let mut scales = Scales::default();
        if self.settings.smooth.is_none() && !self.settings.activation_aware {
            return Ok(Some(scales));
        }
        let hp = self.original.model().hparams();
        let find = |name: &str, suffix: &str| {
            tensors.iter().find(|t| part(&t.name) == name && t.name.ends_with(suffix))
        };
        for group in fold::GROUPS {
            let members: Vec<&Planned> = group.members.iter().filter_map(|m| find(m, ".weight")).collect();
            let shared = members.iter().find_map(|t| gathered.of.get(&t.name).copied());
            let (Some(shared), Some(first)) = (shared, members.first()) else { continue };
            let Some([moments]) = gathered.moments.get(shared).map(Vec::as_slice) else { continue };
            let n = moments.columns;
            let (Source::Norm(source) | Source::Rows(source)) = group.source;
            let Some(from) = find(source, ".weight") else { continue };
            // A source that stays as it is cannot take the scales, unless it is floats.
            if from.to.info().block_len > 1 && !is_rounded(from) {
                continue;
            }
            if tell(&format!("{}: scales", first.name)).is_break() {
                return Ok(None);
            }
            let rows = match group.source {
                Source::Norm(_) => n,
                Source::Rows(_) => usize::try_from(from.shape.get(1).copied().unwrap_or(0)).unwrap_or(0),
            };
            let head = if part(&first.name) == "attn_output" { hp.d_v } else { n };
            if rows == 0 || rows > n || !n.is_multiple_of(rows) {
                continue;
            }
            let tie = |s: &mut [f32]| fold::tie(s, rows, head);
            let mut matrices = Vec::new();
            for t in members.iter().filter(|t| t.shape.len() < 3 && !t.name.contains("_inp")) {
                matrices.push((self.values(t)?, t.to));
            }
            if matrices.is_empty() {
                continue;
            }
            let mut total = vec![1.0f32; n];
            let mut moments = moments.clone();
            if let Some(alpha) = self.settings.smooth {
                let plain: Vec<&[f32]> = matrices.iter().map(|(w, _)| w.as_slice()).collect();
                let mut s = fold::smooth(&moments.largest, &plain, alpha);
                tie(&mut s);
                for (matrix, _) in &mut matrices {
                    matrix
                        .chunks_exact_mut(n)
                        .for_each(|row| row.iter_mut().zip(&s).for_each(|(w, s)| *w *= s));
                }
                moments.scale_down(&s);
                total = s;
            }
            if self.settings.activation_aware {
                let borrowed: Vec<(&[f32], Format)> =
                    matrices.iter().map(|(w, f)| (w.as_slice(), *f)).collect();
                let (s, beta, (without, with)) =
                    self.pool.install(|| fold::activation_aware(&moments, &borrowed, &tie));
                tracing::debug!("{}: beta {beta}, output error {without:.4e} -> {with:.4e}", first.name);
                moments.scale_down(&s);
                total.iter_mut().zip(&s).for_each(|(t, s)| *t *= s);
            }
            if let Some(slot) = gathered.moments.get_mut(shared) {
                *slot = vec![moments];
            }
            for t in &members {
                scales.columns.insert(t.name.clone(), total.clone());
            }
            let mut of_rows = vec![1.0f32; rows];
            for (c, s) in total.iter().enumerate() {
                if let Some(row) = of_rows.get_mut(fold::row_of(c, n, rows, head)) {
                    *row = *s;
                }
            }
            if let Some(bias) = find(source, ".bias") {
                scales.rows.insert(bias.name.clone(), of_rows.clone());
            }
            scales.rows.insert(from.name.clone(), of_rows);
        }
        Ok(Some(scales))
    }

    /// A tensor's values.
    fn values(&self, t: &Planned) -> Result<Vec<f32>, QuantError> {
        let tensor = self.source.require_tensor(&t.name)?;
        let n = usize::try_from(t.n_values()).unwrap_or(usize::MAX).min(tensor.bytes.len().saturating_mul(8));
        let mut values = vec![0.0f32; n];
        (t.from.info().decode)(tensor.bytes, &mut values);
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => {
                Err(QuantError::NotFinite { tensor: t.name.clone(), index: at as u64, value: values[at] })
            }
        }
    }

    /// Round one tensor, or scale one that stays in floats; none where there is nothing to do.
    fn round_tensor(
        &mut self,
        t: &Planned,
        scales: &Scales,
        moments: Option<&Vec<Moments>>,
        factors: &mut HashMap<usize, (f32, Vec<f32>)>,
    ) -> Result<Option<Encoded>, QuantError> {
        let (columns, rows) = (scales.columns.get(&t.name), scales.rows.get(&t.name));
        if moments.is_none() && columns.is_none() && rows.is_none() {
            return Ok(None);
        }
        let row = usize::try_from(t.shape.first().copied().unwrap_or(1)).unwrap_or(1).max(1);
        let mut values = self.values(t)?;
        let original = (self.measure && is_rounded(t)).then(|| values.clone());
        scale(&mut values, row, columns, rows);
        let mut bytes = vec![0u8; usize::try_from(t.bytes.1).unwrap_or(0)];
        if !is_rounded(t) {
            (t.to.info().quantize)(&values, None, &mut bytes);
            return Ok(Some(Encoded { bytes, measures: None }));
        }
        let experts = usize::try_from(t.shape.get(2).copied().unwrap_or(1)).unwrap_or(1).max(1);
        let (matrix, matrix_bytes) = (values.len() / experts, bytes.len() / experts);
        let (mut lost, mut whole) = (0.0, 0.0);
        for expert in 0..experts {
            let values = &mut values[expert * matrix..(expert + 1) * matrix];
            let out = &mut bytes[expert * matrix_bytes..(expert + 1) * matrix_bytes];
            let moments = moments.and_then(|m| m.get(expert)).filter(|m| m.count > 0 && m.columns == row);
            let Some(m) = moments else {
                (t.to.info().quantize)(values, None, out);
                continue;
            };
            let (loss, all) =
                self.pool.install(|| round_matrix(t, values, m, &self.settings, factors, expert, out))?;
            lost += loss;
            whole += all;
        }
        if whole > 0.0 {
            tracing::debug!("{}: {}, relative error of the output {:.4e}", t.name, t.to, lost / whole);
            self.reports.push(Report { tensor: t.name.clone(), relative_error: lost / whole });
        }
        let measures = original.map(|original| {
            let mut decoded = vec![0.0f32; original.len()];
            (t.to.info().decode)(&bytes, &mut decoded);
            unscale(&mut decoded, row, columns, rows);
            let mut sums = Sums::new(row);
            sums.add_rows(&original, &decoded, t.to);
            sums.measures()
        });
        Ok(Some(Encoded { bytes, measures }))
    }
}
