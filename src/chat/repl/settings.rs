//! What `/set` changes.

use std::str::FromStr;

use crate::sample::{Mirostat, Params, Stage};

/// What is done when a conversation fills the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Nothing is forgotten: the answer ends, and a message that does not fit is refused.
    #[default]
    Stop,
    /// The oldest exchange is forgotten, the system prompt stays.
    DropOldestTurn,
}

/// How answers are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The sampler's parameters.
    pub sampling: Params,
    /// The most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Whether the tokens that end a generation are never sampled.
    pub ignore_eos: bool,
    /// What the template is told of reasoning; none: nothing.
    pub reasoning: Option<bool>,
    /// Whether speed and context are told after every answer.
    pub stats: bool,
    /// What is done when the context is full.
    pub on_full: OnFull,
}

/// One of them, by its name.
pub(super) struct Setting {
    pub name: &'static str,
    pub get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// A setting that is a field which reads and writes itself.
macro_rules! field {
    ($name:literal, $($field:ident).+) => {
        Setting {
            name: $name,
            get: |s| s.$($field).+.to_string(),
            set: |s, text| number(text).map(|value| s.$($field).+ = value),
        }
    };
}

pub(super) const SETTINGS: &[Setting] = &[
    field!("temp", sampling.temp),
    field!("top-k", sampling.top_k),
    field!("top-p", sampling.top_p),
    field!("min-p", sampling.min_p),
    field!("typical", sampling.typical),
    field!("top-nsigma", sampling.top_n_sigma),
    field!("repeat-last-n", sampling.repeat_last_n),
    field!("repeat-penalty", sampling.repeat_penalty),
    field!("presence-penalty", sampling.presence_penalty),
    field!("frequency-penalty", sampling.frequency_penalty),
    field!("dry-multiplier", sampling.dry_multiplier),
    field!("dry-base", sampling.dry_base),
    field!("dry-allowed-length", sampling.dry_allowed_length),
    field!("dry-penalty-last-n", sampling.dry_penalty_last_n),
    field!("xtc-probability", sampling.xtc_probability),
    field!("xtc-threshold", sampling.xtc_threshold),
    field!("dynatemp-range", sampling.dynatemp_range),
    field!("dynatemp-exp", sampling.dynatemp_exponent),
    Setting {
        name: "mirostat",
        get: |s| match s.sampling.mirostat {
            Mirostat::Off => "0".into(),
            Mirostat::V1 => "1".into(),
            Mirostat::V2 => "2".into(),
        },
        set: |s, text| {
            s.sampling.mirostat = Mirostat::try_from(number::<u8>(text)?).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    field!("mirostat-lr", sampling.mirostat_eta),
    field!("mirostat-ent", sampling.mirostat_tau),
    Setting {
        name: "samplers",
        get: |s| Stage::format_order(&s.sampling.samplers),
        set: |s, text| {
            s.sampling.samplers = Stage::parse_order(text).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Setting {
        name: "seed",
        get: |s| s.sampling.seed.map_or_else(|| "-1".into(), |seed| seed.to_string()),
        set: |s, text| {
            s.sampling.seed = if text == "-1" { None } else { Some(number(text)?) };
            Ok(())
        },
    },
    Setting {
        name: "n",
        get: |s| s.max_tokens.map_or_else(|| "-1".into(), |n| n.to_string()),
        set: |s, text| {
            s.max_tokens = if text == "-1" { None } else { Some(number(text)?) };
            Ok(())
        },
    },
    Setting {
        name: "ignore-eos",
        get: |s| on_off(s.ignore_eos).into(),
        set: |s, text| switch(text).map(|on| s.ignore_eos = on),
    },
    Setting {
        name: "reasoning",
        get: |s| s.reasoning.map_or("default", on_off).into(),
        set: |s, text| {
            s.reasoning = if text == "default" { None } else { Some(switch(text)?) };
            Ok(())
        },
    },
    Setting {
        name: "stats",
        get: |s| on_off(s.stats).into(),
        set: |s, text| switch(text).map(|on| s.stats = on),
    },
    Setting {
        name: "on-full",
        get: |s| policy(s.on_full).into(),
        set: |s, text| {
            s.on_full = [OnFull::Stop, OnFull::DropOldestTurn]
                .into_iter()
                .find(|p| policy(*p) == text)
                .ok_or_else(|| format!("{text:?} is neither stop nor drop-oldest-turn"))?;
            Ok(())
        },
    },
];

/// The policy as the command line spells it.
pub(super) fn policy(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::Stop => "stop",
        OnFull::DropOldestTurn => "drop-oldest-turn",
    }
}

fn on_off(yes: bool) -> &'static str {
    if yes { "on" } else { "off" }
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits here"))
}

impl Settings {
    /// These settings with one changed, and the name of that one.
    ///
    /// # Errors
    /// There is none of that name, or the value is not allowed; what is wrong.
    pub(super) fn with(&self, name: &str, value: &str) -> Result<(Settings, &'static Setting), String> {
        let plain = |text: &str| text.replace('_', "-");
        let wanted = plain(name.trim_start_matches("--"));
        let Some(setting) = SETTINGS.iter().find(|s| s.name == wanted) else {
            let names: Vec<&str> = SETTINGS.iter().map(|s| s.name).collect();
            return Err(format!("there is no setting {name:?}; there are {}", names.join(", ")));
        };
        let mut changed = self.clone();
        (setting.set)(&mut changed, value).map_err(|e| format!("{}: {e}", setting.name))?;
        changed.sampling.validate().map_err(|e| e.to_string())?;
        Ok((changed, setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            sampling: Params::default(),
            max_tokens: None,
            stops: Vec::new(),
            ignore_eos: false,
            reasoning: None,
            stats: false,
            on_full: OnFull::Stop,
        }
    }

    #[test]
    fn every_setting_can_be_set_to_what_it_is() {
        for setting in SETTINGS {
            let value = (setting.get)(&settings());
            let (same, found) = settings().with(setting.name, &value).unwrap();
            assert_eq!((same, found.name), (settings(), setting.name));
        }
    }

    #[test]
    fn names_are_read_with_either_stroke_and_as_flags() {
        for name in ["top-k", "top_k", "--top-k"] {
            assert_eq!(settings().with(name, "5").unwrap().0.sampling.top_k, 5);
        }
        assert_eq!(settings().with("n", "-1").unwrap().0.max_tokens, None);
        assert_eq!(settings().with("n", "12").unwrap().0.max_tokens, Some(12));
        assert_eq!(settings().with("reasoning", "off").unwrap().0.reasoning, Some(false));
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (name, value, said) in [
            ("temp", "warm", "temp: \"warm\" is no number"),
            ("top-p", "1.5", "top_p: 1.5 is not allowed"),
            ("n", "-2", "n: \"-2\""),
            ("stats", "yes", "stats: \"yes\" is neither on nor off"),
            ("on-full", "explode", "on-full: \"explode\""),
            ("samplers", "nonsense", "samplers: "),
            ("nonsense", "1", "there is no setting \"nonsense\"; there are temp, "),
        ] {
            let error = settings().with(name, value).err().expect("a setting that is refused");
            assert!(error.starts_with(said), "{error}");
        }
    }
}
