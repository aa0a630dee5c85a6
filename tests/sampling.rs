//! The sampling chain as its users see it: order, seeds, greedy choice, errors.

use chaski::sample::{Breakers, Error, Mirostat, Params, Pieces, Sampler, Stage};

fn sampler(params: Params, n_vocab: usize) -> Sampler {
    Sampler::with_breakers(params, n_vocab, Breakers::default()).unwrap()
}

fn seeded() -> Params {
    Params { seed: Some(42), ..Params::default() }
}

/// A chain of the given stages only.
fn only(order: &str) -> Params {
    Params { samplers: Stage::parse_order(order).unwrap(), ..seeded() }
}

/// A row of `n` logits somewhat like a model's, few likely tokens and many unlikely ones, computed exactly.
fn row(n: usize, step: usize) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let hash =
                (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(step as u64 * 0x632B_E5AB);
            let u = (hash.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 40) as f32 / (1u64 << 24) as f32;
            12.0 * u * u * u * u - 4.0
        })
        .collect()
}

fn generate(sampler: &mut Sampler, n_vocab: usize, n: usize) -> Vec<u32> {
    (0..n)
        .map(|step| {
            let token = sampler.sample(&row(n_vocab, step)).unwrap();
            sampler.accept(token);
            token
        })
        .collect()
}

#[test]
fn the_defaults_are_llama_cpps() {
    let p = Params::default();
    assert_eq!(
        (p.temp, p.top_k, p.top_p, p.min_p, p.typical, p.top_n_sigma),
        (0.8, 40, 0.95, 0.05, 1.0, -1.0)
    );
    assert_eq!((p.xtc_probability, p.xtc_threshold), (0.0, 0.1));
    assert_eq!(
        (p.repeat_last_n, p.repeat_penalty, p.presence_penalty, p.frequency_penalty),
        (64, 1.0, 0.0, 0.0)
    );
    assert_eq!(
        (p.dry_multiplier, p.dry_base, p.dry_allowed_length, p.dry_penalty_last_n),
        (0.0, 1.75, 2, 64)
    );
    assert_eq!(p.dry_sequence_breakers, ["\n", ":", "\"", "*"]);
    assert_eq!((p.dynatemp_range, p.dynatemp_exponent), (0.0, 1.0));
    assert_eq!((p.mirostat, p.mirostat_eta, p.mirostat_tau), (Mirostat::Off, 0.1, 5.0));
    assert_eq!((p.seed, p.min_keep, p.logit_bias.len()), (None, 0, 0));
    assert_eq!(p.samplers, Stage::parse_order("edskypmxt").unwrap());
}

#[test]
fn a_seed_gives_the_same_tokens_again() {
    let variants = [
        seeded(),
        Params { xtc_probability: 0.5, ..seeded() },
        Params { mirostat: Mirostat::V1, ..seeded() },
        Params { mirostat: Mirostat::V2, ..seeded() },
        Params { dynatemp_range: 0.5, repeat_penalty: 1.1, dry_multiplier: 0.8, typical: 0.9, ..seeded() },
    ];
    for params in variants {
        let mut a = sampler(params.clone(), 1000);
        let first = generate(&mut a, 1000, 60);
        assert_eq!(first, generate(&mut sampler(params.clone(), 1000), 1000, 60));
        a.reset();
        assert_eq!(first, generate(&mut a, 1000, 60), "after reset");
        let other = Params { seed: Some(43), ..params };
        assert_ne!(first, generate(&mut sampler(other, 1000), 1000, 60));
    }
}

#[test]
fn the_tokens_of_a_seed_are_pinned() {
    // A change of these numbers changes what every recorded seed gives, so it wants a line in the changelog.
    let tokens = generate(&mut sampler(seeded(), 1000), 1000, 8);
    assert_eq!(tokens, [205, 989, 899, 397, 872, 154, 290, 4]);
}

#[test]
fn a_seed_from_the_system_can_be_read_and_used_again() {
    let mut unseeded = sampler(Params::default(), 1000);
    let first = generate(&mut unseeded, 1000, 40);
    let again = Params { seed: Some(unseeded.seed()), ..Params::default() };
    assert_eq!(first, generate(&mut sampler(again, 1000), 1000, 40));
    assert_ne!(unseeded.seed(), sampler(Params::default(), 1000).seed());
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    for params in [
        Params { temp: 0.0, ..Params::default() },
        Params { temp: -1.0, ..Params::default() },
        Params { temp: 0.0, samplers: vec![], ..Params::default() },
        // Stages that would take the most probable token away.
        Params { temp: 0.0, xtc_probability: 1.0, typical: 0.1, ..Params::default() },
        Params { temp: 0.0, mirostat: Mirostat::V1, ..Params::default() },
        Params { temp: 0.0, mirostat: Mirostat::V2, dynatemp_range: 0.5, ..Params::default() },
        Params { top_k: 1, ..Params::default() },
    ] {
        let mut s = sampler(params, 6);
        for _ in 0..20 {
            assert_eq!(s.sample(&[1.0, 3.0, 2.0, 3.0, 3.0, -1.0]), Ok(1));
            assert_eq!(s.sample(&[f32::NEG_INFINITY, -9.0, -9.0, -10.0, -0.0, 0.0]), Ok(4));
        }
        assert_eq!(s.candidates().len(), 1);
    }
}

#[test]
fn greedy_heeds_bias_and_penalties() {
    let logits = [1.0, 3.0, 2.0];
    let greedy = Params { temp: 0.0, ..Params::default() };
    let banned = Params { logit_bias: vec![(1, f32::NEG_INFINITY)], ..greedy.clone() };
    assert_eq!(sampler(banned, 3).sample(&logits), Ok(2));
    // Two biases of one token add up.
    let raised = Params { logit_bias: vec![(0, 1.5), (0, 1.0)], ..greedy.clone() };
    assert_eq!(sampler(raised, 3).sample(&logits), Ok(0));

    let mut s = sampler(Params { presence_penalty: 1.5, ..greedy.clone() }, 3);
    let mut chosen = vec![];
    for _ in 0..4 {
        let token = s.sample(&logits).unwrap();
        s.accept(token);
        chosen.push(token);
    }
    // 1 3 2, then 1 1.5 2, then 1 1.5 0.5, which stays so.
    assert_eq!(chosen, [1, 2, 1, 1]);
    // Without the stage in the order the penalty does nothing.
    let mut off = sampler(Params { samplers: vec![Stage::Temperature], presence_penalty: 9.0, ..greedy }, 3);
    off.accept(1);
    assert_eq!(off.sample(&logits), Ok(1));
}

#[test]
fn the_order_of_the_stages_matters_and_is_heeded() {
    // p = 0.5 0.3 0.15 0.05. Cut at 0.75 first: two tokens are enough. Flattened first (fourth roots: 0.32 0.28
    // 0.23 0.18): three.
    let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
    let left = |order: &str| {
        let mut s = sampler(Params { temp: 4.0, top_p: 0.75, ..only(order) }, 4);
        s.sample(&logits).unwrap();
        s.candidates().len()
    };
    assert_eq!(left("top_p;temperature"), 2);
    assert_eq!(left("temperature;top_p"), 3);
    assert_eq!(left("pt"), 2);
    assert_eq!(left("t"), 4);
    // No stage at all: a plain draw.
    let mut plain = sampler(Params { samplers: vec![], ..seeded() }, 4);
    plain.sample(&logits).unwrap();
    assert_eq!(plain.candidates().len(), 4);
}

#[test]
fn a_stage_that_stands_twice_runs_twice() {
    // The square root twice is the fourth root.
    let logits = [0.7f32, 0.2, 0.1].map(f32::ln);
    let probabilities = |params: Params| {
        let mut s = sampler(params, 3);
        s.sample(&logits).unwrap();
        s.candidates().iter().map(|c| c.p).collect::<Vec<_>>()
    };
    let twice = probabilities(Params { temp: 2.0, ..only("tt") });
    let once = probabilities(Params { temp: 4.0, ..only("temp") });
    assert!(twice.iter().zip(&once).all(|(a, b)| (a - b).abs() < 1e-6), "{twice:?} {once:?}");
}

#[test]
fn draws_follow_the_probabilities() {
    let given = [0.05f32, 0.15, 0.3, 0.5];
    let mut s = sampler(Params { samplers: vec![], ..seeded() }, 5);
    let mut logits: Vec<f32> = given.iter().map(|p| p.ln()).collect();
    logits.push(f32::NEG_INFINITY);
    let mut counts = [0u32; 5];
    let n = 20_000;
    for _ in 0..n {
        counts[s.sample(&logits).unwrap() as usize] += 1;
    }
    assert_eq!(counts[4], 0, "minus infinity is never drawn");
    for (count, p) in counts.iter().zip(given) {
        // Six standard deviations.
        let expected = n as f32 * p;
        assert!((*count as f32 - expected).abs() < 6.0 * (expected * (1.0 - p)).sqrt(), "{counts:?}");
    }
}

#[test]
fn history_can_be_set_anew_after_an_undo() {
    let params = Params { temp: 0.0, repeat_penalty: 2.0, dry_multiplier: 50.0, ..Params::default() };
    let logits = [4.0, 3.0, 2.5, 1.0];
    let mut s = sampler(params.clone(), 4);
    for token in [0, 1, 2, 3, 0, 1] {
        s.accept(token);
    }
    // Undone back to "0": only token 0 is penalised, 4 -> 2.
    s.set_history(&[0]);
    assert_eq!(s.sample(&logits), Ok(1));
    // "2 1 2" repeats no two tokens, so DRY is silent; 1 and 2 are halved.
    s.set_history(&[2, 1, 2]);
    assert_eq!(s.sample(&logits), Ok(0));
    // All halved, so the order is the logits' own, except that 0 would repeat "2 3 0".
    s.set_history(&[1, 2, 3, 0, 2, 3]);
    assert_eq!(s.sample(&logits), Ok(1));
    let mut fresh = sampler(params, 4);
    for token in [1, 2, 3, 0, 2, 3] {
        fresh.accept(token);
    }
    assert_eq!(fresh.sample(&logits), Ok(1), "setting a history is accepting its tokens");
}

#[test]
fn answering_anew_draws_on_instead_of_repeating_itself() {
    let mut s = sampler(Params { temp: 1.5, top_k: 0, ..seeded() }, 1000);
    s.set_history(&[5, 6]);
    let first = generate(&mut s, 1000, 30);
    s.set_history(&[5, 6]);
    assert_ne!(first, generate(&mut s, 1000, 30));
}

#[test]
fn rows_that_cannot_be_sampled_are_errors_and_leave_the_sampler_usable() {
    let mut s = sampler(seeded(), 3);
    assert_eq!(s.sample(&[0.0, 1.0]), Err(Error::Length { got: 2, n_vocab: 3 }));
    let nan = s.sample(&[0.0, f32::NAN, 1.0]).unwrap_err();
    assert_eq!(nan.to_string(), "the logit of token 1 is NaN");
    assert_eq!(s.sample(&[0.0, 0.0, f32::INFINITY]).unwrap_err().to_string(), "the logit of token 2 is inf");
    assert_eq!(s.sample(&[f32::NEG_INFINITY; 3]), Err(Error::NothingLeft));
    assert!(s.sample(&[0.0, 1.0, f32::NEG_INFINITY]).is_ok());

    let all_banned = vec![(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)];
    for temp in [0.0, 0.8] {
        for mirostat in [Mirostat::Off, Mirostat::V1, Mirostat::V2] {
            let params = Params { temp, mirostat, logit_bias: all_banned.clone(), ..seeded() };
            assert_eq!(sampler(params, 2).sample(&[1.0, 2.0]), Err(Error::NothingLeft));
        }
    }
}

#[test]
fn a_sampler_that_makes_no_sense_is_not_made() {
    let make = |params, n_vocab| Sampler::with_breakers(params, n_vocab, Breakers::default()).map(|_| ());
    assert_eq!(make(Params::default(), 0), Err(Error::Vocabulary { n_vocab: 0 }));
    let bias = Params { logit_bias: vec![(9, 1.0), (10, 1.0)], ..Params::default() };
    assert_eq!(make(bias, 10), Err(Error::BiasedToken { token: 10, n_vocab: 10 }));
    let nan = Params { top_p: f32::NAN, ..Params::default() };
    assert_eq!(make(nan, 10).unwrap_err().to_string(), "top_p: NaN is not allowed: 0 to 1");
}

#[test]
fn extreme_but_valid_parameters_and_logits_always_give_a_token() {
    let extremes = [f32::MIN, -1e30, -1e-45, 0.0, 1e-45, 1e30, f32::MAX, f32::NEG_INFINITY];
    let mut tried = 0;
    for temp in [1e-44, 1e-3, 0.8, 1e38] {
        for (range, exponent) in [(0.0, 1.0), (1e38, 0.0), (0.5, 1e38)] {
            for mirostat in [Mirostat::Off, Mirostat::V1, Mirostat::V2] {
                for (repeat, other) in [(1e-38, -3e38), (1e38, 3e38), (1.0, 0.0)] {
                    let params = Params {
                        temp,
                        dynatemp_range: range,
                        dynatemp_exponent: exponent,
                        mirostat,
                        mirostat_tau: 1e38,
                        repeat_penalty: repeat,
                        frequency_penalty: other,
                        presence_penalty: other,
                        dry_multiplier: 3e38,
                        dry_base: 3e38,
                        dry_allowed_length: 0,
                        top_n_sigma: 1e-30,
                        typical: 0.5,
                        xtc_probability: 1.0,
                        xtc_threshold: 0.0,
                        logit_bias: vec![(0, f32::MAX), (0, f32::MAX), (1, f32::MIN)],
                        ..seeded()
                    };
                    let mut s = sampler(params, extremes.len());
                    for _ in 0..12 {
                        let token = s.sample(&extremes).unwrap();
                        assert_ne!(token, 7, "minus infinity is never chosen");
                        s.accept(token);
                        tried += 1;
                    }
                }
            }
        }
    }
    assert_eq!(tried, 4 * 3 * 3 * 3 * 12);
}

#[test]
fn dry_takes_its_breakers_from_the_vocabulary() {
    struct Words;
    impl Pieces for Words {
        fn piece(&self, token: u32, text: &mut Vec<u8>) {
            text.extend_from_slice(["a", "b", "c", ":\n", "d"][token as usize].as_bytes());
        }
        fn tokenize(&self, _: &[u8]) -> Option<Vec<u32>> {
            None
        }
    }
    let params = Params { temp: 0.0, dry_multiplier: 10.0, ..Params::default() };
    let logits = [0.0, 0.0, 5.0, 0.0, 4.0];
    let after = |history: &[u32]| {
        let mut s = Sampler::new(params.clone(), 5, &Words).unwrap();
        s.set_history(history);
        s.sample(&logits).unwrap()
    };
    assert_eq!(after(&[0, 1, 2, 0, 1]), 4, "c would repeat a b c");
    assert_eq!(after(&[3, 0, 1, 2, 3, 0, 1]), 4, "a b c after a line's end, twice");
    assert_eq!(after(&[0, 3, 1, 2, 0, 3, 1]), 2, "after the line's end only b repeats");
}

#[test]
fn mirostat_ignores_the_stages_but_not_the_bias() {
    let logits = [3.0, 2.0, 1.0];
    for mirostat in [Mirostat::V1, Mirostat::V2] {
        // A target of zero surprise keeps one token; penalties or XTC would change which.
        let base = Params { mirostat, mirostat_tau: 0.0, ..seeded() };
        let mut s = sampler(Params { presence_penalty: 50.0, xtc_probability: 1.0, ..base.clone() }, 3);
        s.accept(0);
        assert_eq!(s.sample(&logits), Ok(0));
        let mut banned = sampler(Params { logit_bias: vec![(0, f32::NEG_INFINITY)], ..base }, 3);
        assert_eq!(banned.sample(&logits), Ok(1));
    }
}
