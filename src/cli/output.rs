//! Streams: standard output carries the answer and nothing else; everything that is said about it goes through `tracing`
//! to standard error, and to a file where one is asked for.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::OutputArgs;
use super::exit::Failure;

/// What the terminal allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Colour and other escape sequences on standard error.
    pub color: bool,
    /// The same on standard output.
    pub color_stdout: bool,
    /// Progress bars on standard error.
    pub progress: bool,
    /// Nothing but errors.
    pub quiet: bool,
}

impl Terminal {
    /// Decide from the flags, the environment (`NO_COLOR`, `TERM=dumb`) and where the streams go.
    pub fn detect(args: &OutputArgs) -> Terminal {
        let wanted = !args.no_color
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|v| v != "dumb");
        let stderr = io::stderr().is_terminal();
        Terminal {
            color: wanted && stderr,
            color_stdout: wanted && io::stdout().is_terminal(),
            progress: stderr && !args.no_progress && !args.quiet,
            quiet: args.quiet,
        }
    }
}

/// What the terminal of this process allows, as [`init_logging`] was told; nothing before that.
static TERMINAL: OnceLock<Terminal> = OnceLock::new();

/// What the terminal of this process allows: for what every command does alike, such as loading a model.
pub fn terminal() -> Terminal {
    let nothing = Terminal { color: false, color_stdout: false, progress: false, quiet: false };
    TERMINAL.get().copied().unwrap_or(nothing)
}

/// Send what this crate says to standard error, and to the log file in full detail.
///
/// # Errors
/// The log file cannot be created.
pub fn init_logging(args: &OutputArgs, terminal: Terminal) -> anyhow::Result<()> {
    let terminal = *TERMINAL.get_or_init(|| terminal);
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::INFO,
        (_, 1) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = |level| Targets::new().with_target("chaski", level).with_target("chaski_gguf", level);
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(terminal.color)
        .event_format(Message)
        .with_filter(ours(level));
    let file = match &args.log_file {
        None => None,
        Some(path) => {
            let file = File::create(path).map_err(|e| {
                Failure::failed(format!("cannot write the log file {}", path.display())).because(e)
            })?;
            let level = level.max(LevelFilter::DEBUG);
            Some(
                tracing_subscriber::fmt::layer()
                    .with_writer(Mutex::new(file))
                    .with_ansi(false)
                    .with_filter(ours(level)),
            )
        }
    };
    // A second subscriber in one process is a test's doing: the first one stays.
    let _ = tracing_subscriber::registry().with(stderr).with(file).try_init();
    Ok(())
}

/// `chaski: warning: ...`: the level by name where it is not plain information.
struct Message;

impl<S, N> FormatEvent<S, N> for Message
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (name, color) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "31;1"),
            Level::WARN => ("warning: ", "33;1"),
            Level::INFO => ("", "0"),
            Level::DEBUG | Level::TRACE => ("", "2"),
        };
        if w.has_ansi_escapes() {
            write!(w, "chaski: \x1b[{color}m{name}\x1b[0m")?;
        } else {
            write!(w, "chaski: {name}")?;
        }
        ctx.field_format().format_fields(w.by_ref(), event)?;
        writeln!(w)
    }
}

/// Print an error that ends the command.
pub fn print_error(text: &str, color: bool) {
    let label = if color { "\x1b[31;1merror:\x1b[0m" } else { "error:" };
    // Where standard error is gone there is no one left to tell.
    let _ = writeln!(io::stderr(), "chaski: {label} {text}");
}

/// Write the answer to standard output, buffered and flushed: no write error is lost, nor does any panic as with `println!`.
///
/// # Errors
/// What the system said; a broken pipe among it, which ends the command quietly.
pub fn stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(|error| {
        let text = format!("cannot write to standard output: {error}");
        if error.kind() == io::ErrorKind::BrokenPipe { error } else { io::Error::new(error.kind(), text) }
    })
}
