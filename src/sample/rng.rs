//! Random numbers that are the same on every platform.

use std::hash::{BuildHasher, Hasher, RandomState};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// A stream of random numbers, fixed by a seed and a stream number.
#[derive(Debug, Clone)]
pub(super) struct Rng(ChaCha12Rng);

impl Rng {
    /// The key is the seed, little-endian, followed by zeros, rather than what a version of `rand` expands it to.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha12Rng::from_seed(key);
        rng.set_stream(stream);
        Rng(rng)
    }

    /// Uniform in [0, 1), in steps of 2^-53.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// A seed that differs from call to call and from run to run.
pub(super) fn random_seed() -> u64 {
    // The standard library keys its hash maps from the operating system's entropy; this asks for such a key.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // ChaCha12 of the key 42, 0, 0, ... computed apart from this code. A change here would change the text
        // that every recorded seed gives.
        let mut rng = Rng::new(42, 0);
        let first: Vec<u64> = (0..3).map(|_| (rng.uniform() * 1e9) as u64).collect();
        assert_eq!(first, [432_029_862, 161_078_080, 672_156_101]);
    }

    #[test]
    fn streams_and_seeds_differ_and_the_mean_is_a_half() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..1000).map(|_| rng.uniform()).collect::<Vec<_>>()
        };
        let a = draw(7, 0);
        assert_eq!(a, draw(7, 0));
        assert_ne!(a, draw(7, 1));
        assert_ne!(a, draw(8, 0));
        assert!(a.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = a.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_ne!(random_seed(), random_seed());
    }
}
