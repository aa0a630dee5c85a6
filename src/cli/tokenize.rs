//! `chaski tokenize`: text to ids and back, with a file's own tokenizer.

use std::io::{self, IsTerminal, Write};

use super::args::TokenizeArgs;
use super::exit::Failure;
use super::source::ModelSource;
use super::{file, output};
use crate::tokenizer::{EncodeOptions, Tokenizer};

pub(super) fn run(args: &TokenizeArgs) -> anyhow::Result<()> {
    // After -m the first word is the text.
    let (model, text) = match (&args.model_flag, &args.model, &args.text) {
        (Some(_), Some(_), Some(_)) => {
            return Err(Failure::usage("the model is named twice, or two texts are given").into());
        }
        (Some(model), text, None) => {
            (Some(model.clone()), text.as_ref().map(|t| t.as_os_str().as_encoded_bytes().to_vec()))
        }
        (Some(model), None, Some(text)) => (Some(model.clone()), Some(text.clone().into_bytes())),
        (None, model, text) => (model.clone(), text.clone().map(String::into_bytes)),
    };
    let source = ModelSource::new(model)?;
    if text.is_some() && args.file.is_some() {
        return Err(Failure::usage("a text and --file: only one of them").into());
    }
    let gguf = source.open(true, &[])?;
    let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| source.named(error))?;
    for warning in tokenizer.warnings() {
        tracing::warn!("{warning}");
    }
    let text = match (text, &args.file) {
        (Some(text), _) => text,
        (None, Some(path)) => file::read(path)?,
        (None, None) => file::read_stdin(if args.detokenize { "token ids" } else { "the text" })?,
    };
    if args.detokenize {
        let ids = parse_ids(&text, tokenizer.vocab_size())?;
        let ids = if args.no_bos { &ids } else { without_automatic(&tokenizer, &ids) };
        let text = tokenizer.decode(ids, !args.no_special);
        return Ok(output::stdout(|out| {
            out.write_all(&text)?;
            if io::stdout().is_terminal() { writeln!(out) } else { Ok(()) }
        })?);
    }
    let options = EncodeOptions { add_special: !args.no_bos, parse_special: !args.no_special };
    let ids = tokenizer.encode(&text, options);
    Ok(output::stdout(
        |out| if args.ids { print_ids(out, &ids) } else { print_table(out, &tokenizer, &ids) },
    )?)
}

fn print_ids(out: &mut dyn Write, ids: &[u32]) -> io::Result<()> {
    for (place, id) in ids.iter().enumerate() {
        write!(out, "{}{id}", if place == 0 { "" } else { " " })?;
    }
    if ids.is_empty() { Ok(()) } else { writeln!(out) }
}

fn print_table(out: &mut dyn Write, tokenizer: &Tokenizer, ids: &[u32]) -> io::Result<()> {
    for id in ids {
        let bytes = tokenizer.token_bytes(*id);
        match std::str::from_utf8(bytes) {
            Ok(text) => writeln!(out, "{id:6} -> {text:?}")?,
            Err(_) => writeln!(out, "{id:6} -> \"{}\"", bytes.escape_ascii())?,
        }
    }
    Ok(())
}

/// Ids separated by white space or commas; brackets around them, as other tools print, are passed over.
fn parse_ids(text: &[u8], n_vocab: usize) -> Result<Vec<u32>, Failure> {
    let text = String::from_utf8_lossy(text);
    let words = text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
        .filter(|word| !word.is_empty());
    words
        .map(|word| match word.parse::<u32>() {
            Ok(id) if (id as usize) < n_vocab => Ok(id),
            Ok(id) => {
                Err(Failure::usage(format!("token {id} is not in this vocabulary of {n_vocab} tokens")))
            }
            Err(_) => Err(Failure::usage(format!("'{}' is no token id", word.escape_debug()))),
        })
        .collect()
}

/// The ids without the BOS and EOS tokens that tokenizing puts around a text.
fn without_automatic<'a>(tokenizer: &Tokenizer, ids: &'a [u32]) -> &'a [u32] {
    let mut ids = ids;
    if let (true, Some(bos)) = (tokenizer.adds_bos(), tokenizer.special().bos) {
        ids = ids.strip_prefix(&[bos]).unwrap_or(ids);
    }
    if let (true, Some(eos)) = (tokenizer.adds_eos(), tokenizer.special().eos) {
        ids = ids.strip_suffix(&[eos]).unwrap_or(ids);
    }
    ids
}
