use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Streams, colour and logging: valid before and after every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Say more on standard error (twice: everything)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors on standard error
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Write the log to a file too, in full detail
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// No colour (the same as a NO_COLOR in the environment)
    #[arg(long, global = true)]
    pub no_color: bool,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}
