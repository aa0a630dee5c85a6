//! The stages of the chain by name, and the order in which they run.

use std::fmt;

use super::Error;

/// A stage of the chain whose place can be chosen. The logit bias always comes first, the draw always last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Repeat, presence and frequency penalties.
    Penalties,
    /// The DRY penalty on repeated sequences.
    Dry,
    /// Top-n-sigma truncation.
    TopNSigma,
    /// Top-k truncation.
    TopK,
    /// Locally typical sampling.
    Typical,
    /// Top-p (nucleus) truncation.
    TopP,
    /// Min-p truncation.
    MinP,
    /// Exclude top choices.
    Xtc,
    /// The temperature, fixed or dynamic.
    Temperature,
}

struct Row {
    stage: Stage,
    letter: char,
    /// The first is the canonical one. Written with `_`; `-` is read as the same.
    names: &'static [&'static str],
}

/// In the default order. Names and letters are those of llama.cpp's `--samplers` and `--sampler-seq`.
const STAGES: [Row; 9] = [
    Row { stage: Stage::Penalties, letter: 'e', names: &["penalties"] },
    Row { stage: Stage::Dry, letter: 'd', names: &["dry"] },
    Row { stage: Stage::TopNSigma, letter: 's', names: &["top_n_sigma"] },
    Row { stage: Stage::TopK, letter: 'k', names: &["top_k"] },
    Row { stage: Stage::Typical, letter: 'y', names: &["typ_p", "typical_p", "typical", "typ"] },
    Row { stage: Stage::TopP, letter: 'p', names: &["top_p", "nucleus"] },
    Row { stage: Stage::MinP, letter: 'm', names: &["min_p"] },
    Row { stage: Stage::Xtc, letter: 'x', names: &["xtc"] },
    Row { stage: Stage::Temperature, letter: 't', names: &["temperature", "temp"] },
];

/// Stages that llama.cpp has and this chain lacks, so that the message can say so.
const ELSEWHERE: [&str; 2] = ["infill", "adaptive_p"];

impl Stage {
    /// Every stage, in the default order `edskypmxt`.
    pub fn default_order() -> Vec<Stage> {
        STAGES.iter().map(|row| row.stage).collect()
    }

    /// The canonical name, as in `top_k`.
    pub fn name(self) -> &'static str {
        STAGES.iter().find(|row| row.stage == self).map_or("", |row| row.names[0])
    }

    /// The letter of the short form, as `k` for `top_k`.
    pub fn letter(self) -> char {
        STAGES.iter().find(|row| row.stage == self).map_or('?', |row| row.letter)
    }

    /// The stage of a canonical name or an alias; `-` and `_` are the same.
    pub fn from_name(name: &str) -> Option<Stage> {
        let name = name.replace('-', "_");
        STAGES.iter().find(|row| row.names.contains(&name.as_str())).map(|row| row.stage)
    }

    /// The stage of a letter of the short form.
    pub fn from_letter(letter: char) -> Option<Stage> {
        STAGES.iter().find(|row| row.letter == letter).map(|row| row.stage)
    }

    /// Reads an order: names separated by `;` (`top_k;min-p;temperature`) or one letter per stage (`kmt`).
    ///
    /// A stage may be left out or stand twice; a text that is a name is that name (`temp` is the temperature, not
    /// four letters).
    ///
    /// # Errors
    ///
    /// [`Error::Order`] names the first part that is no stage.
    pub fn parse_order(text: &str) -> Result<Vec<Stage>, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Order(format!("the order is empty; {}", choices())));
        }
        if !text.contains(';') && Stage::from_name(text).is_none() {
            let letters: Option<Vec<Stage>> = text.chars().map(Stage::from_letter).collect();
            if let Some(order) = letters {
                return Ok(order);
            }
        }
        text.split(';').map(str::trim).map(parse_name).collect()
    }

    /// Writes an order as [`Stage::parse_order`] reads it, by canonical names.
    pub fn format_order(order: &[Stage]) -> String {
        order.iter().map(|stage| stage.name()).collect::<Vec<_>>().join(";")
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn parse_name(name: &str) -> Result<Stage, Error> {
    Stage::from_name(name).ok_or_else(|| {
        if ELSEWHERE.contains(&name.replace('-', "_").as_str()) {
            Error::Order(format!("{name:?} is a stage of llama.cpp that is not built here; {}", choices()))
        } else {
            Error::Order(format!("{name:?} is no stage; {}", choices()))
        }
    })
}

fn choices() -> String {
    let all: Vec<String> = STAGES.iter().map(|row| format!("{} ({})", row.names[0], row.letter)).collect();
    format!("stages are {}, names separated by `;` or letters without separator", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_order_is_llama_cpps() {
        let long = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
        assert_eq!(Stage::parse_order(long).unwrap(), Stage::default_order());
        assert_eq!(Stage::parse_order("edskypmxt").unwrap(), Stage::default_order());
        assert_eq!(Stage::format_order(&Stage::default_order()), long);
        let letters: String = Stage::default_order().into_iter().map(Stage::letter).collect();
        assert_eq!(letters, "edskypmxt");
    }

    #[test]
    fn every_alias_is_accepted() {
        for (text, stage) in [
            ("top-k", Stage::TopK),
            ("top-p", Stage::TopP),
            ("nucleus", Stage::TopP),
            ("top-n-sigma", Stage::TopNSigma),
            ("typical_p", Stage::Typical),
            ("typical-p", Stage::Typical),
            ("typical", Stage::Typical),
            ("typ-p", Stage::Typical),
            ("typ", Stage::Typical),
            ("min-p", Stage::MinP),
            ("temp", Stage::Temperature),
            (" xtc ", Stage::Xtc),
        ] {
            assert_eq!(Stage::parse_order(text).unwrap(), [stage], "{text}");
        }
        assert_eq!(Stage::parse_order("temp; top-k").unwrap(), [Stage::Temperature, Stage::TopK]);
        assert_eq!(Stage::parse_order("tkt").unwrap(), [Stage::Temperature, Stage::TopK, Stage::Temperature]);
    }

    #[test]
    fn what_is_no_stage_is_named() {
        for (text, part) in [
            ("top_k;bogus", "\"bogus\" is no stage"),
            ("kq", "\"kq\" is no stage"),
            ("top_k;;temp", "\"\" is no stage"),
            ("", "empty"),
            ("  ", "empty"),
            ("top_k;adaptive-p", "\"adaptive-p\" is a stage of llama.cpp that is not built here"),
        ] {
            let message = Stage::parse_order(text).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("top_n_sigma (s)"), "{text}: {message}");
        }
    }
}
