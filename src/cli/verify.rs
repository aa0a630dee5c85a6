//! `chaski verify`: every check there is, in order; the first bad field ends it with exit code 3.

use std::sync::Arc;

use chaski_gguf::{FileKind, Gguf, keys};
use serde_json::json;

use super::args::VerifyArgs;
use super::exit::{self, Failure};
use super::output::{self, Terminal};
use super::source::ModelSource;
use super::{progress, show, template};
use crate::chat::template::Template;
use crate::model::{Model, RopeOptions};
use crate::tokenizer::Tokenizer;

/// A check that was passed: its name and what was found.
type Passed = (&'static str, String);

pub(super) fn run(args: &VerifyArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let mut passed = Vec::new();
    let mut say = |check: Passed| -> anyhow::Result<()> {
        if !args.json {
            output::stdout(|out| writeln!(out, "{:<10} ok   {}", check.0, check.1))?;
        }
        passed.push(check);
        Ok(())
    };
    let result = check(&source, terminal, &mut say);
    // What cannot be said of the file (standard output is gone) is no verdict on it.
    let verdict = match &result {
        Err(error) if exit::exit_of(error) != exit::Exit::Input => return result,
        Err(error) => Some(exit::report(error)),
        Ok(()) => None,
    };
    if args.json {
        let checks: Vec<_> =
            passed.iter().map(|(name, found)| json!({ "check": name, "found": found })).collect();
        let value = json!({ "file": source.to_string(), "ok": verdict.is_none(), "passed": checks, "error": verdict });
        output::stdout(|out| writeln!(out, "{value:#}"))?;
    }
    result
}

fn check(
    source: &ModelSource,
    terminal: Terminal,
    say: &mut dyn FnMut(Passed) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let gguf = Arc::new(source.open(true, &[])?);
    let (keys, tensors) = (gguf.metadata().count(), gguf.tensors().len());
    let shards = if gguf.n_shards() == 1 { String::new() } else { format!(" in {} files", gguf.n_shards()) };
    let size = show::size(gguf.file_bytes());
    say((
        "structure",
        format!("GGUF version {}, {keys} keys, {tensors} tensors, {size}{shards}", gguf.version()),
    ))?;

    if !matches!(gguf.kind(), FileKind::Model | FileKind::Vocab) {
        return Err(Failure::input(format!("{source} is {}, not a model", gguf.kind())).into());
    }
    let tokens = vocabulary(source, &gguf, say)?;
    match template::model_template(&gguf, false)? {
        None => say(("template", "none in the file".into()))?,
        Some(text) => {
            Template::parse(&text).map_err(|error| {
                Failure::input(format!("{source}: {}", keys::CHAT_TEMPLATE)).because(error)
            })?;
            say(("template", format!("{} bytes, can be parsed", text.len())))?;
        }
    }
    let model = Model::new(gguf.clone(), &RopeOptions::default()).map_err(|error| source.named(error))?;
    let (rows, weights) = (model.hparams().n_vocab, model.weights().list().len());
    if let Some(tokens) = tokens.filter(|tokens| *tokens > rows) {
        let why = format!(
            "{source}: {} has {tokens} tokens, the embedding only {rows} rows",
            keys::TOKENIZER_TOKENS
        );
        return Err(Failure::input(why).into());
    }
    say(("model", format!("{}: {weights} weights, every shape as the metadata asks", model.arch())))?;

    let bar = progress::bytes(terminal, "values", gguf.tensors().iter().map(|t| t.bytes).sum());
    let scan = gguf.check_payload(|done, _| bar.set_position(done));
    bar.finish_and_clear();
    scan.map_err(|error| source.named(error))?;
    say(("values", "neither NaN nor infinity in any tensor".into()))
}

/// The number of tokens of the vocabulary; none where the file brings no tokenizer.
fn vocabulary(
    source: &ModelSource,
    gguf: &Gguf,
    say: &mut dyn FnMut(Passed) -> anyhow::Result<()>,
) -> anyhow::Result<Option<usize>> {
    if gguf.get(keys::TOKENIZER_MODEL).is_none() {
        say(("tokenizer", "none in the file".into()))?;
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_gguf(gguf).map_err(|error| source.named(error))?;
    for warning in tokenizer.warnings() {
        tracing::warn!("{warning}");
    }
    let pre = tokenizer.pre().map_or_else(String::new, |pre| format!(", pre-tokenizer {pre}"));
    say(("tokenizer", format!("{}{pre}, {} tokens", tokenizer.kind(), tokenizer.vocab_size())))?;
    Ok(Some(tokenizer.vocab_size()))
}
