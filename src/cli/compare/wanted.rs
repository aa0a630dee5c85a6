//! What is to be compared: words of the command line as files to be made, or to be opened.

use std::path::{Path, PathBuf};

use chaski_gguf::Gguf;

use crate::cli::args::CompareArgs;
use crate::cli::exit::Failure;
use crate::cli::options::cache_format;
use crate::cli::source::ModelSource;
use crate::kv::KvFormat;
use crate::quant::{FileType, Imatrix, Plan, PlanOptions, Planned};

/// What is compared where nothing is named.
const DEFAULT: [&str; 6] = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"];
/// Behind a format: with the importance matrix.
const IMATRIX: &str = "+imatrix";

/// A file to be compared.
pub(super) struct Wanted {
    /// What it is called.
    pub(super) label: String,
    /// Where it comes from.
    pub(super) from: From,
}

/// Where a file comes from.
pub(super) enum From {
    /// It is made by this plan.
    Plan {
        /// The formats of its tensors.
        plan: Plan,
        /// Whether importances weigh its errors.
        imatrix: bool,
    },
    /// It is there.
    File(PathBuf),
}

/// Everything that was named, with its plan: all checks that need no model to be run.
///
/// # Errors
/// A word that is no format and no file, one that is named twice, a source that cannot be quantized, an importance matrix that is
/// not used or missing.
pub(super) fn wanted(
    args: &CompareArgs,
    source: &ModelSource,
    file: &Gguf,
    imatrix: Option<&Imatrix>,
) -> anyhow::Result<Vec<Wanted>> {
    let words: Vec<&str> = if args.formats.is_empty() {
        DEFAULT.to_vec()
    } else {
        args.formats.iter().map(String::as_str).collect()
    };
    let mut found: Vec<Wanted> = Vec::new();
    for word in words {
        let wanted = one(args, source, file, word, imatrix.is_some())?;
        if found.iter().any(|w| w.label == wanted.label) {
            return Err(Failure::usage(format!("{word} is named twice")).into());
        }
        found.push(wanted);
    }
    let used = found.iter().any(|w| matches!(w.from, From::Plan { imatrix: true, .. }));
    if imatrix.is_some() && !used {
        let why = format!("--imatrix has no effect: no format is named with {IMATRIX} (Q4_K_M{IMATRIX})");
        return Err(Failure::usage(why).into());
    }
    Ok(found)
}

fn one(
    args: &CompareArgs,
    source: &ModelSource,
    file: &Gguf,
    word: &str,
    has_imatrix: bool,
) -> anyhow::Result<Wanted> {
    let (name, imatrix) = match word.strip_suffix(IMATRIX) {
        Some(name) => (name, true),
        None => (word, false),
    };
    let Some(file_type) = FileType::parse(name) else {
        let path = Path::new(word);
        if path.is_file() {
            let label = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            return Ok(Wanted { label, from: From::File(path.to_owned()) });
        }
        let all: Vec<&str> = FileType::ALL.iter().map(|t| t.name()).collect();
        let why = format!("{word} is no file type and no file; there are {}", all.join(", "));
        return Err(Failure::usage(why).into());
    };
    if imatrix && !has_imatrix {
        return Err(Failure::usage(format!("{word} needs an importance matrix: --imatrix FILE")).into());
    }
    let mut options = PlanOptions::new(file_type);
    (options.has_imatrix, options.allow_requantize) = (imatrix, args.allow_requantize);
    let plan = Plan::new(file, &options).map_err(|error| source.named(error))?;
    for substitution in plan.tensors.iter().filter_map(Planned::substitution) {
        tracing::warn!("{word}: {substitution}");
    }
    let label = format!("{}{}", file_type.name(), if imatrix { IMATRIX } else { "" });
    Ok(Wanted { label, from: From::Plan { plan, imatrix } })
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
