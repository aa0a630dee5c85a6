//! `chaski compare`: a model in several formats side by side, as a table, a report in HTML and the raw figures in JSON.
//!
//! Everything that can be refused is refused before the first file is made. Files are made one after another in a scratch folder
//! beside the report, and removed as soon as they are measured; the folder goes in any case.

mod facts;
mod page;
mod plot;
mod run;
mod table;
mod wanted;

use std::io::Write as _;
use std::path::Path;

use chaski_gguf::Gguf;

use super::args::CompareArgs;
use super::exit::{Exit, Failure};
use super::options::EngineOptions;
use super::output::{self, Terminal};
use super::pending::Pending;
use super::source::ModelSource;
use super::{interrupt, show};
use facts::Facts;
use run::Comparison;

pub(super) fn run(args: &CompareArgs, terminal: Terminal) -> anyhow::Result<()> {
    let options = EngineOptions::new(&args.engine)?;
    if args.activations && options.cpu_exact {
        return Err(
            Failure::usage("--activations has no effect with --cpu-exact: no activation is rounded").into()
        );
    }
    let pairs = wanted::cache_pairs(args)?;
    let source = ModelSource::new(Some(args.source.clone()))?;
    let file = source.open(true, &[])?;
    let wanted = wanted::wanted(args, &options, &source, &file)?;
    let (mut html, mut json) = outputs(args, &file, &wanted)?;
    let comparison = Comparison::new(args, &options, source, terminal)?;
    interrupt::cooperative(true);
    let facts = comparison.run(&wanted, &pairs)?;
    if interrupt::requested() {
        return Err(Failure::new(Exit::Interrupted, "interrupted; no report was written").into());
    }
    let raw = serde_json::to_string_pretty(&facts)?;
    let written = html.write_all(page::page(&facts).as_bytes());
    let written = written.and_then(|()| json.write_all(raw.as_bytes()));
    written
        .map_err(|error| Failure::failed(format!("cannot write {}", args.out.display())).because(error))?;
    json.keep()?;
    html.keep()?;
    let text = if args.json { raw } else { table::table(&facts) };
    output::stdout(|out| writeln!(out, "{text}"))?;
    tracing::info!("wrote {} and {}", args.out.display(), args.out.with_extension("json").display());
    Ok(())
}

/// The report and the raw figures, begun: so that what cannot be written is known before anything is measured.
fn outputs(
    args: &CompareArgs,
    file: &Gguf,
    wanted: &[wanted::Wanted],
) -> Result<(Pending, Pending), Failure> {
    let json = args.out.with_extension("json");
    if json == args.out {
        let why = "the raw figures go to a file of this name; the report needs another ending (.html)";
        return Err(Failure::usage(format!("{}: {why}", args.out.display())));
    }
    let mut inputs: Vec<&Path> = file.paths().collect();
    inputs.extend([args.file.as_path()]);
    inputs.extend(args.imatrix.as_deref());
    inputs.extend(wanted.iter().filter_map(|w| match &w.origin {
        wanted::Origin::File(path) => Some(path.as_path()),
        wanted::Origin::Made { .. } => None,
    }));
    let html = Pending::create(&args.out, &inputs)?;
    Ok((html, Pending::create(&json, &inputs)?))
}

/// A size with its unit, as the report shows it.
fn size(bytes: u64) -> String {
    show::size(bytes)
}

/// A loss in percent, with as many digits as make sense.
fn percent(ratio: f64) -> String {
    format!("{:+.2} %", ratio * 100.0)
}

/// The speed of a file in the tests of a kind (`pp`, `tg`).
fn speed<'a>(entry: &'a facts::Entry, kind: &str) -> Option<&'a facts::Speed> {
    entry.speed.iter().find(|s| s.test.starts_with(kind))
}

/// The source and then all others.
fn all(facts: &Facts) -> impl Iterator<Item = &facts::Entry> {
    std::iter::once(&facts.source).chain(&facts.entries)
}
