//! What rounding did to a tensor: measures of the difference between its values before (`x`) and after (`y`).
//!
//! | measure | definition | used for |
//! |---|---|---|
//! | mean squared error | `MSE = sum (x - y)^2 / n` | the raw material of the others |
//! | signal-to-noise ratio | `SNR = 10 log10(sum x^2 / sum (x - y)^2)` in decibels | formats compared: 6.02 dB are one bit |
//! | cosine | `sum x y / sqrt(sum x^2 * sum y^2)` | the direction of the weights, as one vector |
//! | saturated share | the share of values outside the range of what their group of 32 decodes to, by more than half a step | clamping |
//! | worst columns | the input channels with the largest shares of the squared error | what scaling or more bits would help |
//!
//! A step is `(max y - min y) / (2^b - 1)` of the group, with `b` the whole bits of the format: rounding alone moves a value
//! by half a step, so what lies further outside was clamped, or gave way to the others in the search for a scale.

use serde::{Deserialize, Serialize};

use chaski_gguf::Format;

/// Sums over a tensor from which every measure follows. They add up over parts of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    n: u64,
    xx: f64,
    yy: f64,
    xy: f64,
    saturated: u64,
    /// `sum (x - y)^2` for each column.
    columns: Vec<f64>,
}

/// The measures of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Mean squared error.
    pub mse: f64,
    /// Signal-to-noise ratio in decibels; none where nothing was lost.
    pub snr_db: Option<f64>,
    /// Cosine of the angle between before and after.
    pub cosine: f64,
    /// Share of values that were clamped.
    pub saturated: f64,
    /// The columns with the largest shares of the squared error, each with its share; the worst first.
    pub worst_columns: Vec<(usize, f64)>,
}

/// How many of the worst columns are told.
const WORST: usize = 4;
/// Values that are looked at together for saturation.
const GROUP: usize = 32;

impl Sums {
    /// Sums of no values, for rows of `row` values.
    pub fn new(row: usize) -> Sums {
        Sums { n: 0, xx: 0.0, yy: 0.0, xy: 0.0, saturated: 0, columns: vec![0.0; row] }
    }

    /// Take in whole rows: `x` before, `y` after rounding to `format`.
    pub fn add_rows(&mut self, x: &[f32], y: &[f32], format: Format) {
        self.n += x.len() as u64;
        let row = self.columns.len().max(1);
        for (x, y) in x.chunks(row).zip(y.chunks(row)) {
            for ((x, y), column) in x.iter().zip(y).zip(&mut self.columns) {
                // Products of binary32 are exact in binary64.
                let (x, y) = (f64::from(*x), f64::from(*y));
                self.xx += x * x;
                self.yy += y * y;
                self.xy += x * y;
                *column += (x - y) * (x - y);
            }
        }
        if format.info().block_len > 1 {
            let steps = f64::from(format.info().bits().floor().exp2() as f32 - 1.0);
            for (x, y) in x.chunks(GROUP).zip(y.chunks(GROUP)) {
                self.saturated += saturated(x, y, steps as f32);
            }
        }
    }

    /// The sums of both.
    pub fn add(&mut self, other: &Sums) {
        self.n += other.n;
        self.xx += other.xx;
        self.yy += other.yy;
        self.xy += other.xy;
        self.saturated += other.saturated;
        for (sum, more) in self.columns.iter_mut().zip(&other.columns) {
            *sum += more;
        }
    }

    /// `(sum (x - y)^2, sum x^2)`: what the noise-to-signal ratio of several tensors together is made of.
    pub fn noise_and_signal(&self) -> (f64, f64) {
        (self.columns.iter().sum(), self.xx)
    }

    /// The measures.
    pub fn measures(&self) -> Measures {
        let ee: f64 = self.columns.iter().sum();
        let norm = (self.xx * self.yy).sqrt();
        let n = self.n.max(1) as f64;
        let mut worst: Vec<(usize, f64)> = self.columns.iter().map(|e| e / ee).enumerate().collect();
        worst.sort_by(|a, b| b.1.total_cmp(&a.1));
        worst.truncate(WORST);
        Measures {
            mse: ee / n,
            snr_db: (ee > 0.0).then(|| 10.0 * (self.xx / ee).log10()),
            cosine: if norm > 0.0 { self.xy / norm } else { 1.0 },
            saturated: self.saturated as f64 / n,
            worst_columns: if ee > 0.0 { worst } else { Vec::new() },
        }
    }
}

/// How many of `x` lie outside the range of `y` by more than half a step.
fn saturated(x: &[f32], y: &[f32], steps: f32) -> u64 {
    let min = y.iter().copied().fold(f32::INFINITY, f32::min);
    let max = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let half = (max - min) / steps / 2.0;
    x.iter().filter(|x| **x > max + half || **x < min - half).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_on_numbers_done_by_hand() {
        let mut sums = Sums::new(2);
        sums.add_rows(&[3.0, 4.0], &[3.0, 3.0], Format::F16);
        sums.add_rows(&[0.0, 0.0], &[1.0, 0.0], Format::F16);
        let m = sums.measures();
        assert_eq!(m.mse, 0.5);
        assert!((m.snr_db.unwrap() - 10.0 * (12.5f64).log10()).abs() < 1e-12);
        assert!((m.cosine - 21.0 / (25.0f64 * 19.0).sqrt()).abs() < 1e-12);
        assert_eq!((m.saturated, m.worst_columns), (0.0, vec![(0, 0.5), (1, 0.5)]));
    }

    #[test]
    fn parts_add_up_to_the_whole_and_no_loss_is_no_loss() {
        let x: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = x.iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let (mut whole, mut parts) = (Sums::new(32), Sums::new(32));
        whole.add_rows(&x, &y, Format::Q4_0);
        for (x, y) in x.chunks(32).zip(y.chunks(32)) {
            let mut part = Sums::new(32);
            part.add_rows(x, y, Format::Q4_0);
            parts.add(&part);
        }
        assert_eq!(whole.columns, parts.columns);
        assert!((whole.measures().cosine - parts.measures().cosine).abs() < 1e-12);
        let mut none = Sums::new(32);
        none.add_rows(&x, &x, Format::Q4_0);
        assert_eq!((none.measures().snr_db, none.measures().mse), (None, 0.0));
    }

    #[test]
    fn a_clamped_value_is_saturated_and_a_rounded_one_is_not() {
        let mut x = [0.0f32; 32];
        let mut y = [0.0f32; 32];
        (x[0], y[0], x[1], y[1]) = (-8.0, -8.0, 7.4, 7.0);
        assert_eq!(saturated(&x, &y, 15.0), 0);
        x[1] = 8.0;
        assert_eq!(saturated(&x, &y, 15.0), 1);
    }
}
