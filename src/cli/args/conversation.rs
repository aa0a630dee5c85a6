use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How a prompt becomes a conversation.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Conversation")]
pub struct ConversationArgs {
    /// The system prompt [short: -sys]
    #[arg(long, visible_alias = "system", value_name = "TEXT", allow_hyphen_values = true)]
    pub system_prompt: Option<String>,
    /// The chat template: a name or a file [default: the model's own]
    #[arg(long, value_name = "NAME|FILE")]
    pub chat_template: Option<String>,
    /// No chat template: the text as it is, with BOS where the model adds one
    #[arg(long, conflicts_with_all = ["chat_template", "system_prompt", "reasoning"])]
    pub raw: bool,
    /// Whether the template asks the model to reason first [default: the template's own]
    #[arg(long, value_name = "on|off")]
    pub reasoning: Option<Switch>,
}

/// What only a conversation of several turns has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Conversation")]
pub struct ChatOnlyArgs {
    /// What to do when the context is full [default: stop]
    #[arg(long, value_name = "POLICY")]
    pub on_full: Option<OnFull>,
    /// Resume the last conversation
    #[arg(long = "continue")]
    pub resume: bool,
    /// Keep the conversation in this file [default: a new one in the user's state directory]
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
}

/// `on` or `off`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

/// What to do when a conversation fills the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// End the answer and say so
    #[default]
    Stop,
    /// Forget the oldest turn, keep the system prompt, and go on
    DropOldestTurn,
}
