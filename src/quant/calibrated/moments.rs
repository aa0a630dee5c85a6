//! Second moments of what meets a matrix.
//!
//! A linear layer computes `y = W x`. If rounding moves `W` to `Q`, the mean squared error of its output over a text is
//!
//! ```text
//! E |W x - Q x|^2 = sum over rows r of (w_r - q_r)^T H (w_r - q_r),     H = E[x x^T]
//! ```
//!
//! `H` (twice that is the Hessian of the error) is all that the text has to say; an importance matrix is its diagonal.

use rayon::prelude::*;

use super::vector;

/// Sums of products of activations, and what else is known of each column.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Columns.
    pub columns: usize,
    /// Activations summed up.
    pub count: u64,
    /// `sum x x^T`, row after row; below the diagonal too once it is [`finish`](Moments::finish)ed, and then a mean.
    pub second: Vec<f32>,
    /// `sum x' x^T - x x^T`, transposed to rows of `x`: what differs where a second model's activations `x'` were given.
    pub cross: Option<Vec<f32>>,
    /// `max |x|` of each column.
    pub largest: Vec<f32>,
    /// Whether a value was not finite; nothing was summed up since.
    pub not_finite: bool,
}

impl Moments {
    /// Of nothing yet. With `cross` for activations of two models side by side.
    pub fn new(columns: usize, cross: bool) -> Moments {
        Moments {
            columns,
            count: 0,
            second: vec![0.0; columns * columns],
            cross: cross.then(|| vec![0.0; columns * columns]),
            largest: vec![0.0; columns],
            not_finite: false,
        }
    }

    /// Bytes that the moments of a matrix of so many columns take.
    pub fn bytes(columns: u64, cross: bool) -> u64 {
        columns.saturating_mul(columns).saturating_mul(if cross { 8 } else { 4 })
    }

    /// Take in rows of activations `x`, and the `other` model's at the same places. Runs in the caller's pool of threads;
    /// the sums do not depend on it.
    pub fn add(&mut self, x: &[f32], other: Option<&[f32]>) {
        let n = self.columns;
        if n == 0 || x.is_empty() || self.not_finite {
            return;
        }
        if x.iter().chain(other.unwrap_or_default()).any(|v| !v.is_finite()) {
            self.not_finite = true;
            return;
        }
        self.count += (x.len() / n) as u64;
        for row in x.chunks_exact(n) {
            for (largest, x) in self.largest.iter_mut().zip(row) {
                *largest = largest.max(x.abs());
            }
        }
        let by_column = transposed(x, n);
        let tokens = x.len() / n;
        self.second.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            let column = &by_column[i * tokens..(i + 1) * tokens];
            vector::dots(column, &by_column[i * tokens..], &mut row[i..]);
        });
        if let (Some(cross), Some(other)) = (&mut self.cross, other) {
            // The other model's activations are near to these: their difference keeps the digits.
            let difference: Vec<f32> = other.iter().zip(x).map(|(other, x)| other - x).collect();
            let difference = transposed(&difference, n);
            cross.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
                vector::dots(&by_column[i * tokens..(i + 1) * tokens], &difference, row);
            });
        }
    }

    /// From sums to means, and the lower half from the upper.
    pub fn finish(&mut self) {
        let n = self.columns;
        let factor = 1.0 / self.count.max(1) as f32;
        for value in self.second.iter_mut().chain(self.cross.iter_mut().flatten()) {
            *value *= factor;
        }
        for i in 0..n {
            for j in 0..i {
                self.second[i * n + j] = self.second[j * n + i];
            }
        }
    }

    /// `E[x_c^2]` of each column; after [`Moments::finish`].
    pub fn diagonal(&self) -> Vec<f32> {
        (0..self.columns).map(|i| self.second[i * self.columns + i]).collect()
    }

    /// The moments of `x_c / s_c`; after [`Moments::finish`].
    pub fn scale_down(&mut self, scales: &[f32]) {
        let n = self.columns;
        for matrix in [Some(&mut self.second), self.cross.as_mut()].into_iter().flatten() {
            for (row, s) in matrix.chunks_exact_mut(n).zip(scales) {
                for (value, t) in row.iter_mut().zip(scales) {
                    *value /= s * t;
                }
            }
        }
        for (largest, s) in self.largest.iter_mut().zip(scales) {
            *largest /= s;
        }
    }
}

/// Rows of `n` values as columns, one behind the other.
fn transposed(x: &[f32], n: usize) -> Vec<f32> {
    let rows = x.len() / n;
    let mut out = vec![0.0; rows * n];
    out.par_chunks_mut(rows.max(1)).enumerate().for_each(|(c, column)| {
        for (t, value) in column.iter_mut().enumerate() {
            *value = x[t * n + c];
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_definition() {
        let (n, tokens) = (5, 37);
        let x: Vec<f32> = (0..n * tokens).map(|i| (i as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = x.iter().map(|x| x * 1.1 + 0.01).collect();
        let mut m = Moments::new(n, true);
        for (x, y) in x.chunks(n * 10).zip(y.chunks(n * 10)) {
            m.add(x, Some(y));
        }
        m.finish();
        assert_eq!(m.count, tokens as u64);
        for i in 0..n {
            for j in 0..n {
                let mean = |f: &dyn Fn(usize) -> f64| (0..tokens).map(f).sum::<f64>() / tokens as f64;
                let at = |v: &[f32], t: usize, c: usize| f64::from(v[t * n + c]);
                let second = mean(&|t| at(&x, t, i) * at(&x, t, j));
                let cross = mean(&|t| at(&x, t, i) * (at(&y, t, j) - at(&x, t, j)));
                assert!((f64::from(m.second[i * n + j]) - second).abs() < 1e-6);
                assert!((f64::from(m.cross.as_ref().unwrap()[i * n + j]) - cross).abs() < 1e-6);
            }
        }
        let before = m.second[7];
        m.scale_down(&[2.0; 5]);
        assert_eq!(m.second[7], before / 4.0);
    }

    #[test]
    fn a_value_that_is_not_finite_shows() {
        let mut m = Moments::new(2, false);
        m.add(&[1.0, f32::NAN], None);
        assert!(m.not_finite && m.count == 0);
    }
}
