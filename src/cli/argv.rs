//! From what llama.cpp's users type to what clap parses: multi-letter short flags, underscores, and the default command.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command};

use super::args::NOT_BUILT_YET;
use super::exit::Failure;
use crate::demo;

/// llama.cpp's short flags of several letters, with the long flag each one stands for.
pub const SHORT_FLAGS: &[(&str, &str)] = &[
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-dev", "--device"),
    ("-ngl", "--gpu-layers"),
    ("-nkvo", "--no-kv-offload"),
    ("-sys", "--system-prompt"),
    ("-tb", "--threads-batch"),
    ("-ub", "--ubatch-size"),
];

/// Flags that llama.cpp's users know and that have nothing to switch here, with what to do instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("-cnv", "`chaski chat` is a conversation"),
    ("-no-cnv", "`chaski run` gives one answer"),
    ("-st", "`chaski run` gives one answer"),
    ("-fa", "attention never builds the full score matrix here"),
    ("-hf", "name a file: nothing is downloaded"),
    ("-e", "texts are taken as they are"),
];

/// Rewrite the arguments (without the program's name) into the spelling that `cli` declares.
///
/// Values of flags and everything after `--` are left as they are. Where the first word is no command but may well be a
/// file, or where a flag that belongs to a command comes first, `chat` is put before it; and where there is no word at all.
///
/// # Errors
/// A flag of one dash and several letters that is none of [`SHORT_FLAGS`]: clap would read `-fa` as `-f a`.
pub fn normalize(cli: &Command, args: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, Failure> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let mut first = first_word(cli, &args);
    if let First::Model(at) = first {
        args.insert(at, "chat".into());
        first = First::Command(at);
    }
    let command = match first {
        First::Command(at) => cli.find_subcommand(&args[at]),
        _ => None,
    };
    let known: Vec<_> =
        cli.get_arguments().chain(command.into_iter().flat_map(Command::get_arguments)).collect();
    let takes_value = |word: &str| {
        known.iter().any(|arg| {
            let takes =
                matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_positional();
            takes
                && if let Some(long) = word.strip_prefix("--") {
                    arg.get_long() == Some(long)
                        || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
                } else {
                    word.strip_prefix('-').is_some_and(|s| s.chars().eq(arg.get_short()))
                }
        })
    };
    let mut is_value = false;
    let mut only_words = false;
    for arg in &mut args {
        if only_words || std::mem::take(&mut is_value) {
            continue;
        }
        only_words = arg == "--";
        let Some(text) = arg.to_str().filter(|t| t.starts_with('-')) else { continue };
        let spelled = spelling(text);
        if !spelled.starts_with("--") && !is_short(&known, &spelled) {
            let hint =
                ELSEWHERE.iter().find(|(flag, _)| *flag == spelled).map(|(_, hint)| format!(": {hint}"));
            let why = format!("there is no flag {}{}", spelled.escape_debug(), hint.unwrap_or_default());
            return Err(Failure::usage(why));
        }
        is_value = takes_value(&spelled);
        if spelled != text {
            *arg = spelled.into();
        }
    }
    Ok(args)
}

/// Whether a word with one dash is what it looks like: a number, one letter (which clap knows or refuses by name), letters
/// that are all switches (`-vv`), or a letter with a number or path attached (`-t4`, `-f./prompt`).
fn is_short(known: &[&clap::Arg], word: &str) -> bool {
    let mut letters = word.trim_start_matches('-').chars();
    let (first, rest) = (letters.next(), letters.as_str());
    if rest.is_empty() {
        return !ELSEWHERE.iter().any(|(flag, _)| *flag == word);
    }
    if first.is_some_and(|c| c.is_ascii_digit() || c == '.') {
        return true;
    }
    let find = |letter: char| known.iter().find(|arg| arg.get_short() == Some(letter));
    match first.and_then(find).map(|arg| arg.get_action()) {
        Some(ArgAction::Set | ArgAction::Append) => {
            rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '=' | '.' | '/'))
        }
        Some(_) => rest.chars().all(|c| find(c).is_some() || c == 'h'),
        None => false,
    }
}

/// One flag as clap knows it: `-ngl=3` is `--gpu-layers=3`, `--top_k` is `--top-k`.
fn spelling(flag: &str) -> String {
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    let name = match SHORT_FLAGS.iter().find(|(short, _)| *short == name) {
        Some((_, long)) => (*long).to_owned(),
        None if name.starts_with("--") => name.replace('_', "-"),
        None => name.to_owned(),
    };
    value.map_or_else(|| name.clone(), |value| format!("{name}={value}"))
}

/// What stands first, after the flags that belong to every command.
enum First {
    /// The name of a command, at this place.
    Command(usize),
    /// A model, or a flag of `chat`, at this place; or the end, where there is neither.
    Model(usize),
    /// Something that clap answers: `--version`, `--help`, an unknown word.
    Other,
}

fn first_word(cli: &Command, args: &[OsString]) -> First {
    let (mut at, mut version) = (0, false);
    while let Some(word) = args.get(at) {
        let flag = cli.get_arguments().find(|arg| names(arg, word));
        version |= flag.is_some_and(|arg| arg.get_id() == "version");
        match flag.map(clap::Arg::get_action) {
            Some(ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong) => return First::Other,
            Some(ArgAction::Set) if !word.as_encoded_bytes().contains(&b'=') => at += 2,
            Some(_) => at += 1,
            None if word == "-h" || word == "--help" || word == "help" => return First::Other,
            None if cli.find_subcommand(word).is_some() => return First::Command(at),
            None if word.as_encoded_bytes().starts_with(b"-") => return First::Model(at),
            None => return if may_be_model(word) { First::Model(at) } else { First::Other },
        }
    }
    // A flag without its value is clap's to refuse.
    if version || at > args.len() { First::Other } else { First::Model(at) }
}

/// Whether this word spells this flag, alone, with `=value`, or (a count) repeated as in `-vv`.
fn names(arg: &clap::Arg, word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split_once('=').map_or(long, |(name, _)| name);
        return arg.get_long().is_some_and(|l| l == name.replace('_', "-"));
    }
    let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) else { return false };
    arg.get_short().is_some_and(|short| letters.chars().all(|c| c == short))
}

/// Whether a first word that is no command is to be taken for a model: it looks like a path, or there is such a file.
fn may_be_model(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    if NOT_BUILT_YET.iter().any(|name| word == *name) {
        return false;
    }
    word == demo::NAME
        || bytes.iter().any(|b| matches!(b, b'/' | b'\\' | b'.'))
        || std::path::Path::new(word).exists()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    fn normalized(line: &str) -> String {
        let args = line.split_whitespace().map(OsString::from);
        let args = normalize(&Cli::command(), args).unwrap();
        args.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_short_flag_of_the_table_stands_for_a_flag_that_exists() {
        let cli = Cli::command();
        for (short, long) in SHORT_FLAGS {
            let name = long.trim_start_matches("--");
            let found =
                cli.get_subcommands().flat_map(Command::get_arguments).any(|a| a.get_long() == Some(name));
            assert!(found, "{short} stands for {long}, which no command has");
        }
    }

    #[test]
    fn llama_cpp_spellings_become_long_flags() {
        assert_eq!(
            normalized("run m.gguf -ngl 0 -ctk q8_0 -ub=1"),
            "run m.gguf --gpu-layers 0 --cache-type-k q8_0 --ubatch-size=1"
        );
        assert_eq!(
            normalized("run m.gguf --top_k 4 --override_kv a_b=int:1"),
            "run m.gguf --top-k 4 --override-kv a_b=int:1"
        );
    }

    #[test]
    fn a_short_flag_of_several_letters_that_is_not_known_is_refused_by_name() {
        for flag in ["-fa", "-no-cnv", "-hf", "-e", "-ngll", "-tx", "-temp"] {
            let args = ["run", "m.gguf", flag, "x"].map(OsString::from);
            let said = normalize(&Cli::command(), args).unwrap_err().to_string();
            assert!(said.starts_with(&format!("there is no flag {flag}")), "{said}");
        }
        for line in ["run m.gguf -t4 -n-1 -c=5 -vv -f./x -vq -h", "tokenize m.gguf -1 -12", "run m.gguf -x"] {
            assert_eq!(normalized(line), line);
        }
    }

    #[test]
    fn values_and_words_after_two_dashes_are_left_alone() {
        assert_eq!(normalized("run m.gguf -p -ngl -ngl 0"), "run m.gguf -p -ngl --gpu-layers 0");
        assert_eq!(normalized("run m.gguf --prompt -sys"), "run m.gguf --prompt -sys");
        assert_eq!(normalized("tokenize m.gguf -- -ngl"), "tokenize m.gguf -- -ngl");
        assert_eq!(normalized("run m.gguf --n_predict -ub"), "run m.gguf --n-predict -ub");
    }

    #[test]
    fn a_file_or_a_flag_of_chat_in_front_means_chat() {
        assert_eq!(normalized("m.gguf -n 5"), "chat m.gguf -n 5");
        assert_eq!(normalized("demo"), "chat demo");
        assert_eq!(normalized("-m m.gguf"), "chat -m m.gguf");
        assert_eq!(normalized("-vv --log-file x m.gguf"), "-vv --log-file x chat m.gguf");
        assert_eq!(normalized("-ngl 0 m.gguf"), "chat --gpu-layers 0 m.gguf");
    }

    #[test]
    fn nothing_at_all_means_chat() {
        assert_eq!(normalized(""), "chat");
        assert_eq!(normalized("-q --log-file x"), "-q --log-file x chat");
        assert_eq!(normalized("--temp 0"), "chat --temp 0");
    }

    #[test]
    fn commands_help_and_unknown_words_stay() {
        for line in
            ["--log-file", "-h", "--version", "-q --version", "-V -v", "-v inspect m", "help run", "inspekt"]
        {
            assert_eq!(normalized(line), line);
        }
    }
}
