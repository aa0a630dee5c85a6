//! Conversations: in a real terminal (through tmux, which types and looks at the screen), and through pipes.
//!
//! The tests in a terminal are skipped, aloud, where there is no tmux; with CHASKI_REQUIRE_TMUX=1 that is a failure.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use chaski::chat::conversation::{Conversation, Role};
use chaski::chat::transcript::Transcript;
use common::place::{Place, Terminal, until};
use common::{arg, tiny_llama};

/// A context in which an answer without end takes seconds at least.
const LONG: &str = "32768";

fn said(conversation: &Conversation, role: Role) -> Vec<&str> {
    conversation.messages.iter().filter(|m| m.role == role).map(|m| m.content.as_str()).collect()
}

/// The whole of it: two turns, Ctrl-C in the middle of an answer, `/undo`, `/regen`, leave, `--continue`.
fn a_chat(place: &Place) {
    let flags = ["--temp", "1.5", "-s", "7", "-n", "12", "-c", LONG];
    let Some(terminal) = Terminal::start(place, (100, 40), &flags) else { return };
    terminal.see("model: ");
    terminal.see("template: chatml, as the file has none");
    terminal.see("KV cache ");

    terminal.enter("Once upon a time");
    terminal.messages(2);
    terminal.ready();
    terminal.enter("The dog ran");
    let two_turns = terminal.messages(4);
    assert_eq!(said(&two_turns, Role::User), ["Once upon a time", "The dog ran"]);
    assert!(said(&two_turns, Role::Assistant).iter().all(|answer| !answer.is_empty()));
    terminal.ready();
    let (_, after_two) = terminal.context();
    // The second turn read only what came after the first.
    terminal.enter("/stats");
    terminal.see(" reused; answer: 12 tokens");
    let screen = terminal.screen();
    let reused: usize = screen.split(" reused;").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(reused >= 12, "{screen}");

    for setting in ["n -1", "ignore-eos on"] {
        terminal.enter(&format!("/set {setting}"));
        terminal.see(&format!("({})", setting.replace(' ', " = ")));
    }
    terminal.enter("Say more");
    terminal.answering();
    terminal.press("C-c");
    terminal.see("(stopped; /regen answers again)");
    terminal.ready();
    let interrupted = terminal.messages(6);
    assert_eq!(interrupted.messages[4].content, "Say more");
    assert!(!interrupted.messages[5].content.is_empty());
    let (_, after_three) = terminal.context();
    assert!(after_three > after_two + 12);

    terminal.enter("/undo");
    terminal.see("(taken back: Say more)");
    assert_eq!(terminal.messages(4), two_turns);
    // What is left in the cache is what the conversation still has.
    let (taken, cached) = terminal.context();
    assert!(cached <= taken && cached < after_three && cached >= after_two, "{}", terminal.screen());

    terminal.enter("/set n 12");
    terminal.see("(n = 12)");
    terminal.wipe();
    terminal.enter("/regen");
    terminal.see("(stopped at the limit of -n tokens)");
    terminal.ready();
    let again = terminal.messages(4);
    assert_eq!(again.messages[..3], two_turns.messages[..3]);
    assert_ne!(again.messages[3].content, two_turns.messages[3].content);

    terminal.press("C-d");
    terminal.see("exit code: 0");
    drop(terminal);

    let Some(terminal) =
        Terminal::start(place, (100, 40), &["--temp", "0", "-n", "8", "-c", LONG, "--continue"])
    else {
        return;
    };
    terminal.see("(4 messages)");
    terminal.see("> The dog ran");
    terminal.enter("And then");
    let continued = terminal.messages(6);
    assert_eq!(continued.messages[..4], again.messages[..]);
    assert_eq!(continued.messages[4].content, "And then");
    terminal.ready();
    terminal.enter("/exit");
    terminal.see("exit code: 0");
}

#[test]
fn a_chat_in_a_terminal() {
    a_chat(&Place::tiny());
}

#[test]
fn a_chat_in_a_terminal_with_a_trained_model() {
    let Some(data) = common::test_data("a chat with a trained model") else { return };
    let mut place = Place::tiny();
    place.model = data.join("models/stories260K.gguf");
    a_chat(&place);
}

#[test]
fn a_message_may_have_several_lines() {
    let place = Place::tiny();
    let Some(terminal) = Terminal::start(&place, (60, 40), &["--temp", "0", "-n", "1", "-c", LONG]) else {
        return;
    };
    terminal.type_text("one");
    terminal.press("M-Enter");
    terminal.enter("two");
    terminal.messages(2);
    terminal.ready();

    terminal.enter("three\\");
    terminal.enter("four");
    terminal.messages(4);
    terminal.ready();

    terminal.enter("\"\"\"");
    terminal.enter("five\\");
    terminal.enter("");
    terminal.enter("six\"\"\"");
    terminal.messages(6);
    terminal.ready();

    // Pasted lines stay together, and what ends them does not send them.
    let long = "x y ".repeat(400);
    let pasted = format!("/seven\\\nél 日本 🦙\n{long}\n");
    terminal.tmux(&["set-buffer", &format!("/{pasted}")]);
    terminal.tmux(&["paste-buffer", "-p"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(place.saved().messages.len(), 6);
    terminal.press("Enter");
    let saved = terminal.messages(8);
    assert_eq!(said(&saved, Role::User), ["one\ntwo", "three\nfour", "five\\\n\nsix", &pasted]);
}

#[test]
fn ctrl_c_at_the_prompt_clears_the_line_and_then_says_how_to_leave() {
    let place = Place::tiny();
    let Some(terminal) = Terminal::start(&place, (80, 30), &["-n", "1"]) else { return };
    terminal.type_text("not sent");
    terminal.press("C-c");
    terminal.ready();
    assert!(!terminal.screen().contains("/exit leaves"));
    terminal.press("C-c");
    terminal.see("(Ctrl-D or /exit leaves)");
    terminal.enter("/hlep");
    terminal.see("/hlep is no command; did you mean /help?");
    terminal.press("Up");
    terminal.see("> /hlep");
    terminal.press("C-c");
    terminal.press("C-d");
    terminal.see("exit code: 0");
    assert!(place.transcripts().is_empty());
    assert!(fs::read_to_string(place.state().join("history")).unwrap().contains("/hlep"));
}

#[test]
fn the_last_message_can_be_edited() {
    let place = Place::tiny();
    let Some(terminal) = Terminal::start(&place, (80, 30), &["-n", "3"]) else { return };
    terminal.enter("helo");
    terminal.messages(2);
    terminal.ready();
    terminal.enter("/edit");
    terminal.see("> helo");
    until("taken back", || place.saved().messages.is_empty(), || terminal.screen());
    terminal.press("BSpace");
    terminal.enter("lo world");
    let saved = terminal.messages(2);
    assert_eq!(said(&saved, Role::User), ["hello world"]);
}

#[test]
fn reasoning_is_dimmed_in_a_terminal() {
    let place = Place::tiny();
    let template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</think>{% endif %}{% endfor %}<think>";
    fs::write(place.path("t.jinja"), template).unwrap();
    let file = place.path("t.jinja");
    let Some(terminal) =
        Terminal::start(&place, (80, 30), &["-n", "4", "--temp", "0", "--chat-template", arg(&file)])
    else {
        return;
    };
    terminal.enter("hello");
    let saved = terminal.messages(2);
    assert!(saved.messages[1].content.is_empty() && !saved.messages[1].reasoning.is_empty(), "{saved:?}");
    terminal.ready();
    let styled = terminal.tmux(&["capture-pane", "-p", "-e"]);
    let styled = String::from_utf8_lossy(&styled.stdout).into_owned();
    let answer = styled.split("> hello").nth(1).unwrap();
    assert!(answer.trim_start().starts_with("\x1b[2m"), "{answer:?}");
}

/// Who types nothing but the program's name talks with the embedded model.
#[cfg(feature = "demo")]
#[test]
fn a_newcomer_without_a_model() {
    let place = Place::tiny();
    // The model's own context ends an answer that nothing else does in less than a second on a fast machine.
    let Some(terminal) = Terminal::start_with(&place, (100, 40), &["--temp", "0", "-c", LONG]) else {
        return;
    };
    terminal.see("this is the embedded demo model, ");
    terminal.see("`chaski MODEL.gguf` chats with a file of yours");
    terminal.enter("How many bits per weight does Q4_K have?");
    terminal.messages(2);
    terminal.ready();
    terminal.enter("and Q8_0?");
    let saved = terminal.messages(4);
    assert!(
        said(&saved, Role::Assistant).iter().zip(["4.5", "8.5"]).all(|(a, bits)| a.contains(bits)),
        "{saved:?}"
    );
    terminal.ready();
    terminal.enter("/hlep");
    terminal.see("/hlep is no command");
    terminal.enter("/help");
    terminal.see("/regen");
    terminal.enter("/set ignore-eos on");
    terminal.see("(ignore-eos = on)");
    terminal.enter("Tell me about chaski");
    terminal.answering();
    terminal.press("C-c");
    terminal.see("(stopped; /regen answers again)");
    terminal.ready();
    terminal.enter("/exit");
    terminal.see("exit code: 0");
}

#[cfg(feature = "demo")]
#[test]
fn a_conversation_with_the_embedded_model_is_continued() {
    let place = Place::tiny();
    let run = Place::fed(&mut place.chaski(&[]), "What is Q4_K?\n");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("this is the embedded demo model"), "{run:?}");
    assert_eq!(Transcript::read(&place.transcripts()[0]).unwrap().model.path, "demo (embedded)");
    for args in [&["--continue"][..], &["demo", "--continue"], &["chat", "-m", "demo", "--continue"]] {
        let run = Place::fed(&mut place.chaski(args), "/show\n");
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        assert!(run.stderr.contains("> What is Q4_K?") && !run.stderr.contains("another model"), "{run:?}");
    }
}

/// What a conversation answers without anybody there to see it.
#[test]
fn only_answers_go_to_standard_output() {
    let place = Place::terse();
    let run = place.piped(&["--temp", "0", "-n", "4"], "hello\n/stats\nab\n");
    assert_eq!(run.code, Some(0), "{run:?}");
    let saved = place.saved();
    let answers: String = said(&saved, Role::Assistant).iter().flat_map(|a| [a, "\n"]).collect();
    assert_eq!(run.stdout, answers);
    assert_eq!(said(&saved, Role::User), ["hello", "ab"]);
    assert!(run.stderr.contains(" reused; answer: 4 tokens") && !run.stderr.contains('\x1b'), "{run:?}");
}

#[test]
fn what_goes_wrong_in_a_pipe_ends_the_chat() {
    let place = Place::tiny();
    for (lines, code, wanted) in [
        ("/nonsense\n", 2, "/nonsense is no command"),
        ("/set temp warm\n", 2, "temp: \"warm\" is no number"),
        ("/set reasoning on\n", 2, "reasoning has no effect"),
        ("/undo\n", 2, "nothing to undo"),
        ("/read /nonexistent\n", 2, "/nonexistent: "),
        ("/load /nonexistent\n", 3, "/nonexistent: cannot read the transcript"),
        ("hello\n/edit\n", 2, "/edit needs the new text"),
    ] {
        let run = place.piped(&["--temp", "0", "-n", "1"], lines);
        assert_eq!(run.code, Some(code), "{lines}: {run:?}");
        assert!(run.stderr.contains(wanted), "{lines}: {run:?}");
    }
}

#[test]
fn a_file_is_read_before_the_next_message() {
    let place = Place::tiny();
    let file = place.path("notes.txt");
    fs::write(&file, "a ```b``` c").unwrap();
    let run = place.piped(&["-n", "1", "-c", LONG], &format!("/read {}\nWhat is this?\n", file.display()));
    assert_eq!(run.code, Some(0), "{run:?}");
    let saved = place.saved();
    assert_eq!(said(&saved, Role::User), ["notes.txt:\n````\na ```b``` c\n````\n\nWhat is this?"]);
}

#[test]
fn a_full_context_is_said_and_the_policy_applied() {
    let place = Place::terse();
    let lines = "ab ab ab ab ab\n".repeat(20);
    let stop = place.piped(&["-n", "4", "--temp", "0"], &lines);
    assert_eq!(stop.code, Some(1), "{stop:?}");
    assert!(stop.stderr.contains("warning: 80% of the context are used"), "{stop:?}");
    assert!(stop.stderr.contains("the context of 128 tokens is full: with this message"), "{stop:?}");

    let place = Place::terse();
    let drop = place.piped(&["-n", "4", "--temp", "0", "--on-full", "drop-oldest-turn"], &lines);
    assert_eq!(drop.code, Some(0), "{drop:?}");
    assert!(drop.stderr.contains("dropped"), "{drop:?}");
    let saved = place.saved();
    assert!((2..38).contains(&saved.messages.len()), "{saved:?}");
    assert_eq!(saved.messages[0].role, Role::User);
}

#[test]
fn an_answer_that_fills_the_context_goes_on_without_the_oldest_turns() {
    let place = Place::terse();
    let flags = ["--temp", "0", "--ignore-eos", "--on-full", "drop-oldest-turn"];
    let run = place.piped(&flags, "/set n 4\nab\n/set n -1\nabc\n");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("the oldest 1 turn was dropped while this answer was given"), "{run:?}");
    assert!(run.stderr.contains("the answer stopped: the context of 128 tokens is full"), "{run:?}");
    let saved = place.saved();
    assert_eq!(said(&saved, Role::User), ["abc"]);
}

#[test]
fn an_answer_that_was_killed_is_kept_as_far_as_it_came() {
    let place = Place::tiny();
    let mut child = place
        .chat(&["--ignore-eos", "-c", LONG, "--temp", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let partial = || {
        place.transcripts().first().is_some_and(|p| fs::read_to_string(p).unwrap().contains("\"partial\""))
    };
    until("part of an answer", partial, String::new);
    child.kill().unwrap();
    child.wait().unwrap();
    let path = place.transcripts().remove(0);
    // The machine stopped in the middle of a line, too.
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"mess").unwrap();

    let run = place.piped(&["--continue", "-n", "2", "-c", LONG], "ab\n");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("its last line was not complete"), "{run:?}");
    assert!(run.stderr.contains("its last answer was not complete"), "{run:?}");
    let saved = place.saved();
    assert_eq!(said(&saved, Role::User), ["hello", "ab"]);
    assert!(said(&saved, Role::Assistant).len() == 2 && !saved.messages[1].content.is_empty());
}

#[test]
fn a_conversation_of_this_model_is_continued_before_a_newer_one_of_another() {
    let place = Place::tiny();
    assert_eq!(place.piped(&["-n", "1"], "first\n").code, Some(0));
    let other =
        tiny_llama().tensor("rope_freqs.weight", &[4], &[1.0; 4]).write(place.folder.path(), "other.gguf");
    let mut elsewhere = Place::tiny();
    elsewhere.model = other;
    elsewhere.folder = place.folder;
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(elsewhere.piped(&["-n", "1"], "second\n").code, Some(0));
    let model = elsewhere.path("tiny.gguf");
    let place = Place { folder: elsewhere.folder, model };
    let run = place.piped(&["-n", "1", "--continue"], "/show\n");
    assert!(run.stderr.contains("> first") && !run.stderr.contains("another model"), "{run:?}");
}

#[test]
fn a_named_transcript_is_continued_only_when_asked() {
    let place = Place::tiny();
    let file = place.path("talk.jsonl");
    let flags = ["-n", "1", "--transcript", arg(&file)];
    assert_eq!(place.piped(&flags, "hello\n").code, Some(0));
    let again = place.piped(&flags, "hello\n");
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("--continue goes on with it"), "{again:?}");
    let continued = [&flags[..], &["--continue"]].concat();
    assert_eq!(place.piped(&continued, "ab\n").code, Some(0));
    let saved = Transcript::read(&file).unwrap().conversation;
    assert_eq!(said(&saved, Role::User), ["hello", "ab"]);
    assert!(place.transcripts().is_empty());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn saved_conversations_are_loaded() {
    let place = Place::tiny();
    let file = place.path("saved.jsonl");
    let lines = format!("/system Be brief.\nhello\n/save {0}\n/clear\n/load {0}\nab\n", file.display());
    let run = place.piped(&["-n", "1", "-c", LONG], &lines);
    assert_eq!(run.code, Some(0), "{run:?}");
    let saved = place.saved();
    assert_eq!(saved.system.as_deref(), Some("Be brief."));
    assert_eq!(said(&saved, Role::User), ["hello", "ab"]);
}

#[test]
fn malformed_transcripts_are_refused_by_file_and_line() {
    const HEADER: &str = r#"{"chaski_transcript":1,"created":"2026-01-01T00:00:00Z","model":{"path":"m","name":"m","fingerprint":"0"}}"#;
    let place = Place::tiny();
    let refused = |name: &str, text: &[u8], wanted: &str| {
        let file: &Path = &place.path(name);
        fs::write(file, text).unwrap();
        let run = place.piped(&["--transcript", arg(file), "--continue"], "hello\n");
        assert_eq!(run.code, Some(3), "{name}: {run:?}");
        assert!(run.stderr.contains(&format!("{name}, line {wanted}")), "{name}: {run:?}");
        assert_eq!(fs::read(file).unwrap(), text, "{name}: the file is left alone");
    };
    let after = |line: &str| format!("{HEADER}\n{line}\n").into_bytes();
    refused("empty", b"", "1: the file is empty");
    refused("binary", b"\xff\xfe\x00\n", "1: no header");
    refused("future", HEADER.replace(":1,", ":2,").as_bytes(), "1: a transcript of version 2");
    refused("syntax", &after("{\"event\":"), "2: ");
    refused("event", &after(r#"{"event":"explode"}"#), "2: unknown variant `explode`");
    refused("role", &after(r#"{"event":"message","role":"user"}"#), "2: missing field `content`");
    refused("undo", &after(r#"{"event":"undo"}"#), "2: nothing to undo");
    refused("drop", &after(r#"{"event":"drop_oldest"}"#), "2: no exchange to drop");
    refused("retract", &after(r#"{"event":"retract"}"#), "2: no answer to take back");
    refused(
        "answer",
        &after(r#"{"event":"message","role":"assistant","content":"x"}"#),
        "2: an answer, but nothing was asked",
    );
    refused("system", &after(r#"{"event":"message","role":"system","content":"x"}"#), "2: a system prompt");
    refused("deep", &after(&"[".repeat(100_000)), "2: ");
    let question = r#"{"event":"message","role":"user","content":"x"}"#;
    refused("questions", &after(&format!("{question}\n{question}")), "3: a message of the user");
}
