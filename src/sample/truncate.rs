//! Truncation: the stages that narrow the choice to the likely tokens.
//!
//! Each keeps at least one candidate; top-p, min-p and typical keep at least `min_keep` where there are so many.

use super::Params;
use super::candidates::{Candidates, more_than};

/// Top-k: keeps the k greatest logits. Fan, Lewis and Dauphin 2018, arXiv:1805.04833.
pub(super) fn top_k(params: &Params, candidates: &mut Candidates) {
    if let Ok(k) = usize::try_from(params.top_k)
        && k > 0
    {
        candidates.keep_top(k);
    }
}

/// Top-p, nucleus sampling: keeps the smallest set of the most probable tokens with sum p >= top_p. Holtzman et
/// al. 2019, arXiv:1904.09751.
pub(super) fn top_p(params: &Params, candidates: &mut Candidates) {
    if params.top_p >= 1.0 || candidates.softmax().is_none() {
        return;
    }
    let (mut sum, mut sorted) = (0.0f32, 0);
    for i in 0..candidates.len() {
        if i >= sorted {
            sorted = more_than(sorted);
            candidates.sort_to(sorted);
        }
        sum += candidates.as_slice()[i].p;
        if sum >= params.top_p && i + 1 >= params.min_keep {
            candidates.truncate(i + 1);
            return;
        }
    }
}

/// Min-p: keeps tokens with p >= min_p * (the greatest p). Nguyen et al. 2024, arXiv:2407.01082; llama.cpp pull
/// request 3841.
pub(super) fn min_p(params: &Params, candidates: &mut Candidates) {
    let Some(greatest) = candidates.greatest() else { return };
    if params.min_p <= 0.0 {
        return;
    }
    // p / p_max = exp(logit - logit_max): no softmax needed.
    let floor = greatest.logit + libm::logf(params.min_p);
    let kept = candidates.as_slice().iter().filter(|c| c.logit >= floor).count();
    if kept >= params.min_keep {
        candidates.retain(|c| c.logit >= floor);
    } else {
        candidates.keep_top(params.min_keep);
    }
}

/// Locally typical sampling: with H the entropy, orders tokens by |-ln p - H| and keeps the first of them with
/// sum p > typical. Meister et al. 2022, arXiv:2202.00666.
pub(super) fn typical(params: &Params, candidates: &mut Candidates) {
    if params.typical >= 1.0 {
        return;
    }
    let Some(log_sum) = candidates.softmax() else { return };
    let surprise = |logit: f32| log_sum - f64::from(logit);
    let likely = candidates.as_slice().iter().filter(|c| c.p > 0.0);
    let entropy: f64 = likely.map(|c| f64::from(c.p) * surprise(c.logit)).sum();

    let (mut sum, mut sorted) = (0.0f32, 0);
    for i in 0..candidates.len() {
        if i >= sorted {
            let next = more_than(sorted);
            candidates.sort_by_key(sorted, next - sorted, |c| (surprise(c.logit) - entropy).abs() as f32);
            sorted = next;
        }
        sum += candidates.as_slice()[i].p;
        if sum > params.typical && i + 1 >= params.min_keep {
            candidates.truncate(i + 1);
            return;
        }
    }
}

/// Top-n-sigma: with sigma the standard deviation of the finite logits, gives those below max - n * sigma no
/// chance. They stay among the candidates, as in llama.cpp. Tang et al. 2024, arXiv:2411.07641.
pub(super) fn top_n_sigma(params: &Params, candidates: &mut Candidates) {
    if params.top_n_sigma <= 0.0 || candidates.len() <= 1 {
        return;
    }
    let Some(greatest) = candidates.greatest() else { return };
    let finite = || candidates.as_slice().iter().map(|c| f64::from(c.logit)).filter(|l| l.is_finite());
    let count = finite().count() as f64;
    if count == 0.0 {
        return;
    }
    let mean = finite().sum::<f64>() / count;
    let sigma = (finite().map(|l| (l - mean) * (l - mean)).sum::<f64>() / count).sqrt();
    candidates.mask_below((f64::from(greatest.logit) - f64::from(params.top_n_sigma) * sigma) as f32);
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{assert_close, from_probs, ids, probs};
    use super::super::rng::Rng;
    use super::*;

    const TENTHS: [f32; 4] = [0.1, 0.2, 0.3, 0.4];

    type StageFn = fn(&Params, &mut Candidates);

    /// What a stage makes of the given probabilities: the ids left, and their probabilities.
    fn after(stage: StageFn, params: &Params, given: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let mut c = from_probs(given);
        stage(params, &mut c);
        (ids(&c), probs(c))
    }

    #[test]
    fn top_k_keeps_the_k_greatest_in_order() {
        let with = |k| after(top_k, &Params { top_k: k, ..Params::default() }, &TENTHS).1;
        assert_close(&with(1), &[1.0]);
        assert_close(&with(3), &[0.444_44, 0.333_33, 0.222_22]);
        assert_close(&with(4), &[0.4, 0.3, 0.2, 0.1]);
        assert_close(&with(100), &[0.4, 0.3, 0.2, 0.1]);
        assert_close(&with(0), &TENTHS);
        assert_close(&with(-1), &TENTHS);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        let with = |top_p_| after(top_p, &Params { top_p: top_p_, ..Params::default() }, &TENTHS).1;
        assert_close(&with(0.0), &[1.0]);
        assert_close(&with(0.69), &[0.571_429, 0.428_571]);
        assert_close(&with(0.7), &[0.571_429, 0.428_571]);
        assert_close(&with(0.71), &[0.444_44, 0.333_33, 0.222_22]);
        assert_close(&with(0.8), &[0.444_44, 0.333_33, 0.222_22]);
        assert_close(&with(1.0), &TENTHS);
    }

    #[test]
    fn min_p_keeps_what_is_near_the_most_probable() {
        let with = |min_p_| after(min_p, &Params { min_p: min_p_, ..Params::default() }, &TENTHS).1;
        // 0.1/0.4 = 0.25, 0.2/0.4 = 0.5, 0.3/0.4 = 0.75
        assert_close(&with(0.0), &TENTHS);
        assert_close(&with(0.24), &TENTHS);
        for p in [0.26, 0.49] {
            assert_close(&with(p), &[0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]);
        }
        for p in [0.51, 0.74] {
            assert_close(&with(p), &[0.3 / 0.7, 0.4 / 0.7]);
        }
        assert_close(&with(0.76), &[1.0]);
        assert_close(&with(1.0), &[1.0]);
    }

    #[test]
    fn typical_prefers_tokens_of_average_surprise() {
        let with =
            |typical_, given| after(typical, &Params { typical: typical_, ..Params::default() }, given);
        let one = [0.97, 0.01, 0.01, 0.01];
        assert_eq!(with(0.5, &one).0, [0]);
        // The most probable token is too expected: |-ln 0.4 - 1.332| = 0.416 against 0.277 for the others.
        assert_eq!(with(0.5, &[0.4, 0.2, 0.2, 0.2]).0, [1, 2, 3]);
        assert_eq!(with(1.0, &one).0, [0, 1, 2, 3]);
        assert_eq!(with(0.0, &one).0, [0]);
    }

    #[test]
    fn top_n_sigma_gives_low_logits_no_chance() {
        let with = |n| after(top_n_sigma, &Params { top_n_sigma: n, ..Params::default() }, &TENTHS).1;
        // ln p = -2.303 -1.609 -1.204 -0.916, sigma = 0.5231: one sigma reaches down to -1.439.
        assert_close(&with(1.0), &[0.0, 0.0, 0.428_571, 0.571_429]);
        assert_close(&with(0.0), &TENTHS);
        assert_close(&with(-1.0), &TENTHS);
        assert_close(&with(3.0), &TENTHS);
        // Minus infinity does not enter the mean.
        let p = Params { top_n_sigma: 1.0, ..Params::default() };
        assert_close(&after(top_n_sigma, &p, &[0.1, 0.2, 0.3, 0.4, 0.0]).1[..4], &with(1.0));
    }

    #[test]
    fn a_vocabulary_of_ten_thousand_is_cut_exactly() {
        // p of token i is proportional to i, so every sum is known in whole numbers.
        let n: u32 = 10_000;
        let given: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let kept = |stage: StageFn, p: &Params| {
            let mut ids = after(stage, p, &given).0;
            ids.sort_unstable();
            assert_eq!(ids.last(), Some(&(n - 1)));
            (ids[0], ids.len())
        };
        let d = Params::default;
        assert_eq!(kept(top_k, &Params { top_k: 100, ..d() }), (9_900, 100));
        assert_eq!(kept(top_k, &Params { top_k: 1, ..d() }), (9_999, 1));
        assert_eq!(kept(min_p, &Params { min_p: 0.1, ..d() }), (1_000, 9_000));
        // The sum from m to 9999 is (9999*10000 - m*(m-1))/2, and reaches 0.8 of the whole at m = 4472.
        let (first, count) = kept(top_p, &Params { top_p: 0.8, ..d() });
        assert!(first.abs_diff(4_472) <= 2, "{first}");
        assert_eq!(count as u32, n - first);
        assert_eq!(kept(top_p, &Params { top_p: 0.000_3, ..d() }), (9_998, 2));
    }

    #[test]
    fn random_rows_obey_each_stages_definition() {
        let mut rng = Rng::new(11, 0);
        for round in 0..200 {
            let n = 1 + (rng.uniform() * 300.0) as usize;
            let logits: Vec<f32> = (0..n)
                .map(|_| match rng.uniform() {
                    u if u < 0.1 => f32::NEG_INFINITY,
                    u if u < 0.3 => (u * 20.0).round() as f32,
                    u => (u as f32 - 0.5) * 20.0,
                })
                .collect();
            let mut whole = Candidates::default();
            if whole.fill(&logits).is_err() {
                continue;
            }
            whole.softmax().unwrap();
            let p_of: Vec<f32> = whole.as_slice().iter().map(|c| c.p).collect();
            let p_max = p_of.iter().copied().fold(0.0, f32::max);
            let kept = |stage: StageFn, p: &Params| {
                let mut c = Candidates::default();
                c.fill(&logits).unwrap();
                stage(p, &mut c);
                let ids = ids(&c);
                let mut unique = ids.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(unique.len(), ids.len(), "no candidate twice");
                assert!(!ids.is_empty());
                ids
            };
            let sum = |ids: &[u32]| ids.iter().map(|&i| f64::from(p_of[i as usize])).sum::<f64>();
            let (low, high) = {
                let (a, b) = (rng.uniform() as f32, rng.uniform() as f32);
                (a.min(b), a.max(b))
            };
            let d = Params::default;

            // top-p: reaches its sum, would not without its last, and grows with p.
            let some = kept(top_p, &Params { top_p: low, ..d() });
            let more = kept(top_p, &Params { top_p: high, ..d() });
            assert!(sum(&some) >= f64::from(low) - 1e-5, "round {round}");
            assert!(some.len() == 1 || sum(&some[..some.len() - 1]) < f64::from(low) + 1e-5);
            assert_eq!(some, more[..some.len()]);

            // min-p: exactly those within the ratio, fewer as it grows.
            let some = kept(min_p, &Params { min_p: high, ..d() });
            for (id, &p) in p_of.iter().enumerate() {
                let inside = some.contains(&(id as u32));
                assert!(if inside { p >= high * p_max * 0.999 } else { p <= high * p_max * 1.001 });
            }
            let more = kept(min_p, &Params { min_p: low, ..d() });
            assert!(some.iter().all(|id| more.contains(id)));

            // typical: exceeds its sum, and the smaller set begins the greater.
            let some = kept(typical, &Params { typical: low, ..d() });
            let more = kept(typical, &Params { typical: high, ..d() });
            assert!(sum(&some) >= f64::from(low) - 1e-5);
            assert_eq!(some, more[..some.len()]);

            // min_keep holds in each of the three.
            let keep = 1 + (rng.uniform() * n as f64) as usize;
            for (stage, p) in [
                (top_p as StageFn, Params { top_p: 0.0, ..d() }),
                (min_p, Params { min_p: 1.0, ..d() }),
                (typical, Params { typical: 0.0, ..d() }),
            ] {
                assert!(kept(stage, &Params { min_keep: keep, ..p }).len() >= keep);
            }

            // top-n-sigma: the greatest logit always survives.
            let mut c = Candidates::default();
            c.fill(&logits).unwrap();
            let best = c.greatest().unwrap();
            top_n_sigma(&Params { top_n_sigma: low, ..d() }, &mut c);
            assert_eq!(c.greatest(), Some(best));
        }
    }
}
