use std::path::PathBuf;

use clap::Args;

use super::{CalibrationTextArgs, EngineArgs};

/// `chaski compare`
#[derive(Debug, Args)]
#[command(
    after_help = "A FORMAT is a file type as `chaski quantize` takes it (Q4_K_M), the same rounded in other ways, named behind a +\n\
                  and several with commas: by the importance matrix (Q4_K_M+imatrix), by calibration (Q3_K_M+gptq,\n\
                  Q3_K_M+awq,gptq, Q4_0+smooth); or a GGUF file that is there already. Files are made one after another, as\n\
                  `chaski quantize` makes them, in a folder beside the report, and removed again, unless --keep says otherwise."
)]
pub struct CompareArgs {
    /// The model that the others are held against: a GGUF file in F32, F16 or BF16, any shard of a split set, or a folder of
    /// safetensors as Hugging Face's libraries save models
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// What to compare with it: file types, FORMAT+METHODS, or files [default: Q8_0 Q6_K Q5_K_M Q4_K_M Q3_K_M Q2_K]
    #[arg(value_name = "FORMAT")]
    pub formats: Vec<String>,
    /// The text
    #[arg(short, long, value_name = "TEXT")]
    pub file: PathBuf,
    /// The report to write, one HTML file; the raw figures go beside it, with the ending .json
    #[arg(short, long, value_name = "REPORT")]
    pub out: PathBuf,
    /// Only the first windows of the text; 0 = all of it
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub chunks: u32,
    /// The importance matrix for FORMAT+imatrix
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Also measure what these formats of the KV cache cost the source, K and V alike: several separated by commas, or `all`
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    pub kv_types: Vec<String>,
    /// Measure every pair of a K and a V format of --kv-types instead [default of --kv-types: all]
    #[arg(long)]
    pub kv_pairs: bool,
    /// Also measure what activations rounded to 8 bits cost each format (slow: every file is evaluated twice more)
    #[arg(long)]
    pub activations: bool,
    /// Do not measure speed
    #[arg(long)]
    pub no_speed: bool,
    /// Keep the files in this folder, with the figures among their metadata
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// Quantize a source that is quantized already
    #[arg(long)]
    pub allow_requantize: bool,
    /// Of a folder: the pre-tokenizer, where its rules are not recognised (a name of `tokenizer.ggml.pre`)
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// The raw figures on standard output instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub calibration: CalibrationTextArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}
