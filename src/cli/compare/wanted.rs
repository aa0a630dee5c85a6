//! What is to be compared: words of the command line as files to be made, or to be opened.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::cli::args::{CalibrationTextArgs, CompareArgs, Method, Switch};
use crate::cli::calibration::METHODS;
use crate::cli::exit::Failure;
use crate::cli::load;
use crate::cli::options::{EngineOptions, cache_format};
use crate::cli::source::ModelSource;
use crate::kv::KvFormat;
use crate::quant::FileType;

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
        /// Its file type.
        file_type: FileType,
        /// The flags of that command.
        flags: Vec<OsString>,
    },
    /// It is there.
    File(PathBuf),
}

/// How values are rounded.
#[derive(Debug, Default)]
struct By {
    imatrix: bool,
    /// In the order of [`METHODS`].
    methods: Vec<(Method, &'static str)>,
}

impl By {
    /// What stands behind a format: `imatrix`, `awq,gptq`.
    fn parse(word: &str, methods: &str) -> Result<By, Failure> {
        let mut by = By::default();
        for typed in methods.split([',', BY]).map(str::trim) {
            let found = METHODS.iter().find(|(_, name)| name.eq_ignore_ascii_case(typed));
            if typed.eq_ignore_ascii_case(IMATRIX) {
                by.imatrix = true;
            } else if let Some(found) = found {
                by.methods.push(*found);
            } else {
                let names: Vec<&str> = METHODS.iter().map(|(_, name)| *name).collect();
                let why =
                    format!("{typed:?} is no way of rounding; there are {IMATRIX}, {}", names.join(", "));
                return Err(Failure::usage(format!("{word}: {why}")));
            }
        }
        by.methods = METHODS.iter().filter(|m| by.methods.contains(m)).copied().collect();
        Ok(by)
    }

    fn has(&self, method: Method) -> bool {
        self.methods.iter().any(|(m, _)| *m == method)
    }

    /// The names of the calibrated methods, as `--method` takes them.
    fn names(&self) -> String {
        self.methods.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(",")
    }

    /// A format's name with what is behind it.
    fn label(&self, file_type: FileType) -> String {
        let names = [if self.imatrix { IMATRIX } else { "" }, &self.names()];
        let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        match names.as_slice() {
            [] => file_type.name().to_owned(),
            names => format!("{}{BY}{}", file_type.name(), names.join(",")),
        }
    }
}

/// Everything that was named: all checks that need neither the source nor a model that is run.
///
/// # Errors
/// A word that is no format and no file, one that is named twice, a way of rounding that lacks its importance matrix or its
/// calibration text, or a flag that nothing named has to do with.
pub(super) fn wanted(args: &CompareArgs, options: &EngineOptions) -> anyhow::Result<Vec<Wanted>> {
    let words: Vec<&str> = match args.formats.as_slice() {
        [] => DEFAULT.to_vec(),
        formats => formats.iter().map(String::as_str).collect(),
    };
    let mut found: Vec<Wanted> = Vec::new();
    let mut all: Vec<By> = Vec::new();
    for word in words {
        let wanted = match made(args, word)? {
            Some((wanted, by)) => {
                all.push(by);
                wanted
            }
            None => there(options, Path::new(word))?,
        };
        if found.iter().any(|w| w.label == wanted.label) {
            return Err(Failure::usage(format!("{word} is named twice")).into());
        }
        found.push(wanted);
    }
    unused(args, &all)?;
    Ok(found)
}

/// Refuse flags that nothing named has to do with.
fn unused(args: &CompareArgs, all: &[By]) -> Result<(), Failure> {
    let c = &args.calibration;
    let some = |f: &dyn Fn(&By) -> bool| all.iter().any(f);
    let calibrated = some(&|by| !by.methods.is_empty());
    let (gptq, smooth) = (some(&|by| by.has(Method::Gptq)), some(&|by| by.has(Method::Smooth)));
    let flags = [
        ("--imatrix", args.imatrix.is_some(), some(&|by| by.imatrix), IMATRIX),
        ("--calibrate", c.calibrate.is_some(), calibrated, "gptq"),
        ("--damping", c.damping.is_some(), gptq, "gptq"),
        ("--sweeps", c.sweeps.is_some(), gptq, "gptq"),
        ("--smooth-alpha", c.smooth_alpha.is_some(), smooth, "smooth"),
    ];
    for (flag, given, used, by) in flags {
        if given && !used {
            let why = format!("no format is named with {BY}{by} (Q4_K_M{BY}{by})");
            return Err(Failure::usage(format!("{flag} has no effect: {why}")));
        }
    }
    Ok(())
}

/// `Q4_K_M`, `Q4_K_M+imatrix`, `Q3_K_M+awq,gptq`; none of what names no file type.
fn made(args: &CompareArgs, word: &str) -> Result<Option<(Wanted, By)>, Failure> {
    let (name, methods) = word.split_once(BY).map_or((word, None), |(name, methods)| (name, Some(methods)));
    let Some(file_type) = FileType::parse(name) else { return Ok(None) };
    let by = methods.map(|methods| By::parse(word, methods)).transpose()?.unwrap_or_default();
    let mut flags: Vec<OsString> = Vec::new();
    if args.allow_requantize {
        flags.push("--allow-requantize".into());
    }
    if by.imatrix {
        let needs = || Failure::usage(format!("{word} needs an importance matrix: --imatrix FILE"));
        flags.push(flag("--imatrix", args.imatrix.as_ref().ok_or_else(needs)?));
    }
    if !by.methods.is_empty() {
        flags.push(flag("--method", by.names()));
        flags.extend(calibration(&args.calibration, word, &by)?);
    }
    let label = by.label(file_type);
    Ok(Some((Wanted { label, origin: Origin::Made { file_type, flags } }, by)))
}

fn flag(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(value);
    flag
}

/// The flags of calibration that a format rounded in this way has to do with.
fn calibration(args: &CalibrationTextArgs, word: &str, by: &By) -> Result<Vec<OsString>, Failure> {
    let CalibrationTextArgs {
        calibrate,
        calibrate_chunks,
        calibrate_ctx,
        sequential,
        damping,
        sweeps,
        smooth_alpha,
        calibrate_memory,
    } = args;
    let (gptq, smooth) = (by.has(Method::Gptq), by.has(Method::Smooth));
    let needs = || Failure::usage(format!("{word} needs a calibration text: --calibrate TEXT"));
    let mut flags = vec![flag("--calibrate", calibrate.as_ref().ok_or_else(needs)?)];
    let switch = |switch: Switch| if switch == Switch::On { "on" } else { "off" };
    let values = [
        ("--calibrate-chunks", calibrate_chunks.map(|n| n.to_string())),
        ("--calibrate-ctx", calibrate_ctx.map(|n| n.to_string())),
        ("--sequential", sequential.map(|s| switch(s).to_owned())),
        ("--damping", damping.filter(|_| gptq).map(|x| x.to_string())),
        ("--sweeps", sweeps.filter(|_| gptq).map(|n| n.to_string())),
        ("--smooth-alpha", smooth_alpha.filter(|_| smooth).map(|x| x.to_string())),
        ("--calibrate-memory", calibrate_memory.clone()),
    ];
    flags.extend(values.into_iter().filter_map(|(name, value)| Some(flag(name, value?))));
    Ok(flags)
}

/// A file that is there, and is a model that can be run: known now, not after hours.
fn there(options: &EngineOptions, path: &Path) -> anyhow::Result<Wanted> {
    let word = path.display();
    if path.is_dir() {
        let why = "is a folder: only SOURCE may be one";
        return Err(Failure::usage(format!("{word} {why}")).into());
    }
    if !path.is_file() {
        let name = word.to_string();
        let name = name.split_once(BY).map_or(name.as_str(), |(name, _)| name);
        return Err(Failure::usage(format!("{word} is no file; {}", FileType::unknown(name))).into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_rounding_have_one_name_however_they_are_typed() {
        let label = |word: &str| {
            By::parse(word, word).map(|by| by.label(FileType::Q3_K_M)).map_err(|error| error.to_string())
        };
        assert_eq!(label("gptq").unwrap(), "Q3_K_M+gptq");
        for typed in ["awq,gptq", "gptq,awq", "AWQ+GPTQ", "gptq, awq,awq"] {
            assert_eq!(label(typed).unwrap(), "Q3_K_M+awq,gptq", "{typed}");
        }
        assert_eq!(label("gptq,imatrix,smooth").unwrap(), "Q3_K_M+imatrix,smooth,gptq");
        for typed in ["", "gptq,", "nearest", "best"] {
            assert!(
                label(typed).unwrap_err().contains("is no way of rounding; there are imatrix, smooth, awq")
            );
        }
    }
}
