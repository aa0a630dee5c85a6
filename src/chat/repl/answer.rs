//! One turn: make room for it, answer, say how it went.

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::print::{Console, Stream};
use super::settings::policy;
use super::stats::{self, Stats};
use super::{Interrupt, OnFull, Repl, ReplError, Store, raw_text};
use crate::chat::conversation::{Message, Role};
use crate::chat::generate::{Ended, GenerateOptions, Outcome, Progress};
use crate::chat::text::Piece;
use crate::chat::transcript::Event;

/// How often an unfinished answer is saved.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// The share of the context that is kept free for an answer when turns are dropped.
const ROOM: usize = 8;

impl Repl {
    /// Say something to the model and let it answer.
    pub(super) fn say(&mut self, text: &str) -> Result<(), ReplError> {
        if self.conversation.unanswered().is_some() {
            self.conversation.undo();
            self.record(&Event::Undo);
            self.console.note("(your message before this one had no answer; it is taken back)");
        }
        let attached = std::mem::take(&mut self.attached);
        self.conversation.messages.push(Message::new(Role::User, attached.clone() + text));
        if let Err(error) = self.make_room() {
            self.conversation.undo();
            self.attached = attached;
            return Err(error);
        }
        if let Some(message) = self.conversation.messages.last().cloned() {
            self.record(&Event::Message { message });
        }
        self.answer()
    }

    /// Apply the policy for a full context to the message at hand.
    pub(super) fn make_room(&mut self) -> Result<(), ReplError> {
        let n_ctx = self.chat.session().n_ctx();
        let needed = match self.settings.on_full {
            OnFull::Stop => self.tokens_of(&self.conversation)?.len(),
            OnFull::DropOldestTurn => {
                let (tokens, dropped) = self.drop_turns(0)?;
                if dropped > 0 {
                    self.say_dropped(dropped, "");
                }
                tokens.len()
            }
        };
        if needed < n_ctx {
            return Ok(());
        }
        let advice = match self.settings.on_full {
            OnFull::Stop if self.conversation.messages.len() > 1 => {
                "; /clear or /undo makes room, and so does /set on-full drop-oldest-turn"
            }
            _ => "; the message is too long",
        };
        Err(ReplError::Full(format!(
            "the context of {n_ctx} tokens is full: with this message the conversation takes {needed} (policy: {}){advice}",
            policy(self.settings.on_full)
        )))
    }

    /// Answer the last message.
    pub(super) fn answer(&mut self) -> Result<(), ReplError> {
        (self.interrupt.clear)();
        (self.interrupt.watch)(true);
        let result = self.generate();
        (self.interrupt.watch)(false);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                // Nothing can be answered to it; the next message shall not fail for the same reason.
                self.conversation.undo();
                self.record(&Event::Undo);
                return Err(error);
            }
        };
        let spoken = !outcome.text.is_empty() || !outcome.reasoning.is_empty();
        if spoken || outcome.ended != Ended::Interrupted {
            let message = Message {
                role: Role::Assistant,
                content: outcome.text.clone(),
                reasoning: outcome.reasoning.clone(),
            };
            self.conversation.messages.push(message.clone());
            self.record(&Event::Message { message });
        }
        self.last = Some(Stats::from(&outcome));
        self.conclude(&outcome, spoken);
        (self.interrupt.clear)();
        if outcome.ended == Ended::Interrupted { Err(ReplError::Interrupted) } else { Ok(()) }
    }

    fn generate(&mut self) -> Result<Outcome, ReplError> {
        let options = GenerateOptions {
            max_tokens: self.settings.max_tokens,
            stops: self.settings.stops.clone(),
            ..GenerateOptions::default()
        };
        let mut stream = Stream::new(self.console);
        let mut outcome = self.stretch(&options, None, &mut stream)?;
        let mut dropped = 0;
        while outcome.ended == Ended::ContextFull && self.settings.on_full == OnFull::DropOldestTurn {
            let (prompt, n) = self.drop_turns(outcome.tokens.len())?;
            dropped += n;
            if n == 0 || prompt.len() + outcome.tokens.len() >= self.chat.session().n_ctx() {
                break;
            }
            let more = self.stretch(&options, Some((&prompt, &outcome)), &mut stream)?;
            outcome.text.push_str(&more.text);
            outcome.reasoning.push_str(&more.reasoning);
            outcome.tokens.extend(more.tokens);
            outcome.prompt_evaluated += more.prompt_evaluated;
            outcome.prompt_time += more.prompt_time;
            outcome.time += more.time;
            outcome.ended = more.ended;
        }
        if outcome.ended != Ended::Interrupted || !outcome.tokens.is_empty() {
            stream.end()?;
        }
        if dropped > 0 {
            self.say_dropped(dropped, " while this answer was given");
        }
        Ok(outcome)
    }

    /// Generate until something ends it: an answer, or with `begun` more of one.
    fn stretch(
        &mut self,
        options: &GenerateOptions,
        begun: Option<(&[u32], &Outcome)>,
        stream: &mut Stream,
    ) -> Result<Outcome, ReplError> {
        let sink = RefCell::new(Sink {
            stream,
            console: self.console,
            interrupt: self.interrupt,
            store: &mut self.store,
            bar: None,
            error: None,
            unsaved: (String::new(), String::new()),
            saved: Instant::now(),
        });
        let watch = &mut |progress: Progress| sink.borrow_mut().reading(progress);
        let emit = &mut |piece: &Piece| sink.borrow_mut().piece(piece);
        let outcome = match begun {
            Some((prompt, begun)) => self.chat.go_on(prompt, begun, options, watch, emit),
            None if self.raw => self.chat.complete(&raw_text(&self.conversation), options, watch, emit),
            None => self.chat.answer(&self.conversation, options, watch, emit),
        };
        let mut sink = sink.into_inner();
        sink.finish_bar();
        sink.save();
        match sink.error.take() {
            Some(error) => Err(error.into()),
            None => Ok(outcome?),
        }
    }

    /// Drop the oldest turns until there is room beside an answer of so many tokens; the tokens before it, and how many
    /// turns were dropped.
    fn drop_turns(&mut self, answer: usize) -> Result<(Vec<u32>, usize), ReplError> {
        let n_ctx = self.chat.session().n_ctx();
        let room = (n_ctx / ROOM).min(self.settings.max_tokens.unwrap_or(usize::MAX)).max(1);
        let mut dropped = 0;
        loop {
            let tokens = self.tokens_of(&self.conversation)?;
            if tokens.len() + answer + room <= n_ctx || !self.conversation.drop_oldest() {
                return Ok((tokens, dropped));
            }
            self.record(&Event::DropOldest);
            dropped += 1;
        }
    }

    fn say_dropped(&mut self, dropped: usize, when: &str) {
        let n_ctx = self.chat.session().n_ctx();
        let turns = if dropped == 1 { "turn was" } else { "turns were" };
        tracing::warn!("the context of {n_ctx} tokens is full: the oldest {dropped} {turns} dropped{when}");
    }

    /// What there is to say after an answer.
    fn conclude(&mut self, outcome: &Outcome, spoken: bool) {
        let n_ctx = self.chat.session().n_ctx();
        match outcome.ended {
            Ended::EndOfTurn | Ended::StopString => {}
            Ended::Limit => self.console.note("(stopped at the limit of -n tokens)"),
            Ended::ContextFull => tracing::warn!(
                "the answer stopped: the context of {n_ctx} tokens is full (policy: {})",
                policy(self.settings.on_full)
            ),
            Ended::Interrupted if spoken => self.console.note("(stopped; /regen answers again)"),
            Ended::Interrupted => {
                self.console.note("(stopped before the answer; /regen answers, /edit changes your message)");
            }
        }
        let used = self.chat.session().tokens().len();
        if let Some(share) = self.watermark.passed(used, n_ctx)
            && outcome.ended != Ended::ContextFull
        {
            tracing::warn!(
                "{share}% of the context are used ({used} of {n_ctx} tokens); when it is full: {}",
                policy(self.settings.on_full)
            );
        }
        if self.settings.stats {
            self.console.note(&format!("[{}]", Stats::from(outcome).line()));
            self.console.note(&format!("[{}]", stats::meter(used, n_ctx)));
        }
    }
}

/// Where a turn goes while it is made.
struct Sink<'a> {
    stream: &'a mut Stream,
    console: Console,
    interrupt: Interrupt,
    store: &'a mut Store,
    bar: Option<ProgressBar>,
    error: Option<io::Error>,
    /// What of the answer and its reasoning the transcript lacks.
    unsaved: (String, String),
    saved: Instant,
}

impl Sink<'_> {
    fn flow(&self) -> ControlFlow<()> {
        if (self.interrupt.requested)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// A bar, unless the prompt is read in one batch.
    fn reading(&mut self, progress: Progress) -> ControlFlow<()> {
        if self.console.progress && progress.done > 0 {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(progress.total as u64).with_message("reading");
                match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} tokens {eta}") {
                    Ok(style) => bar.with_style(style),
                    Err(_) => bar,
                }
            });
            bar.set_position(progress.done as u64);
        }
        self.flow()
    }

    fn finish_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn piece(&mut self, piece: &Piece) -> ControlFlow<()> {
        self.finish_bar();
        if let Err(error) = self.stream.piece(piece) {
            self.error = Some(error);
            return ControlFlow::Break(());
        }
        let (text, reasoning) = &mut self.unsaved;
        if piece.reasoning { reasoning } else { text }.push_str(&piece.text);
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save();
        }
        self.flow()
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        let (text, reasoning) = std::mem::take(&mut self.unsaved);
        if let Store::Open(transcript) = self.store
            && !(text.is_empty() && reasoning.is_empty())
            && let Err(error) = transcript.append(&Event::Partial { text, reasoning })
        {
            tracing::warn!("{error}; from here on this conversation is not saved");
            *self.store = Store::Off;
        }
    }
}
