//! `chaski logits`: the logits of every position for exactly the ids given.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::args::LogitsArgs;
use super::exit::{Exit, Failure};
use super::interrupt;
use super::load;
use super::options::{Context, EngineOptions};
use crate::engine::{BatchToken, Engine};

pub(super) fn run(args: &LogitsArgs) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&args.engine)?;
    let n_tokens = args.tokens.len();
    let n_ctx = match options.context {
        // More cells than tokens would serve nothing.
        Context::Default => Some(n_tokens),
        Context::Model => None,
        Context::Tokens(n_ctx) => Some(n_ctx as usize),
    };
    let mut engine = load::load(&source, &options, n_ctx, load::Wanted::Every)?;
    let n_ctx = engine.options().n_ctx;
    if n_tokens > n_ctx {
        return Err(Failure::usage(format!("{n_tokens} tokens do not fit in a context of {n_ctx}")).into());
    }
    interrupt::cooperative(true);
    write_whole(&args.out, |out| evaluate(&mut engine, &args.tokens, &options, out))
}

fn evaluate(
    engine: &mut Engine,
    ids: &[u32],
    options: &EngineOptions,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let batch: Vec<BatchToken> = ids
        .iter()
        .enumerate()
        .map(|(position, id)| BatchToken { id: *id, position: position as u32, sequence: 0, logits: true })
        .collect();
    let mut logits = Vec::new();
    // Written by micro-batches: the logits of a long text and a large vocabulary would fill the memory.
    for part in batch.chunks(options.batch).flat_map(|part| part.chunks(options.ubatch)) {
        if interrupt::requested() {
            return Err(Failure::new(Exit::Interrupted, "interrupted").into());
        }
        logits.clear();
        engine.decode(part, &mut logits)?;
        for value in &logits {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}

/// Write a file under a name beside its own, which it takes when it is whole. What is no plain file (a pipe, a device) is
/// written to as it is.
fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let cannot =
        |error: io::Error| Failure::failed(format!("cannot write {}", path.display())).because(error);
    let plain = fs::metadata(path).map_or(true, |m| m.is_file());
    let part = if plain { beside(path) } else { path.to_owned() };
    let mut out = BufWriter::new(File::create(&part).map_err(cannot)?);
    let written = write(&mut out).and_then(|()| Ok(out.flush().map_err(cannot)?));
    drop(out);
    if plain {
        let renamed = written.and_then(|()| Ok(fs::rename(&part, path).map_err(cannot)?));
        if renamed.is_err() {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(&part);
        }
        return renamed;
    }
    written
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".part{}", std::process::id()));
    path.with_file_name(name)
}
