//! How far a model's predictions are from those of another form of it: one in floats, say, whose predictions lie in a
//! [base](super::Base).
//!
//! For every scored token there are two distributions over the vocabulary: `p` of the base, `q` of the model at hand. With `T` the
//! `k` most likely tokens of `p`, `P` and `Q` the probabilities of all others together:
//!
//! | measure | definition |
//! |---|---|
//! | KL divergence | `D = sum_{i in T} p_i ln(p_i / q_i) + P ln(P / Q)`, in nats |
//! | top-token agreement | the share of tokens where the most likely token of `q` is that of `p` |
//! | difference at the top | `q_t - p_t` for `t` the most likely token of `p`; root of the mean square, and mean |
//! | difference at the text | `q_x - p_x` for `x` the token that follows in the text (llama.cpp's "delta p") |
//! | ratio of perplexities | `ln(PPL(q) / PPL(p)) = mean(ln p_x - ln q_x)`: its standard error is that of the paired differences, far smaller than those of the two perplexities |
//!
//! `D` is the Kullback-Leibler divergence where `k` is the whole vocabulary; else it is a lower bound, as merging tokens into one
//! never increases a divergence, and the closer the less probability is in the tail (`tail` says how much). On a small model of
//! perplexity 38 and 4096 tokens it is about 5 % below with 512 of them, 8 % with 256, 12 % with 128. A model against its own base has 0.
//!
//! Standard errors: see [`Estimate`]; that of a share `a` of `n` is `sqrt(a (1 - a) / (n - 1))`, which is the same formula.
//! Quantiles: see [`Spread`].

use std::io::{Read, Write};
use std::ops::ControlFlow;

use serde::Serialize;

pub use super::kl_base::KlError;
use super::kl_base::{Base, BaseWriter, Prediction};
use super::perplexity::{Losses, Perplexity, SumExp, Window};
use super::spread::{Estimate, Spread};
use super::text::{Scorer, Text, of_rows, score};
use crate::engine::Engine;

/// The most likely tokens that a base keeps unless it is told otherwise.
pub const TOP: usize = 256;
/// A tail below this is rounding.
const NO_TAIL: f64 = 1e-12;

/// How far the predictions are from the base's. For the definitions see the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergence {
    /// KL divergence from the base, in nats.
    pub kl: Spread,
    /// The share of tokens whose most likely successor is the base's.
    pub top_agreement: Estimate,
    /// Root of the mean square of the difference in probability of the base's most likely token.
    pub top_probability_rms: Estimate,
    /// Its mean: negative where the model is less sure than the base.
    pub top_probability_mean: Estimate,
    /// Root of the mean square of the difference in probability of the token that follows.
    pub target_probability_rms: Estimate,
    /// ln(PPL / PPL of the base).
    pub ln_perplexity_ratio: Estimate,
    /// The perplexity of the base over the same tokens.
    pub base_perplexity: f64,
    /// The mean probability that the base leaves to its tail: what the divergence is only a bound for.
    pub tail: f64,
}

/// Score `text` and write what the model predicts. The base is whole only where every window of its header was read.
///
/// # Errors
/// As [`Engine::decode`]; or the base cannot be written.
pub fn save_base<W: Write>(
    engine: &mut Engine,
    text: &Text<'_>,
    writer: &mut BaseWriter<W>,
    watch: &mut dyn FnMut(Window) -> ControlFlow<()>,
) -> Result<Option<Perplexity>, KlError> {
    struct Saving<'a, W> {
        writer: &'a mut BaseWriter<W>,
        losses: Losses,
        threads: usize,
    }
    impl<W: Write> Scorer for Saving<'_, W> {
        type Error = KlError;
        fn take(&mut self, rows: &[f32], targets: &[u32]) -> Result<(), KlError> {
            let top = self.writer.header().top;
            let all = of_rows(rows, targets, self.threads, |_, row, target| predicted(row, target, top));
            for (loss, prediction) in all {
                self.losses.add(loss);
                self.writer.push(&prediction)?;
            }
            Ok(())
        }
        fn perplexity(&self) -> f64 {
            self.losses.perplexity()
        }
    }
    let threads = engine.options().cpu.threads_batch;
    let mut saving = Saving { writer, losses: Losses::default(), threads };
    let done = score(engine, text, watch, &mut saving)?;
    Ok(saving.losses.over(done))
}

/// Score `text` and hold the predictions against a base, which has been [checked](super::Header::check) to be of it. Where the
/// text is told to take fewer windows than the base has, its first ones count.
///
/// # Errors
/// As [`Engine::decode`]; or the base cannot be read.
pub fn divergence<R: Read>(
    engine: &mut Engine,
    text: &Text<'_>,
    base: &mut Base<R>,
    watch: &mut dyn FnMut(Window) -> ControlFlow<()>,
) -> Result<Option<(Perplexity, Divergence)>, KlError> {
    struct Comparing<'a, R> {
        base: &'a mut Base<R>,
        points: Vec<Point>,
        losses: Losses,
        threads: usize,
    }
    impl<R: Read> Scorer for Comparing<'_, R> {
        type Error = KlError;
        fn take(&mut self, rows: &[f32], targets: &[u32]) -> Result<(), KlError> {
            let base: Vec<Prediction> = targets.iter().map(|_| self.base.read()).collect::<Result<_, _>>()?;
            let points =
                of_rows(rows, targets, self.threads, |i, row, target| Point::new(&base[i], row, target));
            for p in &points {
                self.losses.add(p.loss);
            }
            self.points.extend(points);
            Ok(())
        }
        fn perplexity(&self) -> f64 {
            self.losses.perplexity()
        }
    }
    let threads = engine.options().cpu.threads_batch;
    let most = base.header().windows.min(text.most.unwrap_or(usize::MAX));
    let text = &Text { most: Some(most), ..*text };
    let mut comparing = Comparing { base, points: Vec::new(), losses: Losses::default(), threads };
    let done = score(engine, text, watch, &mut comparing)?;
    let divergence = summary(&comparing.points);
    Ok(comparing.losses.over(done).zip(divergence))
}

/// The distribution that a row of logits stands for, and what it makes of the token that follows.
fn predicted(row: &[f32], target: u32, top: usize) -> (f64, Prediction) {
    let sum = SumExp::of(row);
    let log_sum = sum.ln();
    let log_p = |id: u32| (f64::from(row[id as usize]) - log_sum) as f32;
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let order = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if top < ids.len() {
        ids.select_nth_unstable_by(top, order);
        ids.truncate(top);
    }
    ids.sort_unstable_by(order);
    let tail = tail(row, sum, ids.iter().copied());
    let kept = Prediction {
        target: log_p(target),
        tail: tail as f32,
        top: ids.into_iter().map(|id| (id, log_p(id))).collect(),
    };
    (log_sum - f64::from(row[target as usize]), kept)
}

/// The probability of all tokens but these.
fn tail(row: &[f32], sum: SumExp, ids: impl ExactSizeIterator<Item = u32>) -> f64 {
    if ids.len() >= row.len() { 0.0 } else { sum.without(ids.map(|id| row[id as usize])) }
}

/// A prediction held against the base's.
#[derive(Debug, Clone, Copy)]
struct Point {
    loss: f64,
    base_loss: f64,
    kl: f64,
    same_top: bool,
    top: f64,
    target: f64,
    tail: f64,
}

impl Point {
    fn new(base: &Prediction, row: &[f32], target: u32) -> Point {
        let sum = SumExp::of(row);
        let log_sum = sum.ln();
        // Rounded as the base is, so that a model has no distance from itself.
        let log_q = |id: u32| f64::from((f64::from(row[id as usize]) - log_sum) as f32);
        let ids = base.top.iter().map(|(id, _)| *id);
        let (p_tail, q_tail) = (f64::from(base.tail), f64::from(tail(row, sum, ids) as f32));
        let mut kl: f64 =
            base.top.iter().map(|(id, p)| f64::from(*p).exp() * (f64::from(*p) - log_q(*id))).sum();
        if p_tail > NO_TAIL {
            kl += p_tail * (p_tail / q_tail.max(NO_TAIL)).ln();
        }
        let (first, log_p) = base.top.first().copied().unwrap_or((target, base.target));
        let best = (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
        Point {
            loss: log_sum - f64::from(row[target as usize]),
            base_loss: -f64::from(base.target),
            // Rounding can leave a little less than nothing.
            kl: kl.max(0.0),
            same_top: best == first as usize,
            top: log_q(first).exp() - f64::from(log_p).exp(),
            target: log_q(target).exp() - f64::from(base.target).exp(),
            tail: p_tail,
        }
    }
}

/// None of no points.
fn summary(points: &[Point]) -> Option<Divergence> {
    let of = |f: fn(&Point) -> f64| points.iter().map(f);
    Some(Divergence {
        kl: Spread::of(of(|p| p.kl).collect())?,
        top_agreement: Estimate::of(of(|p| f64::from(u8::from(p.same_top)))),
        top_probability_rms: Estimate::rms(of(|p| p.top)),
        top_probability_mean: Estimate::of(of(|p| p.top)),
        target_probability_rms: Estimate::rms(of(|p| p.target)),
        ln_perplexity_ratio: Estimate::of(of(|p| p.loss - p.base_loss)),
        base_perplexity: Estimate::of(of(|p| p.base_loss)).value.exp(),
        tail: Estimate::of(of(|p| p.tail)).value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(p: &[f64]) -> Vec<f32> {
        // Any constant may be added to logits.
        p.iter().map(|p| p.ln() as f32 + 3.0).collect()
    }

    #[test]
    fn with_the_whole_vocabulary_it_is_the_divergence() {
        let (p, q) = ([0.5, 0.25, 0.125, 0.125], [0.25, 0.5, 0.2, 0.05]);
        let base = predicted(&logits(&p), 2, 4).1;
        assert_eq!((base.tail, base.top[0].0, base.top[2].0), (0.0, 0, 2));
        let point = Point::new(&base, &logits(&q), 2);
        let expected: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((point.kl - expected).abs() < 1e-6, "{} {expected}", point.kl);
        assert!(!point.same_top && (point.top + 0.25).abs() < 1e-6 && (point.target - 0.075).abs() < 1e-6);
        assert!((point.loss + 0.2f64.ln()).abs() < 1e-6 && (point.base_loss + 0.125f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_tail_counts_as_one_and_gives_a_lower_bound() {
        let (p, q) = ([0.5, 0.25, 0.125, 0.125], [0.25, 0.5, 0.2, 0.05]);
        let kl = |top| Point::new(&predicted(&logits(&p), 0, top).1, &logits(&q), 0).kl;
        let merged = 0.5 * 2f64.ln() + 0.25 * 0.5f64.ln();
        // 0.125 + 0.125 against 0.2 + 0.05: no difference is left.
        assert!((kl(2) - merged).abs() < 1e-6);
        assert!(kl(1) < kl(2) && kl(2) < kl(4));
    }

    #[test]
    fn a_model_has_no_distance_from_itself() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.013).collect();
        for top in [1, 10, 999, 1000, 5000] {
            let (loss, base) = predicted(&row, 17, top);
            let point = Point::new(&base, &row, 17);
            assert_eq!((point.kl, point.top, point.target, point.same_top), (0.0, 0.0, 0.0, true), "{top}");
            assert!((point.loss - point.base_loss).abs() < 1e-6 && point.loss == loss);
            assert_eq!(base.top.len(), top.min(1000));
        }
    }

    #[test]
    fn among_equals_the_first_is_the_top() {
        let base = predicted(&[1.0, 2.0, 2.0, 2.0], 0, 2).1;
        assert_eq!(base.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
        assert!(Point::new(&base, &[1.0, 2.0, 2.0, 0.0], 0).same_top);
        assert!(!Point::new(&base, &[2.0, 2.0, 2.0, 0.0], 0).same_top);
    }

    #[test]
    fn a_certain_base_and_a_lost_token_stay_finite() {
        let base = predicted(&[200.0, 0.0, 0.0], 1, 1).1;
        let point = Point::new(&base, &[-200.0, 0.0, 0.0], 1);
        assert!((point.kl - 200.0 - 2f64.ln()).abs() < 1e-3, "{}", point.kl);
        let divergence = summary(&[point]).unwrap();
        assert_eq!((divergence.top_agreement.value, divergence.kl.max), (0.0, point.kl));
        assert!(summary(&[]).is_none());
    }
}
