//! Conversations: templates, the interactive session, and transcripts.

pub mod template;
