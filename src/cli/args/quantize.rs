use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, ModelArgs, Switch};

/// `chaski quantize`
#[derive(Debug, Args)]
#[command(
    after_help = "File types: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M\n\
                  Q6_K IQ4_NL IQ4_XS MXFP4_MOE MXFP4; Q3_K, Q4_K and Q5_K are their _M. With the same choices tensor by tensor as\n\
                  llama-quantize. A run that was cut off is taken up by the same command."
)]
pub struct QuantizeArgs {
    /// The source: a GGUF file in F32, F16 or BF16, any shard of a split set, or a folder of safetensors as Hugging Face's
    /// libraries save models (in floats of 16 or 32 bits, in 8-bit floats, or quantized by AWQ or GPTQ)
    #[arg(value_name = "IN")]
    pub source: PathBuf,
    /// The file to write; until it is whole it lies under OUT.partial
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// The file type, such as Q4_K_M; with --size or --bpw it may be left out
    #[arg(value_name = "FORMAT")]
    pub format: Option<String>,
    /// The format of the tensors of these names, whatever FORMAT says: 'blk.*.ffn_down.weight=Q6_K' (may be repeated; the
    /// first that matches counts)
    #[arg(long, value_name = "GLOB=FORMAT")]
    pub tensor_type: Vec<String>,
    /// The format of the output matrix
    #[arg(long, value_name = "FORMAT")]
    pub output_tensor_type: Option<String>,
    /// The format of the token embedding
    #[arg(long, value_name = "FORMAT")]
    pub token_embedding_type: Option<String>,
    /// Leave the output matrix as it is
    #[arg(long, conflicts_with = "output_tensor_type")]
    pub leave_output_tensor: bool,
    /// An importance matrix (`chaski imatrix` or llama-imatrix make one): columns that meet strong activations are rounded
    /// with more care
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub calibration: CalibrationArgs,
    /// No mixture: every matrix in the format that FORMAT has for most
    #[arg(long)]
    pub pure: bool,
    /// Quantize again what is quantized already
    #[arg(long)]
    pub allow_requantize: bool,
    /// Refuse to put another format in the place of one whose blocks do not divide a tensor's rows
    #[arg(long)]
    pub no_fallback: bool,
    /// Of a folder: the pre-tokenizer, where its rules are not recognised (a name of `tokenizer.ggml.pre`)
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// Show the plan, tensor by tensor, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what each tensor lost: mean squared error, signal-to-noise ratio, cosine, clamped values, worst columns
    #[arg(long, conflicts_with = "dry_run")]
    pub measure: bool,
    /// One JSON object instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Threads [default: physical cores that this process may use]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// How a calibration text decides what is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Calibration")]
pub struct CalibrationArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub text: CalibrationTextArgs,
    /// How matrices are rounded, several with commas: nearest; gptq (each error is pushed to the columns not yet rounded);
    /// awq (channels are scaled by how strong they are); smooth (channels are scaled so that activations are even)
    #[arg(
        long,
        value_name = "METHODS",
        value_delimiter = ',',
        default_value = "nearest",
        ignore_case = true
    )]
    pub method: Vec<Method>,
    /// The size of the file, such as 5.5GiB or 3310944: the format of each tensor is chosen by how much it matters
    #[arg(long, value_name = "SIZE", requires = "calibrate", conflicts_with_all = ["bpw", "pure"])]
    pub size: Option<String>,
    /// Bits for each weight, such as 4.5, instead of a size
    #[arg(long, value_name = "BITS", requires = "calibrate", conflicts_with = "pure")]
    pub bpw: Option<f64>,
    /// Windows that each tensor is measured on for --size and --bpw [default: 4]
    #[arg(long, value_name = "N", requires = "calibrate", value_parser = clap::value_parser!(u32).range(1..))]
    pub probe_chunks: Option<u32>,
}

/// The calibration text, and what is made of it: as `quantize` and `compare` take it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Calibration")]
pub struct CalibrationTextArgs {
    /// A text that is run through the model: like what the model will be used for, and not what it will be measured by
    #[arg(long, value_name = "TEXT")]
    pub calibrate: Option<PathBuf>,
    /// Only the first windows of the text [default: 128]
    #[arg(long, value_name = "N", requires = "calibrate", value_parser = clap::value_parser!(u32).range(1..))]
    pub calibrate_chunks: Option<u32>,
    /// Tokens of a window [default: 512, or what the model's context has]
    #[arg(long, value_name = "N", requires = "calibrate", value_parser = clap::value_parser!(u32).range(8..))]
    pub calibrate_ctx: Option<u32>,
    /// Whether each layer is calibrated by what the rounded layers before it give [default: on with gptq]
    #[arg(long, value_name = "on|off", requires = "calibrate")]
    pub sequential: Option<Switch>,
    /// For gptq: what is added to the second moments, as a share of their mean [default: 0.01]
    #[arg(long, value_name = "X", requires = "calibrate")]
    pub damping: Option<f32>,
    /// For gptq: how often all groups are chosen anew in the end [default: 3]
    #[arg(long, value_name = "N", requires = "calibrate", value_parser = clap::value_parser!(u32).range(..100))]
    pub sweeps: Option<u32>,
    /// For smooth: how much of the difficulty moves from activations to weights, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "ALPHA", requires = "calibrate")]
    pub smooth_alpha: Option<f32>,
    /// Memory for what is gathered, for rounding by it, and for the rounded layers that later ones are calibrated by; of
    /// these, what has no room lies in scratch files beside the output [default: 2GiB, or the least that will do]
    #[arg(long, value_name = "SIZE", requires = "calibrate")]
    pub calibrate_memory: Option<String>,
}

/// A way of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Each format's own search, weighted by an importance matrix where there is one.
    Nearest,
    /// Error-compensated rounding.
    Gptq,
    /// Activation-aware scaling.
    Awq,
    /// Smoothing.
    Smooth,
}

/// `chaski imatrix`
#[derive(Debug, Args)]
pub struct ImatrixArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// The calibration text: like what the model will be used for, and not what it will be measured by
    #[arg(short, long, value_name = "TEXT")]
    pub file: PathBuf,
    /// The importance matrix to write, in llama.cpp's GGUF form
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Only the first windows of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Gather for the output matrix too
    #[arg(long)]
    pub process_output: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}
