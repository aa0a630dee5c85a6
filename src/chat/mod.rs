//! Conversations: templates, generation, the interactive session, and transcripts.

pub mod conversation;
pub mod generate;
pub mod repl;
pub mod template;
pub mod text;
pub mod transcript;
mod turns;
