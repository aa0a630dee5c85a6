//! The command line: `args` is what was typed, `options` what it means, `exit` how it ends, and one file for each command.

pub mod args;
pub mod argv;
mod bench;
mod calibration;
mod chat;
mod compare;
mod completions;
mod devices;

pub mod exit;

mod file;
mod gpu;
mod imatrix;
mod inspect;
pub mod interrupt;
pub mod load;
mod logits;

mod man;

pub mod options;
pub mod output;
mod pending;
mod perplexity;
mod progress;
mod quantize;
mod run;
pub mod source;
mod talk;
mod template;
mod text;
mod tokenize;
mod verify;

mod show;
mod version;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command, NOT_BUILT_YET};
use exit::{Exit, Failure};
use output::Terminal;

/// Run one command line (without the program's name) and say how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("unknown");
        output::print_error(
            &format!("internal error{at}: {text}. This is a bug in chaski; please report it."),
            false,
        );
    }));
    let args: Vec<OsString> = args.into_iter().collect();
    std::panic::catch_unwind(|| parse_and_run(args)).unwrap_or(Exit::Failed).into()
}

fn parse_and_run(args: Vec<OsString>) -> Exit {
    let mut definition = Cli::command();
    definition.build();
    let args = match argv::normalize(&definition, args) {
        Ok(args) => args,
        Err(error) => return end(Err(error.into()), Terminal::detect(&args::OutputArgs::default()).color),
    };
    let parsed = Cli::command()
        .try_get_matches_from(std::iter::once("chaski".into()).chain(args))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misuse(&definition, &error),
    };
    let terminal = Terminal::detect(&cli.output);
    let result = output::init_logging(&cli.output, terminal).and_then(|()| {
        interrupt::install();
        match cli.command {
            _ if cli.version => version::run(),
            Some(command) => run(command, terminal, cli.output.verbose > 0),
            None => Err(Failure::usage("no command is given; `chaski --help` shows what there is").into()),
        }
    });
    end(result, terminal.color)
}

/// Say what went wrong, if anything did that anyone wants to know, and with which code to exit.
fn end(result: anyhow::Result<()>, color: bool) -> Exit {
    let Err(error) = result else { return Exit::Done };
    let exit = exit::exit_of(&error);
    if exit != Exit::Done {
        output::print_error(&exit::report(&error), color);
    }
    exit
}

/// The dispatch: one line a command.
fn run(command: Command, terminal: Terminal, verbose: bool) -> anyhow::Result<()> {
    match command {
        Command::Chat(args) => chat::run(&args, terminal, verbose),
        Command::Run(args) => run::run(&args, terminal),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args, terminal),
        Command::Logits(args) => logits::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Perplexity(args) => perplexity::run(&args, terminal),
        Command::Quantize(args) => quantize::run(&args, terminal),
        Command::Imatrix(args) => imatrix::run(&args, terminal),
        Command::Compare(args) => compare::run(&args, terminal),
        Command::Bench(args) => bench::run(&args, terminal),
        Command::Devices(args) => devices::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// What clap could not parse, or help that was asked for.
fn misuse(definition: &clap::Command, error: &clap::Error) -> Exit {
    let terminal = Terminal::detect(&args::OutputArgs::default());
    let styled = |color: bool| {
        let text = error.render();
        if color { text.ansi().to_string() } else { text.to_string() }
    };
    if !error.use_stderr() {
        let text = styled(terminal.color_stdout);
        return end(output::stdout(|out| out.write_all(text.as_bytes())).map_err(Into::into), terminal.color);
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let mut text = styled(terminal.color);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            if NOT_BUILT_YET.contains(&word) {
                let names: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
                output::print_error(
                    &format!("`{word}` is not built yet; this version has: {}", names.join(", ")),
                    terminal.color,
                );
                return Exit::Usage;
            }
            text = format!("{text}\n'{word}' is no command, and there is no file of that name here.\n");
        }
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg).unwrap_or_default();
            text.push_str(&whose_flag(definition, flag));
        }
        _ => {}
    }
    let _ = write!(std::io::stderr(), "chaski: {text}");
    Exit::Usage
}

/// The commands that do have a flag which the one at hand refused.
fn whose_flag(definition: &clap::Command, flag: &str) -> String {
    let name = flag.split('=').next().unwrap_or_default();
    let has = |arg: &clap::Arg| {
        arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
            || arg
                .get_short()
                .is_some_and(|short| name.strip_prefix('-').is_some_and(|s| s.chars().eq([short])))
    };
    let owners: Vec<String> = definition
        .get_subcommands()
        .filter(|command| command.get_arguments().any(has))
        .map(|command| format!("`{}`", command.get_name()))
        .collect();
    if owners.is_empty() {
        String::new()
    } else {
        format!("\n'{name}' is a flag of {}.\n", owners.join(", "))
    }
}
