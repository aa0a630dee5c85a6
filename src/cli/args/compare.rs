use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;

/// `chaski compare`
#[derive(Debug, Args)]
#[command(
    after_help = "A FORMAT is a file type as `chaski quantize` takes it (Q4_K_M), the same rounded with the importance matrix\n\
                  (Q4_K_M+imatrix), or a GGUF file that is there already. Files are made one after another in a folder beside the\n\
                  report and removed again, unless --keep says otherwise."
)]
pub struct CompareArgs {
    /// The model that the others are held against: a GGUF file in F32, F16 or BF16, or any shard of a split set
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// What to compare with it: file types, FORMAT+imatrix, or files [default: Q8_0 Q6_K Q5_K_M Q4_K_M Q3_K_M Q2_K]
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
    /// The raw figures on standard output instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}
