//! How a prompt becomes a conversation.

use crate::cli::args::{ConversationArgs, Switch};

/// How a prompt becomes a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The system prompt.
    pub system: Option<String>,
    /// Where the template comes from.
    pub template: TemplateChoice,
    /// What the template is told of reasoning; none = nothing, so that its own default holds.
    pub reasoning: Option<bool>,
}

/// Where a chat template comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The model's own.
    Model,
    /// A name or a file.
    Named(String),
    /// None: the text as it is.
    Raw,
}

impl Conversation {
    /// What the flags mean; clap has refused those that contradict each other.
    pub fn new(args: &ConversationArgs) -> Conversation {
        let template = match (&args.chat_template, args.raw) {
            (_, true) => TemplateChoice::Raw,
            (Some(name), false) => TemplateChoice::Named(name.clone()),
            (None, false) => TemplateChoice::Model,
        };
        Conversation {
            system: args.system_prompt.clone(),
            template,
            reasoning: args.reasoning.map(|switch| switch == Switch::On),
        }
    }
}
