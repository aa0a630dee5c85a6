//! `chaski compare`: a model in several formats side by side, as a table, a report in HTML and the raw figures in JSON.
//!
//! Everything that can be refused is refused before the first file is made. Files are made one after another in a scratch folder
//! beside the report, and removed as soon as they are measured; the folder goes in any case.

mod facts;
mod make;
mod page;
mod plot;
mod run;
mod table;
mod wanted;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::args::CompareArgs;
use super::exit::{Exit, Failure};
use super::options::EngineOptions;
use super::output::{self, Terminal};
use super::pending::Pending;
use super::source::ModelSource;
use super::{file, interrupt, show};
use facts::Facts;
use make::Maker;
use run::Comparison;

pub(super) fn run(args: &CompareArgs, terminal: Terminal) -> anyhow::Result<()> {
    let options = EngineOptions::new(&args.engine)?;
    if args.activations && options.cpu_exact {
        return Err(
            Failure::usage("--activations has no effect with --cpu-exact: no activation is rounded").into()
        );
    }
    let pairs = wanted::cache_pairs(args)?;
    // What can be known of texts before a folder is written as a file.
    for text in [Some(&args.file), args.calibration.calibrate.as_ref()].into_iter().flatten() {
        file::read_text(text)?;
    }
    let inputs = inputs(&ModelSource::new(Some(args.source.clone()))?)?;
    let wanted = wanted::wanted(args, &options)?;
    let (mut html, mut json) = outputs(args, &inputs, &wanted)?;
    let scratch = scratch(args)?;
    let maker = Maker::new(args, &options, scratch.path(), terminal)?;
    let mut calibration = maker.check(&wanted, scratch.path())?;
    if let (Some(calibration), Some(text)) = (&mut calibration, &args.calibration.calibrate) {
        calibration.scored_too = same_file(text, &args.file);
        if calibration.scored_too {
            tracing::warn!(
                "--calibrate: it is the text that is scored; calibrated files will look better than they are"
            );
        }
    }
    let comparison = Comparison::new(args, &options, maker, scratch, terminal)?;
    interrupt::cooperative(true);
    let facts = comparison.run(&wanted, &pairs, calibration)?;
    if interrupt::requested() {
        return Err(interrupted().into());
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

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted; no report was written")
}

/// The files of the source.
fn inputs(source: &ModelSource) -> anyhow::Result<Vec<PathBuf>> {
    match source.path().filter(|path| path.is_dir()) {
        // Whether it is a model is known when it is read.
        Some(folder) => {
            let read = std::fs::read_dir(folder).map_err(|error| {
                Failure::input(format!("cannot read {}", folder.display())).because(error)
            })?;
            Ok(read.filter_map(|entry| Some(entry.ok()?.path())).collect())
        }
        None => Ok(source.open(true, &[])?.paths().map(Path::to_owned).collect()),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let own = |path: &Path| std::fs::canonicalize(path).ok();
    own(a).is_some_and(|a| own(b) == Some(a))
}

/// Where files lie for a while: beside the report. The folder goes with the value.
fn scratch(args: &CompareArgs) -> Result<TempDir, Failure> {
    let folder = match args.out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let made = tempfile::Builder::new().prefix(".chaski-compare-").tempdir_in(folder);
    let cannot = || Failure::failed(format!("cannot make a folder in {}", folder.display()));
    made.map_err(|error| cannot().because(error))
}

/// The report and the raw figures, begun: so that what cannot be written is known before anything is measured. `inputs` are the
/// files of the source.
fn outputs(
    args: &CompareArgs,
    inputs: &[PathBuf],
    wanted: &[wanted::Wanted],
) -> Result<(Pending, Pending), Failure> {
    let json = args.out.with_extension("json");
    if json == args.out {
        let why = "the raw figures go to a file of this name; the report needs another ending (.html)";
        return Err(Failure::usage(format!("{}: {why}", args.out.display())));
    }
    let mut inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    inputs.extend([args.file.as_path()]);
    inputs.extend(args.imatrix.as_deref());
    inputs.extend(args.calibration.calibrate.as_deref());
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
