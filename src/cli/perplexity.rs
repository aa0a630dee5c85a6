//! `chaski perplexity`: how well a model predicts a text.

use std::ops::ControlFlow;

use serde_json::json;

use super::args::PerplexityArgs;
use super::exit::{Exit, Failure};
use super::options::EngineOptions;
use super::output::{self, Terminal};
use super::{file, interrupt, load, progress, talk};
use crate::measure::{self, Window};
use crate::tokenizer::EncodeOptions;

/// Tokens of a window where `--ctx-size` does not say.
const WINDOW: usize = 512;

pub(super) fn run(args: &PerplexityArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&args.engine)?;
    let ctx = match options.context {
        super::options::Context::Tokens(n) => Some(n as usize),
        super::options::Context::Default => Some(WINDOW),
        super::options::Context::Model => None,
    };
    let mut engine = load::load(&source, &options, ctx, load::Wanted::Every)?;
    let ctx = engine.options().n_ctx;
    if ctx < 4 {
        return Err(Failure::usage(format!("a window of {ctx} tokens has nothing to score")).into());
    }
    let tokenizer = talk::tokenizer(&source, &engine)?;
    let text = file::read(&args.file)?;
    let tokens = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false });
    let chunks = args.chunks.map(|n| n as usize);
    let total = measure::windows(tokens.len(), ctx, chunks);
    if total == 0 {
        let text = args.file.display();
        let why =
            format!("{text}: {} tokens do not fill a window of {ctx} (-c makes it smaller)", tokens.len());
        return Err(Failure::input(why).into());
    }
    if chunks.is_some_and(|n| n > total) {
        tracing::warn!("the text gives only {total} windows of {ctx} tokens");
    }
    let bos = tokenizer.special().bos.filter(|_| tokenizer.adds_bos());
    interrupt::cooperative(true);
    let bar = progress::windows(terminal, "perplexity", total as u64);
    let watch = &mut |w: Window| {
        bar.set_position(w.done as u64);
        if w.done > 0 {
            bar.set_message(format!("perplexity {:.4}", w.perplexity));
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let found = measure::perplexity(&mut engine, &tokens, bos, ctx, chunks, watch)?;
    bar.finish_and_clear();
    if let Some(p) = found {
        let text = if args.json {
            let (perplexity, stderr) = (p.perplexity, p.stderr);
            json!({ "perplexity": perplexity, "stderr": stderr, "tokens": p.tokens, "chunks": p.windows, "ctx": ctx })
                .to_string()
        } else {
            format!(
                "{:.4} +/- {:.4}  ({} tokens in {} windows of {ctx})",
                p.perplexity, p.stderr, p.tokens, p.windows
            )
        };
        output::stdout(|out| writeln!(out, "{text}"))?;
    }
    if interrupt::requested() {
        return Err(Failure::new(Exit::Interrupted, "interrupted").into());
    }
    Ok(())
}
