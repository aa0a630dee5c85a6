//! The temperature, fixed or chosen by the entropy.

use super::Params;
use super::candidates::Candidates;

/// logit <- logit / t, with t = `temp`, or with a `dynatemp_range` above zero
///
/// t = low + (high - low) * (H / ln n) ^ `dynatemp_exponent`, low = max(0, temp - range), high = temp + range,
///
/// where H is the entropy of the n candidates: sure of itself, the model is sampled colder. Dynamic temperature:
/// koboldcpp, pull request 516 (kalomaze, 2023); llama.cpp pull request 4972.
pub(super) fn temperature(params: &Params, candidates: &mut Candidates) {
    if params.dynatemp_range <= 0.0 {
        scale(params.temp, candidates);
        return;
    }
    let n = candidates.len();
    if n <= 1 {
        return;
    }
    let Some(log_sum) = candidates.softmax() else { return };
    let likely = candidates.as_slice().iter().filter(|c| c.p > 0.0);
    let entropy: f64 = likely.map(|c| f64::from(c.p) * (log_sum - f64::from(c.logit))).sum();
    // Rounding may leave the ratio a hair outside.
    let ratio = (entropy / libm::log(n as f64)).clamp(0.0, 1.0);
    let low = (params.temp - params.dynatemp_range).max(0.0);
    let high = params.temp + params.dynatemp_range;
    let t = low + (high - low) * libm::pow(ratio, f64::from(params.dynatemp_exponent)) as f32;
    scale(t, candidates);
}

/// logit <- logit / t; with t zero or less, or so small that the quotient overflows, only the greatest is left.
pub(super) fn scale(t: f32, candidates: &mut Candidates) {
    let Some(greatest) = candidates.greatest() else { return };
    if t <= 0.0 || !(greatest.logit / t).is_finite() {
        candidates.keep_only(greatest);
    } else {
        candidates.map_monotone(|logit| logit / t);
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidates::test_support::{assert_close, from_probs, ids, probs};
    use super::*;

    const TENTHS: [f32; 4] = [0.1, 0.2, 0.3, 0.4];

    fn heated(temp: f32, range: f32, exponent: f32, given: &[f32]) -> Vec<f32> {
        let p = Params { temp, dynatemp_range: range, dynatemp_exponent: exponent, ..Params::default() };
        let mut c = from_probs(given);
        temperature(&p, &mut c);
        probs(c)
    }

    #[test]
    fn a_fixed_temperature_raises_probabilities_to_a_power() {
        assert_close(&heated(1.0, 0.0, 1.0, &TENTHS), &TENTHS);
        // p^2 normalised: 1 4 9 16 of 30.
        assert_close(&heated(0.5, 0.0, 1.0, &TENTHS), &[1.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0, 16.0 / 30.0]);
    }

    #[test]
    fn zero_and_what_overflows_leave_the_greatest() {
        for temp in [0.0, -1.0, 1e-44] {
            let mut c = from_probs(&TENTHS);
            temperature(&Params { temp, ..Params::default() }, &mut c);
            assert_eq!(ids(&c), [3], "{temp}");
        }
    }

    #[test]
    fn the_dynamic_temperature_follows_the_entropy() {
        // Uniform: the entropy is the greatest there is, so t = high, which changes nothing here.
        assert_close(&heated(1.0, 0.5, 1.0, &[0.25; 4]), &[0.25; 4]);
        // H = 1.279854, ln 4 = 1.386294, ratio 0.92322: t = 0.5 + 1.0 * 0.92322 = 1.42322.
        let want: Vec<f32> = TENTHS.iter().map(|p| p.powf(1.0 / 1.423_22)).collect();
        let sum: f32 = want.iter().sum();
        let want: Vec<f32> = want.iter().map(|p| p / sum).collect();
        assert_close(&heated(1.0, 0.5, 1.0, &TENTHS), &want);
        // An exponent of 0 means t = high = 2 always: square roots.
        let root: Vec<f32> = TENTHS.iter().map(|p| p.sqrt()).collect();
        let sum: f32 = root.iter().sum();
        assert_close(&heated(1.0, 1.0, 0.0, &TENTHS), &root.iter().map(|p| p / sum).collect::<Vec<_>>());
        // The low end is cut at zero, and one candidate has no entropy.
        assert_close(&heated(0.1, 1.0, 1.0, &[1.0]), &[1.0]);
        assert_eq!(heated(0.1, 1.0, 8.0, &[1.0, 0.0]).first(), Some(&1.0));
    }
}
