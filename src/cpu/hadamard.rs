//! The normalised Walsh-Hadamard transform: spreads a few large values over a whole row, so that rounding with one scale a
//! block loses less. It is orthogonal and its own inverse: turning both q and k leaves their dot product as it is,
//! and what is read through turned V rows is turned back once at the end.

use crate::graph::hadamard_block;

/// Turn a row, block by block (see [`hadamard_block`]), in its place. Where no block length applies the row stays as it is.
pub fn transform(row: &mut [f32]) {
    let Some(len) = hadamard_block(row.len()) else { return };
    let factor = 1.0 / (len as f32).sqrt();
    for block in row.chunks_exact_mut(len) {
        let mut half = 1;
        while half < len {
            for pair in block.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        for x in block {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::vector::vector;
    use crate::kv::random::Random;

    #[test]
    fn it_is_the_matrix_of_signs() {
        // Entry (i, j) of the Hadamard matrix is -1 to the number of bits that i and j have in common.
        let mut random = Random::new(5);
        let row = random.normals(96);
        let mut turned = row.clone();
        transform(&mut turned);
        for (i, x) in turned.iter().enumerate() {
            let (base, i) = (i / 32 * 32, i % 32);
            let sum: f64 = (0..32)
                .map(|j: usize| {
                    f64::from(row[base + j]) * if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
                })
                .sum();
            assert!((f64::from(*x) - sum / 32f64.sqrt()).abs() < 1e-5);
        }
    }

    #[test]
    fn it_is_its_own_inverse_and_keeps_dot_products() {
        let mut random = Random::new(6);
        for dim in [16, 32, 64, 80, 96, 128, 256] {
            let (a, b) = (random.normals(dim), random.normals(dim));
            let (mut ta, mut tb) = (a.clone(), b.clone());
            transform(&mut ta);
            transform(&mut tb);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((dot(&a, &b) - dot(&ta, &tb)).abs() < 1e-5 * dim as f32);
            assert!(a.iter().zip(&ta).any(|(a, b)| (a - b).abs() > 0.1), "it does something");
            transform(&mut ta);
            assert!(a.iter().zip(&ta).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let mut random = Random::new(8);
        for dim in [16, 32, 40, 48, 64, 80, 96, 128, 256, 576] {
            let row = random.normals(dim);
            let mut want = row.clone();
            transform(&mut want);
            for isa in Isa::all_available() {
                let mut got = row.clone();
                vector(isa).hadamard(&mut got);
                assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}, {dim}");
            }
        }
    }

    #[test]
    fn one_large_value_is_spread() {
        let mut row = vec![0.0; 64];
        row[17] = 8.0;
        transform(&mut row);
        assert!(row.iter().all(|x| x.abs() == 1.0));
    }

    #[test]
    fn a_row_without_a_block_length_stays() {
        let mut row = vec![1.0, 2.0, 3.0];
        transform(&mut row);
        assert_eq!(row, [1.0, 2.0, 3.0]);
    }
}
