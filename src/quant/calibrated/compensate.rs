//! Error-compensated rounding onto blocks of integers: the idea of GPTQ (Frantar et al., arXiv 2210.17323), with the scales
//! and minima of the blocks chosen by the same measure as the values.
//!
//! For a row `w` of a matrix, integers are wanted whose decoded values `q` make `(w - q)^T H (w - q)` small, `H = E[x x^T]`
//! (see [`super::moments`]). With `lambda` a share of the mean of the diagonal of `H` added to it (*damping*, which also
//! stands for what the calibration text did not show) and `(H + lambda I)^-1 = U^T U`, `U` upper triangular:
//!
//! ```text
//! for each column j in order:   e_j = (w_j - q_j) / U_jj          q_j the level nearest to w_j
//!                               w_k <- w_k - e_j U_jk             for all columns k behind j
//! ```
//!
//! The columns behind take up what rounding column `j` did, as well as they can while they are still free. The sum of
//! `e_j^2` is the error `(w - q)^T (H + lambda I) (w - q)`, exactly.
//!
//! *Scales.* When a block begins, its scales are fitted to the values as they are then (those before have been compensated)
//! by the format's own search, column `j` weighted by `1 / U_jj^2`: what an error there costs after the columns behind have
//! done their best. Then for each group in order the scale and the minimum are chosen among the neighbours of the fitted
//! ones for the least `sum e_j^2` over the group, each tried with the rounding of the group as above; and all this for a few
//! scales of the block.
//!
//! *Descent.* Afterwards nothing is free, but groups can be chosen anew given all others. With the residual
//! `r = (H + lambda I)(w - q)` the best real values of a group `I` are `q_I + (H_II + lambda I)^-1 r_I`; rounding these in
//! the same way, by the factor of `H_II` alone, gives the exact error of each choice of scale, minimum and codes. The best
//! is taken where it is better than what there is. After each group of a block the block's two scales are refitted by least
//! squares in the metric of `H`, and kept if the error falls when they are rounded to binary16.

use chaski_gguf::block::f16::F16Le;
use chaski_gguf::block::parts::{Layout, Parts};
use chaski_gguf::{Format, Integers};
use rayon::prelude::*;

use super::{cholesky, vector};

/// Rows that a thread rounds together, so that a row of `U` is used for all of them while it is at hand.
const TILE: usize = 8;
/// Values of a group, at most.
const GROUP: usize = 32;

/// How much effort is spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// `lambda` as a share of the mean of the diagonal of `H`.
    pub damping: f32,
    /// Sweeps of descent over all groups.
    pub sweeps: usize,
    /// Scales and minima are tried up to so many steps from the fitted ones.
    pub neighbours: i32,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { damping: 0.01, sweeps: 3, neighbours: 2 }
    }
}

/// Factors that a block's scales are tried with.
const FACTORS: [f32; 3] = [1.0, 0.93, 1.07];

/// A matrix's metric, made ready for a format.
pub(super) struct Metric<'a> {
    format: Format,
    integers: &'static Integers,
    columns: usize,
    h: &'a [f32],
    ridge: f32,
    u: Vec<f32>,
    /// `1 / U_jj^2`.
    weights: Vec<f32>,
    /// The diagonal blocks of `U`, group after group.
    ahead: Vec<f32>,
    /// The factor of the inverse of each group's block of `H` by itself.
    alone: Vec<f32>,
    effort: Effort,
}

/// What a group's codes would be under some scale and minimum.
#[derive(Clone, Copy)]
struct Tried {
    loss: f32,
    scale: i8,
    min: u8,
    codes: [u8; GROUP],
    /// `e_j`.
    errors: [f32; GROUP],
}

/// The best values of columns for a matrix whose input is `x'` where the model had `x`: `w + (H + ridge I)^-1 D w` with
/// `D = E[x (x' - x)^T]`, which solves `min E (q x - w x')^2 + ridge |q - w|^2`. `u` is the factor of the inverse.
pub(super) fn redirect(w: &mut [f32], columns: usize, difference: &[f32], u: &[f32]) {
    w.par_chunks_mut(columns.max(1)).for_each(|w| {
        let mut moved = vec![0.0; columns];
        for (moved, row) in moved.iter_mut().zip(difference.chunks_exact(columns)) {
            *moved = vector::dot(row, w);
        }
        let half: Vec<f32> =
            (0..columns).map(|i| vector::dot(&u[i * columns + i..(i + 1) * columns], &moved[i..])).collect();
        for (i, half) in half.iter().enumerate() {
            vector::add_scaled(&mut w[i..], *half, &u[i * columns + i..(i + 1) * columns]);
        }
    });
}

impl<'a> Metric<'a> {
    /// Make `h`, of so many columns, ready for rounding to `format`, `u` being the factor of its inverse with `ridge` on the
    /// diagonal. None if the format has no integers to choose, or a group by itself is singular.
    pub(super) fn new(
        format: Format,
        h: &'a [f32],
        u: Vec<f32>,
        columns: usize,
        ridge: f32,
        effort: Effort,
    ) -> Option<Metric<'a>> {
        let integers = format.info().integers.as_ref()?;
        let group = integers.layout.group;
        let weights = (0..columns).map(|j| 1.0 / (u[j * columns + j] * u[j * columns + j])).collect();
        let (mut ahead, mut alone) = (Vec::new(), Vec::new());
        for g in 0..columns / group {
            let cut = |of: &[f32]| -> Vec<f32> {
                let rows = (0..group).flat_map(|j| &of[(g * group + j) * columns + g * group..][..group]);
                rows.copied().collect()
            };
            ahead.extend(cut(&u));
            alone.extend(cholesky::inverse_factor(&cut(h), group, ridge)?);
        }
        Some(Metric { format, integers, columns, h, ridge, u, weights, ahead, alone, effort })
    }

    fn layout(&self) -> &'static Layout {
        self.integers.layout
    }

    /// The factor of the inverse, for another matrix of the same input.
    pub(super) fn into_factor(self) -> Vec<f32> {
        self.u
    }

    /// Round rows into blocks; what is lost, `sum (w - q)^T (H + lambda I) (w - q)`. Runs in the caller's pool of threads;
    /// the result does not depend on it.
    pub(super) fn round(&self, rows: &[f32], out: &mut [u8]) -> f64 {
        let row_bytes = self.columns / self.layout().len * self.format.info().block_bytes;
        let tiles = rows.par_chunks(TILE * self.columns).zip(out.par_chunks_mut(TILE * row_bytes));
        let losses: Vec<f64> = tiles.map(|(rows, out)| self.round_tile(rows, out)).collect();
        losses.iter().sum()
    }

    fn round_tile(&self, rows: &[f32], out: &mut [u8]) -> f64 {
        let (n, len) = (self.columns, self.layout().len);
        let mut values = rows.to_vec();
        let mut blocks: Vec<Vec<Parts>> = vec![Vec::new(); rows.len() / n];
        let mut errors = vec![0.0f32; rows.len() / n * len];
        for from in (0..n).step_by(len) {
            for ((row, blocks), errors) in
                values.chunks_exact_mut(n).zip(&mut blocks).zip(errors.chunks_exact_mut(len))
            {
                blocks.push(self.block(from, &row[from..from + len], errors));
            }
            if from + len < n {
                for j in 0..len {
                    let behind = &self.u[(from + j) * n + from + len..(from + j + 1) * n];
                    for (row, errors) in values.chunks_exact_mut(n).zip(errors.chunks_exact(len)) {
                        vector::add_scaled(&mut row[from + len..], -errors[j], behind);
                    }
                }
            }
        }
        let mut loss = 0.0;
        let bytes = self.format.info().block_bytes;
        for ((row, blocks), out) in
            rows.chunks_exact(n).zip(&mut blocks).zip(out.chunks_exact_mut(n / len * bytes))
        {
            loss += self.descend(row, blocks);
            for (parts, out) in blocks.iter().zip(out.chunks_exact_mut(bytes)) {
                (self.integers.join)(parts, out);
            }
        }
        loss
    }

    /// The block that begins at column `from`, whose values are these now; `errors` gets its `e_j`.
    fn block(&self, from: usize, values: &[f32], errors: &mut [f32]) -> Parts {
        let layout = self.layout();
        let info = self.format.info();
        let mut bytes = [0u8; 512];
        let Some(bytes) = bytes.get_mut(..info.block_bytes) else { return Parts::new(layout) };
        (info.quantize)(values, Some(&self.weights[from..from + layout.len]), bytes);
        let mut fitted = Parts::new(layout);
        (self.integers.split)(bytes, &mut fitted);
        let mut best: Option<(f32, Parts)> = None;
        let mut now = vec![0.0; layout.len];
        let mut tried_errors = vec![0.0; layout.len];
        for factor in FACTORS {
            let mut parts = fitted.clone();
            parts.d = F16Le::from_f32(fitted.d * factor).to_f32();
            parts.dmin = F16Le::from_f32(fitted.dmin * factor).to_f32();
            now.copy_from_slice(values);
            let mut loss = 0.0;
            for g in 0..layout.groups() {
                let (start, end) = (g * layout.group, (g + 1) * layout.group);
                let factor = self.factor(&self.ahead, from + start);
                let found = self.choose(&now[start..end], factor, &parts, g, f32::INFINITY);
                let Some(found) = found else { continue };
                loss += found.loss;
                apply(&mut parts, layout, g, &found);
                for (j, e) in found.errors[..layout.group].iter().enumerate() {
                    tried_errors[start + j] = *e;
                    let row = (from + start + j) * self.columns;
                    vector::add_scaled(
                        &mut now[end..],
                        -e,
                        &self.u[row + from + end..row + from + layout.len],
                    );
                }
            }
            if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                errors.copy_from_slice(&tried_errors);
                best = Some((loss, parts));
            }
        }
        best.map_or(fitted, |(_, parts)| parts)
    }

    /// The factor of the group that begins at this column.
    fn factor<'b>(&self, of: &'b [f32], column: usize) -> &'b [f32] {
        let group = self.layout().group;
        &of[column * group..(column + group) * group]
    }

    /// The best scale, minimum and codes for these values of a group, among the neighbours of what `parts` has; none where
    /// nothing is better than `limit`.
    fn choose(&self, values: &[f32], factor: &[f32], parts: &Parts, g: usize, limit: f32) -> Option<Tried> {
        let layout = self.layout();
        let reach = self.effort.neighbours;
        let mut best: Option<Tried> = None;
        let mut limit = limit;
        let scale_step = (i32::from(parts.scales[g]).abs() / 24).max(1);
        let min_step = (i32::from(parts.mins[g]) / 24).max(1);
        let mut at = parts.clone();
        for i in 0..=2 * reach {
            // From the middle outwards, so that the limit is low soon.
            let scale = i32::from(parts.scales[g]) + outwards(i) * scale_step;
            if i > 0 && (scale < layout.scales.0.into() || scale > layout.scales.1.into()) {
                continue;
            }
            for k in 0..=2 * reach {
                let min = i32::from(parts.mins[g]) + outwards(k) * min_step;
                if k > 0 && (min < layout.mins.0.into() || min > layout.mins.1.into()) {
                    continue;
                }
                (at.scales[g], at.mins[g]) = (scale as i8, min as u8);
                let (real_scale, real_min) = at.group(g);
                let tried = greedy(values, factor, layout.levels, real_scale, real_min, limit);
                if let Some((loss, codes, errors)) = tried {
                    limit = loss;
                    best = Some(Tried { loss, scale: at.scales[g], min: at.mins[g], codes, errors });
                }
            }
        }
        best
    }

    /// Sweeps over the groups of a row whose codes are chosen; what is lost in the end.
    fn descend(&self, target: &[f32], blocks: &mut [Parts]) -> f64 {
        let (n, layout) = (self.columns, self.layout());
        let mut decoded = vec![0.0; n];
        for (parts, decoded) in blocks.iter().zip(decoded.chunks_exact_mut(layout.len)) {
            decode(parts, layout, decoded);
        }
        let difference: Vec<f32> = target.iter().zip(&decoded).map(|(w, q)| w - q).collect();
        let mut residual: Vec<f32> = difference.iter().map(|e| e * self.ridge).collect();
        for (r, row) in residual.iter_mut().zip(self.h.chunks_exact(n)) {
            *r += vector::dot(row, &difference);
        }
        for _ in 0..self.effort.sweeps {
            let mut changed = false;
            for (b, parts) in blocks.iter_mut().enumerate() {
                for g in 0..layout.groups() {
                    changed |= self.descend_group(b, g, parts, &mut decoded, &mut residual);
                }
                changed |= self.refit(b, parts, &mut decoded, &mut residual);
            }
            if !changed {
                break;
            }
        }
        target.iter().zip(&decoded).zip(&residual).map(|((w, q), r)| f64::from((w - q) * r)).sum()
    }

    fn descend_group(
        &self,
        b: usize,
        g: usize,
        parts: &mut Parts,
        decoded: &mut [f32],
        residual: &mut [f32],
    ) -> bool {
        let layout = self.layout();
        let group = layout.group;
        let start = b * layout.len + g * group;
        let factor = self.factor(&self.alone, start);
        let r = &residual[start..start + group];
        // The best real values: decoded + U^T U r.
        let mut wanted = [0.0f32; GROUP];
        let wanted = &mut wanted[..group];
        for j in 0..group {
            let half: f32 = (j..group).map(|k| factor[j * group + k] * r[k]).sum();
            for k in j..group {
                wanted[k] += half * factor[j * group + k];
            }
        }
        let loss: f32 = wanted.iter().zip(r).map(|(step, r)| step * r).sum();
        for (wanted, now) in wanted.iter_mut().zip(&decoded[start..]) {
            *wanted += now;
        }
        // A gain of less than this is noise.
        let Some(found) = self.choose(wanted, factor, parts, g, loss * 0.9999) else { return false };
        apply(parts, layout, g, &found);
        let (scale, min) = parts.group(g);
        for j in 0..group {
            let new = scale * f32::from(layout.levels[usize::from(found.codes[j])]) - min;
            self.shift(start + j, new, decoded, residual);
        }
        true
    }

    /// A column gets another value.
    fn shift(&self, column: usize, new: f32, decoded: &mut [f32], residual: &mut [f32]) {
        let step = new - decoded[column];
        if step != 0.0 {
            vector::add_scaled(residual, -step, &self.h[column * self.columns..(column + 1) * self.columns]);
            residual[column] -= step * self.ridge;
            decoded[column] = new;
        }
    }

    /// Refit the block's two scales, given all its integers.
    fn refit(&self, b: usize, parts: &mut Parts, decoded: &mut [f32], residual: &mut [f32]) -> bool {
        let layout = self.layout();
        let (n, len) = (self.columns, layout.len);
        let from = b * len;
        let (mut scaled, mut minus) = (vec![0.0f32; len], vec![0.0f32; len]);
        for j in 0..len {
            let g = j / layout.group;
            scaled[j] = f32::from(parts.scales[g]) * f32::from(layout.levels[usize::from(parts.codes[j])]);
            minus[j] = -f32::from(parts.mins[g]);
        }
        let product = |v: &[f32]| -> Vec<f32> {
            let rows =
                (0..len).map(|j| vector::dot(&self.h[(from + j) * n + from..][..len], v) + self.ridge * v[j]);
            rows.collect()
        };
        let r = &residual[from..from + len];
        let (h_scaled, h_minus) = (product(&scaled), product(&minus));
        let (ss, sm, mm) = (
            f64::from(vector::dot(&scaled, &h_scaled)),
            f64::from(vector::dot(&scaled, &h_minus)),
            f64::from(vector::dot(&minus, &h_minus)),
        );
        let (rs, rm) = (f64::from(vector::dot(&scaled, r)), f64::from(vector::dot(&minus, r)));
        let determinant = ss * mm - sm * sm;
        let (step_d, step_min) = if mm > 0.0 && determinant > 1e-9 * ss * mm {
            ((rs * mm - rm * sm) / determinant, (rm * ss - rs * sm) / determinant)
        } else if ss > 0.0 {
            (rs / ss, 0.0)
        } else {
            return false;
        };
        let round = |v: f64| F16Le::from_f32(v as f32).to_f32();
        let (d, mut dmin) = (round(f64::from(parts.d) + step_d), round(f64::from(parts.dmin) + step_min));
        if layout.mins.1 > 1 {
            dmin = dmin.max(0.0);
        }
        let (step_d, step_min) = (f64::from(d - parts.d), f64::from(dmin - parts.dmin));
        let change = ss * step_d * step_d + 2.0 * sm * step_d * step_min + mm * step_min * step_min
            - 2.0 * (rs * step_d + rm * step_min);
        let loss = r.iter().zip(&h_scaled).map(|(r, h)| f64::from(r * h).abs()).sum::<f64>();
        if !d.is_finite() || !dmin.is_finite() || change.is_nan() || change >= -1e-9 * loss {
            return false;
        }
        (parts.d, parts.dmin) = (d, dmin);
        for j in 0..len {
            let (scale, min) = parts.group(j / layout.group);
            let new = scale * f32::from(layout.levels[usize::from(parts.codes[j])]) - min;
            self.shift(from + j, new, decoded, residual);
        }
        true
    }
}

/// 0, 1, -1, 2, -2 ...
fn outwards(i: i32) -> i32 {
    if i % 2 == 1 { i / 2 + 1 } else { -(i / 2) }
}

fn apply(parts: &mut Parts, layout: &Layout, g: usize, found: &Tried) {
    (parts.scales[g], parts.mins[g]) = (found.scale, found.min);
    parts.codes[g * layout.group..(g + 1) * layout.group].copy_from_slice(&found.codes[..layout.group]);
}

/// The values of a block.
fn decode(parts: &Parts, layout: &Layout, out: &mut [f32]) {
    for (j, out) in out.iter_mut().enumerate() {
        let (scale, min) = parts.group(j / layout.group);
        *out = scale * f32::from(layout.levels[usize::from(parts.codes[j])]) - min;
    }
}

/// Round the values of a group one after the other, each error taken up by those behind it; the loss, the codes and the
/// errors `e_j`, or none once the loss is not below `limit`.
#[inline(always)]
fn greedy(
    values: &[f32],
    factor: &[f32],
    levels: &[i8],
    scale: f32,
    min: f32,
    limit: f32,
) -> Option<(f32, [u8; GROUP], [f32; GROUP])> {
    let n = values.len().min(GROUP);
    let mut v = [0.0f32; GROUP];
    v[..n].copy_from_slice(&values[..n]);
    let (mut codes, mut errors) = ([0u8; GROUP], [0.0f32; GROUP]);
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let first = i32::from(levels[0]);
    let last = levels.len() as i32 - 1;
    let even = i32::from(levels[levels.len() - 1]) - first == last;
    let mut loss = 0.0;
    for j in 0..n {
        let level = (v[j] + min) * inverse;
        let code = if even { nearest(level, first, last) } else { nearest_of(levels, level) };
        let e = (v[j] - (scale * f32::from(levels[code]) - min)) / factor[j * n + j];
        loss += e * e;
        if loss >= limit || loss.is_nan() {
            return None;
        }
        (codes[j], errors[j]) = (code as u8, e);
        for k in j + 1..n {
            v[k] -= e * factor[j * n + k];
        }
    }
    Some((loss, codes, errors))
}

/// The code of the integer nearest to `level`, the first of which is `first`.
#[inline(always)]
fn nearest(level: f32, first: i32, last: i32) -> usize {
    // Adding this leaves no bits for a fraction; ties go to the even integer.
    const WHOLE: f32 = 12_582_912.0;
    let clamped = level.max(first as f32).min((first + last) as f32);
    (((clamped + WHOLE) - WHOLE) as i32 - first).clamp(0, last) as usize
}

/// The code of the nearest of uneven levels; the upper one half-way between two.
fn nearest_of(levels: &[i8], level: f32) -> usize {
    levels
        .windows(2)
        .filter(|pair| level + level >= f32::from(i16::from(pair[0]) + i16::from(pair[1])))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix and second moments of inputs whose columns go together.
    fn problem(n: usize, rows: usize) -> (Vec<f32>, Vec<f32>) {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let tokens = 2 * n;
        let mixed: Vec<f32> = (0..n * 8).map(|_| next()).collect();
        let mut h = vec![0.0f32; n * n];
        for _ in 0..tokens {
            let hidden: Vec<f32> = (0..8).map(|_| next()).collect();
            let x: Vec<f32> = (0..n)
                .map(|c| vector::dot(&hidden, &mixed[c * 8..(c + 1) * 8]) + 0.5 * next() * (1 + c % 5) as f32)
                .collect();
            for (row, x_i) in h.chunks_exact_mut(n).zip(&x) {
                vector::add_scaled(row, *x_i / tokens as f32, &x);
            }
        }
        ((0..n * rows).map(|_| next()).collect(), h)
    }

    /// `sum (w - q)^T (H + ridge I) (w - q)` of blocks.
    fn lost(format: Format, w: &[f32], bytes: &[u8], h: &[f32], n: usize, ridge: f32) -> f64 {
        let mut q = vec![0.0f32; w.len()];
        (format.info().decode)(bytes, &mut q);
        let mut sum = 0.0;
        for (w, q) in w.chunks_exact(n).zip(q.chunks_exact(n)) {
            let e: Vec<f32> = w.iter().zip(q).map(|(w, q)| w - q).collect();
            for (row, e_i) in h.chunks_exact(n).zip(&e) {
                sum += f64::from(*e_i) * f64::from(vector::dot(row, &e) + ridge * e_i);
            }
        }
        sum
    }

    #[test]
    fn the_output_loses_less_than_by_plain_or_weighted_rounding_and_sweeps_only_help() {
        let (n, rows) = (512, 12);
        let (w, h) = problem(n, rows);
        let diagonal: Vec<f32> = (0..n).map(|i| h[i * n + i]).collect();
        let ridge = 0.01 * diagonal.iter().sum::<f32>() / n as f32;
        for format in Format::ALL.iter().copied().filter(|f| f.info().integers.is_some()) {
            let size = n * rows / format.info().block_len * format.info().block_bytes;
            let (mut plain, mut weighted, mut out) = (vec![0; size], vec![0; size], vec![0; size]);
            (format.info().quantize)(&w, None, &mut plain);
            (format.info().quantize)(&w, Some(&diagonal), &mut weighted);
            let before =
                lost(format, &w, &plain, &h, n, ridge).min(lost(format, &w, &weighted, &h, n, ridge));
            let mut last = before * 0.7;
            for sweeps in [0, 1, 3] {
                let u = cholesky::inverse_factor(&h, n, ridge).unwrap();
                let effort = Effort { sweeps, ..Effort::default() };
                let metric = Metric::new(format, &h, u, n, ridge, effort).unwrap();
                let told = metric.round(&w, &mut out);
                let after = lost(format, &w, &out, &h, n, ridge);
                assert!(after < last, "{format}, {sweeps} sweeps: {after} after {last} (plain {before})");
                assert!((told / after - 1.0).abs() < 0.02, "{format}: {told} told, {after} true");
                last = after * 1.0001;
            }
        }
    }

    #[test]
    fn rows_that_vanish_and_columns_that_nothing_meets_do_no_harm() {
        let n = 256;
        let (mut w, mut h) = problem(n, 4);
        w[..n].fill(0.0);
        for i in 0..n {
            for j in (0..n).filter(|j| i < 16 || *j < 16) {
                h[i * n + j] = 0.0;
            }
        }
        for format in [Format::Q2_K, Format::Q3_K, Format::Q4_K, Format::Q6_K, Format::IQ4_XS] {
            let u = cholesky::inverse_factor(&h, n, 0.01).unwrap();
            let metric = Metric::new(format, &h, u, n, 0.01, Effort::default()).unwrap();
            let mut out = vec![0; 4 * format.info().block_bytes];
            metric.round(&w, &mut out);
            let mut q = vec![0.0f32; 4 * n];
            (format.info().decode)(&out, &mut q);
            assert!(q.iter().all(|q| q.is_finite()), "{format}");
            assert!(q[..n].iter().all(|q| *q == 0.0), "{format}");
        }
    }

    #[test]
    fn rows_are_redirected_to_what_makes_the_wanted_output() {
        // x = x' / 2: twice the weights give what was wanted, but for the ridge.
        let n = 64;
        let (w, h) = problem(n, 2);
        let u = cholesky::inverse_factor(&h, n, 1e-4).unwrap();
        let mut moved = w.clone();
        redirect(&mut moved, n, &h, &u);
        for (moved, w) in moved.iter().zip(&w) {
            assert!((moved - 2.0 * w).abs() < 0.02, "{moved} {w}");
        }
    }
}
