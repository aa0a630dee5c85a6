//! The tokens still in the running, in one array that is kept from token to token.

use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use super::Error;

/// A token in the running.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token's id.
    pub id: u32,
    /// Its logit as the stages left it; minus infinity for a token that can no longer be chosen.
    pub logit: f32,
    /// Its probability among the candidates when a stage last computed one; it sums to one only after the draw.
    pub p: f32,
}

/// Greatest logit first; among equals the lowest id, so that no result depends on how a sort breaks ties.
fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Keeps a logit that was finite finite: an overflow must not turn into "certain" or "impossible".
pub(super) fn clamp_finite(logit: f32) -> f32 {
    // Adding zero turns -0.0 into 0.0, which total_cmp would tell apart.
    logit.clamp(f32::MIN, f32::MAX) + 0.0
}

/// How many candidates to put in order next when `n` of them were too few.
pub(super) fn more_than(n: usize) -> usize {
    n.saturating_mul(4).max(64)
}

/// The candidates and what is known of their order.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    data: Vec<Candidate>,
    /// This many of the first entries are the greatest ones, in order.
    sorted: usize,
    /// Whether entry `i` is token `i`: true until a stage reorders or removes.
    by_id: bool,
}

impl Candidates {
    /// Starts over with the whole vocabulary.
    pub(super) fn fill(&mut self, logits: &[f32]) -> Result<(), Error> {
        // Without a branch per logit, so that both loops run as vectors.
        let (mut bad, mut finite) = (false, false);
        for &logit in logits {
            bad |= logit.is_nan() || logit == f32::INFINITY;
            finite |= logit != f32::NEG_INFINITY;
        }
        if bad {
            let wrong = |l: &f32| l.is_nan() || *l == f32::INFINITY;
            let found = logits.iter().enumerate().find(|(_, l)| wrong(l));
            return Err(
                found.map_or(Error::NothingLeft, |(id, &value)| Error::Logit { token: id as u32, value })
            );
        }
        if !finite {
            return Err(Error::NothingLeft);
        }
        self.data.clear();
        self.data.extend((0u32..).zip(logits).map(|(id, &logit)| Candidate {
            id,
            logit: logit + 0.0,
            p: 0.0,
        }));
        self.sorted = 0;
        self.by_id = true;
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.data
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Changes the logit of every candidate that `per_token` names; minus infinity stays what it is.
    pub(super) fn adjust<V>(&mut self, per_token: &FxHashMap<u32, V>, change: impl Fn(f32, &V) -> f32) {
        if per_token.is_empty() {
            return;
        }
        let update = |c: &mut Candidate, v: &V| {
            if c.logit != f32::NEG_INFINITY {
                c.logit = change(c.logit, v);
            }
        };
        if self.by_id {
            for (&id, v) in per_token {
                if let Some(c) = self.data.get_mut(id as usize) {
                    update(c, v);
                }
            }
        } else {
            for c in &mut self.data {
                if let Some(v) = per_token.get(&c.id) {
                    update(c, v);
                }
            }
        }
        self.sorted = 0;
    }

    /// Changes every logit by a function that keeps their order.
    pub(super) fn map_monotone(&mut self, f: impl Fn(f32) -> f32) {
        for c in &mut self.data {
            c.logit = f(c.logit);
        }
    }

    /// The greatest candidate: by logit, then the lowest id. `None` when there is none.
    pub(super) fn greatest(&self) -> Option<Candidate> {
        if self.sorted > 0 {
            return self.data.first().copied();
        }
        let max = self.data.iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.logit));
        self.data.iter().filter(|c| c.logit == max).min_by_key(|c| c.id).copied()
    }

    /// Computes `p` of every candidate, the softmax of the logits, and returns ln of the sum of exp(logit), so
    /// that -ln p = that - logit. `None` when no logit is finite.
    pub(super) fn softmax(&mut self) -> Option<f64> {
        let max = self.greatest().map_or(f32::NEG_INFINITY, |c| c.logit);
        if max == f32::NEG_INFINITY {
            return None;
        }
        let mut sum = 0.0f64;
        for c in &mut self.data {
            c.p = libm::expf(c.logit - max);
            sum += f64::from(c.p);
        }
        for c in &mut self.data {
            c.p = (f64::from(c.p) / sum) as f32;
        }
        Some(f64::from(max) + libm::log(sum))
    }

    /// Makes the first `n` entries the `n` greatest, in order. What is sorted already is not sorted again, so
    /// asking for more and more costs little over asking once.
    pub(super) fn sort_to(&mut self, n: usize) {
        let n = n.min(self.data.len());
        if n <= self.sorted {
            return;
        }
        self.by_id = false;
        partial_sort(&mut self.data[self.sorted..], n - self.sorted, by_logit);
        self.sorted = n;
    }

    /// Keeps the `k` greatest candidates, in order. One pass over a large vocabulary: it is not sorted.
    pub(super) fn keep_top(&mut self, k: usize) {
        if k < self.data.len() && k > self.sorted {
            self.by_id = false;
            let cap = k.saturating_mul(4);
            // The front holds the best seen so far, in no order, and is cut back to k whenever it is full.
            let (mut front, mut bar) = (0, f32::NEG_INFINITY);
            for i in 0..self.data.len() {
                let c = self.data[i];
                // An equal is let through: its id decides at the next cut.
                if c.logit < bar {
                    continue;
                }
                self.data[front] = c;
                front += 1;
                if front >= cap {
                    let (_, worst, _) = self.data[..front].select_nth_unstable_by(k - 1, by_logit);
                    bar = worst.logit;
                    front = k;
                }
            }
            self.data.truncate(front);
            self.sorted = 0;
        }
        self.sort_to(k);
        self.truncate(k);
    }

    /// Keeps the first `n` entries.
    pub(super) fn truncate(&mut self, n: usize) {
        self.data.truncate(n);
        self.sorted = self.sorted.min(n);
    }

    /// Drops the first `n` entries.
    pub(super) fn drop_first(&mut self, n: usize) {
        let n = n.min(self.data.len());
        if n > 0 {
            self.data.drain(..n);
            self.sorted -= self.sorted.min(n);
            self.by_id = false;
        }
    }

    /// Keeps the candidates for which `keep` holds, in their order.
    pub(super) fn retain(&mut self, keep: impl Fn(&Candidate) -> bool) {
        let (mut at, mut sorted_kept) = (0, 0);
        let sorted = self.sorted;
        self.data.retain(|c| {
            let kept = keep(c);
            sorted_kept += usize::from(kept && at < sorted);
            at += 1;
            kept
        });
        self.by_id &= self.data.len() == at;
        self.sorted = sorted_kept;
    }

    /// Sets the logit of every candidate below `floor` to minus infinity, without removing it.
    pub(super) fn mask_below(&mut self, floor: f32) {
        for c in &mut self.data {
            if c.logit < floor {
                c.logit = f32::NEG_INFINITY;
            }
        }
        // Masked entries are equals now and need their ids compared again.
        let masked = self.data[..self.sorted].iter().position(|c| c.logit == f32::NEG_INFINITY);
        self.sorted = masked.unwrap_or(self.sorted);
    }

    /// Keeps only the given candidate.
    pub(super) fn keep_only(&mut self, c: Candidate) {
        self.data.clear();
        self.data.push(Candidate { p: 1.0, ..c });
        self.sorted = 1;
        self.by_id = false;
    }

    /// Makes the first `n` entries, counted after the first `from`, the `n` of the rest with the smallest `key`,
    /// in order of it (ties by id). The order by logit is lost.
    pub(super) fn sort_by_key(&mut self, from: usize, n: usize, key: impl Fn(&Candidate) -> f32) {
        self.by_id = false;
        self.sorted = 0;
        let from = from.min(self.data.len());
        let tail = &mut self.data[from..];
        let n = n.min(tail.len());
        partial_sort(tail, n, |a, b| key(a).total_cmp(&key(b)).then(a.id.cmp(&b.id)));
    }
}

/// Moves the `n` first entries by `order` to the front, in order. `n` is at most the length.
fn partial_sort(data: &mut [Candidate], n: usize, order: impl Fn(&Candidate, &Candidate) -> Ordering) {
    if n > 0 && n < data.len() {
        data.select_nth_unstable_by(n - 1, &order);
    }
    data[..n].sort_unstable_by(&order);
}

#[cfg(test)]
pub(super) mod test_support {
    use super::Candidates;

    /// Candidates whose probabilities are the given ones: the logits are their logarithms.
    pub(in crate::sample) fn from_probs(probs: &[f32]) -> Candidates {
        let logits: Vec<f32> = probs.iter().map(|&p| libm::logf(p)).collect();
        let mut c = Candidates::default();
        c.fill(&logits).unwrap();
        c
    }

    /// The softmax of what is left, in its order.
    pub(in crate::sample) fn probs(mut c: Candidates) -> Vec<f32> {
        c.softmax().unwrap();
        c.as_slice().iter().map(|c| c.p).collect()
    }

    /// The ids left, in their order.
    pub(in crate::sample) fn ids(c: &Candidates) -> Vec<u32> {
        c.as_slice().iter().map(|c| c.id).collect()
    }

    #[track_caller]
    pub(in crate::sample) fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "got {got:?}, want {want:?}");
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-5, "got {got:?}, want {want:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::test_support::ids;
    use super::*;

    fn random(rng: &mut Rng, n: usize) -> Vec<f32> {
        // Coarse values, so that ties are common.
        (0..n).map(|_| (rng.uniform() * 40.0).floor() as f32 - 20.0).collect()
    }

    #[test]
    fn partial_selection_agrees_with_a_whole_sort() {
        let mut rng = Rng::new(1, 0);
        for n in [1, 2, 5, 63, 64, 65, 1000, 5000] {
            let logits = random(&mut rng, n);
            let mut whole: Vec<u32> = (0..n as u32).collect();
            whole.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            for k in [1, 2, 3, 40, 63, 64, 999, n] {
                let k = k.min(n);
                let mut c = Candidates::default();
                c.fill(&logits).unwrap();
                c.keep_top(k);
                assert_eq!(ids(&c), whole[..k], "keep_top {k} of {n}");

                c.fill(&logits).unwrap();
                c.sort_to(k / 2);
                c.sort_to(k);
                assert_eq!(ids(&c)[..k], whole[..k], "sort_to {k} of {n}");
                c.keep_top(k.div_ceil(3));
                assert_eq!(ids(&c), whole[..k.div_ceil(3)], "keep_top after sort_to {k} of {n}");
            }
        }
    }

    #[test]
    fn nan_and_plus_infinity_are_refused_and_minus_infinity_is_not() {
        let mut c = Candidates::default();
        let refused = c.fill(&[0.0, f32::NAN]).unwrap_err();
        assert!(matches!(refused, Error::Logit { token: 1, value } if value.is_nan()));
        assert_eq!(c.fill(&[f32::INFINITY]), Err(Error::Logit { token: 0, value: f32::INFINITY }));
        assert_eq!(c.fill(&[f32::NEG_INFINITY; 3]), Err(Error::NothingLeft));
        assert_eq!(c.fill(&[]), Err(Error::NothingLeft));
        assert_eq!(c.fill(&[f32::NEG_INFINITY, -1.0]), Ok(()));
        c.softmax().unwrap();
        assert_eq!(c.as_slice()[0].p, 0.0);
        assert_eq!(c.as_slice()[1].p, 1.0);
    }

    #[test]
    fn equal_logits_rank_by_id_whatever_the_sign_of_zero() {
        let mut c = Candidates::default();
        c.fill(&[-1.0, -0.0, 0.0, -0.0]).unwrap();
        assert_eq!(c.greatest().unwrap().id, 1);
        c.sort_to(4);
        assert_eq!(ids(&c), [1, 2, 3, 0]);
    }

    #[test]
    fn adjusting_finds_tokens_before_and_after_reordering() {
        let logits = [1.0, 2.0, 3.0, f32::NEG_INFINITY];
        let map: FxHashMap<u32, f32> = [(0, 10.0), (3, 5.0), (77, 1.0)].into_iter().collect();
        for reorder in [false, true] {
            let mut c = Candidates::default();
            c.fill(&logits).unwrap();
            if reorder {
                c.sort_to(4);
            }
            c.adjust(&map, |l, v| l + v);
            c.sort_to(4);
            assert_eq!(ids(&c), [0, 2, 1, 3]);
            assert_eq!(c.as_slice()[0].logit, 11.0);
            assert_eq!(c.as_slice()[3].logit, f32::NEG_INFINITY);
        }
    }
}
