//! From flags to a model that is ready to talk: what `run` and `chat` share.

use serde_json::Value;

use super::exit::Failure;
use super::load;
use super::options::{Conversation, EngineOptions, Generation, TemplateChoice};
use super::source::ModelSource;
use crate::chat::conversation::Chat;
use crate::chat::template::{DEFAULT, Template};
use crate::engine::{Engine, Session};
use crate::tokenizer::Tokenizer;

/// Where the template in use comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplateSource {
    /// The model file.
    Model,
    /// `--chat-template`.
    Named(String),
    /// The file has none: the named default.
    Default,
}

/// A model ready to talk.
pub(super) struct Loaded {
    pub(super) chat: Chat,
    pub(super) source: TemplateSource,
}

/// Load the model with its tokenizer and template.
///
/// # Errors
/// The file cannot be run or does not fit, its tokenizer or template cannot be used, or sampling
/// parameters are out of range.
pub(super) fn load(
    from: &ModelSource,
    engine: &EngineOptions,
    conversation: &Conversation,
    generation: &Generation,
) -> anyhow::Result<Loaded> {
    let engine = load::load(from, engine, None, load::Wanted::Last)?;
    let file = engine.model().file().clone();
    let tokenizer = tokenizer(from, &engine)?;
    let own = file.str("tokenizer.chat_template").map_err(|e| from.named(e))?;
    let (template, source) = match (&conversation.template, own) {
        (TemplateChoice::Named(name), _) => {
            (Template::from_name_or_file(name), TemplateSource::Named(name.clone()))
        }
        (TemplateChoice::Model, Some(text)) => (Template::parse(text), TemplateSource::Model),
        (TemplateChoice::Model, None) | (TemplateChoice::Raw, _) => {
            (Template::from_name_or_file(DEFAULT), TemplateSource::Default)
        }
    };
    let template = template.map_err(|e| match &source {
        TemplateSource::Model => Failure::failed(format!(
            "the chat template of {from} cannot be used (--chat-template NAME chooses another)"
        ))
        .because(e),
        TemplateSource::Named(_) | TemplateSource::Default => Failure::input(e.to_string()),
    })?;
    let session = Session::new(engine);
    let mut chat =
        Chat::new(session, tokenizer, template, generation.sampling.clone(), generation.ignore_eos)?;
    if let Some(reasoning) = conversation.reasoning {
        chat.variables.insert("enable_thinking".into(), Value::Bool(reasoning));
    }
    Ok(Loaded { chat, source })
}

/// The tokenizer of a loaded model, with its warnings said.
///
/// # Errors
/// It cannot be used, or has tokens that the model has no embedding of.
pub(super) fn tokenizer(source: &ModelSource, engine: &Engine) -> anyhow::Result<Tokenizer> {
    let model = engine.model();
    let tokenizer = Tokenizer::from_gguf(model.file()).map_err(|e| source.named(e))?;
    for warning in tokenizer.warnings() {
        tracing::warn!("{warning}");
    }
    let (tokens, rows) = (tokenizer.vocab_size(), model.hparams().n_vocab);
    if tokens > rows {
        let why = format!("tokenizer.ggml.tokens has {tokens} tokens, token_embd.weight only {rows} rows");
        return Err(Failure::input(format!("{source}: {why}")).into());
    }
    Ok(tokenizer)
}
