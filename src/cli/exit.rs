//! Exit codes: the contract with scripts, and how each kind of error maps to one.

use std::io;
use std::process::ExitCode;

use crate::backend::BackendError;
use crate::chat::generate::GenerateError;
use crate::chat::template::TemplateError;
use crate::engine::EngineError;
use crate::measure::KlError;
use crate::model::ModelError;
use crate::quant::QuantError;
use crate::{sample, tokenizer};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed while running.
    Failed = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// An input file is missing, malformed or unsupported, or its numbers are not finite.
    Input = 3,
    /// It does not fit in memory, or no device can do what was asked.
    DoesNotFit = 4,
    /// The user interrupted it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code: what the commands raise themselves, or wrap around an error that maps otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    exit: Exit,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure with its exit code and one line of what went wrong.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), source: None }
    }
    /// What was typed makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
    /// An input file is missing, malformed or unsupported.
    pub fn input(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Input, message)
    }
    /// It does not fit.
    pub fn does_not_fit(message: impl Into<String>) -> Failure {
        Failure::new(Exit::DoesNotFit, message)
    }
    /// It failed while running.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }
    /// The same, with the error beneath it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        self.source = Some(source.into());
        self
    }
}

/// The exit code of an error: the outermost cause of a known type decides.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(exit) = known(cause) {
            return exit;
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return if io.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        }
    }
    Exit::Failed
}

/// The exit code of the errors of this project's own parts.
fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return Some(match error {
            EngineError::Model(_) | EngineError::NotFinite { .. } => Exit::Input,
            EngineError::Backend(error) => of_backend(error),
            EngineError::Token { .. } => Exit::Usage,
            _ => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<BackendError>() {
        return Some(of_backend(error));
    }
    if let Some(error) = cause.downcast_ref::<chaski_gguf::Error>() {
        let writing = matches!(error, chaski_gguf::Error::Write { .. } | chaski_gguf::Error::Producer { .. });
        return Some(if writing { Exit::Failed } else { Exit::Input });
    }
    if let Some(error) = cause.downcast_ref::<QuantError>() {
        return match error {
            QuantError::Gguf(error) => known(error),
            QuantError::Import(_)
            | QuantError::NoModel { .. }
            | QuantError::Requantize { .. }
            | QuantError::Imatrix { .. }
            | QuantError::Calibration { .. }
            | QuantError::OtherModel { .. }
            | QuantError::Layer { .. }
            | QuantError::NotFinite { .. } => Some(Exit::Input),
            QuantError::Fallback(_)
            | QuantError::Pattern { .. }
            | QuantError::OverSource { .. }
            | QuantError::Size { .. }
            | QuantError::Target { .. } => Some(Exit::Usage),
            QuantError::NoSpace { .. } | QuantError::Memory { .. } => Some(Exit::DoesNotFit),
            QuantError::Engine(error) => known(error),
            _ => Some(Exit::Failed),
        };
    }
    if let Some(error) = cause.downcast_ref::<KlError>() {
        return match error {
            KlError::Engine(error) => known(error),
            KlError::Write(_) => Some(Exit::Failed),
            _ => Some(Exit::Input),
        };
    }
    if let Some(error) = cause.downcast_ref::<TemplateError>() {
        return Some(match error {
            TemplateError::Messages => Exit::Input,
            TemplateError::Unknown { .. } => Exit::Usage,
            _ => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<GenerateError>() {
        return match error {
            GenerateError::PromptTooLong { .. } => Some(Exit::DoesNotFit),
            GenerateError::EmptyPrompt => Some(Exit::Usage),
            // The cause beneath decides.
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<sample::Error>() {
        return Some(match error {
            sample::Error::Param { .. }
            | sample::Error::Order(_)
            | sample::Error::LogitBias(_)
            | sample::Error::BiasedToken { .. } => Exit::Usage,
            sample::Error::Logit { .. } => Exit::Input,
            _ => Exit::Failed,
        });
    }
    (cause.is::<ModelError>() || cause.is::<tokenizer::Error>()).then_some(Exit::Input)
}

fn of_backend(error: &BackendError) -> Exit {
    match error {
        BackendError::OutOfMemory { .. } => Exit::DoesNotFit,
        BackendError::Weight { .. } | BackendError::NotFinite { .. } => Exit::Input,
        _ => Exit::Failed,
    }
}

/// The error and its causes as the user reads them: one line, then a line a cause. A cause whose text the line above it
/// already ends with is not repeated.
pub fn report(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = one_line(&cause.to_string());
        if lines.last().is_none_or(|above| !above.contains(&text)) {
            lines.push(text);
        }
    }
    lines.join("\n  because: ")
}

/// Control characters (a file may have put them there) made visible, so that a message stays on its line.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_known_cause_decides() {
        let io = || io::Error::new(io::ErrorKind::BrokenPipe, "pipe");
        assert_eq!(exit_of(&anyhow::Error::new(io())), Exit::Done);
        assert_eq!(exit_of(&anyhow::Error::new(io::Error::other("disk"))), Exit::Failed);
        assert_eq!(exit_of(&anyhow::Error::new(Failure::input("x").because(io()))), Exit::Input);
        assert_eq!(exit_of(&anyhow::Error::new(Failure::usage("x")).context("while")), Exit::Usage);
        assert_eq!(exit_of(&anyhow::anyhow!("unknown")), Exit::Failed);
    }

    #[test]
    fn a_report_says_each_thing_once_and_on_its_line() {
        let error = anyhow::Error::new(io::Error::other("no such\nfile"))
            .context("m.gguf: no such\nfile")
            .context("loading");
        assert_eq!(report(&error), "loading\n  because: m.gguf: no such\\nfile");
    }
}
