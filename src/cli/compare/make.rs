//! Files made for a comparison: by the very command that makes such files, `chaski quantize`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chaski_gguf::Gguf;
use clap::Parser;

use super::facts::CalibrationFacts;
use super::interrupted;
use super::wanted::{Origin, Wanted};
use crate::cli::args::{Cli, Command, CompareArgs, QuantizeArgs};
use crate::cli::exit::Failure;
use crate::cli::options::EngineOptions;
use crate::cli::output::Terminal;
use crate::cli::source::ModelSource;
use crate::cli::{interrupt, quantize};
use crate::quant::{FileType, Folder, ImportOptions, Plan, PlanOptions, QuantError, Source as _};

/// What makes files of a source.
pub(super) struct Maker {
    /// What is quantized: a file, the embedded model, or what a folder became.
    pub(super) source: ModelSource,
    /// The same as the command line of `quantize` takes it.
    word: PathBuf,
    /// What kept files are named after.
    pub(super) stem: String,
    threads: usize,
    terminal: Terminal,
}

impl Maker {
    /// Make ready. A folder is written as a GGUF file in `scratch`, in a format that holds its values exactly: to be compared with,
    /// it must be run.
    ///
    /// # Errors
    /// The source cannot be opened or imported, the disk is full, or the user interrupts.
    pub(super) fn new(
        args: &CompareArgs,
        options: &EngineOptions,
        scratch: &Path,
        terminal: Terminal,
    ) -> anyhow::Result<Maker> {
        let typed = ModelSource::new(Some(args.source.clone()))?;
        let stem = match typed.path() {
            Some(path) if path.is_dir() => {
                path.canonicalize().unwrap_or_else(|_| path.to_owned()).file_name().map(OsStr::to_owned)
            }
            path => path.and_then(Path::file_stem).map(OsStr::to_owned),
        };
        let stem = stem.map_or("model".into(), |stem| stem.to_string_lossy().into_owned());
        let word = args.source.clone();
        let mut maker = Maker { source: typed, word, stem, threads: options.threads_batch, terminal };
        let Some(folder) = maker.source.path().filter(|path| path.is_dir()).map(Path::to_owned) else {
            if args.pre_tokenizer.is_some() {
                let why = "--pre-tokenizer is for folders; a GGUF file names its own";
                return Err(Failure::usage(why).into());
            }
            return Ok(maker);
        };
        let file = scratch.join("source.gguf");
        let pre_tokenizer = args.pre_tokenizer.as_ref().map(|name| format!("--pre-tokenizer={name}").into());
        let flags: Vec<OsString> = pre_tokenizer.into_iter().collect();
        let file_type = exact(&folder, args.pre_tokenizer.as_deref())?;
        tracing::info!("{}: written as a GGUF file in {file_type} first", folder.display());
        maker.make(file_type, &flags, &file)?;
        (maker.source, maker.word) = (ModelSource::File(file.clone()), file);
        Ok(maker)
    }

    /// Every check of files to be made that needs no model to be run, so that nothing is refused after hours; what is calibrated on,
    /// if any of them is calibrated.
    ///
    /// # Errors
    /// As [`quantize::prepare`].
    pub(super) fn check(
        &self,
        wanted: &[Wanted],
        scratch: &Path,
    ) -> anyhow::Result<Option<CalibrationFacts>> {
        let mut found = None;
        for w in wanted {
            let Origin::Made { file_type, flags } = &w.origin else { continue };
            let args = self.arguments(*file_type, flags, &scratch.join("model.gguf"))?;
            let prepared = quantize::prepare(&args).with_context(|| w.label.clone())?;
            if let Some(calibration) = prepared.calibration {
                let (text, windows, ctx) = calibration.text();
                let name = text.file_name().unwrap_or(text.as_os_str()).to_string_lossy().into_owned();
                found = Some(CalibrationFacts { name, ctx, windows, scored_too: false });
            }
        }
        Ok(found)
    }

    /// Make a file.
    ///
    /// # Errors
    /// As [`quantize::prepare`] and [`quantize::Prepared::write`].
    pub(super) fn make(&self, file_type: FileType, flags: &[OsString], out: &Path) -> anyhow::Result<()> {
        let args = self.arguments(file_type, flags, out)?;
        let made = quantize::prepare(&args).and_then(|prepared| prepared.write(&args, self.terminal));
        if interrupt::requested() { Err(interrupted().into()) } else { made.map(|_| ()) }
    }

    /// What `quantize` would be told.
    fn arguments(
        &self,
        file_type: FileType,
        flags: &[OsString],
        out: &Path,
    ) -> anyhow::Result<Box<QuantizeArgs>> {
        let threads = OsString::from(format!("--threads={}", self.threads));
        let line = ["chaski", "quantize"].map(OsStr::new).into_iter();
        let line = line.chain(flags.iter().map(OsString::as_os_str)).chain([threads.as_os_str()]);
        let line = line.chain([OsStr::new("--"), self.word.as_os_str(), out.as_os_str()]);
        match Cli::try_parse_from(line.chain([OsStr::new(file_type.name())]))?.command {
            Some(Command::Quantize(args)) => Ok(args),
            _ => Err(Failure::failed("no command line for `chaski quantize`").into()),
        }
    }
}

/// The file type that holds what a folder has exactly.
fn exact(folder: &Path, pre_tokenizer: Option<&str>) -> anyhow::Result<FileType> {
    quantize::has_config(folder)?;
    let pre_tokenizer = pre_tokenizer.map(str::to_owned);
    let options = ImportOptions { pre_tokenizer, ..ImportOptions::new(FileType::F32.base()) };
    let opened = Folder::open(folder, &options).map_err(QuantError::Import)?;
    let keeps = |head: &Gguf, file_type: FileType| {
        let plan = Plan::new(head, &PlanOptions::new(file_type));
        plan.is_ok_and(|plan| plan.tensors.iter().all(|t| t.from == t.to))
    };
    let mut of_two_bytes = [FileType::BF16, FileType::F16].into_iter();
    Ok(of_two_bytes.find(|t| keeps(opened.head(), *t)).unwrap_or(FileType::F32))
}
