//! What the commands do.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::commands::{self, Command};
use super::settings::{SETTINGS, switch};
use super::{Next, REASONING_SWITCH, Repl, ReplError, stats};
use crate::chat::conversation::{Conversation, Message, Role};
use crate::chat::transcript::{Event, Transcript};

/// The largest file that `/read` takes, in bytes.
const MAX_READ: u64 = 16 << 20;

fn refused<T>(message: impl Into<String>) -> Result<T, ReplError> {
    Err(ReplError::Command(message.into()))
}

impl Repl {
    pub(super) fn execute(&mut self, command: Command) -> Result<Next, ReplError> {
        match command {
            Command::Help => self.console.say(&commands::help()),
            Command::Clear => self.clear()?,
            Command::Regen => self.regenerate()?,
            Command::Undo => self.undo()?,
            Command::Edit(text) => return self.edit(&text),
            Command::System(text) => self.system(&text)?,
            Command::Set(text) => self.set(&text)?,
            Command::Show => self.show(),
            Command::Read(file) => self.read(&file)?,
            Command::Save(file) => self.save(&file)?,
            Command::Load(file) => self.load(&file)?,
            Command::Stats(text) => self.stats(&text)?,
            Command::Context => self.context(),
            Command::Exit => return Ok(Next::Leave),
        }
        Ok(Next::Prompt)
    }

    fn clear(&mut self) -> Result<(), ReplError> {
        self.attached.clear();
        if !self.conversation.messages.is_empty() {
            self.conversation.messages.clear();
            self.record(&Event::Clear);
        }
        self.forget()?;
        self.console.note("(forgotten)");
        Ok(())
    }

    fn undo(&mut self) -> Result<(), ReplError> {
        let Some(message) = self.conversation.undo() else { return refused("there is nothing to undo") };
        self.record(&Event::Undo);
        self.forget()?;
        self.console.note(&format!("(taken back: {})", shortened(&message.content)));
        Ok(())
    }

    fn regenerate(&mut self) -> Result<(), ReplError> {
        if self.conversation.messages.is_empty() {
            return refused("there is nothing to answer yet");
        }
        if self.conversation.retract() {
            self.record(&Event::Retract);
        }
        if self.settings.sampling.is_greedy() {
            self.console.note("(at this temperature the likeliest answer is given, whatever the seed; /set temp changes it)");
        } else {
            let seed = self.chat.sampler().seed().wrapping_add(1);
            let params = crate::sample::Params { seed: Some(seed), ..self.settings.sampling.clone() };
            self.chat.set_params(params, self.settings.ignore_eos)?;
        }
        self.make_room()?;
        self.answer()
    }

    fn edit(&mut self, text: &str) -> Result<Next, ReplError> {
        let Some(message) = self.conversation.undo() else { return refused("there is nothing to edit yet") };
        self.record(&Event::Undo);
        self.forget()?;
        if text.is_empty() {
            // A slash that was said has to be said again.
            let slash = if message.content.starts_with('/') { "/" } else { "" };
            return Ok(Next::Edit(format!("{slash}{}", message.content)));
        }
        self.say(text).map(|()| Next::Prompt)
    }

    /// Take what the conversation no longer holds out of the cache.
    fn forget(&mut self) -> Result<(), ReplError> {
        // The next prompt has one more message; what comes before it is what is kept.
        let mut next = self.conversation.clone();
        next.messages.push(Message::new(Role::User, ""));
        let keep = match self.tokens_of(&next) {
            Ok(tokens) => self.chat.session().common_prefix(&tokens),
            // A template that refuses this will say so when it is asked for an answer.
            Err(_) => 0,
        };
        self.chat
            .session()
            .truncate(keep)
            .map_err(crate::chat::generate::GenerateError::from)
            .map_err(crate::chat::conversation::ChatError::from)?;
        Ok(())
    }

    fn system(&mut self, text: &str) -> Result<(), ReplError> {
        if text.is_empty() {
            match &self.conversation.system {
                Some(system) => self.console.say(system),
                None => self.console.say("(no system prompt)"),
            }
            return Ok(());
        }
        if self.raw {
            return refused("there is no system prompt in a --raw conversation");
        }
        let system = (text != "off").then(|| text.to_owned());
        self.set_system(system);
        let what = if self.conversation.system.is_some() { "set" } else { "taken away" };
        self.console.note(&format!("(system prompt {what}; it holds for the whole conversation)"));
        Ok(())
    }

    fn set(&mut self, text: &str) -> Result<(), ReplError> {
        if text.is_empty() {
            let width = SETTINGS.iter().map(|s| s.name.len()).max().unwrap_or(0);
            let lines: Vec<String> = SETTINGS
                .iter()
                .map(|s| format!("  {:width$}  {}", s.name, (s.get)(&self.settings)))
                .collect();
            self.console.say(&lines.join("\n"));
            return Ok(());
        }
        let (name, value) = text.split_once([' ', '=', '\t']).unwrap_or((text, ""));
        let value = value.trim();
        if value.is_empty() {
            return refused(format!("/set {name} needs a value; /set alone lists them"));
        }
        let (settings, setting) = self.settings.with(name, value).map_err(ReplError::Command)?;
        if setting.name == "reasoning"
            && (self.raw || !self.chat.template().source().contains(REASONING_SWITCH))
        {
            return refused(format!(
                "reasoning has no effect: the template does not look at {REASONING_SWITCH}"
            ));
        }
        self.adopt(settings)?;
        self.console.note(&format!("({} = {})", setting.name, (setting.get)(&self.settings)));
        Ok(())
    }

    fn show(&mut self) {
        let sampling: Vec<String> =
            SETTINGS.iter().map(|s| format!("{} {}", s.name, (s.get)(&self.settings))).collect();
        let system = match (&self.conversation.system, self.raw) {
            (_, true) => "none (raw)".into(),
            (None, _) => "none".into(),
            (Some(text), _) => text.clone(),
        };
        let saved = match &self.store {
            super::Store::Off => "nowhere".into(),
            super::Store::New(path) => format!("{} (from the first message on)", path.display()),
            super::Store::Open(transcript) => transcript.path().display().to_string(),
        };
        let mut facts = self.about.facts.clone();
        facts.push(("system prompt", system));
        facts.push(("settings", sampling.join(", ")));
        facts.push(("seed in use", self.chat.sampler().seed().to_string()));
        facts.push(("saved in", saved));
        let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, text) in facts {
            self.console.say(&format!("{label:width$}  {text}"));
        }
        self.context();
    }

    fn read(&mut self, file: &str) -> Result<(), ReplError> {
        let path = path_of(file);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|f| f.take(MAX_READ + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return refused(format!("{}: {error}", path.display()));
        }
        if bytes.len() as u64 > MAX_READ {
            return refused(format!("{}: more than {} MiB", path.display(), MAX_READ >> 20));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                return refused(format!("{}: not UTF-8 (byte offset {at})", path.display()));
            }
        };
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let fence = "`".repeat(longest_run(&text, '`').max(2) + 1);
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        let attached = format!("{name}:\n{fence}\n{text}{newline}{fence}\n\n");
        let tokens = self.chat.raw_prompt(&attached).len();
        self.attached.push_str(&attached);
        self.console.note(&format!(
            "({name}: {} bytes, about {tokens} tokens; it goes before your next message)",
            text.len()
        ));
        let (used, n_ctx) = (self.used(), self.chat.session().n_ctx());
        if used + tokens >= n_ctx {
            tracing::warn!("that is more than the context has room for: {used} of {n_ctx} tokens are used");
        }
        Ok(())
    }

    fn save(&mut self, file: &str) -> Result<(), ReplError> {
        let path = path_of(file);
        if let Err(error) = Transcript::save(&path, &self.about.model, &self.conversation) {
            return refused(error.to_string());
        }
        self.console.note(&format!(
            "({} messages saved in {})",
            self.conversation.messages.len(),
            path.display()
        ));
        Ok(())
    }

    fn load(&mut self, file: &str) -> Result<(), ReplError> {
        let path = path_of(file);
        let contents = Transcript::read(&path)?;
        let Conversation { system, messages } = contents.conversation;
        if self.raw && system.is_some() {
            return refused(format!(
                "{}: it has a system prompt, which a --raw conversation has not",
                path.display()
            ));
        }
        if !self.conversation.messages.is_empty() {
            self.conversation.messages.clear();
            self.record(&Event::Clear);
        }
        self.set_system(system);
        for message in messages {
            self.record(&Event::Message { message: message.clone() });
            self.conversation.messages.push(message);
        }
        self.forget()?;
        if contents.model.fingerprint != self.about.model.fingerprint {
            tracing::warn!("it was held with another model: {}", super::harmless(&contents.model.name));
        }
        self.console.note(&format!(
            "({} messages from {})",
            self.conversation.messages.len(),
            path.display()
        ));
        self.recap();
        self.warn_of_size();
        Ok(())
    }

    /// Show where a conversation that goes on had stopped.
    pub fn recap(&self) {
        let Some(asked) = self.conversation.messages.iter().rposition(|m| m.role == Role::User) else {
            return;
        };
        for message in self.conversation.messages.iter().skip(asked) {
            let mark = if message.role == Role::User { "> " } else { "" };
            self.console.note(&format!("{mark}{}", message.content));
        }
        if self.conversation.unanswered().is_some() {
            self.console.note("(this has no answer yet; /regen answers it)");
        }
    }

    fn stats(&mut self, text: &str) -> Result<(), ReplError> {
        if text.is_empty() {
            match &self.last {
                Some(stats) => self.console.say(&stats.line()),
                None => self.console.say("(no answer yet)"),
            }
            self.context();
            return Ok(());
        }
        self.settings.stats = switch(text).map_err(ReplError::Command)?;
        self.console.note(&format!("(stats {text})"));
        Ok(())
    }

    fn context(&mut self) {
        let used = self.used();
        let session = self.chat.session();
        let (cached, n_ctx) = (session.tokens().len(), session.n_ctx());
        self.console.say(&format!(
            "{}; {cached} in the cache; when it is full: {}",
            stats::meter(used, n_ctx),
            super::settings::policy(self.settings.on_full)
        ));
    }
}

/// A path as it is typed: perhaps in quotes, perhaps in the home directory.
fn path_of(text: &str) -> PathBuf {
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
    let home = directories::BaseDirs::new();
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.home_dir().join(rest),
        _ => Path::new(text).to_owned(),
    }
}

fn longest_run(text: &str, wanted: char) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == wanted { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// The beginning of a text on one line.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).collect::<String>() + "..." }
}
