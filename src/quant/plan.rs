//! The plan: for every tensor, the format that it gets and why. Made and shown before the first byte is written.

use std::collections::HashSet;

use chaski_gguf::{FileKind, Format, Gguf, TensorInfo};

use super::choose::{self, Chooser, Role, Traits};
use super::{FileType, Glob, QuantError};

/// What a plan is made by.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// The mixture.
    pub file_type: FileType,
    /// Every matrix in the mixture's base format, no mixture.
    pub pure: bool,
    /// Quantize again what is quantized already.
    pub allow_requantize: bool,
    /// Refuse substitutes for formats whose blocks do not divide a row.
    pub no_fallback: bool,
    /// Leave the output matrix as it is.
    pub leave_output: bool,
    /// The format of the output matrix, whatever the mixture says.
    pub output: Option<Format>,
    /// The format of the token embedding, whatever the mixture says.
    pub embedding: Option<Format>,
    /// Formats by names of tensors, the first that matches counts; they outrank everything above.
    pub overrides: Vec<(Glob, Format)>,
    /// Tensors whose blocks hold the integers of a quantized checkpoint: they stay as they are, but for what the options
    /// above say of them by name.
    pub packed: HashSet<String>,
    /// Whether an importance matrix will be used: some mixtures choose by it.
    pub has_imatrix: bool,
}

impl PlanOptions {
    /// The mixture by itself.
    pub fn new(file_type: FileType) -> PlanOptions {
        PlanOptions {
            file_type,
            pure: false,
            allow_requantize: false,
            no_fallback: false,
            leave_output: false,
            output: None,
            embedding: None,
            overrides: Vec::new(),
            packed: HashSet::new(),
            has_imatrix: false,
        }
    }
}

/// A format that was wanted and could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitution {
    /// What was wanted.
    pub wanted: Format,
    /// The length of a row, which its blocks do not divide.
    pub row: u64,
}

/// A tensor of a plan.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its dimensions, the row length first.
    pub shape: Vec<u64>,
    /// The format that it has.
    pub from: Format,
    /// The format that it gets.
    pub to: Format,
    /// Its size before and after, in bytes.
    pub bytes: (u64, u64),
    /// Set where `to` is not what was wanted.
    pub substituted: Option<Substitution>,
    /// Why it stays as it is, or who chose its format: `a norm`, `mixture`, `--tensor-type GLOB`.
    pub why: String,
}

impl Planned {
    /// Values of the tensor.
    pub fn n_values(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The substitution in words; none where there is none.
    pub fn substitution(&self) -> Option<String> {
        let s = self.substituted.as_ref()?;
        let (name, to, wanted) = (&self.name, self.to, s.wanted);
        let len = wanted.info().block_len;
        Some(format!(
            "tensor {name}: {to} instead of {wanted}, whose blocks of {len} do not divide its rows of {}",
            s.row
        ))
    }
}

/// The formats of all tensors of a file to be, in the order of the source.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The mixture.
    pub file_type: FileType,
    /// The tensors.
    pub tensors: Vec<Planned>,
}

impl Plan {
    /// Choose a format for every tensor of `source`.
    ///
    /// # Errors
    /// The source is no model, a tensor is quantized already (unless that is allowed), a substitute would be needed where
    /// none are allowed, or an override of the user's matches nothing that can be quantized.
    pub fn new(source: &Gguf, options: &PlanOptions) -> Result<Plan, QuantError> {
        if source.kind() != FileKind::Model {
            return Err(QuantError::NoModel { what: format!("the source is {}", source.kind()) });
        }
        let traits = Traits::read(source)?;
        let mut chooser = Chooser::new(&traits, options.file_type, options.has_imatrix);
        let mut planned: Vec<Option<Planned>> = vec![None; source.tensors().len()];
        let mut used = vec![Matched::Nothing; options.overrides.len()];
        for at in choose::walk(source) {
            if let Some((info, slot)) = source.tensors().get(at).zip(planned.get_mut(at)) {
                *slot = Some(plan_tensor(info, options, &traits, &mut chooser, &mut used)?);
            }
        }
        for ((glob, _), matched) in options.overrides.iter().zip(used) {
            let why = match matched {
                Matched::Quantized => continue,
                Matched::Kept => {
                    "only tensors match that always stay as they are (norms, vectors, routers)".to_owned()
                }
                Matched::Nothing if glob.as_str().contains(['*', '?']) => {
                    "no tensor matches, or patterns before it match them all".to_owned()
                }
                Matched::Nothing => format!("no tensor has this name; a part of a name is '*{glob}*'"),
            };
            return Err(QuantError::Pattern { pattern: glob.to_string(), why });
        }
        let plan = Plan { file_type: options.file_type, tensors: planned.into_iter().flatten().collect() };
        if options.no_fallback {
            let refused: Vec<String> = plan.tensors.iter().filter_map(Planned::substitution).collect();
            if !refused.is_empty() {
                return Err(QuantError::Fallback(refused));
            }
        }
        Ok(plan)
    }

    /// Put the tensors into the order of layers: those outside of layers first. Calibration goes through them in this order.
    pub fn sort_by_layer(&mut self) {
        self.tensors.sort_by_cached_key(|t| choose::walk_key(&t.name));
    }

    /// Bytes of all tensors, before and after.
    pub fn bytes(&self) -> (u64, u64) {
        self.tensors.iter().fold((0, 0), |sum, t| (sum.0 + t.bytes.0, sum.1 + t.bytes.1))
    }

    /// Bits for each value, before and after.
    pub fn bits(&self) -> (f64, f64) {
        let values: u64 = self.tensors.iter().map(Planned::n_values).sum();
        let per_value = |bytes: u64| bytes as f64 * 8.0 / (values.max(1) as f64);
        let (from, to) = self.bytes();
        (per_value(from), per_value(to))
    }
}

/// What a pattern of the user's has matched so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matched {
    Nothing,
    Kept,
    Quantized,
}

fn plan_tensor(
    info: &TensorInfo,
    options: &PlanOptions,
    traits: &Traits,
    chooser: &mut Chooser<'_>,
    used: &mut [Matched],
) -> Result<Planned, QuantError> {
    let name = &info.name;
    let row = info.shape[0];
    let role = Role::of(name);
    let n_dims = info.shape.iter().rposition(|n| *n > 1).map_or(1, |at| at + 1);
    let planned = |to: Format, substituted, why: &str| -> Result<Planned, QuantError> {
        let overflow = || chaski_gguf::Error::Unsupported {
            what: format!("tensor {name}"),
            why: format!("its size as {to} overflows"),
        };
        let bytes = if to == info.format { Some(info.bytes) } else { to.bytes_of(info.n_values()) };
        Ok(Planned {
            name: name.clone(),
            shape: info.shape.get(..info.n_dims).unwrap_or(&info.shape).to_vec(),
            from: info.format,
            to,
            bytes: (info.bytes, bytes.ok_or_else(overflow)?),
            substituted,
            why: why.to_owned(),
        })
    };
    let matched = options.overrides.iter().zip(used).find(|((glob, _), _)| glob.matches(name));
    let integers = matches!(info.format, Format::I8 | Format::I16 | Format::I32 | Format::I64);
    let stays = if integers { Some("integers") } else { choose::kept(name, n_dims) };
    if let Some(why) = stays {
        if let Some((_, used)) = matched
            && *used == Matched::Nothing
        {
            *used = Matched::Kept;
        }
        return planned(info.format, None, why);
    }
    let (wanted, why) = if let Some(((glob, format), used)) = matched {
        *used = Matched::Quantized;
        (*format, format!("--tensor-type {glob}"))
    } else if let (Some(format), true) = (options.embedding, role == Role::Embedding) {
        (format, "--token-embedding-type".to_owned())
    } else if let (Some(format), true) = (options.output, traits.is_output(role)) {
        (format, "--output-tensor-type".to_owned())
    } else if options.leave_output && role == Role::Output {
        return planned(info.format, None, "--leave-output-tensor");
    } else if options.packed.contains(name) {
        return planned(info.format, None, "the checkpoint's own integers");
    } else if options.pure || options.file_type.base().info().block_len == 1 {
        (options.file_type.base(), "every matrix".to_owned())
    } else {
        (chooser.choose(name, info.shape[2])?, "mixture".to_owned())
    };
    let to = choose::substitute(wanted, row);
    let substituted = (to != wanted).then_some(Substitution { wanted, row });
    if to != info.format && info.format.info().block_len > 1 && !options.allow_requantize {
        return Err(QuantError::Requantize { tensor: name.clone(), from: info.format, to });
    }
    planned(to, substituted, &why)
}
