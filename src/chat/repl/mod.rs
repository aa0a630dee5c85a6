//! The interactive session: read a message, answer it, again.
//!
//! The answer goes to standard output and everything else to standard error, so that a chat can be piped in and out.

mod answer;
mod commands;
mod execute;
mod input;
mod print;
mod settings;
mod stats;

use std::io;
use std::path::{Path, PathBuf};

pub use input::{Input, Keyboard, Line, Lines};
pub use print::{Console, harmless};
pub use settings::{OnFull, Settings};

use super::conversation::{Chat, ChatError, Conversation};
use super::transcript::{Event, ModelId, Transcript, TranscriptError, create_private_dir};
use commands::{Command, Parsed};
use stats::{Stats, Watermark};

/// The variable by which templates are told whether to open reasoning.
pub const REASONING_SWITCH: &str = "enable_thinking";

/// What ends a session, or in an interactive one only the turn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplError {
    /// The model's turn.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Reading messages or writing answers.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A conversation on disk.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// A command that makes no sense; what is wrong.
    #[error("{0}")]
    Command(String),
    /// A message that does not fit the context under the policy in force.
    #[error("{0}")]
    Full(String),
    /// Ctrl-C where nobody is there to go on.
    #[error("interrupted")]
    Interrupted,
}

/// How Ctrl-C is heard.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt {
    /// Whether it was pressed.
    pub requested: fn() -> bool,
    /// Forget that it was.
    pub clear: fn(),
    /// Whether this program looks at it (true), or it ends the program (false).
    pub watch: fn(bool),
}

/// Where the conversation is saved.
#[derive(Debug)]
pub enum Store {
    /// In this file, which is made when there is something to save.
    New(PathBuf),
    /// In this one.
    Open(Transcript),
    /// Nowhere.
    Off,
}

/// What is told of the model.
#[derive(Debug, Clone)]
pub struct About {
    /// For transcripts.
    pub model: ModelId,
    /// Label and text of each line, such as `template` and `chatml`.
    pub facts: Vec<(&'static str, String)>,
}

/// A session.
pub struct Repl {
    chat: Chat,
    conversation: Conversation,
    settings: Settings,
    /// The conversation is text that the model continues; there is no template.
    raw: bool,
    store: Store,
    console: Console,
    interrupt: Interrupt,
    about: About,
    /// Texts of files that go before the next message.
    attached: String,
    watermark: Watermark,
    last: Option<Stats>,
}

/// What comes after a message.
enum Next {
    Prompt,
    /// The message, to be changed.
    Edit(String),
    Leave,
}

impl Repl {
    /// A session with `chat`, whose sampler and variables follow `settings` from now on.
    ///
    /// # Errors
    /// The settings are out of range.
    pub fn new(
        chat: Chat,
        raw: bool,
        settings: Settings,
        store: Store,
        about: About,
        console: Console,
        interrupt: Interrupt,
    ) -> Result<Repl, ReplError> {
        let mut repl = Repl {
            chat,
            conversation: Conversation::default(),
            settings: settings.clone(),
            raw,
            store,
            console,
            interrupt,
            about,
            attached: String::new(),
            watermark: Watermark::default(),
            last: None,
        };
        repl.adopt(settings)?;
        Ok(repl)
    }

    /// Begin with this conversation, which the store holds already, instead of an empty one.
    pub fn resume(&mut self, conversation: Conversation) {
        self.conversation = conversation;
        self.warn_of_size();
    }

    /// Set the system prompt.
    pub fn set_system(&mut self, text: Option<String>) {
        if self.conversation.system != text {
            self.conversation.system.clone_from(&text);
            self.record(&Event::System { text });
        }
    }

    /// Read messages until there are no more.
    ///
    /// # Errors
    /// Reading or writing fails; where nobody is there to react ([`Input::interactive`]), whatever goes wrong.
    pub fn run(&mut self, input: &mut dyn Input) -> Result<(), ReplError> {
        let mut initial = None;
        let mut interrupted = false;
        loop {
            let text = match input.read(initial.take().as_deref())? {
                Line::End => return Ok(()),
                Line::Interrupted => {
                    if std::mem::replace(&mut interrupted, true) {
                        self.console.say("(Ctrl-D or /exit leaves)");
                    }
                    continue;
                }
                Line::Text(text) => text,
            };
            interrupted = false;
            if text.trim().is_empty() {
                continue;
            }
            let done = match commands::parse(&text) {
                Parsed::Say(text) => self.say(&text).map(|()| Next::Prompt),
                Parsed::Command(Command::Edit(text)) if text.is_empty() && !input.interactive() => {
                    Err(ReplError::Command("/edit needs the new text where nobody can type it".into()))
                }
                Parsed::Command(command) => self.execute(command),
                Parsed::Wrong(message) => Err(ReplError::Command(message)),
            };
            match done {
                Ok(Next::Prompt) => {}
                Ok(Next::Edit(text)) => initial = Some(text),
                Ok(Next::Leave) => return Ok(()),
                Err(error @ ReplError::Io(_)) => return Err(error),
                Err(ReplError::Interrupted) if input.interactive() => {}
                Err(error) if input.interactive() => self.console.say(&format!("{error}")),
                Err(error) => return Err(error),
            }
        }
    }

    /// Take over other settings.
    fn adopt(&mut self, settings: Settings) -> Result<(), ReplError> {
        if settings.sampling != *self.chat.sampler().params()
            || settings.ignore_eos != self.settings.ignore_eos
        {
            self.chat.set_params(settings.sampling.clone(), settings.ignore_eos)?;
        }
        match settings.reasoning {
            Some(on) => {
                self.chat.variables.insert(REASONING_SWITCH.into(), on.into());
            }
            None => {
                self.chat.variables.remove(REASONING_SWITCH);
            }
        }
        self.settings = settings;
        Ok(())
    }

    /// Save an event. A conversation that cannot be saved goes on; that is said once.
    fn record(&mut self, event: &Event) {
        let result = match &mut self.store {
            Store::Off => return,
            Store::Open(transcript) => transcript.append(event),
            Store::New(path) => {
                if !matches!(event, Event::Message { .. }) {
                    // What comes before the first message is in the conversation that is saved with it.
                    return;
                }
                let path = path.clone();
                in_new_folder(&path).and_then(|()| Transcript::create(&path, &self.about.model)).and_then(
                    |mut transcript| {
                        if self.conversation.system.is_some() {
                            transcript.append(&Event::System { text: self.conversation.system.clone() })?;
                        }
                        transcript.append(event)?;
                        self.store = Store::Open(transcript);
                        Ok(())
                    },
                )
            }
        };
        if let Err(error) = result {
            tracing::warn!("{error}; from here on this conversation is not saved");
            self.store = Store::Off;
        }
    }

    /// The tokens of a conversation, up to where the model is to speak.
    fn tokens_of(&self, conversation: &Conversation) -> Result<Vec<u32>, ChatError> {
        if self.raw {
            return Ok(self.chat.raw_prompt(&raw_text(conversation)));
        }
        self.chat.prompt(conversation).map(|(_, tokens)| tokens)
    }

    /// Say so if the conversation does not fit the context; nothing is dropped before there is a message to answer.
    fn warn_of_size(&mut self) {
        let (used, n_ctx) = (self.used(), self.chat.session().n_ctx());
        if used >= n_ctx {
            let on_full = settings::policy(self.settings.on_full);
            tracing::warn!(
                "this conversation takes {used} tokens, the context has {n_ctx} (policy: {on_full})"
            );
        }
    }

    /// How many tokens the conversation takes so far.
    fn used(&mut self) -> usize {
        if self.conversation.messages.is_empty() {
            return 0;
        }
        let tokens = self.tokens_of(&self.conversation);
        tokens.map_or_else(|_| self.chat.session().tokens().len(), |t| t.len())
    }
}

/// Make the folder of a file, for its owner only.
fn in_new_folder(path: &Path) -> Result<(), TranscriptError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    create_private_dir(folder).map_err(|source| TranscriptError::Io {
        path: folder.to_owned(),
        what: "make the folder of",
        source,
    })
}

/// The text of a conversation without a template.
fn raw_text(conversation: &Conversation) -> String {
    conversation.messages.iter().map(|m| m.content.as_str()).collect()
}
