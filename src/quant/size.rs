//! Formats chosen for a size: every tensor gets bits as far as they pay.
//!
//! *Sensitivity.* A tensor is rounded alone, in one format (the *probe*), and what the model's predictions lose is measured:
//! the mean Kullback-Leibler divergence `KL = sum_v p_v ln(p_v / q_v)` of its distributions `q` from those of the source
//! `p` over some windows of the calibration text. Small losses grow as the squared error of the tensor's output, so for any
//! format `f`
//!
//! ```text
//! loss_t(f) = KL_t(probe) * error_t(f) / error_t(probe),      error_t(f) = sum_rc importance_c (W_rc - Q_rc)^2
//! ```
//!
//! and the losses of tensors add up. (That small losses add up and are linear in the squared error is the premise; how far it
//! holds is measured in `benches/quantization.md`.)
//!
//! *Choice.* All tensors begin in their smallest format. Then again and again the step that saves most loss for each byte is
//! taken (the marginal gain, along the lower convex hull of each tensor's formats) until nothing more fits; what is left of
//! the size is filled with the steps that still fit, and with exchanges in which one tensor gives way to another.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;

use chaski_gguf::{Format, Gguf, Writer};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::calibrated::Text;
use super::{Imatrix, Plan, Planned, QuantError, choose};
use crate::engine::Engine;

/// Formats that are chosen from, the smallest first.
const CANDIDATES: &[Format] = &[
    Format::Q2_K,
    Format::Q3_K,
    Format::IQ4_XS,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::Q8_0,
    Format::F16,
];
/// The same for rows that blocks of 256 do not divide.
const SHORT: &[Format] =
    &[Format::IQ4_NL, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::F16];
/// What each tensor is rounded to alone.
const PROBE: Format = Format::Q3_K;
/// Positions of a window whose predictions are compared: every one of so many.
const EVERY: usize = 4;

/// What a tensor would lose.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Its name.
    pub tensor: String,
    /// The divergence in nats when it alone is rounded to the probe format.
    pub probed: f64,
    /// For each format that its rows allow: bytes and expected loss.
    pub choices: Vec<(Format, u64, f64)>,
}

/// Whether a tensor's format is free to be chosen.
fn is_free(t: &Planned) -> bool {
    matches!(t.why.as_str(), "mixture" | "every matrix") && t.from.info().block_len == 1 && t.shape.len() > 1
}

/// The formats that a tensor's rows allow, and its bytes in each.
fn candidates(t: &Planned) -> impl Iterator<Item = (Format, u64)> {
    let (row, n) = (t.shape.first().copied().unwrap_or(1), t.n_values());
    let all = if row.is_multiple_of(256) { CANDIDATES } else { SHORT };
    let fits = move |f: &&Format| choose::substitute(**f, row) == **f;
    all.iter().filter(fits).filter_map(move |f| Some((*f, f.bytes_of(n)?)))
}

/// Whether the tensors of a plan can be made to take `bytes`, before anything is measured for it.
///
/// # Errors
/// As [`fit`].
pub fn check(plan: &Plan, bytes: u64) -> Result<(), QuantError> {
    let range = |t: &Planned| {
        let mut sizes: Vec<u64> = candidates(t).map(|(_, bytes)| bytes).collect();
        if !is_free(t) || sizes.is_empty() {
            sizes = vec![t.bytes.1];
        }
        (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0))
    };
    let ranges = plan.tensors.iter().map(range);
    let (least, most) = ranges
        .fold((0u64, 0u64), |sum, (least, most)| (sum.0.saturating_add(least), sum.1.saturating_add(most)));
    within(plan, bytes, least, most)
}

/// Whether `bytes` lie between the least and the most that the tensors can take.
fn within(plan: &Plan, bytes: u64, least: u64, most: u64) -> Result<(), QuantError> {
    let values: u64 = plan.tensors.iter().map(Planned::n_values).sum();
    let bits = |bytes: u64| bytes as f64 * 8.0 / values.max(1) as f64;
    if bytes < least {
        let why = format!(
            "the tensors take {least} bytes at least ({:.2} bits a weight), and {bytes} are left for them",
            bits(least)
        );
        return Err(QuantError::Size { why });
    }
    if most < bytes - bytes / 100 {
        let why = format!(
            "the tensors take {most} bytes at most ({:.2} bits a weight), and {bytes} are asked for; a plain format will do",
            bits(most)
        );
        return Err(QuantError::Size { why });
    }
    Ok(())
}

/// Measure every tensor whose format is free, over the windows of the text. `watch` is told what is done
/// and how far it is, and may end it: then there is nothing.
///
/// # Errors
/// As [`Engine::decode`]; a value is not finite.
pub fn sensitivities(
    source: &Gguf,
    engine: &mut Engine,
    plan: &Plan,
    text: &Text,
    imatrix: &Imatrix,
    pool: &ThreadPool,
    watch: &mut dyn FnMut(&str, usize, usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Sensitivity>>, QuantError> {
    let free: Vec<&Planned> = plan.tensors.iter().filter(|t| is_free(t)).collect();
    let base = distributions(engine, text)?;
    let mut found = Vec::new();
    for (at, t) in free.iter().enumerate() {
        if watch(&t.name, at, free.len()).is_break() {
            return Ok(None);
        }
        let tensor = source.require_tensor(&t.name)?;
        let mut values = vec![0.0f32; usize::try_from(t.n_values()).unwrap_or(0)];
        (t.from.info().decode)(tensor.bytes, &mut values);
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let (tensor, value) = (t.name.clone(), values[index]);
            return Err(QuantError::NotFinite { tensor, index: index as u64, value });
        }
        let row = t.shape.first().copied().unwrap_or(1);
        let importance = imatrix.importance(&t.name, &t.shape)?;
        let mut choices = Vec::new();
        for (format, bytes) in candidates(t) {
            let (error, _) =
                pool.install(|| rounded(&values, row as usize, t, format, importance.as_deref()));
            choices.push((format, bytes, error));
        }
        let probe = choose::substitute(PROBE, row);
        let (error, decoded) =
            pool.install(|| rounded(&values, row as usize, t, probe, importance.as_deref()));
        replace(engine, t, &decoded)?;
        let lost = divergence(engine, text, &base)?;
        replace(engine, t, tensor.bytes)?;
        for choice in &mut choices {
            choice.2 *= if error > 0.0 { lost / error } else { 0.0 };
        }
        found.push(Sensitivity { tensor: t.name.clone(), probed: lost, choices });
    }
    Ok(Some(found))
}

/// The weighted squared error of a tensor in a format, and its values then, as bytes of its own format.
fn rounded(
    values: &[f32],
    row: usize,
    t: &Planned,
    format: Format,
    importance: Option<&[f32]>,
) -> (f64, Vec<u8>) {
    let (from, to) = (t.from.info(), format.info());
    let matrix = row.max(1) * usize::try_from(t.shape.get(1).copied().unwrap_or(1)).unwrap_or(1).max(1);
    let mut out = vec![0u8; values.len() / from.block_len * from.block_bytes];
    let row_bytes = row / from.block_len * from.block_bytes;
    let errors: Vec<f64> = values
        .par_chunks(row.max(1))
        .zip(out.par_chunks_mut(row_bytes.max(1)))
        .enumerate()
        .map(|(r, (w, out))| {
            // Every matrix of a stack of experts has importances of its own.
            let expert = r * row / matrix;
            let importance = importance.and_then(|all| all.get(expert * row..(expert + 1) * row));
            let mut bytes = vec![0u8; row / to.block_len * to.block_bytes];
            let mut decoded = vec![0.0f32; row];
            (to.quantize)(w, importance, &mut bytes);
            (to.decode)(&bytes, &mut decoded);
            (from.quantize)(&decoded, None, out);
            let error = |(c, (q, w)): (usize, (&f32, &f32))| {
                let weight = importance.and_then(|i| i.get(c)).copied().unwrap_or(1.0);
                f64::from(weight) * f64::from(q - w).powi(2)
            };
            decoded.iter().zip(w).enumerate().map(error).sum()
        })
        .collect();
    (errors.iter().sum(), out)
}

/// Let a tensor of the engine's model have other values.
fn replace(engine: &mut Engine, t: &Planned, bytes: &[u8]) -> Result<(), QuantError> {
    let mut writer = Writer::new();
    writer.tensor(&t.name, &t.shape, t.from, bytes)?;
    let mut file = Vec::new();
    writer.write_to(&mut file)?;
    Ok(engine.replace(&Arc::new(Gguf::from_bytes(&file)?))?)
}

/// Logits of every fourth position of each window.
fn each_window(
    engine: &mut Engine,
    text: &Text,
    each: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), QuantError> {
    let mut logits = Vec::new();
    for (at, mut batch) in text.batches().enumerate() {
        for (i, token) in batch.iter_mut().enumerate() {
            token.logits = i % EVERY == EVERY - 1;
        }
        engine.cells().clear();
        logits.clear();
        engine.decode(&batch, &mut logits)?;
        each(at, &logits);
    }
    engine.cells().clear();
    Ok(())
}

/// The source's logits, window by window.
fn distributions(engine: &mut Engine, text: &Text) -> Result<Vec<Vec<f32>>, QuantError> {
    let mut all = Vec::new();
    each_window(engine, text, &mut |_, logits| all.push(logits.to_vec()))?;
    Ok(all)
}

/// The mean divergence from what the source's logits say.
fn divergence(engine: &mut Engine, text: &Text, base: &[Vec<f32>]) -> Result<f64, QuantError> {
    let n_vocab = engine.model().hparams().n_vocab.max(1);
    let (mut sum, mut rows) = (0.0, 0usize);
    each_window(engine, text, &mut |at, logits| {
        let Some(base) = base.get(at) else { return };
        for (p, q) in base.chunks_exact(n_vocab).zip(logits.chunks_exact(n_vocab)) {
            sum += kullback_leibler(p, q);
            rows += 1;
        }
    })?;
    Ok(sum / rows.max(1) as f64)
}

/// `sum p ln(p / q)` of the distributions that logits mean.
fn kullback_leibler(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(max) + logits.iter().map(|l| f64::from((l - max).exp())).sum::<f64>().ln()
    };
    let (of_p, of_q) = (log_sum(p), log_sum(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - of_p, f64::from(*q) - of_q);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}

/// Choose formats for the free tensors of a plan so that all its tensors take at most `bytes`.
///
/// # Errors
/// Even the smallest formats take more, or the largest take less than nearly all of it.
pub fn fit(plan: &mut Plan, sensitivities: &[Sensitivity], bytes: u64) -> Result<(), QuantError> {
    let of = |name: &str| sensitivities.iter().find(|s| s.tensor == name);
    let fixed: u64 = plan.tensors.iter().filter(|t| of(&t.name).is_none()).map(|t| t.bytes.1).sum();
    let items: Vec<Vec<(u64, f64)>> = sensitivities
        .iter()
        .map(|s| s.choices.iter().map(|(_, bytes, loss)| (*bytes, *loss)).collect())
        .collect();
    let least: u64 = items.iter().map(|i| i.iter().map(|c| c.0).min().unwrap_or(0)).sum::<u64>() + fixed;
    let most: u64 = items.iter().map(|i| i.iter().map(|c| c.0).max().unwrap_or(0)).sum::<u64>() + fixed;
    within(plan, bytes, least, most)?;
    let chosen = knapsack(&items, bytes - fixed);
    for (s, at) in sensitivities.iter().zip(chosen) {
        let (Some((format, bytes, loss)), Some(t)) =
            (s.choices.get(at), plan.tensors.iter_mut().find(|t| t.name == s.tensor))
        else {
            continue;
        };
        (t.to, t.bytes.1, t.substituted) = (*format, *bytes, None);
        t.why = format!("size: expected loss {loss:.2e} nats");
    }
    Ok(())
}

/// A step of an item to another choice, ordered by what it gains for each byte.
struct Step {
    gain: f64,
    item: usize,
    from: usize,
    to: usize,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Step {}
impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.gain.total_cmp(&other.gain).then(other.item.cmp(&self.item))
    }
}

/// For each item the choice, `(bytes, loss)`, that is taken so that all together take at most `budget`.
fn knapsack(items: &[Vec<(u64, f64)>], budget: u64) -> Vec<usize> {
    let mut chosen: Vec<usize> =
        items.iter().map(|item| (0..item.len()).min_by_key(|at| item[*at].0).unwrap_or(0)).collect();
    let mut used: u64 = items.iter().zip(&chosen).filter_map(|(item, at)| item.get(*at)).map(|c| c.0).sum();
    // The best step from a choice: the next corner of the lower convex hull.
    let best = |item: usize, from: usize, room: u64| -> Option<Step> {
        let choices = &items[item];
        let now = choices.get(from)?;
        let steps =
            choices.iter().enumerate().filter(|(_, c)| c.0 > now.0 && c.0 - now.0 <= room && c.1 < now.1);
        steps.map(|(to, c)| Step { gain: (now.1 - c.1) / (c.0 - now.0) as f64, item, from, to }).max()
    };
    let mut heap: BinaryHeap<Step> = (0..items.len()).filter_map(|i| best(i, chosen[i], u64::MAX)).collect();
    while let Some(step) = heap.pop() {
        if chosen[step.item] != step.from {
            continue;
        }
        let more = items[step.item][step.to].0 - items[step.item][step.from].0;
        if used + more > budget {
            // A smaller step of this item may still fit.
            heap.extend(best(step.item, step.from, budget - used));
            continue;
        }
        used += more;
        chosen[step.item] = step.to;
        heap.extend(best(step.item, step.to, u64::MAX));
    }
    // Where single steps do not fit any more, one item may still give way to another.
    for _ in 0..2 * items.len() {
        let Some((from, down, to, up)) = exchange(items, &chosen, budget.saturating_sub(used)) else { break };
        used = used - items[from][chosen[from]].0 - items[to][chosen[to]].0
            + items[from][down].0
            + items[to][up].0;
        (chosen[from], chosen[to]) = (down, up);
    }
    chosen
}

/// The exchange that saves most loss: an item, its smaller choice, another item, its larger choice; `room` bytes are free.
fn exchange(items: &[Vec<(u64, f64)>], chosen: &[usize], room: u64) -> Option<(usize, usize, usize, usize)> {
    let steps = |larger: bool| {
        items.iter().zip(chosen).enumerate().flat_map(move |(i, (item, at))| {
            let now = item[*at];
            let differs = move |c: &(u64, f64)| if larger { c.0 > now.0 } else { c.0 < now.0 };
            let others = item.iter().enumerate().filter(move |(_, c)| differs(c));
            others.map(move |(to, c)| (i, to, c.0.abs_diff(now.0), c.1 - now.1))
        })
    };
    let up: Vec<(usize, usize, u64, f64)> = steps(true).collect();
    let mut best: Option<(f64, (usize, usize, usize, usize))> = None;
    for (from, down, freed, lost) in steps(false) {
        for (to, larger, taken, saved) in &up {
            let change = lost + saved;
            let fits = *to != from && *taken <= freed + room;
            if fits && change < 0.0 && best.is_none_or(|(least, _)| change < least) {
                best = Some((change, (from, down, *to, *larger)));
            }
        }
    }
    best.map(|(_, exchange)| exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_where_they_gain_most() {
        let items = vec![
            vec![(10, 1.0), (20, 0.5), (40, 0.0)],
            vec![(10, 8.0), (20, 2.0), (40, 1.9)],
            vec![(10, 0.1), (20, 0.05)],
        ];
        assert_eq!(knapsack(&items, 30), [0, 0, 0]);
        assert_eq!(knapsack(&items, 40), [0, 1, 0]);
        assert_eq!(knapsack(&items, 50), [1, 1, 0]);
        // 20 more for the first item do not fit any more, but 10 for the third do.
        assert_eq!(knapsack(&items, 65), [1, 1, 1]);
        assert_eq!(knapsack(&items, 1000), [2, 2, 1]);
    }

    #[test]
    fn no_choice_of_a_small_set_is_better() {
        // Against all combinations: within the loss of one step of the best.
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        for _ in 0..50 {
            let items: Vec<Vec<(u64, f64)>> = (0..5)
                .map(|_| {
                    let s = next();
                    (0..4u32).map(|k| (4 + 3 * u64::from(k), s / f64::from(4u32.pow(k)))).collect()
                })
                .collect();
            let budget = 20 + (next() * 45.0) as u64;
            let loss = |chosen: &[usize]| items.iter().zip(chosen).map(|(i, at)| i[*at].1).sum::<f64>();
            let bytes = |chosen: &[usize]| items.iter().zip(chosen).map(|(i, at)| i[*at].0).sum::<u64>();
            let found = knapsack(&items, budget);
            assert!(bytes(&found) <= budget);
            let all =
                (0..4usize.pow(5)).map(|n| (0..5).map(|i| n / 4usize.pow(i) % 4).collect::<Vec<usize>>());
            let least = all.filter(|c| bytes(c) <= budget).map(|c| loss(&c)).fold(f64::INFINITY, f64::min);
            assert!(loss(&found) <= least * 1.01 + 1e-12, "{} {least}", loss(&found));
        }
    }

    #[test]
    fn divergence_is_that_of_the_definition() {
        let (p, q) = ([0.0f32, 0.0], [0.0f32, 3f32.ln()]);
        // p = (1/2, 1/2), q = (1/4, 3/4)
        let expected = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        assert!((kullback_leibler(&p, &q) - expected).abs() < 1e-6);
        assert!(kullback_leibler(&q, &q).abs() < 1e-12);
    }
}
