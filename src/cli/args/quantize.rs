use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, ModelArgs};

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
    /// The file type, such as Q4_K_M
    #[arg(value_name = "FORMAT")]
    pub format: String,
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
