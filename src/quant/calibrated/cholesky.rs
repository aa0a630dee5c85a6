//! The Cholesky factor of the inverse of a matrix of second moments.
//!
//! With `H = V V^T`, `V` upper triangular with a positive diagonal, `U = V^-1` is upper triangular too and
//! `H^-1 = U^T U`. Its row `j` says how an error at column `j` is best taken up by the columns behind it:
//! see [`super::compensate`].

use rayon::prelude::*;

use super::vector;

/// Columns that are eliminated at once.
const PANEL: usize = 64;

/// `U` with `(H + ridge I)^-1 = U^T U`, row after row; none where `H + ridge I` is not positive definite in binary32.
pub(super) fn inverse_factor(h: &[f32], n: usize, ridge: f32) -> Option<Vec<f32>> {
    // In reverse order of columns an upper factor is a lower one.
    let mut l = vec![0.0f32; n * n];
    l.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        let from = &h[(n - 1 - i) * n..][..n];
        for (value, from) in row[..=i].iter_mut().zip(from.iter().rev()) {
            *value = *from;
        }
        row[i] += ridge;
    });
    if !lower_factor(&mut l, n) {
        return None;
    }
    // Columns of the inverse, each by forward substitution: x_i = -(sum over j <= k < i of L_ik x_k) / L_ii.
    let mut inverse = vec![0.0f32; n * n];
    inverse.par_chunks_mut(n.max(1)).enumerate().for_each(|(j, x)| {
        x[j] = 1.0 / l[j * n + j];
        for i in j + 1..n {
            x[i] = -vector::dot(&l[i * n + j..i * n + i], &x[j..i]) / l[i * n + i];
        }
    });
    drop(l);
    let mut u = vec![0.0f32; n * n];
    u.par_chunks_mut(n.max(1)).enumerate().for_each(|(a, row)| {
        for (b, value) in row.iter_mut().enumerate().skip(a) {
            *value = inverse[(n - 1 - b) * n + n - 1 - a];
        }
    });
    u.iter().all(|v| v.is_finite()).then_some(u)
}

/// Replace the lower half of a symmetric matrix by its lower Cholesky factor; false where a pivot is not positive.
fn lower_factor(a: &mut [f32], n: usize) -> bool {
    for from in (0..n).step_by(PANEL) {
        let to = (from + PANEL).min(n);
        for i in from..to {
            let (done, rest) = a.split_at_mut(i * n);
            let row = &mut rest[..n];
            eliminate(row, done, n, from, i);
            let pivot = f64::from(row[i]) - row[..i].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            if !pivot.is_finite() || pivot <= f64::from(f32::MIN_POSITIVE) {
                return false;
            }
            row[i] = pivot.sqrt() as f32;
        }
        let (done, rest) = a.split_at_mut(to * n);
        let done = &*done;
        rest.par_chunks_mut(n).for_each(|row| eliminate(row, done, n, from, to));
    }
    true
}

/// Entries `from` to `to` of a row, whose entries before are final, as are the rows in `done`.
fn eliminate(row: &mut [f32], done: &[f32], n: usize, from: usize, to: usize) {
    for j in from..to {
        let other = &done[j * n..][..n];
        row[j] = (row[j] - vector::dot(&row[..j], &other[..j])) / other[j];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_the_inverse() {
        for n in [1, 7, 64, 130] {
            // X^T X of more rows than columns, some of them alike.
            let x: Vec<f32> = (0..3 * n * n).map(|i| ((i * i) as f32 * 0.013).sin()).collect();
            let mut h = vec![0.0f32; n * n];
            for row in x.chunks(n) {
                for i in 0..n {
                    for j in 0..n {
                        h[i * n + j] += row[i] * row[j] / n as f32;
                    }
                }
            }
            let u = inverse_factor(&h, n, 0.1).unwrap();
            for i in 0..n {
                for j in 0..n {
                    // (H + 0.1 I) U^T U is the identity.
                    let inverse = |k: usize| {
                        (0..n).map(|m| f64::from(u[m * n + k]) * f64::from(u[m * n + j])).sum::<f64>()
                    };
                    let entry =
                        |k: usize| f64::from(h[i * n + k]) + if i == k { f64::from(0.1f32) } else { 0.0 };
                    let got: f64 = (0..n).map(|k| entry(k) * inverse(k)).sum();
                    assert!((got - f64::from(u8::from(i == j))).abs() < 2e-3, "{n} {i} {j}: {got}");
                    assert!(j >= i || u[i * n + j] == 0.0);
                }
            }
        }
    }

    #[test]
    fn a_singular_matrix_is_told() {
        assert!(inverse_factor(&[1.0, 1.0, 1.0, 1.0], 2, 0.0).is_none());
        assert!(inverse_factor(&[1.0, 1.0, 1.0, 1.0], 2, 0.01).is_some());
        assert!(inverse_factor(&[f32::NAN], 1, 0.1).is_none());
    }
}
