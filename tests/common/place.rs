//! A chat as a person has it: in a terminal (through tmux, which types and looks at the screen), or through a pipe.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chaski::chat::conversation::Conversation;
use chaski::chat::transcript::Transcript;

use super::{GgufBytes, Run, arg, chaski, finished, tiny_llama};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// A folder with a small model and a place for conversations.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub model: PathBuf,
}

impl Place {
    pub fn with(file: &GgufBytes) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let model = file.write(folder.path(), "tiny.gguf");
        Place { folder, model }
    }
    pub fn tiny() -> Place {
        Place::with(&tiny_llama())
    }
    /// The same model with a template that adds nothing, so that turns are short in tokens.
    pub fn terse() -> Place {
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
        Place::with(&tiny_llama().str("tokenizer.chat_template", template))
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }
    /// `chaski chat` with the model and these arguments, keeping its state here.
    pub fn chat(&self, args: &[&str]) -> Command {
        self.chaski(&[&["chat", arg(&self.model)], args].concat())
    }
    /// The command with these arguments, keeping its state here.
    pub fn chaski(&self, args: &[&str]) -> Command {
        let mut command = chaski(args);
        command.env("CHASKI_STATE_DIR", self.state());
        command
    }
    /// `chaski chat` with the model and these arguments, and lines on its standard input.
    pub fn piped(&self, args: &[&str], lines: &str) -> Run {
        Place::fed(&mut self.chat(args), lines)
    }
    /// A command with lines on its standard input.
    pub fn fed(command: &mut Command, lines: &str) -> Run {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that ends early does not read all of it.
        let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
        finished(&child.wait_with_output().unwrap())
    }
    /// The transcripts in the state folder.
    pub fn transcripts(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.state().join("conversations")) else { return Vec::new() };
        entries.map(|e| e.unwrap().path()).collect()
    }
    /// The conversation in the only transcript that there is.
    pub fn saved(&self) -> Conversation {
        let paths = self.transcripts();
        assert_eq!(paths.len(), 1, "{paths:?}");
        Transcript::read(&paths[0]).unwrap().conversation
    }
}

/// Wait until something is so; `what` is told, with `state`, if it never is.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool, state: impl Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}\n{}", state());
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A terminal of its own, on a tmux server of its own.
pub struct Terminal<'a> {
    place: &'a Place,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Start `chaski chat` in a terminal of this size; none where there is no tmux.
    pub fn start(place: &'a Place, size: (u32, u32), args: &[&str]) -> Option<Terminal<'a>> {
        Terminal::start_with(place, size, &[&["chat", arg(&place.model)], args].concat())
    }
    /// The same with these words after `chaski`.
    pub fn start_with(place: &'a Place, size: (u32, u32), words: &[&str]) -> Option<Terminal<'a>> {
        let required = std::env::var_os("CHASKI_REQUIRE_TMUX").is_some_and(|v| v == "1");
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(!required, "CHASKI_REQUIRE_TMUX=1, but there is no tmux");
            eprintln!("SKIPPED a chat in a terminal: tmux is not installed");
            return None;
        }
        // A server that is on its way out shall not be met again.
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let socket = place.path(&format!("tmux-{}", SERVERS.fetch_add(1, Ordering::Relaxed)));
        let terminal = Terminal { place, socket };
        // Ctrl-C goes to the shell, too, which shall outlive it.
        let program = format!(
            "trap : INT; CHASKI_STATE_DIR='{}' '{}' {}; echo \"exit code: $?\"; exec sleep 600",
            place.state().display(),
            env!("CARGO_BIN_EXE_chaski"),
            words.iter().flat_map(|a| ["'", a, "' "]).collect::<String>(),
        );
        let (x, y) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &x, "-y", &y, "sh", "-c", &program]);
        terminal.ready();
        Some(terminal)
    }
    pub fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        let output = command
            .arg("-S")
            .arg(&self.socket)
            .args(args)
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        output
    }
    /// Press keys by tmux's names.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }
    /// Type text.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }
    /// Type a line and Enter.
    pub fn enter(&self, text: &str) {
        self.type_text(text);
        self.press("Enter");
    }
    /// What the screen shows, and what has left it at the top; wrapped lines joined.
    pub fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-J", "-S", "-500"]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
    pub fn see(&self, text: &str) {
        until(&format!("{text:?} on the screen"), || self.screen().contains(text), || self.screen());
    }
    /// Wait for the prompt: the last line that shows anything is an empty one to type in.
    pub fn ready(&self) {
        let ready = || self.screen().lines().last().is_some_and(|l| l.trim_end() == ">");
        until("a prompt", ready, || self.screen());
    }
    /// Wait until the transcript holds so many messages, none of them unanswered.
    pub fn messages(&self, n: usize) -> Conversation {
        let holds = || {
            let saved = self.place.transcripts();
            let read = saved.first().and_then(|path| Transcript::read(path).ok());
            read.is_some_and(|c| !c.interrupted && c.conversation.messages.len() == n)
        };
        until(&format!("{n} messages"), holds, || self.screen());
        self.place.saved()
    }
    /// Wait until an answer that is being given has been saved in part.
    pub fn answering(&self) {
        let partial = || {
            let text = fs::read_to_string(&self.place.transcripts()[0]).unwrap();
            text.lines().last().is_some_and(|l| l.contains("\"partial\""))
        };
        until("part of an answer", partial, || self.screen());
    }
    /// Clear the screen, and what has left it.
    pub fn wipe(&self) {
        self.press("C-l");
        until("an empty screen", || self.tmux_screen_lines() <= 1, || self.screen());
        self.tmux(&["clear-history"]);
    }
    fn tmux_screen_lines(&self) -> usize {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).lines().filter(|l| !l.trim().is_empty()).count()
    }
    /// How many tokens `/context` says the conversation takes, and the cache holds.
    pub fn context(&self) -> (usize, usize) {
        self.wipe();
        self.enter("/context");
        self.see(" in the cache");
        let screen = self.screen();
        let number_before = |text: &str| -> usize {
            screen.split(text).next().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
        };
        (number_before(" of "), number_before(" in the cache"))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}
