//! The chain's parameters, their defaults and their limits.

use super::{Error, Stage};

/// Which version of mirostat replaces the chain, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirostat {
    /// None: the chain of stages runs.
    #[default]
    Off,
    /// Version 1, which estimates the exponent of a Zipf law.
    V1,
    /// Version 2, which cuts at a surprise directly.
    V2,
}

impl TryFrom<u8> for Mirostat {
    type Error = Error;

    fn try_from(version: u8) -> Result<Self, Error> {
        match version {
            0 => Ok(Mirostat::Off),
            1 => Ok(Mirostat::V1),
            2 => Ok(Mirostat::V2),
            _ => Err(refuse("mirostat", &version, "0 (off), 1 or 2")),
        }
    }
}

/// How to choose a token. The defaults are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Divides the logits. Zero or less: always the most probable token (unless `dynatemp_range` widens it).
    pub temp: f32,
    /// Keep this many of the most probable tokens; zero or less: all.
    pub top_k: i32,
    /// Keep the most probable tokens up to this share of the probability, in 0 to 1; 1: all.
    pub top_p: f32,
    /// Drop tokens less probable than this share of the most probable one, in 0 to 1; 0: none.
    pub min_p: f32,
    /// Keep the most typical tokens up to this share of the probability, in 0 to 1; 1: all.
    pub typical: f32,
    /// Keep logits within this many standard deviations of the greatest; zero or less: all.
    pub top_n_sigma: f32,
    /// How often XTC acts, in 0 to 1; 0: never.
    pub xtc_probability: f32,
    /// What XTC takes for a top choice: a probability, in 0 to 1; above one half it never acts.
    pub xtc_threshold: f32,
    /// How many of the last tokens the penalties look at; -1: all, 0: none.
    pub repeat_last_n: i32,
    /// Divides a positive logit, multiplies a negative one, of a repeated token; above zero; 1: off.
    pub repeat_penalty: f32,
    /// Taken off the logit of a token that occurred; 0: off.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time it occurred; 0: off.
    pub frequency_penalty: f32,
    /// The weight of the DRY penalty; 0: off.
    pub dry_multiplier: f32,
    /// The base of the DRY penalty's growth, at least 1.
    pub dry_base: f32,
    /// Repeated sequences up to this many tokens cost nothing in DRY.
    pub dry_allowed_length: u32,
    /// How many of the last tokens DRY looks at; -1: all, 0: none.
    pub dry_penalty_last_n: i32,
    /// Texts at which DRY starts afresh, each 1 to 40 bytes.
    pub dry_sequence_breakers: Vec<String>,
    /// Half the width of the dynamic temperature's range around `temp`; 0: the temperature is fixed.
    pub dynatemp_range: f32,
    /// The exponent of the dynamic temperature, zero or more.
    pub dynatemp_exponent: f32,
    /// Whether mirostat replaces the chain.
    pub mirostat: Mirostat,
    /// Mirostat's learning rate, zero or more.
    pub mirostat_eta: f32,
    /// Mirostat's target surprise in bits, zero or more.
    pub mirostat_tau: f32,
    /// Added to the logits of these tokens; minus infinity bans a token. Biases of one token add up.
    pub logit_bias: Vec<(u32, f32)>,
    /// The seed of the draws; `None` takes one from the system (see [`super::Sampler::seed`]).
    pub seed: Option<u64>,
    /// Top-p, min-p, typical and XTC leave at least this many tokens, and at least one.
    pub min_keep: usize,
    /// The stages, in the order in which they run.
    pub samplers: Vec<Stage>,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            temp: 0.80,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.10,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 64,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            mirostat: Mirostat::Off,
            mirostat_eta: 0.10,
            mirostat_tau: 5.0,
            logit_bias: Vec::new(),
            seed: None,
            min_keep: 0,
            samplers: Stage::default_order(),
        }
    }
}

/// The longest sequence breaker, in bytes (llama.cpp cuts longer ones; here they are refused).
pub(super) const MAX_BREAKER_BYTES: usize = 40;

impl Params {
    /// Checks every value against its limits.
    ///
    /// # Errors
    ///
    /// [`Error::Param`] names the first field whose value is NaN, infinite or out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let number = |field, value: f32, ok: bool, rule| {
            if value.is_finite() && ok { Ok(()) } else { Err(refuse(field, &value, rule)) }
        };
        let finite = |field, value| number(field, value, true, "a finite number");
        let share = |field, value| number(field, value, (0.0..=1.0).contains(&value), "0 to 1");
        let natural = |field, value| number(field, value, value >= 0.0, "a finite number, 0 or more");
        let window = |field, value: i32| {
            if value >= -1 { Ok(()) } else { Err(refuse(field, &value, "-1 (all tokens), 0 (off) or more")) }
        };

        finite("temp", self.temp)?;
        share("top_p", self.top_p)?;
        share("min_p", self.min_p)?;
        share("typical", self.typical)?;
        finite("top_n_sigma", self.top_n_sigma)?;
        share("xtc_probability", self.xtc_probability)?;
        share("xtc_threshold", self.xtc_threshold)?;
        window("repeat_last_n", self.repeat_last_n)?;
        number("repeat_penalty", self.repeat_penalty, self.repeat_penalty > 0.0, "a finite number above 0")?;
        finite("presence_penalty", self.presence_penalty)?;
        finite("frequency_penalty", self.frequency_penalty)?;
        natural("dry_multiplier", self.dry_multiplier)?;
        number("dry_base", self.dry_base, self.dry_base >= 1.0, "a finite number, 1 or more")?;
        window("dry_penalty_last_n", self.dry_penalty_last_n)?;
        natural("dynatemp_range", self.dynatemp_range)?;
        natural("dynatemp_exponent", self.dynatemp_exponent)?;
        natural("mirostat_eta", self.mirostat_eta)?;
        natural("mirostat_tau", self.mirostat_tau)?;
        for text in &self.dry_sequence_breakers {
            if !(1..=MAX_BREAKER_BYTES).contains(&text.len()) {
                let rule = format!("a breaker has 1 to {MAX_BREAKER_BYTES} bytes, this has {}", text.len());
                return Err(refuse("dry_sequence_breakers", &format!("{text:?}"), rule));
            }
        }
        for &(token, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                let rule = "a finite number or -inf";
                return Err(refuse("logit_bias", &format!("{bias} of token {token}"), rule));
            }
        }
        Ok(())
    }

    /// Whether the most probable token is always taken, with nothing drawn.
    pub fn is_greedy(&self) -> bool {
        self.temp <= 0.0 && (self.dynatemp_range == 0.0 || self.mirostat != Mirostat::Off)
    }
}

fn refuse(field: &'static str, value: &dyn std::fmt::Display, rule: impl Into<String>) -> Error {
    Error::Param { field, value: value.to_string(), rule: rule.into() }
}

/// Reads a logit bias as llama.cpp's flag writes it: a token id, a sign, a number (`15043+1`, `15043-0.5`,
/// `15043-inf`).
///
/// # Errors
///
/// [`Error::LogitBias`] when the text has another form.
pub fn parse_logit_bias(text: &str) -> Result<(u32, f32), Error> {
    let fail = || Error::LogitBias(text.to_string());
    let at = text.find(['+', '-']).ok_or_else(fail)?;
    let (id, bias) = text.split_at(at);
    let id = id.trim().parse().map_err(|_| fail())?;
    // One sign only: "1+-2" is a slip of the pen rather than a number.
    let unsigned = bias.get(1..).unwrap_or_default();
    if unsigned.starts_with(['+', '-']) {
        return Err(fail());
    }
    let bias: f32 = bias.trim().parse().map_err(|_| fail())?;
    if bias.is_nan() || bias == f32::INFINITY { Err(fail()) } else { Ok((id, bias)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Params)) -> String {
        let mut params = Params::default();
        change(&mut params);
        params.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Params::default().validate(), Ok(()));
        assert!(!Params::default().is_greedy());
    }

    #[test]
    fn every_float_refuses_nan_and_infinities_by_name() {
        type Field = (&'static str, fn(&mut Params) -> &mut f32);
        let fields: [Field; 17] = [
            ("temp", |p| &mut p.temp),
            ("top_p", |p| &mut p.top_p),
            ("min_p", |p| &mut p.min_p),
            ("typical", |p| &mut p.typical),
            ("top_n_sigma", |p| &mut p.top_n_sigma),
            ("xtc_probability", |p| &mut p.xtc_probability),
            ("xtc_threshold", |p| &mut p.xtc_threshold),
            ("repeat_penalty", |p| &mut p.repeat_penalty),
            ("presence_penalty", |p| &mut p.presence_penalty),
            ("frequency_penalty", |p| &mut p.frequency_penalty),
            ("dry_multiplier", |p| &mut p.dry_multiplier),
            ("dry_base", |p| &mut p.dry_base),
            ("dynatemp_range", |p| &mut p.dynatemp_range),
            ("dynatemp_exponent", |p| &mut p.dynatemp_exponent),
            ("mirostat_eta", |p| &mut p.mirostat_eta),
            ("mirostat_tau", |p| &mut p.mirostat_tau),
            ("logit_bias", |p| {
                p.logit_bias = vec![(3, 0.0)];
                &mut p.logit_bias[0].1
            }),
        ];
        for (name, field) in fields {
            for bad in [f32::NAN, f32::INFINITY] {
                let message = refused(|p| *field(p) = bad);
                assert!(message.starts_with(&format!("{name}: ")), "{message}");
            }
            let minus_infinity = {
                let mut p = Params::default();
                *field(&mut p) = f32::NEG_INFINITY;
                p.validate()
            };
            assert_eq!(minus_infinity.is_ok(), name == "logit_bias", "{name}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let cases: [(&str, String); 14] = [
            ("top_p", refused(|p| p.top_p = 1.01)),
            ("top_p", refused(|p| p.top_p = -0.01)),
            ("min_p", refused(|p| p.min_p = -1.0)),
            ("typical", refused(|p| p.typical = 2.0)),
            ("xtc_probability", refused(|p| p.xtc_probability = 1.5)),
            ("xtc_threshold", refused(|p| p.xtc_threshold = -0.1)),
            ("repeat_last_n", refused(|p| p.repeat_last_n = -2)),
            ("repeat_penalty", refused(|p| p.repeat_penalty = 0.0)),
            ("dry_multiplier", refused(|p| p.dry_multiplier = -1.0)),
            ("dry_base", refused(|p| p.dry_base = 0.5)),
            ("dynatemp_range", refused(|p| p.dynatemp_range = -0.5)),
            ("mirostat_tau", refused(|p| p.mirostat_tau = -5.0)),
            ("dry_sequence_breakers", refused(|p| p.dry_sequence_breakers = vec![String::new()])),
            ("dry_sequence_breakers", refused(|p| p.dry_sequence_breakers = vec!["x".repeat(41)])),
        ];
        for (field, message) in cases {
            assert!(message.starts_with(&format!("{field}: ")), "{field}: {message}");
        }
        assert!(Mirostat::try_from(3).unwrap_err().to_string().starts_with("mirostat: 3 "));
    }

    #[test]
    fn logit_biases_are_read_as_llama_cpp_writes_them() {
        assert_eq!(parse_logit_bias("15043+1"), Ok((15043, 1.0)));
        assert_eq!(parse_logit_bias("15043-0.5"), Ok((15043, -0.5)));
        assert_eq!(parse_logit_bias("7-inf"), Ok((7, f32::NEG_INFINITY)));
        for bad in ["", "7", "+1", "-1", "x+1", "7+", "7+x", "7+-1", "7+nan", "7+inf", "99999999999+1"] {
            assert_eq!(parse_logit_bias(bad), Err(Error::LogitBias(bad.into())));
        }
    }
}
