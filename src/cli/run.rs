//! `chaski run`: one answer on standard output, then exit.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use indicatif::ProgressBar;
use serde_json::json;

use super::args::RunArgs;
use super::exit::{Exit, Failure};
use super::options::{Conversation, EngineOptions, Generation, TemplateChoice};
use super::output::Terminal;
use super::talk::{self, TemplateSource};
use super::{file, interrupt, progress};
use crate::chat::conversation::{Conversation as Turns, Message, Role};
use crate::chat::generate::{Ended, GenerateOptions, Outcome, Progress};
use crate::chat::repl::harmless;
use crate::chat::text::Piece;

pub(super) fn run(args: &RunArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let engine = EngineOptions::new(&args.engine)?;
    let how = Conversation::new(&args.conversation);
    let generation = Generation::new(&args.generation, &args.sampling)?;
    let loaded = talk::load(&source, &engine, &how, &generation)?;
    // Read only now: a model that cannot be run is told before anyone types.
    let prompt = prompt(args)?;
    let mut chat = loaded.chat;

    let raw = how.template == TemplateChoice::Raw || loaded.source == TemplateSource::Default;
    if raw {
        for (flag, given) in
            [("--system-prompt", how.system.is_some()), ("--reasoning", how.reasoning.is_some())]
        {
            if given {
                let why = "has no effect: the file has no chat template, and --chat-template names none";
                return Err(Failure::usage(format!("{flag} {why}")).into());
            }
        }
    }
    let options = GenerateOptions {
        max_tokens: generation.max_tokens,
        stops: generation.stop.clone(),
        ..GenerateOptions::default()
    };
    interrupt::cooperative(true);
    let sink = RefCell::new(Sink { json: args.json, error: None, terminal, bar: None });
    let watch = &mut |p: Progress| sink.borrow_mut().reading(p);
    let emit = &mut |piece: &Piece| sink.borrow_mut().piece(piece);
    let outcome = if raw {
        chat.complete(&prompt, &options, watch, emit)
    } else {
        let turns = Turns { system: how.system, messages: vec![Message::new(Role::User, prompt)] };
        chat.answer(&turns, &options, watch, emit)
    };
    let mut sink = sink.into_inner();
    sink.finish_bar();
    let outcome = outcome?;
    sink.end(&outcome)?;
    say(&outcome, chat.session().n_ctx());
    if outcome.ended == Ended::Interrupted {
        return Err(Failure::new(Exit::Interrupted, "interrupted").into());
    }
    Ok(())
}

/// The prompt: `-p`, the file of `-f`, or standard input; the last newline of the latter two is dropped.
fn prompt(args: &RunArgs) -> anyhow::Result<String> {
    if let Some(prompt) = &args.prompt {
        return Ok(prompt.clone());
    }
    let (bytes, from) = match &args.file {
        Some(path) => (file::read(path)?, path.display().to_string()),
        None => (file::read_stdin("the prompt")?, "standard input".into()),
    };
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::input(format!("{from}: the prompt is not UTF-8 (byte offset {at})"))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Where the answer goes.
struct Sink {
    json: bool,
    terminal: Terminal,
    bar: Option<ProgressBar>,
    error: Option<io::Error>,
}

impl Sink {
    fn reading(&mut self, progress: Progress) -> ControlFlow<()> {
        if progress.done > 0 || self.bar.is_some() {
            let terminal = self.terminal;
            let bar =
                self.bar.get_or_insert_with(|| progress::tokens(terminal, "reading", progress.total as u64));
            bar.set_position(progress.done as u64);
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
    fn finish_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
    fn piece(&mut self, piece: &Piece) -> ControlFlow<()> {
        self.finish_bar();
        let mut out = io::stdout().lock();
        let written = match (self.json, piece.text.is_empty(), piece.reasoning) {
            (_, true, _) => Ok(()),
            (true, _, reasoning) => {
                let event = if reasoning { "reasoning" } else { "text" };
                writeln!(out, "{}", json!({ "event": event, "text": piece.text })).and_then(|()| out.flush())
            }
            (false, _, false) => {
                out.write_all(shown(&out, &piece.text).as_bytes()).and_then(|()| out.flush())
            }
            // Not the answer, so not on its stream.
            (false, _, true) => io::stderr().write_all(shown(&io::stderr(), &piece.text).as_bytes()),
        };
        if let Err(error) = written {
            self.error = Some(error);
            return ControlFlow::Break(());
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
    /// Write what comes last.
    fn end(self, outcome: &Outcome) -> io::Result<()> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut out = io::stdout().lock();
        if self.json {
            let ended = match outcome.ended {
                Ended::EndOfTurn => "end_of_turn",
                Ended::StopString => "stop_string",
                Ended::Limit => "limit",
                Ended::ContextFull => "context_full",
                Ended::Interrupted => "interrupted",
            };
            let event = json!({
                "event": "done",
                "ended": ended,
                "text": outcome.text,
                "tokens": outcome.tokens.len(),
                "prompt_tokens": outcome.prompt_evaluated + outcome.prompt_reused,
                "prompt_seconds": outcome.prompt_time.as_secs_f64(),
                "seconds": outcome.time.as_secs_f64(),
            });
            writeln!(out, "{event}")?;
        } else {
            writeln!(out)?;
        }
        out.flush()
    }
}

/// The model's text as this stream may have it: control characters must not steer a terminal.
fn shown<'a>(stream: &impl IsTerminal, text: &'a str) -> Cow<'a, str> {
    if stream.is_terminal() { harmless(text) } else { text.into() }
}

/// What happened, on standard error.
fn say(outcome: &Outcome, n_ctx: usize) {
    if outcome.ended == Ended::ContextFull {
        tracing::warn!("stopped: the context of {n_ctx} tokens is full");
    }
    let speed = |n: usize, time: std::time::Duration| n as f64 / time.as_secs_f64().max(1e-9);
    tracing::debug!(
        "prompt: {} tokens, {:.1} a second; answer: {} tokens, {:.1} a second",
        outcome.prompt_evaluated,
        speed(outcome.prompt_evaluated, outcome.prompt_time),
        outcome.tokens.len(),
        speed(outcome.tokens.len(), outcome.time),
    );
}
