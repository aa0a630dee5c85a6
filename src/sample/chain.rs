//! The chain itself: from a row of logits to a token.

use rustc_hash::FxHashMap;

use super::candidates::{Candidate, Candidates, clamp_finite};
use super::dry::{Breakers, Dry, Pieces};
use super::params::Mirostat;
use super::penalties::Penalties;
use super::rng::{Rng, random_seed};
use super::{Error, Params, Stage, mirostat, temperature, truncate, xtc};

/// The random streams of one seed. XTC has its own, so that whether it acts does not move the draws.
const STREAM_DRAW: u64 = 0;
const STREAM_XTC: u64 = 1;

/// Chooses tokens for one sequence: the parameters, the tokens that the penalties look back at, the random
/// numbers.
///
/// [`Sampler::sample`] chooses and [`Sampler::accept`] remembers; tokens that were not chosen here, the prompt's
/// for one, are accepted as well.
#[derive(Debug)]
pub struct Sampler {
    params: Params,
    n_vocab: usize,
    seed: u64,
    bias: FxHashMap<u32, f32>,
    penalties: Penalties,
    dry: Dry,
    mirostat: mirostat::State,
    draws: Rng,
    xtc: Rng,
    candidates: Candidates,
}

impl Sampler {
    /// Makes a sampler for rows of `n_vocab` logits. `pieces` is asked only when the DRY stage is on, and then for
    /// every token once.
    ///
    /// # Errors
    ///
    /// [`Error::Param`] for a value out of range, [`Error::BiasedToken`] for a bias of a token that does not
    /// exist, [`Error::Vocabulary`] when `n_vocab` is zero or does not fit a token id.
    pub fn new(params: Params, n_vocab: usize, pieces: &dyn Pieces) -> Result<Self, Error> {
        params.validate()?;
        let runs = params.mirostat == Mirostat::Off && params.samplers.contains(&Stage::Dry);
        let breakers = if runs && params.dry_multiplier != 0.0 && params.dry_penalty_last_n != 0 {
            Breakers::from_text(&params.dry_sequence_breakers, n_vocab, pieces)
        } else {
            Breakers::default()
        };
        Sampler::with_breakers(params, n_vocab, breakers)
    }

    /// Makes a sampler whose DRY stage breaks sequences at the given tokens; `params.dry_sequence_breakers` is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// As [`Sampler::new`].
    pub fn with_breakers(params: Params, n_vocab: usize, breakers: Breakers) -> Result<Self, Error> {
        params.validate()?;
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::Vocabulary { n_vocab });
        }
        let mut bias: FxHashMap<u32, f32> = FxHashMap::default();
        for &(token, value) in &params.logit_bias {
            if token as usize >= n_vocab {
                return Err(Error::BiasedToken { token, n_vocab });
            }
            *bias.entry(token).or_default() += value;
        }
        let seed = params.seed.unwrap_or_else(random_seed);
        Ok(Sampler {
            n_vocab,
            seed,
            bias,
            penalties: Penalties::new(&params),
            dry: Dry::new(&params, breakers),
            mirostat: mirostat::State::new(&params),
            draws: Rng::new(seed, STREAM_DRAW),
            xtc: Rng::new(seed, STREAM_XTC),
            candidates: Candidates::default(),
            params,
        })
    }

    /// Chooses a token by a row of `n_vocab` logits. Minus infinity is allowed: that token is never chosen.
    ///
    /// The token is not accepted: [`Sampler::accept`] does that.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] for a row of another length, [`Error::Logit`] for a NaN or plus infinity in it,
    /// [`Error::NothingLeft`] when every logit is minus infinity.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, Error> {
        if logits.len() != self.n_vocab {
            return Err(Error::Length { got: logits.len(), n_vocab: self.n_vocab });
        }
        let Sampler { params, candidates, .. } = self;
        candidates.fill(logits)?;
        candidates.adjust(&self.bias, |logit, &bias| {
            if bias == f32::NEG_INFINITY { bias } else { clamp_finite(logit + clamp_finite(bias)) }
        });

        let chain = if params.mirostat == Mirostat::Off { params.samplers.as_slice() } else { &[] };
        if params.is_greedy() {
            for stage in chain {
                match stage {
                    Stage::Penalties => self.penalties.apply(params, candidates),
                    Stage::Dry => self.dry.apply(params, candidates),
                    // The others leave the greatest where it is, or would take it away.
                    _ => {}
                }
            }
            let greatest = candidates.greatest().filter(|c| c.logit.is_finite()).ok_or(Error::NothingLeft)?;
            candidates.keep_only(greatest);
            return Ok(greatest.id);
        }
        if params.mirostat != Mirostat::Off {
            temperature::scale(params.temp, candidates);
            return self.mirostat.draw(params, self.n_vocab, candidates, &mut self.draws);
        }
        for stage in chain {
            match stage {
                Stage::Penalties => self.penalties.apply(params, candidates),
                Stage::Dry => self.dry.apply(params, candidates),
                Stage::TopNSigma => truncate::top_n_sigma(params, candidates),
                Stage::TopK => truncate::top_k(params, candidates),
                Stage::Typical => truncate::typical(params, candidates),
                Stage::TopP => truncate::top_p(params, candidates),
                Stage::MinP => truncate::min_p(params, candidates),
                Stage::Xtc => xtc::xtc(params, candidates, &mut self.xtc),
                Stage::Temperature => temperature::temperature(params, candidates),
            }
        }
        draw(candidates, &mut self.draws).map(|c| c.id)
    }

    /// Remembers a token of the sequence, for the penalties: a chosen one or one of the prompt.
    pub fn accept(&mut self, token: u32) {
        self.penalties.accept(token);
        self.dry.accept(token);
    }

    /// Makes `tokens`, oldest first, the sequence that the penalties look back at, in place of what was accepted
    /// before: after a prompt, after undoing or before answering anew. The random numbers go on where they were,
    /// so that a second answer differs from the first.
    pub fn set_history(&mut self, tokens: &[u32]) {
        self.penalties.clear();
        self.dry.clear();
        for &token in tokens {
            self.accept(token);
        }
    }

    /// Back to the state in which the sampler was made: no tokens accepted, the random numbers from the start of
    /// the same [`Sampler::seed`], mirostat's mu at its first value.
    pub fn reset(&mut self) {
        self.set_history(&[]);
        self.mirostat = mirostat::State::new(&self.params);
        self.draws = Rng::new(self.seed, STREAM_DRAW);
        self.xtc = Rng::new(self.seed, STREAM_XTC);
    }

    /// The seed in use: the one asked for, or the one taken from the system.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The parameters as they were given.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What the last [`Sampler::sample`] drew from, with probabilities: the candidates that the chain left.
    pub fn candidates(&self) -> &[Candidate] {
        self.candidates.as_slice()
    }
}

/// Draws a candidate by its probability.
pub(super) fn draw(candidates: &mut Candidates, rng: &mut Rng) -> Result<Candidate, Error> {
    candidates.softmax().ok_or(Error::NothingLeft)?;
    let possible = || candidates.as_slice().iter().filter(|c| c.p > 0.0);
    let total: f64 = possible().map(|c| f64::from(c.p)).sum();
    let target = rng.uniform() * total;
    let mut sum = 0.0;
    for c in possible() {
        sum += f64::from(c.p);
        if sum >= target {
            return Ok(*c);
        }
    }
    // The same additions gave the total, so the loop ends before this.
    possible().next_back().copied().ok_or(Error::NothingLeft)
}
