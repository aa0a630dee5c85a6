//! The sampler chain, and how an answer ends.

use crate::cli::args::{GenerationArgs, SamplingArgs};
use crate::cli::exit::Failure;
use crate::sample::{Mirostat, Params, Stage, parse_logit_bias};

/// How an answer is generated, ready for the sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// At most so many tokens; none = until the model ends its turn or the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer and are not printed.
    pub stop: Vec<String>,
    /// Whether end-of-generation tokens are never sampled.
    pub ignore_eos: bool,
    /// The chain.
    pub sampling: Params,
}

impl Generation {
    /// What the flags mean.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn new(args: &GenerationArgs, sampling: &SamplingArgs) -> Result<Generation, Failure> {
        if args.stop.iter().any(String::is_empty) {
            return Err(Failure::usage("--stop with an empty text would end every answer at once"));
        }
        // clap has refused what lies below -1.
        let seed = args.seed.and_then(|seed| u64::try_from(seed).ok());
        let params = Params { seed, ..params(sampling)? };
        for flag in without_effect(sampling, args.seed.is_some(), &params) {
            tracing::warn!("{flag}");
        }
        Ok(Generation {
            max_tokens: usize::try_from(args.predict).ok(),
            stop: args.stop.clone(),
            ignore_eos: args.ignore_eos,
            sampling: params,
        })
    }
}

/// The chain that the flags describe.
fn params(args: &SamplingArgs) -> Result<Params, Failure> {
    let refused = |error: crate::sample::Error| Failure::usage(format!("sampling: {error}"));
    let mut p = Params::default();
    for (given, field) in [
        (args.temp, &mut p.temp),
        (args.top_p, &mut p.top_p),
        (args.min_p, &mut p.min_p),
        (args.typical, &mut p.typical),
        (args.top_nsigma, &mut p.top_n_sigma),
        (args.xtc_probability, &mut p.xtc_probability),
        (args.xtc_threshold, &mut p.xtc_threshold),
        (args.repeat_penalty, &mut p.repeat_penalty),
        (args.presence_penalty, &mut p.presence_penalty),
        (args.frequency_penalty, &mut p.frequency_penalty),
        (args.dry_multiplier, &mut p.dry_multiplier),
        (args.dry_base, &mut p.dry_base),
        (args.dynatemp_range, &mut p.dynatemp_range),
        (args.dynatemp_exp, &mut p.dynatemp_exponent),
        (args.mirostat_lr, &mut p.mirostat_eta),
        (args.mirostat_ent, &mut p.mirostat_tau),
    ] {
        *field = given.unwrap_or(*field);
    }
    p.top_k = args.top_k.unwrap_or(p.top_k);
    p.repeat_last_n = args.repeat_last_n.unwrap_or(p.repeat_last_n);
    p.dry_penalty_last_n = args.dry_penalty_last_n.unwrap_or(p.dry_penalty_last_n);
    p.dry_allowed_length = args.dry_allowed_length.unwrap_or(p.dry_allowed_length);
    p.mirostat = args.mirostat.map_or(Ok(Mirostat::Off), Mirostat::try_from).map_err(refused)?;
    if !args.dry_sequence_breaker.is_empty() {
        let breakers = args.dry_sequence_breaker.iter().filter(|text| *text != "none");
        p.dry_sequence_breakers = breakers.map(|text| unescape(text)).collect();
    }
    for text in &args.logit_bias {
        p.logit_bias.push(parse_logit_bias(text).map_err(refused)?);
    }
    if let Some(order) = &args.samplers {
        p.samplers = Stage::parse_order(order).map_err(refused)?;
    }
    p.validate().map_err(refused)?;
    Ok(p)
}

/// `\n`, `\t`, `\r`, `\\` and `\"` as llama.cpp reads them in a sequence breaker.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(c @ ('\\' | '"' | '\'')) => out.push(c),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    out
}

/// For every flag that was given and changes nothing beside the others: a sentence that says why.
fn without_effect(args: &SamplingArgs, seed: bool, p: &Params) -> Vec<String> {
    let no_penalty = p.repeat_penalty == 1.0 && p.presence_penalty == 0.0 && p.frequency_penalty == 0.0;
    let no_xtc = p.xtc_probability == 0.0;
    let fixed = p.dynatemp_range == 0.0;
    // Flag, whether it was given, its stage, what makes it idle.
    let rows: &[(&str, bool, Option<Stage>, Option<&str>)] = &[
        ("--top-k", args.top_k.is_some(), Some(Stage::TopK), None),
        ("--top-p", args.top_p.is_some(), Some(Stage::TopP), None),
        ("--min-p", args.min_p.is_some(), Some(Stage::MinP), None),
        ("--typical", args.typical.is_some(), Some(Stage::Typical), None),
        ("--top-nsigma", args.top_nsigma.is_some(), Some(Stage::TopNSigma), None),
        ("--xtc-probability", args.xtc_probability.is_some(), Some(Stage::Xtc), None),
        (
            "--xtc-threshold",
            args.xtc_threshold.is_some(),
            Some(Stage::Xtc),
            no_xtc.then_some("without --xtc-probability"),
        ),
        ("--temp", args.temp.is_some(), Some(Stage::Temperature), None),
        ("--dynatemp-range", args.dynatemp_range.is_some(), Some(Stage::Temperature), None),
        (
            "--dynatemp-exp",
            args.dynatemp_exp.is_some(),
            Some(Stage::Temperature),
            fixed.then_some("without --dynatemp-range"),
        ),
        (
            "--repeat-last-n",
            args.repeat_last_n.is_some(),
            Some(Stage::Penalties),
            no_penalty.then_some("without a penalty"),
        ),
        ("--repeat-penalty", args.repeat_penalty.is_some(), Some(Stage::Penalties), None),
        ("--presence-penalty", args.presence_penalty.is_some(), Some(Stage::Penalties), None),
        ("--frequency-penalty", args.frequency_penalty.is_some(), Some(Stage::Penalties), None),
        ("--dry-multiplier", args.dry_multiplier.is_some(), Some(Stage::Dry), None),
        ("--dry-base", args.dry_base.is_some(), Some(Stage::Dry), dry_off(p)),
        ("--dry-allowed-length", args.dry_allowed_length.is_some(), Some(Stage::Dry), dry_off(p)),
        ("--dry-penalty-last-n", args.dry_penalty_last_n.is_some(), Some(Stage::Dry), dry_off(p)),
        ("--dry-sequence-breaker", !args.dry_sequence_breaker.is_empty(), Some(Stage::Dry), dry_off(p)),
        ("--mirostat", p.mirostat != Mirostat::Off, None, None),
        ("--mirostat-lr", args.mirostat_lr.is_some(), None, mirostat_off(p)),
        ("--mirostat-ent", args.mirostat_ent.is_some(), None, mirostat_off(p)),
        ("--samplers", args.samplers.is_some(), None, None),
        ("--seed", seed, None, None),
    ];
    let mut idle = Vec::new();
    for (flag, given, stage, cause) in rows {
        if !given {
            continue;
        }
        let before_the_choice = matches!(stage, Some(Stage::Penalties | Stage::Dry));
        let why = if let Some(cause) = cause {
            (*cause).to_owned()
        } else if p.is_greedy()
            && !before_the_choice
            && !matches!(*flag, "--temp" | "--samplers" | "--dynatemp-range")
        {
            format!("with --temp {}: the likeliest token is always taken", p.temp)
        } else if p.mirostat != Mirostat::Off
            && (*flag == "--samplers" || stage.is_some_and(|s| s != Stage::Temperature))
        {
            "with --mirostat, which replaces the chain".to_owned()
        } else if let Some(stage) = stage
            .filter(|s| p.mirostat == Mirostat::Off && !p.samplers.contains(s) && !is_greedy_temp(flag, p))
        {
            format!("with a --samplers that leaves out {stage}")
        } else {
            continue;
        };
        idle.push(format!("{flag} has no effect {why}"));
    }
    idle
}

/// A temperature of zero decides by itself, in the chain or not.
fn is_greedy_temp(flag: &str, p: &Params) -> bool {
    flag == "--temp" && p.is_greedy()
}

fn dry_off(p: &Params) -> Option<&'static str> {
    (p.dry_multiplier == 0.0).then_some("without --dry-multiplier")
}

fn mirostat_off(p: &Params) -> Option<&'static str> {
    (p.mirostat == Mirostat::Off).then_some("without --mirostat")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn typed(flags: &str) -> (GenerationArgs, SamplingArgs) {
        let line = ["chaski", "run", "m.gguf"].into_iter().chain(flags.split_whitespace());
        let matches = Cli::command().try_get_matches_from(line).unwrap();
        match Cli::from_arg_matches(&matches).unwrap().command {
            Some(Command::Run(args)) => (args.generation, args.sampling),
            other => panic!("{other:?}"),
        }
    }

    fn idle(flags: &str) -> Vec<String> {
        let (generation, sampling) = typed(flags);
        let params = params(&sampling).unwrap();
        without_effect(&sampling, generation.seed.is_some(), &params)
    }

    #[test]
    fn without_flags_it_is_the_default_chain() {
        let (generation, sampling) = typed("");
        let wanted =
            Generation { max_tokens: None, stop: vec![], ignore_eos: false, sampling: Params::default() };
        assert_eq!(Generation::new(&generation, &sampling).unwrap(), wanted);
    }

    /// The help shows defaults in words, since an absent flag means the sampler's own default.
    #[test]
    fn the_defaults_in_the_help_are_the_samplers() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let mut flags = String::new();
        for arg in run.get_arguments().filter(|a| a.get_help_heading() == Some("Sampling")) {
            let help = arg.get_help().unwrap().to_string();
            let Some((_, default)) = help.split_once("[default: ") else { continue };
            let default = default.split(']').next().unwrap();
            let name = arg.get_long().unwrap();
            if name != "dry-sequence-breaker" {
                flags = format!("{flags} --{name} {default}");
            }
        }
        assert!(flags.split(" --").count() > 20, "{flags}");
        assert_eq!(params(&typed(&flags).1).unwrap(), Params::default(), "{flags}");
    }

    #[test]
    fn a_seed_of_minus_one_is_a_new_one_each_time() {
        for (flags, seed) in [("-s 7", Some(7)), ("-s -1", None), ("", None)] {
            let (generation, sampling) = typed(flags);
            assert_eq!(Generation::new(&generation, &sampling).unwrap().sampling.seed, seed, "{flags}");
        }
    }

    #[test]
    fn flags_that_change_nothing_are_said_with_the_cause() {
        let cases = [
            ("--temp 0 --top-k 5", "--top-k has no effect with --temp 0"),
            ("--temp 0 -s 5", "--seed has no effect with --temp 0"),
            ("--temp 0 --mirostat 2", "--mirostat has no effect with --temp 0"),
            ("--mirostat 2 --top-p 0.5", "--top-p has no effect with --mirostat"),
            ("--mirostat 2 --samplers top_k", "--samplers has no effect with --mirostat"),
            ("--mirostat-lr 0.2", "--mirostat-lr has no effect without --mirostat"),
            ("--dry-base 2", "--dry-base has no effect without --dry-multiplier"),
            ("--xtc-threshold 0.2", "--xtc-threshold has no effect without --xtc-probability"),
            ("--repeat-last-n 5", "--repeat-last-n has no effect without a penalty"),
            (
                "--samplers top_k;temperature --min-p 0.1",
                "--min-p has no effect with a --samplers that leaves out min_p",
            ),
        ];
        for (flags, wanted) in cases {
            let said = idle(flags);
            assert!(said.len() == 1 && said[0].starts_with(wanted), "{flags}: {said:?}");
        }
    }

    #[test]
    fn flags_that_do_something_are_not_said() {
        for flags in [
            "",
            "--temp 0 --repeat-penalty 1.1 --repeat-last-n 32 --dry-multiplier 0.8 --dry-base 2",
            "--temp 0.5 --top-k 5 --top-p 0.5 --min-p 0 -s 3",
            "--mirostat 1 --mirostat-lr 0.2 --mirostat-ent 4 --temp 0.9 -s 1",
            "--xtc-probability 0.5 --xtc-threshold 0.2 --dynatemp-range 0.3 --dynatemp-exp 2",
            "--samplers top_k --temp 0",
        ] {
            assert_eq!(idle(flags), Vec::<String>::new(), "{flags}");
        }
    }

    #[test]
    fn values_out_of_range_are_wrong_usage() {
        for flags in
            ["--top-p 1.5", "--repeat-penalty 0", "--logit-bias 5", "--samplers nonsense", "--dry-base 0"]
        {
            let (_, sampling) = typed(flags);
            assert!(params(&sampling).is_err(), "{flags}");
        }
    }

    #[test]
    fn breakers_are_unescaped_and_none_clears_the_list() {
        let with =
            |text: &str| SamplingArgs { dry_sequence_breaker: vec![text.into()], ..SamplingArgs::default() };
        assert_eq!(params(&with(r"\n\t\\x\q")).unwrap().dry_sequence_breakers, ["\n\t\\x\\q"]);
        assert_eq!(params(&with("none")).unwrap().dry_sequence_breakers, [""; 0]);
    }
}
