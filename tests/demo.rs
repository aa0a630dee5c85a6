//! The embedded demo model: the one trained model that every test machine has. What it must know, what quantization may
//! take from it, and what may not matter to it at all (how a prompt is cut, which kernels run).
//!
//! Its answers are kept in `tests/data/demo.json`, which a new training makes invalid:
//! `CHASKI_WRITE_DEMO_ANSWERS=1 cargo test --release --test demo answers` writes them anew.

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski::chat::conversation::{Chat, Conversation, Message, Role};
use chaski::chat::generate::{Ended, GenerateOptions};
use chaski::chat::template::Template;
use chaski::cli::args::{Cli, NOT_BUILT_YET};
use chaski::cli::argv::SHORT_FLAGS;
use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::demo;
use chaski::engine::{Engine, EngineOptions, Session};
use chaski::kv::KvFormat;
use chaski::measure;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski::sample::Params;
use chaski::tokenizer::{EncodeOptions, Tokenizer};
use chaski_gguf::{Format, Gguf, Writer};
use clap::CommandFactory;
use common::tiny::{decode, sequence};
use common::{arg, run};
use serde_json::{Value, json};

/// What the model is read with.
#[derive(Clone, Copy)]
struct With {
    isa: Isa,
    exact: bool,
    kv: KvFormat,
    n_ctx: usize,
    n_ubatch: usize,
}

impl Default for With {
    fn default() -> With {
        With { isa: Isa::detect(), exact: false, kv: KvFormat::F16, n_ctx: 1024, n_ubatch: 512 }
    }
}

fn shipped() -> Gguf {
    Gguf::from_static(demo::bytes().unwrap()).unwrap()
}

/// The same model with its matrices decoded and encoded anew.
fn requantized(format: Format) -> Gguf {
    let file = shipped();
    let info = format.info();
    let tensors: Vec<_> = file
        .tensors()
        .iter()
        .map(|t| {
            let bytes = file.tensor(&t.name).unwrap().bytes;
            assert!(t.n_dims < 2 || t.shape[0] % info.block_len as u64 == 0, "{}", t.name);
            if t.n_dims < 2 {
                return (t, t.format, bytes.to_vec());
            }
            let mut values = vec![0.0; t.n_values() as usize];
            (t.format.info().decode)(bytes, &mut values);
            let mut bytes = vec![0; values.len() / info.block_len * info.block_bytes];
            info.encode.unwrap()(&values, &mut bytes);
            (t, format, bytes)
        })
        .collect();
    let mut writer = Writer::new();
    writer.copy_metadata(&file, |_| true).unwrap();
    for (t, format, bytes) in &tensors {
        writer.tensor(&t.name, &t.shape[..t.n_dims], *format, bytes).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Gguf::from_bytes(&bytes).unwrap()
}

fn engine(file: Gguf, with: With) -> Engine {
    let options = EngineOptions {
        cpu: CpuOptions {
            threads: 1,
            threads_batch: 1,
            isa: with.isa,
            exact: with.exact,
            invariant: true,
            check: false,
        },
        n_ctx: with.n_ctx,
        n_sequences: 1,
        n_ubatch: with.n_ubatch,
        n_outputs: 1,
        kv: KvChoice::new(with.kv, with.kv),
    };
    Engine::new(Arc::new(Model::new(Arc::new(file), &RopeOptions::default()).unwrap()), options).unwrap()
}

/// The model as it talks at temperature 0.
fn chat(file: Gguf, with: With) -> Chat {
    let engine = engine(file, with);
    let file = engine.model().file().clone();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let template = Template::parse(file.require_str("tokenizer.chat_template").unwrap()).unwrap();
    let greedy = Params { temp: 0.0, ..Params::default() };
    Chat::new(Session::new(engine), tokenizer, template, greedy, false).unwrap()
}

/// The answers to these messages, said one after the other.
fn talk(chat: &mut Chat, asked: &[&str]) -> Vec<String> {
    let options = GenerateOptions { max_tokens: Some(120), ..GenerateOptions::default() };
    let mut turns = Conversation::default();
    let mut answers = Vec::new();
    for text in asked {
        turns.messages.push(Message::new(Role::User, *text));
        let go_on = &mut |_| ControlFlow::Continue(());
        let outcome = chat.answer(&turns, &options, go_on, &mut |_| ControlFlow::Continue(())).unwrap();
        let answer = outcome.text.trim().to_owned();
        assert!(outcome.ended != Ended::ContextFull, "{text}: {answer}");
        turns.messages.push(Message::new(Role::Assistant, answer.clone()));
        answers.push(answer);
    }
    answers
}

fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/demo-model").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Flags of the table that the commands there are do not have yet.
const FLAGS_TO_COME: &[(&str, &str)] =
    &[("quantize", "--imatrix"), ("quantize", "--method"), ("quantize", "--size"), ("quantize", "--bpw")];

/// Flags that it mentions and that are not chaski's.
const OF_CARGO: &[&str] = &["--release"];

/// Whether a command takes a flag, in any of its spellings.
fn takes(command: &clap::Command, flag: &str) -> bool {
    let flag = SHORT_FLAGS.iter().find(|(short, _)| *short == flag).map_or(flag, |(_, long)| long);
    command.get_arguments().any(|arg| match flag.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        }
        None => flag.strip_prefix('-').is_some_and(|short| short.chars().eq(arg.get_short())),
    })
}

/// The flags in a text: `--continue`, `-ngl`.
fn flags_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| c.is_whitespace() || "[](),;:|'\"`=/".contains(c));
    let words = words.map(|w| w.trim_end_matches(['.', '?', '!']));
    words
        .filter(|w| {
            w.trim_start_matches('-').starts_with(|c: char| c.is_ascii_lowercase()) && w.starts_with('-')
        })
        .collect()
}

#[test]
fn what_it_was_taught_of_the_command_line_is_so() {
    let table = read_json(&recipe("facts.json"));
    let mut chaski = Cli::command();
    chaski.build();
    let (mut wrong, mut to_come) = (Vec::new(), Vec::new());
    let mut check = |of: &str, name: &str, flag: &str| match chaski.find_subcommand(name) {
        _ if name.is_empty() && takes(&chaski, flag) => {}
        Some(command) if takes(command, flag) => {}
        _ if FLAGS_TO_COME.contains(&(name, flag)) => to_come.push(format!("chaski {name} {flag}")),
        Some(_) => wrong.push(format!("{of}: chaski {name} has no {flag}")),
        None if NOT_BUILT_YET.contains(&name) => to_come.push(format!("chaski {name} {flag}")),
        None => wrong.push(format!("{of}: there is no chaski {name}")),
    };
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = |key: &str| table[key].as_array().unwrap().clone();
    for entry in entries("commands") {
        let (id, name) = (text(&entry, "id"), text(&entry, "command"));
        check(&id, &name, "--help");
        for flag in flags_in(&text(&entry, "usage")) {
            check(&id, &name, flag);
        }
    }
    for entry in entries("flags") {
        for flag in entry["flags"].as_array().unwrap() {
            check(&text(&entry, "id"), &text(&entry, "on"), flag.as_str().unwrap());
        }
    }
    // What answers mention in passing is a flag of some command.
    let anywhere = |flag: &str| {
        OF_CARGO.contains(&flag)
            || std::iter::once(&chaski).chain(chaski.get_subcommands()).any(|command| takes(command, flag))
            || FLAGS_TO_COME.iter().any(|(_, to_come)| *to_come == flag)
            || entries("flags").iter().any(|entry| {
                NOT_BUILT_YET.contains(&text(entry, "on").as_str())
                    && entry["flags"].as_array().unwrap().iter().any(|f| f == flag)
            })
    };
    for entry in ["commands", "flags", "topics"].into_iter().flat_map(entries) {
        for flag in flags_in(&text(&entry, "answer")) {
            if !anywhere(flag) {
                wrong.push(format!("{}: no command has {flag}", text(&entry, "id")));
            }
        }
    }
    eprintln!("still to come: {}", to_come.join(", "));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_command_that_takes_a_model_takes_demo() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let messages = path("messages.json");
    std::fs::write(&messages, r#"[{"role": "user", "content": "hello"}]"#).unwrap();
    let text = path("text");
    std::fs::write(&text, "Weights are rounded to a few bits, so that they take less memory. ".repeat(20))
        .unwrap();
    let logits = path("logits");
    let cases: &[(&[&str], &str)] = &[
        (&["inspect", "demo"], "demo (embedded)"),
        (&["inspect", "-m", "demo", "--placement"], "part of the program"),
        (&["verify", "demo"], "neither NaN nor infinity"),
        (&["tokenize", "demo", "hello", "--ids"], "\n"),
        (&["tokenize", "-m", "demo", "hello"], " -> "),
        (&["template", "demo", "--messages", arg(&messages)], "<|im_start|>user\nhello"),
        (&["logits", "demo", "--tokens", "1,2,3", "--out", arg(&logits)], ""),
        (&["perplexity", "demo", "-f", arg(&text), "-c", "64"], "tokens in"),
        (&["run", "demo", "-p", "hello", "--temp", "0", "-n", "3"], "\n"),
        (&["run", "--model", "demo", "-p", "hello", "--raw", "-n", "1"], "\n"),
    ];
    for (args, says) in cases {
        let run = run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        assert!(run.stdout.contains(says), "{args:?}: {run:?}");
    }
    let n_vocab = Model::new(Arc::new(shipped()), &RopeOptions::default()).unwrap().hparams().n_vocab;
    assert_eq!(std::fs::metadata(logits).unwrap().len() as usize, 3 * n_vocab * 4);
    let inspected: Value = serde_json::from_str(&run(&["inspect", "demo", "--json"]).stdout).unwrap();
    assert_eq!(inspected["arch"], "llama");
    assert!(inspected["memory"]["weights"].as_u64().unwrap() <= demo::bytes().unwrap().len() as u64);
    assert_eq!(inspected["why"], Value::Null);
}

#[test]
fn a_file_of_its_name_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    common::tiny_llama().write(folder.path(), "demo");
    let inspect = |name: &str| {
        let output = common::chaski(&["inspect", name]).current_dir(folder.path()).output().unwrap();
        common::finished(&output).stdout
    };
    assert!(inspect("./demo").contains("\"tiny\""));
    assert!(inspect("demo").contains("demo (embedded)"));
}

#[test]
fn what_flags_say_of_files_is_told_to_have_no_effect() {
    for (args, flag) in [
        (&["run", "demo", "-p", "hello", "-n", "1", "--no-mmap"][..], "--no-mmap"),
        (&["logits", "demo", "--tokens", "1", "--out", "/dev/null", "--mlock"], "--mlock"),
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        let wanted = format!("warning: {flag} has no effect: demo (embedded) is part of the program");
        assert!(run.stderr.contains(&wanted), "{args:?}: {run:?}");
    }
}

#[test]
fn one_question_on_the_command_line_gets_one_whole_sentence() {
    for seed in ["1", "2", "3"] {
        let run = run(&["run", "demo", "-s", seed, "-p", "How do I put layers on the GPU?"]);
        assert_eq!(run.code, Some(0), "{run:?}");
        let answer = run.stdout.trim_end();
        assert!(answer.contains("-ngl") && answer.ends_with('.') && answer.lines().count() == 1, "{run:?}");
    }
}

#[test]
fn answers_are_those_that_were_written_down_whatever_kernels_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/demo.json");
    let mut written = read_json(&path);
    let with = |isa, exact| With { isa, exact, ..With::default() };
    if std::env::var_os("CHASKI_WRITE_DEMO_ANSWERS").is_some() {
        let mut chat = chat(shipped(), With::default());
        for pair in written.as_array_mut().unwrap() {
            pair["answer"] = talk(&mut chat, &[pair["ask"].as_str().unwrap()]).pop().into();
        }
        std::fs::write(&path, serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
    }
    // Float activations too: a word that hangs on the last bit is no good to write down.
    let ways = Isa::all_available().map(|isa| with(isa, false)).chain([with(Isa::detect(), true)]);
    for with in ways {
        let mut chat = chat(shipped(), with);
        for pair in written.as_array().unwrap() {
            let ask = pair["ask"].as_str().unwrap();
            let answer = talk(&mut chat, &[ask]).pop().unwrap();
            assert_eq!(pair["answer"], json!(answer), "{ask} ({}, exact: {})", with.isa, with.exact);
        }
    }
}

#[test]
fn a_prompt_may_be_cut_anywhere() {
    let tokenizer = Tokenizer::from_gguf(&shipped()).unwrap();
    let text = std::fs::read(recipe("facts.json")).unwrap();
    let ids = tokenizer.encode(&text[..2000], EncodeOptions { add_special: true, parse_special: false });
    let logits = |n_ubatch| {
        let mut engine = engine(shipped(), With { n_ubatch, ..With::default() });
        decode(&mut engine, &sequence(0, 0, &ids[..300]))
    };
    let whole = logits(512);
    for n_ubatch in [1, 37] {
        assert!(logits(n_ubatch) == whole, "micro-batches of {n_ubatch}");
    }
}

/// The perplexity on the text that the training never saw.
fn perplexity(file: Gguf, kv: KvFormat) -> f64 {
    const CTX: usize = 512;
    const WINDOWS: usize = 12;
    let mut engine = engine(file, With { kv, n_ctx: CTX, ..With::default() });
    let tokenizer = Tokenizer::from_gguf(engine.model().file()).unwrap();
    let text = std::fs::read(recipe("heldout/text.txt")).unwrap();
    let tokens = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false });
    let bos = tokenizer.special().bos.filter(|_| tokenizer.adds_bos());
    let go_on = &mut |_| ControlFlow::Continue(());
    let found = measure::perplexity(&mut engine, &tokens, bos, CTX, Some(WINDOWS), go_on).unwrap().unwrap();
    assert_eq!(found.windows, WINDOWS);
    found.perplexity
}

/// Hold figures against a base: each may be off by its share of it. All are printed; what they lose is returned.
fn losses(base: f64, rows: impl Iterator<Item = (String, f64, f64)>) -> Vec<f64> {
    let (mut losses, mut wrong) = (Vec::new(), Vec::new());
    for (name, got, most) in rows {
        let loss = got / base - 1.0;
        eprintln!("{name:<8} {got:.4} ({:+.3}%, at most {:.1}%)", loss * 100.0, most * 100.0);
        losses.push(loss);
        if loss.abs() > most {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    losses
}

/// Every matrix in the format, the tied embedding too: more than a mixture would lose. The bounds are about twice what was
/// measured over 24 windows.
#[test]
fn formats_cost_what_was_measured() {
    let base = perplexity(shipped(), KvFormat::F16);
    eprintln!("as shipped {base:.4}");
    assert!(base < 4.0);
    let formats = [
        (Format::F16, 0.003),
        (Format::Q6_K, 0.005),
        (Format::Q5_K, 0.01),
        (Format::IQ4_XS, 0.02),
        (Format::Q4_K, 0.02),
        (Format::Q4_0, 0.03),
        (Format::Q3_K, 0.08),
        (Format::Q2_K, 0.8),
    ];
    let row = |(format, most): (Format, f64)| {
        (format.to_string(), perplexity(requantized(format), KvFormat::F16), most)
    };
    let lost = losses(base, formats.into_iter().map(row));
    // Between neighbours chance decides; these are far apart.
    let [_, q6_k, .., q3_k, q2_k] = lost[..] else { unreachable!() };
    assert!(q6_k < q3_k && q3_k < q2_k / 3.0, "{lost:?}");
}

#[test]
fn cache_formats_cost_what_was_measured() {
    let base = perplexity(shipped(), KvFormat::F16);
    let most = |format| match format {
        KvFormat::F32 | KvFormat::F16 | KvFormat::BF16 | KvFormat::Q8_0 => 0.002,
        KvFormat::Q5_0 | KvFormat::Q5_1 | KvFormat::F8E4M3 => 0.005,
        _ => 0.01,
    };
    let row = |&format: &KvFormat| (format.to_string(), perplexity(shipped(), format), most(format));
    losses(base, KvFormat::ALL.iter().map(row));
}

/// Whether an answer holds a fact: one of its spellings, which `|` separates. As in `tools/demo-model/checker.py`: case does not
/// count, and a spelling with a digit or a dash in front stands alone (4.5 is not in 14.5 or 4.56, nor -c in -ctk).
fn holds(answer: &str, fact: &str) -> bool {
    let answer = answer.to_lowercase();
    fact.to_lowercase().split('|').any(|way| {
        let alone = way.starts_with('-') || way.contains(|c: char| c.is_ascii_digit());
        answer
            .match_indices(way)
            .any(|(at, _)| !alone || stands_alone(&answer[..at], &answer[at + way.len()..]))
    })
}

fn stands_alone(before: &str, after: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let of_a_number = before.strip_suffix('.').is_some_and(|b| is_digit(b.chars().next_back()))
        || after.strip_prefix('.').is_some_and(|a| is_digit(a.chars().next()));
    !before.ends_with(goes_on) && !after.starts_with(goes_on) && !of_a_number
}

#[test]
fn facts_are_found_where_they_stand() {
    for (answer, fact) in [
        ("It has 4.5 bits.", "4.5"),
        ("takes 4.5.", "4.5"),
        ("use -c N", "-c"),
        ("Lower is BETTER.", "lower is better"),
        ("a or b", "x|b"),
    ] {
        assert!(holds(answer, fact), "{fact} in {answer}");
    }
    for (answer, fact) in
        [("It has 14.5 bits.", "4.5"), ("4.56", "4.5"), ("3.4.5", "4.5"), ("use -ctk", "-c"), ("--c", "-c")]
    {
        assert!(!holds(answer, fact), "{fact} in {answer}");
    }
}

/// What is wrong with an answer: a fact that it lacks, one that it must not hold, no end.
fn faults(answer: &str, wanted: &Value) -> Vec<String> {
    let answer = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    let list = |key: &str| wanted[key].as_array().into_iter().flatten().map(|fact| fact.as_str().unwrap());
    let lacks = list("must").filter(|fact| !holds(&answer, fact)).map(|fact| format!("lacks {fact}"));
    let has = list("must_not").filter(|fact| holds(&answer, fact)).map(|fact| format!("has {fact}"));
    let open = !answer.ends_with(['.', '!', '?', '-']);
    lacks.chain(has).chain(open.then(|| "does not end".to_owned())).collect()
}

fn read_json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The share of the held-out questions that are answered right; the others are printed.
fn right_answers(name: &str, file: Gguf) -> f64 {
    let questions = read_json_lines(&recipe("heldout/questions.jsonl"));
    assert!(questions.len() >= 200);
    let mut chat = chat(file, With::default());
    let mut right = 0;
    for question in &questions {
        let ask = question["question"].as_str().unwrap();
        let answer = talk(&mut chat, &[ask]).pop().unwrap();
        let faults = faults(&answer, question);
        right += usize::from(faults.is_empty());
        if !faults.is_empty() {
            eprintln!("{name}: {ask}\n    {answer}\n    {}", faults.join(", "));
        }
    }
    eprintln!("{name}: {right} of {} questions are answered right", questions.len());
    right as f64 / questions.len() as f64
}

/// The share of the held-out conversations whose three answers are all right; the others are printed.
fn right_conversations() -> f64 {
    let conversations = read_json_lines(&recipe("heldout/conversations.jsonl"));
    assert!(conversations.len() >= 10);
    let mut right = 0;
    for conversation in &conversations {
        let turns = conversation["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 3);
        let asked: Vec<&str> = turns.iter().map(|turn| turn["user"].as_str().unwrap()).collect();
        let answers = talk(&mut chat(shipped(), With::default()), &asked);
        let faults: Vec<String> = turns.iter().zip(&answers).flat_map(|(turn, a)| faults(a, turn)).collect();
        right += usize::from(faults.is_empty());
        if !faults.is_empty() {
            eprintln!("{asked:?}\n    {answers:?}\n    {}", faults.join(", "));
        }
    }
    eprintln!("{right} of {} conversations stay on their topic", conversations.len());
    right as f64 / conversations.len() as f64
}

/// What the shipped model reaches, a little below what was measured: kernels may move an answer, a bug moves many.
#[test]
fn it_answers_what_it_answered_when_it_was_trained() {
    assert!(right_answers("as shipped", shipped()) >= 0.92);
    assert!(right_answers("Q4_K", requantized(Format::Q4_K)) >= 0.90);
    assert!(right_conversations() >= 0.90);
}

#[test]
#[ignore = "the aim, 95% of the questions not reached on 2026-11-21 (189 of 200, 188 in Q4_K, 10 of 10 conversations); run with: cargo test --release --test demo aim -- --ignored --nocapture"]
fn the_aim_of_its_training() {
    let reached = [
        right_answers("as shipped", shipped()),
        right_answers("Q4_K", requantized(Format::Q4_K)),
        right_conversations(),
    ];
    assert!(reached[0] >= 0.95 && reached[1] >= 0.90 && reached[2] == 1.0, "{reached:?}");
}
