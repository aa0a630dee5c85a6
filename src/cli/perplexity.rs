//! `chaski perplexity`: how well a model predicts a text, and how far its predictions are from another's.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use super::args::PerplexityArgs;
use super::exit::{Exit, Failure};
use super::options::EngineOptions;
use super::output::{self, Terminal};
use super::pending::Pending;
use super::text::{self, Measured};
use super::{bench, interrupt, load, progress, show, talk};
use crate::measure::{self, About, Base, BaseWriter, Divergence, Header, Perplexity, Window, kl};

pub(super) fn run(args: &PerplexityArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&args.engine)?;
    if args.kl_top.is_some() && args.save_kl_base.is_none() {
        return Err(Failure::usage("--kl-top has no effect without --save-kl-base").into());
    }
    let inputs: Vec<&Path> = source.path().into_iter().chain([args.file.as_path()]).collect();
    // Before anything that takes long: whether the base can be written, or read.
    let pending = args.save_kl_base.as_deref().map(|path| Pending::create(path, &inputs)).transpose()?;
    let mut base = match &args.kl_base {
        Some(path) => Some(Base::open(path).map_err(|error| named(path, error))?),
        None => None,
    };
    let mut engine = load::load(&source, &options, text::window(&options), load::Wanted::Every)?;
    let ctx = engine.options().n_ctx;
    let tokenizer = talk::tokenizer(&source, &engine)?;
    let most = args.chunks.map(|n| n as usize);
    let measured = Measured::read(&args.file, &tokenizer, ctx, most)?;
    let text = measured.text();
    let name = bench::model_name(&source, engine.model().file());
    let about = About::new(engine.model(), &name, &measured.name(), &measured.bytes);
    let mut total = text.windows();
    if let (Some(base), Some(path)) = (&base, &args.kl_base) {
        base.header().check(&about, &text).map_err(|error| named(path, error))?;
        let windows = base.header().windows;
        if most.is_some_and(|most| most > windows) {
            let why = format!("--chunks {total}: the base {} has only {windows} windows", path.display());
            return Err(Failure::usage(why).into());
        }
        total = total.min(windows);
    }
    interrupt::cooperative(true);
    let bar = progress::windows(terminal, "perplexity", total as u64);
    let watch = &mut |w: Window| {
        bar.set_position(w.done as u64);
        if w.done > 0 {
            bar.set_message(format!("perplexity {:.4}", w.perplexity));
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut divergence = None;
    let found = if let (Some(pending), Some(path)) = (pending, &args.save_kl_base) {
        let top = args.kl_top.map_or(kl::TOP, |n| n as usize);
        let mut writer = BaseWriter::new(pending, Header::new(about, &text, top))?;
        let found = kl::save_base(&mut engine, &text, &mut writer, watch).map_err(|e| named(path, e))?;
        let (header, pending) = (writer.header().clone(), writer.finish().map_err(|e| named(path, e))?);
        if !interrupt::requested() {
            pending.keep()?;
            let bytes = header.record() * header.scored() * header.windows;
            let (windows, size) = (header.windows, show::size(bytes as u64));
            let path = path.display();
            tracing::info!(
                "wrote {path}: the {} most likely tokens in {windows} windows, {size}",
                header.top
            );
        }
        found
    } else if let (Some(base), Some(path)) = (&mut base, &args.kl_base) {
        let found = kl::divergence(&mut engine, &text, base, watch).map_err(|error| named(path, error))?;
        found.map(|(perplexity, found)| {
            divergence = Some(found);
            perplexity
        })
    } else {
        measure::perplexity(&mut engine, text.tokens, text.bos, ctx, most, watch)?
    };
    bar.finish_and_clear();
    if let Some(p) = found {
        let text = if args.json {
            as_json(&p, divergence.as_ref(), ctx)
        } else {
            as_text(&p, divergence.as_ref(), ctx)
        };
        output::stdout(|out| writeln!(out, "{text}"))?;
    }
    if interrupt::requested() {
        let lost = if args.save_kl_base.is_some() { "; no base was written" } else { "" };
        return Err(Failure::new(Exit::Interrupted, format!("interrupted{lost}")).into());
    }
    Ok(())
}

/// An error with the base that it tells of.
fn named(path: &Path, error: kl::KlError) -> anyhow::Error {
    match error {
        kl::KlError::Engine(error) => error.into(),
        error => anyhow::Error::new(error).context(path.display().to_string()),
    }
}

fn as_json(p: &Perplexity, divergence: Option<&Divergence>, ctx: usize) -> String {
    let (perplexity, stderr) = (p.perplexity, p.stderr);
    let mut value = json!({ "perplexity": perplexity, "stderr": stderr, "tokens": p.tokens, "chunks": p.windows, "ctx": ctx });
    if let Some(divergence) = divergence {
        value["divergence"] = json!(divergence);
    }
    value.to_string()
}

fn as_text(p: &Perplexity, divergence: Option<&Divergence>, ctx: usize) -> String {
    let mut text = format!(
        "{:.4} +/- {:.4}  ({} tokens in {} windows of {ctx})",
        p.perplexity, p.stderr, p.tokens, p.windows
    );
    let Some(d) = divergence else { return text };
    let pm = |e: &measure::Estimate, scale: f64, unit: &str| {
        let stderr = e.stderr.map_or_else(String::new, |s| format!(" +/- {:.4}", s * scale));
        format!("{:.4}{stderr}{unit}", e.value * scale)
    };
    let precise = |e: &measure::Estimate| {
        format!("{:.6}{}", e.value, e.stderr.map_or_else(String::new, |s| format!(" +/- {s:.6}")))
    };
    let ratio = &d.ln_perplexity_ratio;
    let kl = &d.kl;
    let rows = [
        ("base's perplexity", format!("{:.4}", d.base_perplexity)),
        ("ln(ratio)", format!("{}  ({:+.3}%)", precise(ratio), (ratio.value.exp() - 1.0) * 100.0)),
        ("KL divergence", format!("{}  (mean, in nats)", precise(&kl.mean))),
        ("  median", format!("{:.6}", kl.median)),
        ("  90%", format!("{:.6}", kl.p90)),
        ("  99%", format!("{:.6}", kl.p99)),
        ("  99.9%", format!("{:.6}", kl.p999)),
        ("  max", format!("{:.6}", kl.max)),
        ("same top token", pm(&d.top_agreement, 100.0, "%")),
        (
            "top's probability",
            format!("{}  (root of the mean square)", pm(&d.top_probability_rms, 100.0, "%")),
        ),
        ("", format!("{}  (mean)", pm(&d.top_probability_mean, 100.0, "%"))),
        (
            "text's probability",
            format!("{}  (root of the mean square)", pm(&d.target_probability_rms, 100.0, "%")),
        ),
        ("tail of the base", format!("{:.4}%  (its tokens count as one)", d.tail * 100.0)),
    ];
    for (name, value) in rows {
        let _ = write!(text, "\n{name:<19} {value}");
    }
    text
}
