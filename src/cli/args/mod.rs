//! What was typed: one struct per command, built from groups of flags that commands share.
//!
//! Names, defaults and meanings follow llama.cpp's command line where it has the flag. What the values mean together
//! is decided in [`super::options`].

mod bench;
mod compare;
mod conversation;
mod engine;
mod output;
mod quantize;
mod sampling;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench::BenchArgs;
pub use compare::CompareArgs;
pub use conversation::{ChatOnlyArgs, ConversationArgs, OnFull, Switch};
pub use engine::{BatchArgs, CpuArgs, EngineArgs, GpuArgs, OverrideArgs};
pub use output::OutputArgs;
pub use quantize::{CalibrationArgs, CalibrationTextArgs, ImatrixArgs, Method, QuantizeArgs};
pub use sampling::{GenerationArgs, SamplingArgs};

/// What a bare `--help` begins with.
const LONG_ABOUT: &str = if cfg!(feature = "demo") {
    "Run language models from a single GGUF file on ordinary machines.\n\n\
     `chaski MODEL.gguf` chats with that file: nothing to import, nothing to copy.\n\
     `chaski` alone chats with the embedded demo model, which answers questions about chaski.\n\
     Wherever a MODEL is asked for, `demo` stands for it (a file of that name is ./demo)."
} else {
    "Run language models from a single GGUF file on ordinary machines.\n\n\
     `chaski MODEL.gguf` chats with that file: nothing to import, nothing to copy.\n\
     This build has no embedded demo model."
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "chaski",
    about = "Run language models from a single GGUF file on ordinary machines",
    long_about = LONG_ABOUT,
    after_help = "Exit codes: 0 done, 1 failed while running, 2 wrong usage, 3 an input file is missing, malformed or\n\
                  unsupported, 4 does not fit, 130 interrupted. The answer goes to standard output, all else to standard error.",
    disable_version_flag = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What to do; none is `chat`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print the version, the kernel set chosen on this machine and the GPU adapters
    #[arg(short = 'V', long, help_heading = "Output")]
    pub version: bool,
    /// Streams, colour and logging.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The commands that this build has.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Chat with a model in the terminal; `chaski MODEL` is the same
    Chat(Box<ChatArgs>),
    /// Print one answer on standard output and exit
    Run(Box<RunArgs>),
    /// Show a file's metadata, tensors, formats, bits per weight and memory plan
    Inspect(Box<InspectArgs>),
    /// Check everything there is to check in a file; exit code 3 on the first bad field
    Verify(VerifyArgs),
    /// Turn text into token ids, or ids into text, with a file's own tokenizer
    Tokenize(TokenizeArgs),
    /// Render a conversation through a file's own chat template
    Template(TemplateArgs),
    /// Write the logits of every position for exactly the token ids given
    Logits(Box<LogitsArgs>),
    /// Measure how well a model predicts a text, by llama.cpp's definition
    Perplexity(Box<PerplexityArgs>),
    /// Write a smaller file: a model's tensors rounded to fewer bits
    Quantize(Box<QuantizeArgs>),
    /// Write an importance matrix: how strong the activations are that meet each column of a model's matrices
    Imatrix(Box<ImatrixArgs>),
    /// Hold a model's formats against each other: size, quality, speed, in a report with plots
    Compare(Box<CompareArgs>),
    /// Measure how fast a model reads prompts and generates, and how much of what the machine gives that is
    Bench(Box<BenchArgs>),
    /// Show the CPU features, the kernel set chosen, memory and GPU adapters
    Devices(DevicesArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print a manual page (roff): `chaski man | man -l -`
    Man(ManArgs),
}

/// The model, as the first word or after `-m`.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct ModelArgs {
    #[cfg_attr(
        feature = "demo",
        doc = "A GGUF file, or any shard of a split set; or `demo`, the embedded model"
    )]
    #[cfg_attr(not(feature = "demo"), doc = "A GGUF file, or any shard of a split set")]
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The same, spelled as llama.cpp does
    #[arg(short = 'm', long = "model", value_name = "MODEL", id = "model_flag")]
    pub model_flag: Option<PathBuf>,
}

/// `chaski chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub conversation: ConversationArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub chat: ChatOnlyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub generation: GenerationArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `chaski run`
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// The prompt [default: standard input]
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    pub prompt: Option<String>,
    /// Read the prompt from a file, without its last newline
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// One JSON event a line instead of the bare answer
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub conversation: ConversationArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub generation: GenerationArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `chaski inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// One JSON object instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Also say which device each tensor would go to
    #[arg(long)]
    pub placement: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub batch: BatchArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub gpu: GpuArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: OverrideArgs,
}

/// `chaski verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// One JSON object instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `chaski tokenize`
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// A GGUF file: any file with a tokenizer, weights or not
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The text [default: standard input]
    #[arg(value_name = "TEXT", allow_negative_numbers = true)]
    pub text: Option<String>,
    /// The model, spelled as llama.cpp does
    #[arg(short = 'm', long = "model", value_name = "MODEL", id = "model_flag")]
    pub model_flag: Option<PathBuf>,
    /// Read the text from a file, byte for byte
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print only the ids, in decimal, separated by single spaces
    #[arg(long)]
    pub ids: bool,
    /// Add no automatic token at all (BOS, EOS, CLS, SEP)
    #[arg(long)]
    pub no_bos: bool,
    /// Control tokens written in the text are plain text; user-defined tokens still match
    #[arg(long)]
    pub no_special: bool,
    /// The other way round: the text is ids, separated by spaces or commas; a BOS or EOS put around them by tokenizing is
    /// not shown (with --no-bos there is none), control tokens are shown by name (with --no-special not at all)
    #[arg(long, conflicts_with = "ids")]
    pub detokenize: bool,
}

/// `chaski template`
#[derive(Debug, Args)]
pub struct TemplateArgs {
    /// A GGUF file with a chat template, or a bare template (`.jinja`)
    #[arg(value_name = "MODEL|FILE.jinja")]
    pub model: Option<PathBuf>,
    /// The same, spelled as llama.cpp does
    #[arg(short = 'm', long = "model", value_name = "MODEL", id = "model_flag", conflicts_with = "model")]
    pub model_flag: Option<PathBuf>,
    /// The conversation: a JSON array of messages
    #[arg(long, value_name = "FILE")]
    pub messages: PathBuf,
    /// Tools on offer: a JSON array
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Do not open the assistant's turn at the end
    #[arg(long)]
    pub no_generation_prompt: bool,
    /// The text of `bos_token` [default: the model's own; empty for a bare template]
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub bos: Option<String>,
    /// The text of `eos_token` [default: the model's own; empty for a bare template]
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub eos: Option<String>,
    /// The time that `strftime_now` sees, such as 2026-01-02T03:04:05 [default: now]
    #[arg(long, value_name = "TIME")]
    pub now: Option<String>,
}

/// `chaski logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// The token ids to evaluate, no other is added: 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true, value_parser = token_id)]
    pub tokens: Vec<u32>,
    /// The file to write: raw little-endian f32, n_tokens x n_vocab
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `chaski perplexity`
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    /// The text
    #[arg(short, long, value_name = "TEXT")]
    pub file: PathBuf,
    /// Only the first windows of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Also write what the model predicts, as a base for --kl-base: the most likely tokens of each prediction and the
    /// probability of all others
    #[arg(long, value_name = "FILE", conflicts_with = "kl_base")]
    pub save_kl_base: Option<PathBuf>,
    /// Also hold the predictions against a base of --save-kl-base: KL divergence, agreement on the most likely token
    #[arg(long, value_name = "FILE")]
    pub kl_base: Option<PathBuf>,
    /// Tokens of each prediction that --save-kl-base keeps [default: 256]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub kl_top: Option<u32>,
    /// One JSON object instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `chaski devices`
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// One JSON object instead of text
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `chaski completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `chaski man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command to describe [default: chaski itself]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

/// The commands of the contract that later versions bring: named, so that nobody takes them for a file.
pub const NOT_BUILT_YET: &[&str] = &["embed"];

/// A token id, with spaces around it passed over: `1, 2, 3` is typed as often as `1,2,3`.
fn token_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "not a token id".to_owned())
}
