//! Every instruction set's functions against the reference, and against themselves in other surroundings.

use super::kernels::{COLUMNS, Kernels, Numbers, Packed, Rows, Softmax, kernels, width};
use crate::cpu::isa::Isa;
use crate::kv::KvFormat;
use crate::kv::random::Random;

const DIMS: [usize; 9] = [1, 16, 31, 32, 40, 64, 72, 96, 128];

/// Stored rows of normally distributed values.
fn stored(format: KvFormat, n: usize, d: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; n * format.row_bytes(d)];
    for row in bytes.chunks_exact_mut(format.row_bytes(d)) {
        format.encode_row(&random.normals(d), row);
    }
    bytes
}

fn rows(format: KvFormat, bytes: &[u8], d: usize) -> Rows<'_> {
    let row_bytes = format.row_bytes(d);
    Rows { format, bytes, row_bytes, n: bytes.len() / row_bytes, d }
}

/// Scores of all queries with the first `n` rows.
fn scores(kernels: &Kernels, rows: &Rows, q: &[f32], columns: std::ops::Range<usize>) -> Vec<[f32; COLUMNS]> {
    let keys = (kernels.keys)(rows.format);
    let (mut queries, mut packed) = (Packed::default(), Packed::default());
    keys.queries(q, rows.d, &mut queries);
    keys.pack(rows, &mut packed);
    let mut out = vec![[f32::NAN; COLUMNS]; q.len() / rows.d];
    let n = out.len();
    keys.scores(&queries, 0..n, rows.d, &packed, columns, out.as_flattened_mut());
    out
}

#[test]
fn scores_are_the_dot_products_of_decoded_rows() {
    let mut random = Random::new(2);
    for &format in KvFormat::ALL {
        for d in DIMS {
            let (bytes, q) = (stored(format, 37, d, &mut random), random.normals(7 * d));
            let rows = rows(format, &bytes, d);
            let mut row = vec![0.0; d];
            for isa in Isa::all_available() {
                let scores = scores(kernels(isa), &rows, &q, 0..37);
                for r in 0..37 {
                    format.decode_row(rows.row(r), &mut row);
                    for (q, scores) in q.chunks_exact(d).zip(&scores) {
                        let pairs = || row.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let (exact, size) = (pairs().sum::<f64>(), pairs().map(f64::abs).sum::<f64>());
                        let error = (f64::from(scores[r]) - exact).abs();
                        assert!(
                            error <= 1e-4 * size.max(0.1),
                            "{isa} {format} {d}: {} and {exact}",
                            scores[r]
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_score_depends_on_its_query_and_its_row_alone() {
    let mut random = Random::new(3);
    for &format in KvFormat::ALL {
        for d in [40, 64, 128] {
            let (bytes, q) = (stored(format, COLUMNS, d, &mut random), random.normals(13 * d));
            let all = rows(format, &bytes, d);
            for isa in Isa::all_available() {
                let together = scores(kernels(isa), &all, &q, 0..COLUMNS);
                for (r, query) in [(0, 0), (15, 3), (16, 12), (37, 6), (63, 8)] {
                    let one = Rows { bytes: all.row(r), n: 1, ..all };
                    let alone = scores(kernels(isa), &one, &q[query * d..][..d], 0..1);
                    assert_eq!(alone[0][0].to_bits(), together[query][r].to_bits(), "{isa} {format} {d}");
                    let part = scores(kernels(isa), &all, &q, r..r + 1);
                    assert_eq!(part[query][r].to_bits(), together[query][r].to_bits(), "{isa} {format} {d}");
                }
            }
        }
    }
}

#[test]
fn a_query_that_is_not_finite_shows_in_all_its_scores_and_in_no_other() {
    let mut random = Random::new(4);
    for &format in KvFormat::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (bytes, mut q) = (stored(format, 20, 64, &mut random), random.normals(3 * 64));
            q[64 + 7] = bad;
            for isa in Isa::all_available() {
                let scores = scores(kernels(isa), &rows(format, &bytes, 64), &q, 0..20);
                assert!(scores[1][..20].iter().all(|s| !s.is_finite()), "{isa} {format} {bad}");
                assert!(scores[0][..20].iter().chain(&scores[2][..20]).all(|s| s.is_finite()));
            }
        }
    }
}

#[test]
fn queries_of_any_size_give_scores_of_theirs() {
    let mut random = Random::new(5);
    for size in [0.0, 1e-42, 1e-30, 1e-10, 1e10, 1e30] {
        let (bytes, mut q) = (stored(KvFormat::Q8_0, 5, 32, &mut random), random.normals(32));
        for x in &mut q {
            *x *= size;
        }
        let want = scores(kernels(Isa::Reference), &rows(KvFormat::Q8_0, &bytes, 32), &q, 0..5);
        for isa in Isa::all_available() {
            let got = scores(kernels(isa), &rows(KvFormat::Q8_0, &bytes, 32), &q, 0..5);
            for (a, b) in got[0][..5].iter().zip(&want[0][..5]) {
                assert!((a - b).abs() <= 1e-3 * size.max(1e-35), "{isa}, {size}: {a} and {b}");
            }
        }
    }
}

#[test]
fn values_are_the_decoded_rows() {
    let mut random = Random::new(6);
    for &format in KvFormat::ALL {
        for d in DIMS {
            let bytes = stored(format, 21, d, &mut random);
            let rows = rows(format, &bytes, d);
            let mut want = vec![0.0; d];
            for isa in Isa::all_available() {
                let mut out = vec![0.0; 21 * width(d)];
                kernels(isa).values(&rows, &mut out);
                for r in 0..21 {
                    format.decode_row(rows.row(r), &mut want);
                    for (a, b) in out[r * width(d)..].iter().zip(&want) {
                        // One rounding more or less in `d * q + m`.
                        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{isa} {format} {d}: {a} and {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_8_bit_float_is_decoded_exactly() {
    let codes: Vec<u8> = [0.5f32.to_le_bytes().as_slice(), &(0..=255).collect::<Vec<u8>>()].concat();
    for isa in Isa::all_available() {
        let mut out = vec![0.0; 256];
        kernels(isa).values(&rows(KvFormat::F8E4M3, &codes, 256), &mut out);
        for (code, x) in out.iter().enumerate() {
            let want = 0.5 * crate::kv::f8e4m3::DECODED[code];
            assert!(
                x.to_bits() == want.to_bits() || x.is_nan() && want.is_nan(),
                "{isa}, {code}: {x}, {want}"
            );
        }
    }
}

/// The softmax of queries after a tile: maximum, sum and factor for each.
fn weigh(
    kernels: &Kernels,
    scores: &mut [[f32; COLUMNS]],
    range: std::ops::Range<usize>,
    softcap: Option<f32>,
    (max, sum): (f32, f32),
) -> Vec<[f32; 3]> {
    let n = scores.len();
    let (mut max, mut sum, mut factor) = (vec![max; n], vec![sum; n], vec![f32::NAN; n]);
    let mut softmax = Softmax { max: &mut max, sum: &mut sum, factor: &mut factor };
    kernels.weigh(scores, range, 0.25, softcap, &mut softmax);
    (0..n).map(|q| [max[q], sum[q], factor[q]]).collect()
}

#[test]
fn weights_are_exponentials_under_the_largest_score() {
    let mut random = Random::new(7);
    for isa in Isa::all_available() {
        for softcap in [None, Some(3.0)] {
            for range in [0..64, 0..1, 5..6, 7..40, 16..33, 63..64] {
                for before in [(f32::NEG_INFINITY, 0.0), (0.3, 2.0), (50.0, 7.0)] {
                    let mut scores: Vec<[f32; COLUMNS]> =
                        (0..3).map(|_| std::array::from_fn(|_| 10.0 * random.normal())).collect();
                    let given = scores.clone();
                    let got = weigh(kernels(isa), &mut scores, range.clone(), softcap, before);
                    for ((given, weights), [max, sum, factor]) in given.iter().zip(&scores).zip(got) {
                        let exact = given.map(|s| {
                            let s = f64::from(s) * 0.25;
                            softcap.map_or(s, |cap: f32| f64::from(cap) * (s / f64::from(cap)).tanh())
                        });
                        let seen = &exact[range.clone()];
                        let most = seen.iter().fold(f64::from(before.0), |a, b| a.max(*b));
                        assert!((f64::from(max) - most).abs() < 1e-5);
                        let falls = (f64::from(before.0) - most).exp();
                        assert!((f64::from(factor) - falls).abs() < 1e-5);
                        let all =
                            f64::from(before.1) * falls + seen.iter().map(|s| (s - most).exp()).sum::<f64>();
                        assert!((f64::from(sum) - all).abs() <= 1e-5 * all, "{isa} {range:?}");
                        for (w, s) in weights[range.clone()].iter().zip(seen) {
                            assert!((f64::from(*w) - (s - most).exp()).abs() < 1e-5);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn weights_do_not_depend_on_the_column_where_a_token_begins_to_see() {
    let mut random = Random::new(9);
    for isa in Isa::all_available() {
        for n in [1, 7, 16, 30, 45] {
            let seen = random.normals(n);
            let at = |column: usize, random: &mut Random| {
                let mut scores = [[0.0; COLUMNS]];
                scores[0].fill_with(|| random.normal());
                scores[0][column..column + n].copy_from_slice(&seen);
                let softmax = weigh(kernels(isa), &mut scores, column..column + n, None, (0.1, 0.5));
                (softmax[0].map(f32::to_bits), scores[0][column..column + n].to_vec())
            };
            let first = at(0, &mut random);
            for column in [1, 5, 16, 19] {
                assert_eq!(at(column, &mut random), first, "{isa}, {n} from {column}");
            }
        }
    }
}

#[test]
fn a_score_that_is_not_a_number_makes_the_sum_one_that_is_not_unless_nobody_sees_it() {
    for isa in Isa::all_available() {
        let mut scores = [[0.5; COLUMNS]];
        scores[0][20] = f32::NAN;
        let start = (f32::NEG_INFINITY, 0.0);
        assert!(weigh(kernels(isa), &mut scores.clone(), 0..64, None, start)[0][1].is_nan());
        assert!(weigh(kernels(isa), &mut scores, 21..64, None, start)[0][1].is_finite());
    }
}

#[test]
fn sums_of_rows_are_the_same_for_one_query_or_many_and_in_one_call_or_several() {
    let mut random = Random::new(8);
    for isa in Isa::all_available() {
        for d in [1, 16, 40, 64, 80, 96, 112, 128, 192] {
            let width = width(d);
            let values = random.normals(COLUMNS * width);
            let weights: Vec<[f32; COLUMNS]> =
                (0..15).map(|_| std::array::from_fn(|_| random.uniform())).collect();
            let start = random.normals(15 * width);
            let factors: Vec<f32> =
                (0..15).map(|q| if q % 3 == 0 { 1.0 } else { random.uniform() }).collect();
            for range in [0..64, 3..4, 10..50] {
                let mut all = start.clone();
                kernels(isa).add(&weights, range.clone(), &values, width, &factors, &mut all);
                let mut single = start.clone();
                for (q, acc) in single.chunks_exact_mut(width).enumerate() {
                    let mut factor = factors[q];
                    for r in range.clone() {
                        kernels(isa).add(&weights[q..=q], r..r + 1, &values, width, &[factor], acc);
                        factor = 1.0;
                    }
                }
                assert!(all.iter().zip(&single).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} {d}");
                for (i, x) in all.iter().enumerate() {
                    let (q, i) = (i / width, i % width);
                    let added = |r: usize| f64::from(weights[q][r]) * f64::from(values[r * width + i]);
                    let before = f64::from(start[q * width + i]) * f64::from(factors[q]);
                    let exact = before + range.clone().map(added).sum::<f64>();
                    assert!((f64::from(*x) - exact).abs() < 1e-4, "{isa} {d}: {x} and {exact}");
                }
            }
        }
    }
}

#[test]
fn stored_rows_are_added_like_decoded_ones() {
    let mut random = Random::new(10);
    for &format in KvFormat::ALL {
        for d in DIMS.into_iter().chain([80, 112, 192]) {
            let bytes = stored(format, 41, d, &mut random);
            let rows = rows(format, &bytes, d);
            for isa in Isa::all_available() {
                for n in [1, 2, 3, 4, 5, 6, 7] {
                    let weights: Vec<[f32; COLUMNS]> =
                        (0..n).map(|_| std::array::from_fn(|_| random.uniform())).collect();
                    let factor: Vec<f32> = (0..n).map(|_| random.uniform()).collect();
                    let mut want = random.normals(n * width(d));
                    let mut got = want.clone();
                    let done = kernels(isa).add_stored(&weights, 3..41, &rows, &factor, &mut got);
                    assert!(done || n > 6 || isa < Isa::Avx512, "{isa}");
                    let mut values = vec![0.0; 41 * width(d)];
                    kernels(isa).values(&rows, &mut values);
                    kernels(isa).add(&weights, 3..41, &values, width(d), &factor, &mut want);
                    for (i, (a, b)) in got.iter().zip(&want).enumerate() {
                        let same = a.to_bits() == b.to_bits() || i % width(d) >= d;
                        assert!(!done || same, "{isa} {format} {d} {n}: {a} and {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn numbers_begin_at_cache_lines() {
    let mut numbers = Numbers::default();
    for n in [1, 100, 17] {
        numbers.reserve(n);
        assert!(numbers.floats().len() >= n && numbers.floats().as_ptr().addr().is_multiple_of(64));
    }
}
