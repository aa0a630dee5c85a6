//! Conversations on disk, written as they grow.
//!
//! A transcript is a file of JSON lines: a header, then one [`Event`] a line, only ever appended to. Replaying the events
//! gives the conversation back ([`Transcript::read`]). What a process that was killed left behind is still a transcript:
//! every line is one write, the beginning of an unfinished answer is kept ([`Event::Partial`]), and a last line that was
//! cut short is dropped.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::conversation::{Conversation, Message, Role};

/// The version of the format, in every header.
const VERSION: u32 = 1;
/// The largest file that is read, in bytes; far above any conversation.
const MAX_BYTES: u64 = 256 << 20;
/// The longest header, in bytes, when only the header is wanted.
const MAX_HEADER: u64 = 64 << 10;

/// Which model a conversation was held with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// The path of its file, as it was given; or what the embedded model is called.
    pub path: String,
    /// What it calls itself.
    pub name: String,
    /// Tells models apart, wherever their files lie: see [`fingerprint`].
    pub fingerprint: String,
}

/// The first line of a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    chaski_transcript: u32,
    /// When it was begun, in RFC 3339.
    created: String,
    model: ModelId,
}

/// Something that happened in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// From here on the conversation is held with this model: it was resumed with another one.
    Model {
        /// The model.
        model: ModelId,
    },
    /// The system prompt is now this; none takes it away.
    System {
        /// Its text.
        text: Option<String>,
    },
    /// Somebody said something.
    Message {
        /// What.
        #[serde(flatten)]
        message: Message,
    },
    /// More of an answer that is not complete yet. The message that completes it holds all of it.
    Partial {
        /// What has been added to the answer.
        text: String,
        /// What has been added to its reasoning.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reasoning: String,
    },
    /// The last exchange, or a message without an answer, was taken back.
    Undo,
    /// The last answer was taken back, to be given anew.
    Retract,
    /// The oldest exchange was dropped, because the context was full.
    DropOldest,
    /// Everything said so far was forgotten; the system prompt stays.
    Clear,
}

/// What can go wrong with a transcript.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// The system refused.
    #[error("{}: cannot {what} the transcript: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Another process writes to it.
    #[error("{}: another chaski is writing to this conversation", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl TranscriptError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> TranscriptError {
        let path = path.to_owned();
        move |source| TranscriptError::Io { path, what, source }
    }
}

/// The conversation that events describe, as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Replay {
    conversation: Conversation,
    partial: Option<Message>,
}

impl Replay {
    fn apply(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Partial { text, reasoning } => {
                if self.conversation.unanswered().is_none() {
                    return Err("a part of an answer, but nothing was asked");
                }
                let partial = self.partial.get_or_insert_with(|| Message::new(Role::Assistant, ""));
                partial.content.push_str(&text);
                partial.reasoning.push_str(&reasoning);
                return Ok(());
            }
            Event::Message { message } => match message.role {
                Role::System => return Err("a system prompt is an event of its own, not a message"),
                Role::Assistant => {
                    self.partial = None;
                    if self.conversation.unanswered().is_none() {
                        return Err("an answer, but nothing was asked");
                    }
                    self.conversation.messages.push(message);
                }
                Role::User => {
                    self.settle();
                    if self.conversation.unanswered().is_some() {
                        return Err("a message of the user, but the one before it has no answer");
                    }
                    self.conversation.messages.push(message);
                }
            },
            Event::Model { .. } => {}
            Event::System { text } => self.conversation.system = text,
            Event::Undo => {
                self.settle();
                if self.conversation.undo().is_none() {
                    return Err("nothing to undo");
                }
            }
            Event::Retract => {
                self.settle();
                if !self.conversation.retract() {
                    return Err("no answer to take back");
                }
            }
            // This happens while an answer grows, too.
            Event::DropOldest => {
                if !self.conversation.drop_oldest() {
                    return Err("no exchange to drop");
                }
            }
            Event::Clear => {
                self.partial = None;
                self.conversation.messages.clear();
            }
        }
        Ok(())
    }
    /// An answer that was never completed is the answer.
    fn settle(&mut self) {
        self.conversation.messages.extend(self.partial.take());
    }
}

/// What a transcript holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The conversation.
    pub conversation: Conversation,
    /// The model that it was last held with.
    pub model: ModelId,
    /// Bytes at the end that are no complete line: the process was killed while it wrote them.
    pub cut: usize,
    /// Bytes of the complete lines.
    complete: u64,
    /// Whether the last complete line lacks its newline.
    unended: bool,
    /// Whether the last answer was never completed; it is the last message then, if anything of it was saved.
    pub interrupted: bool,
}

/// A transcript that is open for appending. It is locked against other processes as long as it lives.
#[derive(Debug)]
pub struct Transcript {
    file: File,
    path: PathBuf,
}

impl Transcript {
    /// Start a transcript in a file that does not exist yet, readable by its owner only.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn create(path: &Path, model: &ModelId) -> Result<Transcript, TranscriptError> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        private(&mut options);
        let file = options.open(path).map_err(TranscriptError::io(path, "create"))?;
        let mut transcript = Transcript { file, path: path.to_owned() };
        transcript.lock()?;
        transcript.line(&Header {
            chaski_transcript: VERSION,
            created: jiff::Zoned::now().strftime("%FT%T%:z").to_string(),
            model: model.clone(),
        })?;
        Ok(transcript)
    }

    /// Open a transcript to continue it with `model`.
    ///
    /// # Errors
    /// It is malformed, in use by another process, or cannot be written.
    pub fn resume(path: &Path, model: &ModelId) -> Result<(Transcript, Contents), TranscriptError> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .map_err(TranscriptError::io(path, "open"))?;
        let mut transcript = Transcript { file, path: path.to_owned() };
        transcript.lock()?;
        let contents = Transcript::read(path)?;
        if contents.cut > 0 {
            let keep = contents.complete;
            transcript.file.set_len(keep).map_err(TranscriptError::io(path, "repair"))?;
        } else if contents.unended {
            transcript.file.write_all(b"\n").map_err(TranscriptError::io(path, "write"))?;
        }
        if contents.model != *model {
            transcript.append(&Event::Model { model: model.clone() })?;
        }
        Ok((transcript, contents))
    }

    /// Write a whole conversation into a new file.
    ///
    /// # Errors
    /// As [`Transcript::create`].
    pub fn save(path: &Path, model: &ModelId, conversation: &Conversation) -> Result<(), TranscriptError> {
        let mut transcript = Transcript::create(path, model)?;
        transcript.append_all(conversation)
    }

    /// Append what makes an empty conversation this one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_all(&mut self, conversation: &Conversation) -> Result<(), TranscriptError> {
        if conversation.system.is_some() {
            self.append(&Event::System { text: conversation.system.clone() })?;
        }
        for message in &conversation.messages {
            self.append(&Event::Message { message: message.clone() })?;
        }
        Ok(())
    }

    /// Read the conversation in a file.
    ///
    /// # Errors
    /// The file cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Contents, TranscriptError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(TranscriptError::io(path, "read"))?;
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("more than {} MiB, the most that is read", MAX_BYTES >> 20);
            return Err(TranscriptError::Malformed { path: path.into(), line: 1, message });
        }
        parse(path, &bytes)
    }

    /// Append an event; it is in the system's hands when this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, event: &Event) -> Result<(), TranscriptError> {
        self.line(event)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One line in one write, so that no reader sees half of it unless the machine stops in the middle.
    fn line(&mut self, value: &impl Serialize) -> Result<(), TranscriptError> {
        let written = serde_json::to_vec(value).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(TranscriptError::io(&self.path, "write"))
    }

    fn lock(&mut self) -> Result<(), TranscriptError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(TranscriptError::InUse { path: self.path.clone() }),
            // File systems without locks are no reason to lose the conversation.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(error)) => Err(TranscriptError::io(&self.path, "lock")(error)),
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, TranscriptError> {
    let malformed =
        |line: usize, message: String| TranscriptError::Malformed { path: path.into(), line, message };
    let mut lines = bytes.split_inclusive(|b| *b == b'\n').zip(1..);
    let Some((first, _)) = lines.next() else {
        return Err(malformed(1, "the file is empty; a transcript begins with its header".into()));
    };
    let header = parse_header(first).map_err(|message| malformed(1, message))?;
    let mut replay = Replay::default();
    let mut model = header.model;
    let mut complete = first.len();
    let mut cut = 0;
    for (line, number) in lines {
        if line.trim_ascii().is_empty() {
            complete += line.len();
            continue;
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(Event::Model { model: with }) => model = with,
            Ok(event) => replay.apply(event).map_err(|e| malformed(number, e.into()))?,
            Err(_) if !line.ends_with(b"\n") => {
                cut = line.len();
                break;
            }
            Err(error) => return Err(malformed(number, describe(&error))),
        }
        complete += line.len();
    }
    let interrupted = replay.partial.is_some() || replay.conversation.unanswered().is_some();
    replay.settle();
    Ok(Contents {
        conversation: replay.conversation,
        model,
        cut,
        complete: complete as u64,
        unended: bytes.get(..complete).is_some_and(|b| !b.ends_with(b"\n")),
        interrupted,
    })
}

fn parse_header(line: &[u8]) -> Result<Header, String> {
    let header: Header =
        serde_json::from_slice(line).map_err(|e| format!("no header of a transcript: {}", describe(&e)))?;
    if header.chaski_transcript != VERSION {
        let found = header.chaski_transcript;
        return Err(format!("a transcript of version {found}; this chaski reads version {VERSION}"));
    }
    Ok(header)
}

/// What serde says, without its own line number: a line is all that it sees.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    format!("{message} (column {})", error.column())
}

/// A transcript in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The model that it was begun with.
    pub model: ModelId,
}

/// The transcript in `folder` that was written to last: one of the model of this fingerprint if there is one.
///
/// # Errors
/// The folder cannot be read. That there is none, and files that are no transcripts, are no errors.
pub fn last(folder: &Path, fingerprint: &str) -> Result<Option<Found>, TranscriptError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TranscriptError::io(folder, "look for")(error)),
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "jsonl"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut newest = None;
    for (_, path) in files {
        let Some(model) = model_of(&path) else { continue };
        let found = Found { path, model };
        if found.model.fingerprint == fingerprint {
            return Ok(Some(found));
        }
        newest.get_or_insert(found);
    }
    Ok(newest)
}

fn model_of(path: &Path) -> Option<ModelId> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_HEADER).read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|b| *b == b'\n').next()?;
    Some(parse_header(line).ok()?.model)
}

/// A path in `folder` for a conversation that begins now; no two processes get the same.
pub fn new_path(folder: &Path) -> PathBuf {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S");
    folder.join(format!("{now}-{}.jsonl", std::process::id()))
}

/// What tells one model from another without reading its weights: a 64-bit FNV-1a hash over the architecture, the size of
/// the file, and the name, format and shape of every tensor; in hexadecimal.
pub fn fingerprint(file: &chaski_gguf::Gguf) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(file.str("general.architecture").ok().flatten().unwrap_or_default().as_bytes());
    add(&file.file_bytes().to_le_bytes());
    for tensor in file.tensors() {
        add(format!("{} {} {:?}\n", tensor.name, tensor.format, tensor.shape).as_bytes());
    }
    format!("{hash:016x}")
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn private(_: &mut OpenOptions) {}

/// Create a folder, and those above it, for its owner only.
///
/// # Errors
/// What the system said.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}
