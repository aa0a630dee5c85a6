//! The commands: lines that begin with a slash.

/// A command, for `/help` and for the parser.
pub(super) struct Entry {
    /// Its names without the slash; the first is the one that is shown.
    pub names: &'static [&'static str],
    /// What may follow it.
    pub usage: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    make: fn(String) -> Command,
}

/// What was asked for, with the text after the name (trimmed; empty if there was none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Clear,
    Regen,
    Undo,
    Edit(String),
    System(String),
    Set(String),
    Show,
    Read(String),
    Save(String),
    Load(String),
    Stats(String),
    Context,
    Exit,
}

/// All of them, in the order of `/help`.
pub(super) const COMMANDS: &[Entry] = &[
    Entry { names: &["help", "?"], usage: "", help: "this list", make: |_| Command::Help },
    Entry {
        names: &["clear", "new"],
        usage: "",
        help: "forget what was said; the system prompt stays",
        make: |_| Command::Clear,
    },
    Entry {
        names: &["regen", "retry"],
        usage: "",
        help: "take the last answer back and answer again, with another seed",
        make: |_| Command::Regen,
    },
    Entry {
        names: &["undo"],
        usage: "",
        help: "take the last exchange back, from the cache too",
        make: |_| Command::Undo,
    },
    Entry {
        names: &["edit"],
        usage: "[TEXT]",
        help: "change your last message (in the editor, or to TEXT) and answer it anew",
        make: Command::Edit,
    },
    Entry {
        names: &["system"],
        usage: "[TEXT|off]",
        help: "show the system prompt, set it, or take it away",
        make: Command::System,
    },
    Entry {
        names: &["set"],
        usage: "[NAME VALUE]",
        help: "list the settings with their values, or change one",
        make: Command::Set,
    },
    Entry {
        names: &["show"],
        usage: "",
        help: "model, template, system prompt, sampling, cache and memory",
        make: |_| Command::Show,
    },
    Entry {
        names: &["read"],
        usage: "FILE",
        help: "put the text of a file before your next message",
        make: Command::Read,
    },
    Entry {
        names: &["save"],
        usage: "FILE",
        help: "save the conversation in a new file",
        make: Command::Save,
    },
    Entry {
        names: &["load"],
        usage: "FILE",
        help: "go on with a saved conversation instead of this one",
        make: Command::Load,
    },
    Entry {
        names: &["stats"],
        usage: "[on|off]",
        help: "speed of the last answer, or of every answer from now on",
        make: Command::Stats,
    },
    Entry { names: &["context"], usage: "", help: "how full the context is", make: |_| Command::Context },
    Entry { names: &["exit", "quit", "bye"], usage: "", help: "leave (Ctrl-D)", make: |_| Command::Exit },
];

/// What a message turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Something to say to the model.
    Say(String),
    /// A command.
    Command(Command),
    /// A slash and a word that is no command, or text after a command that takes none; what is wrong.
    Wrong(String),
}

/// Tell commands from messages. Two slashes at the beginning stand for one that is part of the message.
pub(super) fn parse(text: &str) -> Parsed {
    let Some(rest) = text.strip_prefix('/') else { return Parsed::Say(text.to_owned()) };
    if rest.starts_with('/') {
        return Parsed::Say(rest.to_owned());
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let Some(entry) = COMMANDS.iter().find(|e| e.names.contains(&name)) else {
        let hint = nearest(name).map_or_else(String::new, |n| format!("; did you mean /{n}?"));
        let name: String = name.chars().take(32).collect();
        return Parsed::Wrong(format!(
            "/{name} is no command{hint} (/help lists them; begin with // to say a slash)"
        ));
    };
    let shown = entry.names.first().unwrap_or(&name);
    if entry.usage.is_empty() && !argument.is_empty() {
        return Parsed::Wrong(format!("/{shown} takes nothing after it"));
    }
    if !entry.usage.is_empty() && !entry.usage.starts_with('[') && argument.is_empty() {
        return Parsed::Wrong(format!("/{shown} {} is how it is used", entry.usage));
    }
    Parsed::Command((entry.make)(argument.to_owned()))
}

/// The command whose name is like this one.
fn nearest(name: &str) -> Option<&'static str> {
    // Nothing that is much longer than a command is a slip of the finger.
    if name.is_empty() || name.len() > 16 {
        return None;
    }
    let names = COMMANDS.iter().flat_map(|e| e.names.iter().map(move |n| (*n, e)));
    let scored = names.map(|(n, e)| {
        let score = if n.starts_with(name) { 0 } else { distance(name, n) };
        (score, *e.names.first().unwrap_or(&n))
    });
    scored
        .filter(|(score, n)| *score <= 2 && *score < n.len())
        .min_by_key(|(score, _)| *score)
        .map(|(_, n)| n)
}

/// The Damerau-Levenshtein distance (with adjacent swaps) of two short words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

/// The list that `/help` prints.
pub(super) fn help() -> String {
    let left: Vec<String> = COMMANDS
        .iter()
        .map(|e| format!("/{} {}", e.names.first().unwrap_or(&""), e.usage).trim_end().to_owned())
        .collect();
    let width = left.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (left, entry) in left.iter().zip(COMMANDS) {
        text.extend(["  ", &format!("{left:width$}"), "  ", entry.help, "\n"]);
    }
    text + "\n  A message ends with Enter. Alt-Enter, or \\ at the end of a line, begins a new line;\n  \
            \"\"\" begins and ends a message of several lines. Pasted lines stay together.\n  \
            Ctrl-C stops an answer, Ctrl-D leaves. // at the beginning says a slash.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        match parse(text) {
            Parsed::Wrong(message) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(parse("hello /undo"), Parsed::Say("hello /undo".into()));
        assert_eq!(parse("//etc/passwd"), Parsed::Say("/etc/passwd".into()));
        assert_eq!(parse("/undo"), Parsed::Command(Command::Undo));
        assert_eq!(parse("/undo "), Parsed::Command(Command::Undo));
        assert_eq!(parse("/set  temp 0.5 "), Parsed::Command(Command::Set("temp 0.5".into())));
        assert_eq!(parse("/system Be\nbrief."), Parsed::Command(Command::System("Be\nbrief.".into())));
        assert_eq!(parse("/quit"), Parsed::Command(Command::Exit));
    }

    #[test]
    fn an_unknown_command_brings_the_nearest_to_mind() {
        for (typed, meant) in
            [("regne", "regen"), ("hlep", "help"), ("cl", "clear"), ("Undo", "undo"), ("contex", "context")]
        {
            let message = wrong(&format!("/{typed}"));
            assert!(message.contains(&format!("did you mean /{meant}?")), "{message}");
        }
        let far = wrong("/usr/bin/env is where");
        assert!(!far.contains("did you mean") && far.contains("//"), "{far}");
        assert!(!wrong("/").contains("did you mean"));
        assert!(wrong(&format!("/{}", "x".repeat(1 << 20))).len() < 200);
    }

    #[test]
    fn what_follows_a_command_is_checked() {
        assert_eq!(wrong("/undo twice"), "/undo takes nothing after it");
        assert_eq!(wrong("/read"), "/read FILE is how it is used");
    }

    #[test]
    fn names_are_unique_and_all_are_in_the_help() {
        let mut names: Vec<&str> = COMMANDS.iter().flat_map(|e| e.names).copied().collect();
        let help = help();
        assert!(COMMANDS.iter().all(|e| help.contains(&format!("/{}", e.names[0]))));
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]));
    }
}
