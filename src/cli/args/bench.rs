use clap::Args;

use super::{EngineArgs, ModelArgs};

/// `chaski bench`
#[derive(Debug, Args)]
#[command(
    after_help = "Prompts and generated tokens are without meaning, and nothing is sampled, as with llama-bench: figures can be held\n\
                  against each other. A prompt is read with --threads-batch threads, tokens are generated with --threads."
)]
pub struct BenchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// Tokens of the prompt that is read; several separated by commas, 0 for none
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', default_value = "512")]
    pub n_prompt: Vec<u32>,
    /// Tokens that are generated; several separated by commas, 0 for none
    #[arg(
        short = 'n',
        long,
        alias = "predict",
        value_name = "N",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub n_gen: Vec<u32>,
    /// Tokens that the cache holds before; several separated by commas
    #[arg(
        short = 'd',
        long,
        alias = "n-depth",
        value_name = "N",
        value_delimiter = ',',
        default_value = "0"
    )]
    pub depth: Vec<u32>,
    /// How often each test is repeated
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// Also show where the time goes, by op and kernel (one more repetition of each test)
    #[arg(long)]
    pub profile: bool,
    /// Do not measure what the machine gives
    #[arg(long)]
    pub no_probe: bool,
    /// One JSON array instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}
