//! `chaski quantize`: a model's tensors rounded to fewer bits.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chaski_gguf::{Format, OwnedValue, keys};
use serde_json::{Value as Json, json};

use super::args::QuantizeArgs;
use super::calibration::{self, Calibration, Wanted};
use super::exit::{Exit, Failure};
use super::output::{self, Terminal};
use super::source::ModelSource;
use super::{interrupt, progress, show};
use crate::machine;
use crate::quant::{
    self, FileType, Folder, Glob, Imatrix, ImportOptions, Job, Measures, Outcome, Plan, PlanOptions, Planned,
    Progress, QuantError, Source, Written,
};

pub(super) fn run(args: &QuantizeArgs, terminal: Terminal) -> anyhow::Result<()> {
    let mut prepared = prepare(args)?;
    prepared.choose(args, terminal)?;
    let plan = &prepared.plan;
    for substitution in plan.tensors.iter().filter_map(Planned::substitution) {
        tracing::warn!("{substitution}");
    }
    if plan.tensors.iter().all(|t| t.from == t.to) {
        tracing::warn!("no tensor changes its format: all of them have those of {} already", plan.file_type);
    }
    if args.dry_run {
        if let Some(calibration) = &prepared.calibration {
            calibration.say(plan, args.measure)?;
        }
        let text = if args.json { plan_json(plan).to_string() } else { plan_table(plan) };
        output::stdout(|out| writeln!(out, "{text}"))?;
        return Ok(());
    }
    tracing::info!("{}", summary(plan));
    let started = Instant::now();
    let written = prepared.write(args, terminal)?;
    tracing::info!(
        "wrote {}: {} ({:.2} bits a value) in {:.1} s",
        args.out.display(),
        show::size(written.bytes),
        plan.bits().1,
        started.elapsed().as_secs_f64()
    );
    tell_repacked(plan, &written);
    if args.measure {
        let text = if args.json {
            let mut value = plan_json(plan);
            value["file_bytes"] = written.bytes.into();
            add_measures(&mut value, &written.measures);
            value.to_string()
        } else {
            measures_table(plan, &written.measures)
        };
        output::stdout(|out| writeln!(out, "{text}"))?;
    } else if args.json {
        let mut value = plan_json(plan);
        value["file_bytes"] = written.bytes.into();
        output::stdout(|out| writeln!(out, "{value}"))?;
    }
    Ok(())
}

/// Everything that is read, planned and checked before a model is run or a byte is written.
pub(super) struct Prepared {
    imatrix: Option<Imatrix>,
    source: Box<dyn Source>,
    plan: Plan,
    pub(super) calibration: Option<Calibration>,
}

/// Read, plan and check what was asked for.
///
/// # Errors
/// Everything that can be refused before a model is run.
pub(super) fn prepare(args: &QuantizeArgs) -> anyhow::Result<Prepared> {
    let mut options = options(args)?;
    let imatrix = match &args.imatrix {
        Some(path) => {
            let named = |error| ModelSource::File(path.clone()).named(error);
            Some(Imatrix::open(path).map_err(named)?)
        }
        None => None,
    };
    options.has_imatrix = imatrix.is_some();
    let wanted = Wanted::new(&args.calibration, args.format.is_some())?;
    let from = ModelSource::new(Some(args.source.clone()))?;
    let source = open(args, &from, &mut options)?;
    let mut plan = Plan::new(source.head(), &options).map_err(|error| from.named(error))?;
    let calibration = match wanted {
        Some(_) if from.path().is_some_and(Path::is_dir) => {
            let why = "a folder cannot be run; calibrate the GGUF file that this writes";
            let line = format!("chaski quantize {from} MODEL.gguf BF16");
            return Err(Failure::usage(format!("--calibrate: {why}: {line}")).into());
        }
        Some(wanted) => {
            plan.sort_by_layer();
            let threads = args.threads.map_or_else(machine::cores, usize::from);
            // Mapped once more: the model that is run shares its file with the engines.
            let file = Arc::new(from.open(true, &[])?);
            Some(Calibration::new(wanted, &from, file, threads)?)
        }
        None => None,
    };
    let prepared = Prepared { imatrix, source, plan, calibration };
    prepared.check(args)?;
    Ok(prepared)
}

impl Prepared {
    fn check(&self, args: &QuantizeArgs) -> anyhow::Result<()> {
        let plan = &self.plan;
        if self.imatrix.is_some() && !plan.tensors.iter().any(|t| t.from != t.to && quant::weighs(t.to)) {
            let name = plan.file_type;
            return Err(Failure::usage(format!("--imatrix has no effect: {name} rounds without it")).into());
        }
        let mut scratch = 0;
        if let Some(calibration) = &self.calibration {
            calibration.check(plan, args.measure, &|plan| self.file_bytes(args, plan))?;
            scratch = calibration.scratch(plan, args.measure)?;
        }
        if !args.dry_run {
            quant::check(&self.job(args, plan), scratch)?;
        }
        Ok(())
    }

    /// Let the formats be chosen by the size, where one was asked for.
    ///
    /// # Errors
    /// The model cannot be run, or the user interrupts.
    fn choose(&mut self, args: &QuantizeArgs, terminal: Terminal) -> anyhow::Result<()> {
        let Some(calibration) = &self.calibration else { return Ok(()) };
        let Some(size) = calibration.size(&self.plan) else { return Ok(()) };
        let mut plan = self.plan.clone();
        let bytes = |plan: &Plan| self.file_bytes(args, plan);
        calibration.choose_formats(&mut plan, size, self.imatrix.as_ref(), &bytes, terminal)?;
        self.plan = plan;
        Ok(())
    }

    fn file_bytes(&self, args: &QuantizeArgs, plan: &Plan) -> anyhow::Result<u64> {
        Ok(quant::file_bytes(&self.job(args, plan))?)
    }

    /// What is to be written.
    fn job<'a>(&'a self, args: &'a QuantizeArgs, plan: &'a Plan) -> Job<'a> {
        Job {
            source: self.source.as_ref(),
            plan,
            path: &args.out,
            metadata: metadata(args, self.imatrix.as_ref(), self.calibration.as_ref()),
            imatrix: self.imatrix.as_ref(),
            threads: args.threads.map_or_else(machine::cores, usize::from),
            measure: args.measure,
        }
    }

    /// Write the file.
    ///
    /// # Errors
    /// A value is not finite, the system refuses, or the user interrupts.
    pub(super) fn write(&self, args: &QuantizeArgs, terminal: Terminal) -> anyhow::Result<Written> {
        let plan = &self.plan;
        self.say_without_importances();
        let job = self.job(args, plan);
        let pool = calibration::pool(job.threads)?;
        let mut calibrated = match &self.calibration {
            Some(calibration) => calibration.begin(plan, &pool, args.measure)?,
            None => None,
        };
        interrupt::cooperative(true);
        let bar = progress::bytes(terminal, "quantizing", plan.bytes().0);
        let watch = &mut |at: Progress<'_>| {
            bar.set_position(at.bytes);
            bar.set_message(at.tensor.to_owned());
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let outcome = match &mut calibrated {
            Some(calibrated) => quant::run_calibrated(&job, calibrated, watch),
            None => quant::run(&job, watch),
        };
        bar.finish_and_clear();
        match outcome? {
            Outcome::Done(written) => {
                if written.resumed > 0 {
                    tracing::info!("taken up after {} tensors that an earlier run had left", written.resumed);
                }
                Ok(written)
            }
            Outcome::Stopped { tensors } => {
                let all = plan.tensors.len();
                let text = format!(
                    "interrupted after {tensors} of {all} tensors; the same command takes it up there"
                );
                Err(Failure::new(Exit::Interrupted, text).into())
            }
        }
    }

    /// Say which tensors an importance matrix knows nothing of.
    fn say_without_importances(&self) {
        let Some(imatrix) = &self.imatrix else { return };
        let lacks = |t: &&Planned| {
            t.from != t.to && t.to.info().block_len > 1 && !imatrix.entries.contains_key(&t.name)
        };
        let without: Vec<&str> = self.plan.tensors.iter().filter(lacks).map(|t| t.name.as_str()).collect();
        if !without.is_empty() {
            let names = without.join(", ");
            tracing::info!("without importances, which the matrix does not have for them: {names}");
        }
    }
}

/// The source: a file, the embedded model, or a folder.
fn open(
    args: &QuantizeArgs,
    from: &ModelSource,
    options: &mut PlanOptions,
) -> anyhow::Result<Box<dyn Source>> {
    match from.path().filter(|path| path.is_dir()) {
        Some(folder) => {
            has_config(folder)?;
            let import = ImportOptions {
                base: options.file_type.base(),
                allow_requantize: args.allow_requantize,
                pre_tokenizer: args.pre_tokenizer.clone(),
            };
            let folder = Folder::open(folder, &import).map_err(QuantError::Import)?;
            options.packed = folder.packed().map(str::to_owned).collect();
            Ok(Box::new(folder))
        }
        None if args.pre_tokenizer.is_some() => {
            Err(Failure::usage("--pre-tokenizer is for folders; a GGUF file names its own").into())
        }
        None => Ok(Box::new(from.open(true, &[])?)),
    }
}

/// Whether a folder looks like a model; where it does not, what to name instead.
pub(super) fn has_config(folder: &Path) -> Result<(), Failure> {
    if folder.join("config.json").exists() {
        return Ok(());
    }
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_model = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let mut found: Vec<String> = files.filter(is_model).map(|path| path.display().to_string()).collect();
    found.sort();
    let hint = match found.as_slice() {
        [] => String::new(),
        [one] => format!("; the GGUF file in it is {one}"),
        [first, ..] => format!("; a GGUF file is named itself, such as {first}"),
    };
    let why = "is a folder without config.json, no model as Hugging Face's libraries save them";
    Err(Failure::input(format!("{}: {why}{hint}", folder.display())))
}

/// The file type that was typed.
fn file_type(args: &QuantizeArgs) -> Result<FileType, Failure> {
    let (source, out) = (args.source.display(), args.out.display());
    let out_is_type = args.out.to_str().and_then(FileType::parse).is_some();
    let Some(name) = &args.format else {
        if args.calibration.size.is_some() || args.calibration.bpw.is_some() {
            // The formats are chosen by size; the mixture then only says which tensors are left as they are.
            return Ok(FileType::Q4_K_M);
        }
        return Err(Failure::usage(if out_is_type {
            format!("which file is to be written? It is named before the file type: {source} OUT {out}")
        } else {
            "which file type? Name one behind OUT, such as Q4_K_M, or a size (--size 5.5GiB --calibrate TEXT)"
                .to_owned()
        }));
    };
    FileType::parse(name).ok_or_else(|| {
        let why = FileType::unknown(name);
        let order = if out_is_type {
            format!(" (the file to write is named before the file type: {source} {name} {out})")
        } else {
            String::new()
        };
        Failure::usage(format!("{why}{order}"))
    })
}

/// What was typed as a plan's options.
fn options(args: &QuantizeArgs) -> Result<PlanOptions, Failure> {
    let file_type = file_type(args)?;
    let format = |flag: &str, name: &Option<String>| -> Result<Option<Format>, Failure> {
        name.as_deref().map(|name| block_format(flag, name)).transpose()
    };
    let mut options = PlanOptions::new(file_type);
    options.pure = args.pure;
    options.allow_requantize = args.allow_requantize;
    options.no_fallback = args.no_fallback;
    options.leave_output = args.leave_output_tensor;
    options.output = format("--output-tensor-type", &args.output_tensor_type)?;
    options.embedding = format("--token-embedding-type", &args.token_embedding_type)?;
    for typed in &args.tensor_type {
        let (glob, name) = typed
            .rsplit_once('=')
            .filter(|(glob, _)| !glob.is_empty())
            .ok_or_else(|| Failure::usage(format!("--tensor-type {typed}: not of the form GLOB=FORMAT")))?;
        options.overrides.push((Glob::new(glob), block_format("--tensor-type", name)?));
    }
    Ok(options)
}

/// A format that weights can have.
fn block_format(flag: &str, name: &str) -> Result<Format, Failure> {
    let of_weights =
        |f: &&Format| !matches!(f, Format::I8 | Format::I16 | Format::I32 | Format::I64 | Format::F64);
    let all = || Format::ALL.iter().filter(of_weights);
    let found = all().find(|f| f.info().name.eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = all().map(|f| f.info().name).collect();
        Failure::usage(format!("{flag} {name}: no format of weights; there are {}", names.join(", ")))
    })
}

/// What the file says of how it was made.
fn metadata(
    args: &QuantizeArgs,
    imatrix: Option<&Imatrix>,
    calibration: Option<&Calibration>,
) -> Vec<(String, OwnedValue)> {
    let methods = calibration.map(Calibration::method).filter(|method| method != "nearest");
    let method = match (imatrix, methods) {
        (Some(_), Some(methods)) => format!("imatrix+{methods}"),
        (Some(_), None) => "imatrix".to_owned(),
        (None, methods) => methods.unwrap_or_else(|| "nearest".to_owned()),
    };
    let mut metadata: Vec<(String, OwnedValue)> =
        vec![(keys::CHASKI_QUANTIZE_METHOD.to_owned(), method.into())];
    if let Some(calibration) = calibration {
        metadata.extend(calibration.metadata());
    }
    if let (Some(imatrix), Some(path)) = (imatrix, &args.imatrix) {
        metadata.push((keys::QUANTIZE_IMATRIX_FILE.to_owned(), path.display().to_string().into()));
        if let Some(text) = imatrix.datasets.first() {
            metadata.push((keys::QUANTIZE_IMATRIX_DATASET.to_owned(), text.clone().into()));
        }
        metadata.push((keys::QUANTIZE_IMATRIX_ENTRIES.to_owned(), (imatrix.entries.len() as u32).into()));
        metadata.push((keys::QUANTIZE_IMATRIX_CHUNKS.to_owned(), imatrix.chunks.into()));
    }
    if !args.tensor_type.is_empty() {
        metadata.push((keys::CHASKI_QUANTIZE_TENSOR_TYPES.to_owned(), args.tensor_type.clone().into()));
    }
    metadata
}

/// Say what became of integers that were taken over as they are.
fn tell_repacked(plan: &Plan, written: &Written) {
    let repacked = plan.tensors.iter().zip(&written.measures).filter(|(t, _)| t.from == t.to);
    let measured: Vec<(&Planned, &Measures)> = repacked.filter_map(|(t, m)| Some((t, m.as_ref()?))).collect();
    if measured.is_empty() {
        return;
    }
    let worst = measured.iter().filter_map(|(t, m)| Some((t, m.snr_db?))).min_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        None => {
            tracing::info!("{} tensors hold the checkpoint's own integers: nothing was lost", measured.len());
        }
        Some((t, snr)) => tracing::info!(
            "{} tensors hold the checkpoint's own integers: scales and minima were rounded to binary16, at worst {snr:.1} dB \
             (in {})",
            measured.len(),
            t.name
        ),
    }
}

/// The plan in a line: `Q4_K_M: 3.1 GiB -> 1.2 GiB, 16.00 -> 4.85 bits a value (Q4_K 97, Q6_K 17, F32 33 tensors)`.
fn summary(plan: &Plan) -> String {
    let (from, to) = plan.bytes();
    let (bits_from, bits_to) = plan.bits();
    let counts: Vec<String> = Format::ALL
        .iter()
        .filter_map(|format| {
            let n = plan.tensors.iter().filter(|t| t.to == *format).count();
            (n > 0).then(|| format!("{format} {n}"))
        })
        .collect();
    format!(
        "{}: {} -> {}, {bits_from:.2} -> {bits_to:.2} bits a value ({} tensors)",
        plan.file_type,
        show::size(from),
        show::size(to),
        counts.join(", ")
    )
}

fn shape(t: &Planned) -> String {
    let dims: Vec<String> = t.shape.iter().map(u64::to_string).collect();
    dims.join(" x ")
}

fn plan_table(plan: &Plan) -> String {
    let width = plan.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
    let mut lines: Vec<String> = Vec::new();
    for t in &plan.tensors {
        let note = match &t.substituted {
            Some(s) => format!(
                "instead of {}: its blocks of {} do not divide rows of {}",
                s.wanted,
                s.wanted.info().block_len,
                s.row
            ),
            None if t.from == t.to => format!("as it is: {}", t.why),
            None => t.why.clone(),
        };
        lines.push(format!(
            "{:width$}  {:>16}  {:>5} -> {:6}  {:>10} -> {:>10}  {note}",
            t.name,
            shape(t),
            t.from.to_string(),
            t.to.to_string(),
            show::size(t.bytes.0),
            show::size(t.bytes.1)
        ));
    }
    lines.push(summary(plan));
    lines.join("\n")
}

fn plan_json(plan: &Plan) -> Json {
    let tensors: Vec<Json> = plan
        .tensors
        .iter()
        .map(|t| {
            json!({
                "name": t.name,
                "shape": t.shape,
                "from": t.from.info().name,
                "to": t.to.info().name,
                "bytes_from": t.bytes.0,
                "bytes_to": t.bytes.1,
                "why": t.why,
                "instead_of": t.substituted.as_ref().map(|s| s.wanted.info().name),
            })
        })
        .collect();
    let ((bytes_from, bytes_to), (bits_from, bits_to)) = (plan.bytes(), plan.bits());
    json!({
        "file_type": plan.file_type.name(),
        "bytes_from": bytes_from,
        "bytes_to": bytes_to,
        "bits_per_weight_from": bits_from,
        "bits_per_weight_to": bits_to,
        "tensors": tensors,
    })
}

fn add_measures(value: &mut Json, measures: &[Option<Measures>]) {
    let tensors = value["tensors"].as_array_mut().into_iter().flatten();
    for (tensor, measures) in tensors.zip(measures) {
        tensor["measures"] = json!(measures);
    }
}

fn measures_table(plan: &Plan, measures: &[Option<Measures>]) -> String {
    let width = plan.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{:width$}  {:6}  {:>10}  {:>8}  {:>9}  {:>9}  worst columns (share of the error)",
        "tensor", "format", "MSE", "SNR dB", "1-cosine", "clamped"
    )];
    for (t, m) in plan.tensors.iter().zip(measures) {
        let Some(m) = m else { continue };
        let worst: Vec<String> =
            m.worst_columns.iter().map(|(at, share)| format!("{at} ({:.2}%)", share * 100.0)).collect();
        let snr = m.snr_db.map_or_else(|| "lossless".to_owned(), |snr| format!("{snr:.2}"));
        lines.push(format!(
            "{:width$}  {:6}  {:>10.3e}  {snr:>8}  {:>9.2e}  {:>8.3}%  {}",
            t.name,
            t.to.to_string(),
            m.mse,
            1.0 - m.cosine,
            m.saturated * 100.0,
            worst.join(", ")
        ));
    }
    lines.join("\n")
}
