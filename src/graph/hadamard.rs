//! The blocks in which a Hadamard transform turns a row.

/// Blocks shorter than this do not spread values far enough to be worth their time.
const LEAST: usize = 16;

/// The length of the blocks in which [`Op::Hadamard`](super::Op::Hadamard) turns a row of `dim` values: the largest power of
/// two that divides it. None where that is less than 16; such a row stays as it is.
pub fn hadamard_block(dim: usize) -> Option<usize> {
    let len = dim & dim.wrapping_neg();
    (len >= LEAST).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::hadamard_block;

    #[test]
    fn blocks_are_the_largest_power_of_two_of_at_least_sixteen() {
        assert_eq!([128, 64, 80, 96, 112, 576].map(hadamard_block), [128, 64, 16, 32, 16, 64].map(Some));
        assert_eq!([0, 1, 8, 40, 72, 100].map(hadamard_block), [None; 6]);
    }
}
