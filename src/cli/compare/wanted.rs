//! What is to be compared: words of the command line as files to be made, or to be opened.

use std::path::{Path, PathBuf};

use chaski_gguf::Gguf;

use crate::cli::args::CompareArgs;
use crate::cli::exit::Failure;
use crate::cli::load;
use crate::cli::options::{EngineOptions, cache_format};
use crate::cli::source::ModelSource;
use crate::kv::KvFormat;
use crate::quant::{FileType, Imatrix, Plan, PlanOptions};

/// What is compared where nothing is named.
const DEFAULT: [&str; 6] = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"];
/// Between a format and how it is rounded.
const BY: char = '+';
/// By the importance matrix of `--imatrix`.
const IMATRIX: &str = "imatrix";

/// A file to be compared.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What it is called.
    pub(super) label: String,
    /// Where it comes from.
    pub(super) origin: Origin,
}

/// Where a file comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// `chaski quantize` makes it.
    Made {
        /// How values are rounded.
        method: String,
        /// The words of that command behind its output.
        words: Vec<String>,
    },
    /// It is there.
    File(PathBuf),
}

/// Everything that was named: all checks that need no model to be run.
///
/// # Errors
/// A word that is no format and no file, one that is named twice, a source that cannot be quantized, an importance matrix that is
/// not used, missing or none.
pub(super) fn wanted(
    args: &CompareArgs,
    options: &EngineOptions,
    source: &ModelSource,
    file: &Gguf,
) -> anyhow::Result<Vec<Wanted>> {
    if let Some(path) = &args.imatrix {
        let named = |error| anyhow::Error::new(error).context(path.display().to_string());
        Imatrix::open(path).map_err(named)?;
    }
    let words: Vec<&str> = match args.formats.as_slice() {
        [] => DEFAULT.to_vec(),
        formats => formats.iter().map(String::as_str).collect(),
    };
    let mut found: Vec<Wanted> = Vec::new();
    for word in words {
        let wanted = match made(args, word)? {
            Some((file_type, wanted)) => {
                let mut choices = PlanOptions::new(file_type);
                choices.allow_requantize = args.allow_requantize;
                Plan::new(file, &choices).map_err(|error| source.named(error))?;
                wanted
            }
            None => there(options, Path::new(word))?,
        };
        if found.iter().any(|w| w.label == wanted.label) {
            return Err(Failure::usage(format!("{word} is named twice")).into());
        }
        found.push(wanted);
    }
    let used = |w: &Wanted| matches!(&w.origin, Origin::Made { method, .. } if method == IMATRIX);
    if args.imatrix.is_some() && !found.iter().any(used) {
        let why =
            format!("--imatrix has no effect: no format is named with {BY}{IMATRIX} (Q4_K_M{BY}{IMATRIX})");
        return Err(Failure::usage(why).into());
    }
    Ok(found)
}

/// `Q4_K_M`, `Q4_K_M+imatrix`; none of what names no file type.
fn made(args: &CompareArgs, word: &str) -> Result<Option<(FileType, Wanted)>, Failure> {
    let (name, method) = word.split_once(BY).map_or((word, None), |(name, method)| (name, Some(method)));
    let Some(file_type) = FileType::parse(name) else { return Ok(None) };
    let mut words = vec![file_type.name().to_owned()];
    if args.allow_requantize {
        words.push("--allow-requantize".into());
    }
    match (method, &args.imatrix) {
        (None, _) => {}
        (Some(IMATRIX), Some(path)) => words.push(format!("--imatrix={}", path.display())),
        (Some(IMATRIX), None) => {
            return Err(Failure::usage(format!("{word} needs an importance matrix: --imatrix FILE")));
        }
        (Some(method), _) => {
            return Err(Failure::usage(format!(
                "{word}: {method} is no way of rounding; there is {IMATRIX}"
            )));
        }
    }
    let label = method.map_or(file_type.name().to_owned(), |m| format!("{}{BY}{m}", file_type.name()));
    let method = method.unwrap_or("nearest").to_owned();
    Ok(Some((file_type, Wanted { label, origin: Origin::Made { method, words } })))
}

/// A file that is there, and is a model that can be run: known now, not after hours.
fn there(options: &EngineOptions, path: &Path) -> anyhow::Result<Wanted> {
    if !path.is_file() {
        let all: Vec<&str> = FileType::ALL.iter().map(|t| t.name()).collect();
        let (word, all) = (path.display(), all.join(", "));
        return Err(Failure::usage(format!("{word} is no file type and no file; there are {all}")).into());
    }
    load::open_model(&ModelSource::File(path.to_owned()), options)?;
    let label = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Wanted { label, origin: Origin::File(path.to_owned()) })
}

/// The formats of the cache that are to be measured, each with each where pairs are wanted.
///
/// # Errors
/// A name that is none.
pub(super) fn cache_pairs(args: &CompareArgs) -> Result<Vec<(KvFormat, KvFormat)>, Failure> {
    let all = args.kv_types.iter().any(|name| name == "all") || args.kv_pairs && args.kv_types.is_empty();
    let mut formats = Vec::new();
    if all {
        formats.extend_from_slice(KvFormat::ALL);
    } else {
        for name in &args.kv_types {
            let format = cache_format("--kv-types", name)?;
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
    }
    let pairs = |k: &KvFormat| -> Vec<(KvFormat, KvFormat)> {
        let others = formats.iter().filter(|v| args.kv_pairs || *v == k);
        others.map(|v| (*k, *v)).collect()
    };
    Ok(formats.iter().flat_map(pairs).collect())
}
