//! The arithmetic of a tile: a query against a few decoded K rows, and weights times a few decoded V rows.
//!
//! A dot product is [`LANES`] partial sums, folded by halves, whatever the instruction set; only whether a product is
//! rounded before it is added differs. Functions of an instruction set's own, over decoded or stored rows, find their
//! place in [`Kernels`]; all that is asked of them is that a row's result does not depend on its neighbours.

use crate::cpu::isa::Isa;

/// Partial sums of a dot product.
const LANES: usize = 16;

/// The functions of an instruction set.
pub(super) struct Kernels {
    scores: unsafe fn(q: &[f32], rows: &[f32], out: &mut [f32]),
    accumulate: unsafe fn(weights: &[f32], rows: &[f32], acc: &mut [f32]),
}

/// The functions of an instruction set.
///
/// # Panics
/// Where this machine does not have it.
pub(super) fn kernels(isa: Isa) -> &'static Kernels {
    assert!(isa.is_available(), "the instruction set {isa} is not on this machine");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => &avx2::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => &avx512::KERNELS,
        _ => &REFERENCE,
    }
}

// The functions are only reached through `kernels`, which has checked that the machine has the instruction set: the
// one obligation of every pointer. Lengths are checked by the functions themselves.
impl Kernels {
    /// `out[r] = sum(q * rows[r])` for `out.len()` rows of `q.len()` values.
    #[inline]
    pub fn scores(&self, q: &[f32], rows: &[f32], out: &mut [f32]) {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.scores)(q, rows, out) }
    }
    /// `acc += sum(weights[r] * rows[r])` for rows of `acc.len()` values, in order of `r`.
    #[inline]
    pub fn accumulate(&self, weights: &[f32], rows: &[f32], acc: &mut [f32]) {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.accumulate)(weights, rows, acc) }
    }
}

static REFERENCE: Kernels = Kernels { scores: scores::<false>, accumulate: accumulate::<false> };

/// Stamps the functions out for an instruction set: the compiler makes its vectors of the same bodies.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled_for {
    ($isa:ident, $features:literal) => {
        mod $isa {
            pub(super) static KERNELS: super::Kernels = super::Kernels { scores, accumulate };

            #[target_feature(enable = $features)]
            fn scores(q: &[f32], rows: &[f32], out: &mut [f32]) {
                super::scores::<true>(q, rows, out);
            }
            #[target_feature(enable = $features)]
            fn accumulate(weights: &[f32], rows: &[f32], acc: &mut [f32]) {
                super::accumulate::<true>(weights, rows, acc);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled_for!(avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
compiled_for!(avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl");

/// `a * b + c`, in one rounding where the instruction set has it: a call into a library would be far slower.
#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn scores<const FMA: bool>(q: &[f32], rows: &[f32], out: &mut [f32]) {
    let d = q.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (rows4, rows1) = rows.split_at(fours.len() * 4 * d);
    for (out, rows) in fours.iter_mut().zip(rows4.chunks_exact(4 * d)) {
        *out = dots::<4, FMA>(q, rows);
    }
    for (out, row) in rest.iter_mut().zip(rows1.chunks_exact(d)) {
        [*out] = dots::<1, FMA>(q, row);
    }
}

/// Dot products with `R` rows, side by side so that their sums overlap in time; each is the same for any `R`.
#[inline(always)]
fn dots<const R: usize, const FMA: bool>(q: &[f32], rows: &[f32]) -> [f32; R] {
    let d = q.len();
    let mut sums = [[0.0f32; LANES]; R];
    let (chunks, tail) = q.as_chunks::<LANES>();
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * d..][..d]);
    let row_chunks: [&[[f32; LANES]]; R] = rows.map(|row| &row.as_chunks().0[..chunks.len()]);
    for (i, q) in chunks.iter().enumerate() {
        for r in 0..R {
            add_products::<FMA>(&mut sums[r], q, &row_chunks[r][i]);
        }
    }
    if !tail.is_empty() {
        for r in 0..R {
            let row = &rows[r][d - tail.len()..];
            add_products::<FMA>(&mut sums[r], &padded(tail), &padded(row));
        }
    }
    sums.map(fold)
}

#[inline(always)]
fn add_products<const FMA: bool>(sums: &mut [f32; LANES], q: &[f32; LANES], row: &[f32; LANES]) {
    for lane in 0..LANES {
        sums[lane] = mul_add::<FMA>(q[lane], row[lane], sums[lane]);
    }
}

/// The end of a row, then zeros.
#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn fold(sums: [f32; LANES]) -> f32 {
    let by8: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let by4: [f32; 4] = std::array::from_fn(|i| by8[i] + by8[i + 4]);
    (by4[0] + by4[2]) + (by4[1] + by4[3])
}

#[inline(always)]
fn accumulate<const FMA: bool>(weights: &[f32], rows: &[f32], acc: &mut [f32]) {
    let d = acc.len();
    // Columns that stay in registers while all rows pass.
    const COLUMNS: usize = 32;
    let (blocks, tail) = acc.as_chunks_mut::<COLUMNS>();
    let tail_at = blocks.len() * COLUMNS;
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut sums = *block;
        for (w, row) in weights.iter().zip(rows.chunks_exact(d)) {
            let row = &row[i * COLUMNS..][..COLUMNS];
            for column in 0..COLUMNS {
                sums[column] = mul_add::<FMA>(*w, row[column], sums[column]);
            }
        }
        *block = sums;
    }
    for (w, row) in weights.iter().zip(rows.chunks_exact(d)) {
        for (acc, x) in tail.iter_mut().zip(&row[tail_at..]) {
            *acc = mul_add::<FMA>(*w, *x, *acc);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::random::Random;

    fn cases(lengths: [usize; 7]) -> impl Iterator<Item = (Isa, usize)> {
        Isa::all_available().flat_map(move |isa| lengths.map(|d| (isa, d)))
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let mut random = Random::new(2);
        for (isa, d) in cases([1, 15, 16, 40, 72, 80, 128]) {
            let (q, rows) = (random.normals(d), random.normals(11 * d));
            let mut all = [0.0; 11];
            kernels(isa).scores(&q, &rows, &mut all);
            for r in 0..11 {
                let mut one = [0.0];
                kernels(isa).scores(&q, &rows[r * d..][..d], &mut one);
                assert_eq!(one[0].to_bits(), all[r].to_bits());
                let exact: f64 =
                    q.iter().zip(&rows[r * d..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(one[0]) - exact).abs() < 1e-5 * d as f64);
            }
        }
    }

    #[test]
    fn rows_may_be_added_in_one_call_or_one_by_one() {
        let mut random = Random::new(3);
        for (isa, d) in cases([1, 31, 32, 40, 72, 80, 128]) {
            let (weights, rows, start) = (random.normals(9), random.normals(9 * d), random.normals(d));
            let (mut all, mut single) = (start.clone(), start.clone());
            kernels(isa).accumulate(&weights, &rows, &mut all);
            for r in 0..9 {
                kernels(isa).accumulate(&weights[r..=r], &rows[r * d..][..d], &mut single);
            }
            assert!(all.iter().zip(&single).all(|(a, b)| a.to_bits() == b.to_bits()));
            for i in 0..d {
                let added = |r: usize| f64::from(weights[r]) * f64::from(rows[r * d + i]);
                let exact = f64::from(start[i]) + (0..9).map(added).sum::<f64>();
                assert!((f64::from(all[i]) - exact).abs() < 1e-5);
            }
        }
    }
}
