//! Frequencies of rotary embeddings.

use std::f64::consts::PI;

use super::RopeParams;

impl RopeParams {
    /// The inverse wavelength of every pair and the factor on cosine and sine, by ggml's definition of
    /// RoPE with linear scaling and YaRN; `factors` divide the frequencies (Llama 3).
    pub fn frequencies(&self, factors: Option<&[f32]>) -> (Vec<f64>, f64) {
        let base = f64::from(self.freq_base);
        // The pair whose wave turns `beta` times over the original context.
        let corrected = |beta: f32| {
            let turns = f64::from(self.n_ctx_orig) / (f64::from(beta) * 2.0 * PI);
            self.n_rot as f64 * turns.ln() / (2.0 * base.ln())
        };
        let low = corrected(self.beta_fast).floor().max(0.0);
        let high = corrected(self.beta_slow).ceil().min(self.n_rot as f64 - 1.0);
        let yarn = self.ext_factor != 0.0;
        let of_pair = |i: usize| {
            let freq = base.powf(-2.0 * i as f64 / self.n_rot as f64);
            let freq = freq / factors.map_or(1.0, |f| f64::from(f[i]));
            let stretched = freq * f64::from(self.freq_scale);
            if !yarn {
                return stretched;
            }
            let ramp = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            let mix = ramp * f64::from(self.ext_factor);
            stretched * (1.0 - mix) + freq * mix
        };
        let mut magnitude = f64::from(self.attn_factor);
        if yarn {
            magnitude *= 1.0 + 0.1 * (1.0 / f64::from(self.freq_scale)).ln();
        }
        ((0..self.n_rot / 2).map(of_pair).collect(), magnitude)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use crate::graph::RopeParams;

    const PLAIN: RopeParams = RopeParams {
        n_rot: 64,
        freq_base: 10_000.0,
        freq_scale: 1.0,
        ext_factor: 0.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        n_ctx_orig: 4096,
    };

    fn assert_close(got: f64, want: f64, what: &str) {
        assert!((got - want).abs() <= 1e-12 * want.abs(), "{what}: {got} instead of {want}");
    }

    #[test]
    fn plain_frequencies_fall_geometrically_from_one() {
        let (freqs, magnitude) = PLAIN.frequencies(None);
        assert_eq!((freqs.len(), magnitude, freqs[0]), (32, 1.0, 1.0));
        for (i, freq) in freqs.iter().enumerate() {
            assert_close(*freq, (-(2.0 * i as f64) / 64.0 * 10_000f64.ln()).exp(), &format!("pair {i}"));
        }
    }

    #[test]
    fn linear_scaling_divides_all_frequencies_and_factors_each_its_own() {
        let plain = PLAIN.frequencies(None).0;
        let (linear, magnitude) = (RopeParams { freq_scale: 0.25, ..PLAIN }).frequencies(None);
        assert_eq!(magnitude, 1.0);
        let factors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32 / 4.0).collect();
        let by_factors = PLAIN.frequencies(Some(&factors)).0;
        for i in 0..32 {
            assert_close(linear[i], plain[i] / 4.0, &format!("linear, pair {i}"));
            assert_close(by_factors[i], plain[i] / f64::from(factors[i]), &format!("factors, pair {i}"));
        }
    }

    /// By turns over the original context, as the paper puts it: the ramp goes over the pairs between the last that turns
    /// at least `beta_fast` times and the first that turns at most `beta_slow` times, both found by counting.
    fn yarn(p: &RopeParams, s: f64) -> Vec<f64> {
        let freq = |i: f64| f64::from(p.freq_base).powf(-2.0 * i / p.n_rot as f64);
        let turns = |i: f64| f64::from(p.n_ctx_orig) * freq(i) / TAU;
        let pairs = 0..p.n_rot;
        let low = pairs.clone().rev().find(|i| turns(*i as f64) >= f64::from(p.beta_fast)).unwrap_or(0);
        let high = pairs.clone().find(|i| turns(*i as f64) <= f64::from(p.beta_slow)).unwrap_or(p.n_rot - 1);
        let of_pair = |i: usize| {
            let interpolated = ((i as f64 - low as f64) / (high as f64 - low as f64)).clamp(0.0, 1.0);
            freq(i as f64) * (1.0 - interpolated) + freq(i as f64) / s * interpolated
        };
        (0..p.n_rot / 2).map(of_pair).collect()
    }

    #[test]
    fn yarn_keeps_fast_pairs_stretches_slow_ones_and_ramps_between() {
        for (freq_base, n_ctx_orig, s, n_rot) in [
            (10_000.0, 4096, 4.0, 64),
            (1e6, 32_768, 4.0, 128),
            (500_000.0, 8192, 16.0, 128),
            (1e4, 64, 2.0, 32),
        ] {
            let p = RopeParams {
                n_rot,
                freq_base,
                freq_scale: 1.0 / s as f32,
                ext_factor: 1.0,
                n_ctx_orig,
                ..PLAIN
            };
            let (got, magnitude) = p.frequencies(None);
            assert_close(magnitude, 1.0 + 0.1 * f64::ln(s), "magnitude");
            for (i, (got, want)) in got.iter().zip(yarn(&p, s)).enumerate() {
                assert_close(*got, want, &format!("base {freq_base}, pair {i}"));
            }
            let plain = (RopeParams { freq_scale: 1.0, ext_factor: 0.0, ..p }).frequencies(None).0;
            assert_eq!(got[0], plain[0], "the fastest pair is left as it is");
            let last = n_rot / 2 - 1;
            if freq_base > 64.0 && n_ctx_orig > 64 {
                assert_close(got[last], plain[last] / s, "the slowest pair is stretched");
            }
        }
    }

    #[test]
    fn the_files_own_magnitude_multiplies_yarns() {
        let p = RopeParams { freq_scale: 0.25, ext_factor: 1.0, attn_factor: 1.5, ..PLAIN };
        assert_close(p.frequencies(None).1, 1.5 * (1.0 + 0.1 * 4f64.ln()), "magnitude");
        assert_close((RopeParams { ext_factor: 0.0, ..p }).frequencies(None).1, 1.5, "magnitude");
    }
}
