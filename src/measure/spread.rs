//! What many values come to: estimates with their standard errors, and how the values spread.

use serde::Serialize;

/// A value estimated from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error: the standard deviation that it would have over many such samples, were their values independent of each
    /// other. None of a single value. (Neighbouring tokens of a text are not quite independent.)
    pub stderr: Option<f64>,
}

impl Estimate {
    /// The mean of `n` values that sum up to `sum`, their squares to `squares`: standard error `sqrt(var / (n - 1))` with
    /// `var = mean(x^2) - mean(x)^2`.
    pub fn mean(n: usize, sum: f64, squares: f64) -> Estimate {
        let count = n as f64;
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        Estimate { value: mean, stderr: (n > 1).then(|| (variance / (count - 1.0)).sqrt()) }
    }

    /// The mean of some values.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Estimate {
        let (n, sum) = values.clone().fold((0, 0.0), |(n, sum), x| (n + 1, sum + x));
        let mean = sum / n as f64;
        let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        Estimate { value: mean, stderr: (n > 1).then(|| (variance / (n as f64 - 1.0)).sqrt()) }
    }

    /// The root of the mean square of some values, `r = sqrt(mean(x^2))`; its standard error is that of the mean square divided by
    /// `2 r` (the derivative of the root).
    pub fn rms(values: impl Iterator<Item = f64> + Clone) -> Estimate {
        let square = Estimate::of(values.map(|x| x * x));
        let value = square.value.sqrt();
        let stderr = square.stderr.map(|e| if value > 0.0 { e / (2.0 * value) } else { 0.0 });
        Estimate { value, stderr }
    }
}

/// How values spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: Estimate,
    /// As many are above as below.
    pub median: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// 99.9 % are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; none of no values. Quantiles lie at `q * (n - 1)` of the sorted values, between two values in proportion.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_unstable_by(f64::total_cmp);
        let max = *values.last()?;
        let quantile = |q: f64| {
            let place = q * (values.len() - 1) as f64;
            let (below, part) = (place.floor() as usize, place.fract());
            let at = |i: usize| values.get(i).copied().unwrap_or(max);
            at(below) + part * (at(below + 1) - at(below))
        };
        let mean = Estimate::of(values.iter().copied());
        let [median, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(quantile);
        Some(Spread { mean, median, p90, p99, p999, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_on_numbers_done_by_hand() {
        let mean = Estimate::of([1.0, 2.0, 3.0, 6.0].into_iter());
        // Variance 3.5, divided by 3.
        assert_eq!((mean.value, mean.stderr), (3.0, Some((3.5f64 / 3.0).sqrt())));
        let sums = Estimate::mean(4, 12.0, 50.0);
        assert!((sums.stderr.unwrap() - mean.stderr.unwrap()).abs() < 1e-12);
        let rms = Estimate::rms([3.0, -4.0].into_iter());
        assert_eq!(rms.value, 12.5f64.sqrt());
        assert_eq!(rms.stderr, Some(3.5 / (2.0 * 12.5f64.sqrt())));
        assert_eq!(Estimate::of([5.0].into_iter()).stderr, None);
        assert_eq!(Estimate::rms([0.0, 0.0].into_iter()), Estimate { value: 0.0, stderr: Some(0.0) });
    }

    #[test]
    fn quantiles_lie_between_values_in_proportion() {
        let spread = Spread::of((0..=1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!((spread.median, spread.p90, spread.p99, spread.p999), (500.0, 900.0, 990.0, 999.0));
        assert_eq!((spread.mean.value, spread.max), (500.0, 1000.0));
        let two = Spread::of(vec![1.0, 2.0]).unwrap();
        assert!((two.median - 1.5).abs() < 1e-12 && (two.p90 - 1.9).abs() < 1e-12);
        assert_eq!(Spread::of(vec![7.0]).unwrap().p999, 7.0);
        assert!(Spread::of(Vec::new()).is_none());
    }
}
