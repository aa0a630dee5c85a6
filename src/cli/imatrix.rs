//! `chaski imatrix`: how strong the activations are that meet each column of a model's matrices.

use std::ops::ControlFlow;

use super::args::ImatrixArgs;
use super::exit::{Exit, Failure};
use super::options::EngineOptions;
use super::output::Terminal;
use super::pending::Pending;
use super::{file, interrupt, load, progress, talk};
use crate::measure;
use crate::quant::{self, Calibration};
use crate::tokenizer::EncodeOptions;

/// Tokens of a window where `--ctx-size` does not say.
const WINDOW: usize = 512;

pub(super) fn run(args: &ImatrixArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&args.engine)?;
    let ctx = match options.context {
        super::options::Context::Tokens(n) => Some(n as usize),
        super::options::Context::Default => Some(WINDOW),
        super::options::Context::Model => None,
    };
    // What cannot be written is known before the text is run.
    let inputs = [source.path(), Some(args.file.as_path())];
    let mut out = Pending::create(&args.out, &inputs.into_iter().flatten().collect::<Vec<_>>())?;
    let mut engine = load::load(&source, &options, ctx, load::Wanted::Every)?;
    let ctx = engine.options().n_ctx;
    let tokenizer = talk::tokenizer(&source, &engine)?;
    let text = file::read_text(&args.file)?;
    let tokens = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false });
    let most = args.chunks.map(|n| n as usize);
    if measure::windows(tokens.len(), ctx, most) == 0 {
        let text = args.file.display();
        let why =
            format!("{text}: {} tokens do not fill a window of {ctx} (-c makes it smaller)", tokens.len());
        return Err(Failure::input(why).into());
    }
    let wanted = Calibration {
        tokens: &tokens,
        bos: tokenizer.special().bos.filter(|_| tokenizer.adds_bos()),
        ctx,
        most,
        output: args.process_output,
        dataset: args.file.display().to_string(),
    };
    interrupt::cooperative(true);
    let bar = progress::windows(terminal, "calibrating", measure::windows(tokens.len(), ctx, most) as u64);
    let found = quant::calibrate(&mut engine, &wanted, &mut |done, _| {
        bar.set_position(done as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let imatrix = found?;
    if interrupt::requested() {
        let text = format!("interrupted after {} windows; nothing was written", imatrix.chunks);
        return Err(Failure::new(Exit::Interrupted, text).into());
    }
    imatrix.write_to(&mut out)?;
    out.keep()?;
    tracing::info!(
        "wrote {}: {} matrices over {} windows of {ctx} tokens",
        args.out.display(),
        imatrix.entries.len(),
        imatrix.chunks
    );
    Ok(())
}
