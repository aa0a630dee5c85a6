//! `chaski chat`: a conversation in the terminal.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use super::args::{ChatArgs, OnFull};
use super::exit::{Exit, Failure};
use super::options::{Conversation, EngineOptions, Generation, TemplateChoice};
use super::output::Terminal;
use super::source::ModelSource;
use super::talk::{self, TemplateSource};
use super::{interrupt, show};
use crate::chat::conversation::Conversation as Turns;
use crate::chat::repl::{
    self, About, Console, Input, Interrupt, Keyboard, Lines, REASONING_SWITCH, Repl, ReplError, Settings,
    Store, harmless,
};
use crate::chat::template::DEFAULT;
use crate::chat::transcript::{self, ModelId, Transcript, TranscriptError};
use crate::demo;
use crate::engine::plan_memory;

/// Where conversations and the history are kept, instead of the platform's place for such things.
const STATE_DIR: &str = "CHASKI_STATE_DIR";

pub(super) fn run(args: &ChatArgs, terminal: Terminal, verbose: bool) -> anyhow::Result<()> {
    let source = args.model.source_or_embedded()?;
    let engine = EngineOptions::new(&args.engine)?;
    let how = Conversation::new(&args.conversation);
    let generation = Generation::new(&args.generation, &args.sampling)?;
    let state = state_dir();
    let mut loaded = talk::load(&source, &engine, &how, &generation)?;
    let raw = how.template == TemplateChoice::Raw;
    let about = about(&source, &mut loaded, raw)?;
    for (label, text) in about.facts.iter().filter(|(label, _)| matches!(*label, "model" | "template")) {
        if let ("model", ModelSource::Embedded(bytes)) = (*label, &source) {
            tracing::info!("{}", introduction(bytes.len()));
        } else {
            tracing::info!("{label}: {text}");
        }
    }
    if how.reasoning.is_some() && !loaded.chat.template().source().contains(REASONING_SWITCH) {
        tracing::warn!("--reasoning has no effect: the template does not look at {REASONING_SWITCH}");
    }
    let console = Console {
        out_terminal: io::stdout().is_terminal(),
        err_terminal: io::stderr().is_terminal(),
        color: terminal.color,
        progress: terminal.progress,
    };
    let settings = Settings {
        sampling: generation.sampling.clone(),
        max_tokens: generation.max_tokens,
        stops: generation.stop.clone(),
        ignore_eos: generation.ignore_eos,
        reasoning: how.reasoning,
        stats: verbose,
        on_full: match args.chat.on_full.unwrap_or_default() {
            OnFull::Stop => repl::OnFull::Stop,
            OnFull::DropOldestTurn => repl::OnFull::DropOldestTurn,
        },
    };
    let (store, resumed) = store(args, state.as_deref(), &about.model).map_err(|e| of_transcript(&e))?;
    let keyboard = io::stdin().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let watch = Interrupt {
        requested: interrupt::requested,
        clear: interrupt::clear,
        watch: if keyboard { patiently } else { interrupt::cooperative },
    };
    let mut repl = Repl::new(loaded.chat, raw, settings, store, about, console, watch).map_err(of_repl)?;
    if let Some(conversation) = resumed {
        if raw && conversation.system.is_some() {
            let why = "--raw: the conversation to continue has a system prompt, which needs a template";
            return Err(Failure::usage(why).into());
        }
        repl.resume(conversation);
        if !terminal.quiet {
            repl.recap();
        }
    }
    if how.system.is_some() {
        repl.set_system(how.system);
    }
    if io::stdin().is_terminal() {
        tracing::info!("/help lists the commands, Ctrl-D leaves");
    }
    let mut input: Box<dyn Input> = if keyboard {
        Box::new(Keyboard::new(state.map(|s| s.join("history")), terminal.color)?)
    } else if io::stdin().is_terminal() {
        Box::new(Lines::typed(io::stdin().lock()))
    } else {
        Box::new(Lines::new(io::stdin().lock()))
    };
    repl.run(input.as_mut()).map_err(of_repl)
}

/// From the first answer on Ctrl-C no longer ends the program, also when it comes just after an answer's end.
fn patiently(_: bool) {
    interrupt::patient();
}

/// The folder for what the program keeps between runs; none where the platform has no place for it.
fn state_dir() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(STATE_DIR).filter(|f| !f.is_empty()) {
        return Some(folder.into());
    }
    let dirs = directories::ProjectDirs::from("", "", "chaski")?;
    Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned())
}

/// Where this conversation is saved, and the conversation that it continues.
fn store(
    args: &ChatArgs,
    state: Option<&Path>,
    model: &ModelId,
) -> Result<(Store, Option<Turns>), TranscriptError> {
    let folder = state.map(|s| s.join("conversations"));
    let continued = match (&args.chat.transcript, args.chat.resume, &folder) {
        (Some(path), true, _) if path.exists() => Some(path.clone()),
        (Some(path), _, _) => {
            if args.chat.resume {
                tracing::warn!(
                    "--continue: there is no {} yet, so that this is a new conversation",
                    path.display()
                );
            }
            return Ok((Store::Open(Transcript::create(path, model)?), None));
        }
        (None, true, Some(folder)) => {
            let found = transcript::last(folder, &model.fingerprint)?;
            if found.is_none() {
                let folder = folder.display();
                tracing::warn!("--continue: no conversation is saved in {folder}, so that this is a new one");
            }
            found.map(|f| f.path)
        }
        (None, resume, None) => {
            let lost = if resume { "; --continue has no effect" } else { "" };
            tracing::warn!("no folder to save conversations in is known ({STATE_DIR} names one){lost}");
            return Ok((Store::Off, None));
        }
        (None, false, Some(_)) => None,
    };
    let Some(path) = continued else {
        return Ok((folder.map_or(Store::Off, |f| Store::New(transcript::new_path(&f))), None));
    };
    let (transcript, contents) = Transcript::resume(&path, model)?;
    let n = contents.conversation.messages.len();
    tracing::info!("continuing {} ({n} messages)", path.display());
    if contents.model.fingerprint != model.fingerprint {
        let ModelId { name, path, .. } = &contents.model;
        tracing::warn!("it was held with another model: {} ({})", harmless(name), harmless(path));
    }
    if contents.cut > 0 {
        tracing::warn!("its last line was not complete; {} bytes of it are dropped", contents.cut);
    }
    if contents.interrupted {
        tracing::warn!("its last answer was not complete (/regen answers again)");
    }
    Ok((Store::Open(transcript), Some(contents.conversation)))
}

/// One line for who has come without a model.
fn introduction(bytes: usize) -> String {
    format!(
        "this is the embedded demo model, {}: it knows chaski and quantization, and little else; `chaski MODEL.gguf` chats \
         with a file of yours",
        show::size(bytes as u64)
    )
}

/// What is told of the model, at the start and by `/show`.
fn about(source: &ModelSource, loaded: &mut talk::Loaded, raw: bool) -> anyhow::Result<About> {
    let template = match (&loaded.source, raw) {
        (_, true) => "none (--raw): what you type is continued as it is".to_owned(),
        (TemplateSource::Model, _) => "the model's own".into(),
        (TemplateSource::Named(name), _) => name.clone(),
        (TemplateSource::Default, _) => {
            format!("{DEFAULT}, as the file has none (--chat-template chooses another)")
        }
    };
    let engine = loaded.chat.session().engine();
    let model = engine.model();
    let file = model.file();
    let stem = source.path().and_then(Path::file_stem).map_or(demo::NAME.into(), |s| s.to_string_lossy());
    let name = file.str("general.name").ok().flatten().filter(|n| !n.trim().is_empty());
    // The file's author chose it, and it will be shown.
    let name = harmless(name.unwrap_or(&stem)).into_owned();
    let file_name = match source.path() {
        Some(path) => path.file_name().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
        None => source.to_string(),
    };
    let parameters: u64 =
        file.tensors().iter().map(chaski_gguf::TensorInfo::n_values).fold(0, u64::saturating_add);
    let bits = file.tensors().iter().map(|t| t.bytes).sum::<u64>() as f64 * 8.0 / parameters.max(1) as f64;
    let (options, plan) = (engine.options(), plan_memory(model, engine.options())?);
    let (k, v) = (options.kv.k, options.kv.v);
    let facts = vec![
        (
            "model",
            format!(
                "{name} ({file_name}: architecture {}, {} parameters, {}, {bits:.1} bits a weight)",
                model.arch(),
                show::count(parameters),
                show::size(file.file_bytes())
            ),
        ),
        ("file", source.to_string()),
        ("template", template),
        (
            "KV cache",
            format!(
                "{} for {} tokens (K {k}, V {v}); f16 would take {}",
                show::size(plan.kv),
                options.n_ctx,
                show::size(plan.kv_f16)
            ),
        ),
        (
            "memory",
            format!(
                "weights {}, cache {}, intermediates {}",
                show::size(plan.weights),
                show::size(plan.kv),
                show::size(plan.compute)
            ),
        ),
    ];
    let model = ModelId { path: source.to_string(), fingerprint: transcript::fingerprint(file), name };
    Ok(About { model, facts })
}

fn of_transcript(error: &TranscriptError) -> anyhow::Error {
    let exit = match error {
        TranscriptError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            return Failure::usage(format!("{error}; --continue goes on with it")).into();
        }
        TranscriptError::Malformed { .. } | TranscriptError::Io { what: "open" | "read", .. } => Exit::Input,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string()).into()
}

fn of_repl(error: ReplError) -> anyhow::Error {
    match error {
        ReplError::Transcript(error) => of_transcript(&error),
        ReplError::Command(message) => Failure::usage(message).into(),
        ReplError::Full(message) => Failure::failed(message).into(),
        ReplError::Interrupted => Failure::new(Exit::Interrupted, "interrupted").into(),
        ReplError::Chat(error) => error.into(),
        ReplError::Io(error) => error.into(),
    }
}
