//! A conversation and a model that takes part in it.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::generate::{GenerateError, GenerateOptions, Outcome, Progress, TokenizerPieces, generate};
use super::template::{RenderInput, Template, TemplateError, fold_system};
use super::text::Piece;
use crate::engine::Session;
use crate::sample::{self, Params, Sampler};
use crate::tokenizer::{EncodeOptions, Part, Tokenizer};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the stage.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The model's reasoning before it, kept apart: templates decide whether it is shown again.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "reasoning_content")]
    pub reasoning: String,
}

impl Message {
    /// A message without reasoning.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into(), reasoning: String::new() }
    }
}

/// Turns in order, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The system prompt, if there is one.
    pub system: Option<String>,
    /// What was said.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// In the form that templates take.
    fn to_json(&self) -> Value {
        let system = self.system.iter().map(|text| json!({ "role": "system", "content": text }));
        let said = self.messages.iter().map(|m| {
            let mut object = Map::new();
            object.insert("role".into(), json!(m.role));
            object.insert("content".into(), json!(m.content));
            if !m.reasoning.is_empty() {
                object.insert("reasoning_content".into(), json!(m.reasoning));
            }
            Value::Object(object)
        });
        system.chain(said).collect()
    }
}

/// What can go wrong in a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template.
    #[error("chat template: {0}")]
    Template(#[from] TemplateError),
    /// The answer.
    #[error("{0}")]
    Generate(#[from] GenerateError),
    /// The sampler's parameters.
    #[error("{0}")]
    Sample(#[from] sample::Error),
}

/// A loaded model with everything that it needs to talk.
pub struct Chat {
    session: Session,
    tokenizer: Tokenizer,
    template: Template,
    sampler: Sampler,
    supports_system: bool,
    reasoning_marks: Option<(&'static str, &'static str)>,
    special_tokens: Vec<String>,
    turn_tokens: Vec<String>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Chat {
    /// Bring a session, its tokenizer, a template and sampling parameters together. With
    /// `ignore_eos` the tokens that end a generation are never sampled.
    ///
    /// # Errors
    /// The parameters are out of range.
    pub fn new(
        session: Session,
        tokenizer: Tokenizer,
        template: Template,
        params: Params,
        ignore_eos: bool,
    ) -> Result<Chat, ChatError> {
        let sampler = make_sampler(&session, &tokenizer, params, ignore_eos)?;
        let special_tokens = special_texts(&tokenizer);
        let reasoning_marks = template.reasoning_delimiters();
        let turn_tokens = turn_texts(&tokenizer, &template, &special_tokens, reasoning_marks);
        Ok(Chat {
            supports_system: template.supports_system(),
            reasoning_marks,
            session,
            tokenizer,
            template,
            sampler,
            special_tokens,
            turn_tokens,
            variables: Map::new(),
        })
    }
    /// The sequence in the cache.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }
    /// The sampler.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }
    /// The marks around reasoning that the template knows.
    pub fn reasoning_marks(&self) -> Option<(&'static str, &'static str)> {
        self.reasoning_marks
    }
    /// Sample with other parameters from now on.
    ///
    /// # Errors
    /// They are out of range; nothing has changed then.
    pub fn set_params(&mut self, params: Params, ignore_eos: bool) -> Result<(), ChatError> {
        self.sampler = make_sampler(&self.session, &self.tokenizer, params, ignore_eos)?;
        Ok(())
    }

    /// The text of a conversation up to where the model is to speak, and its tokens.
    ///
    /// # Errors
    /// The template refuses the conversation.
    pub fn prompt(&self, conversation: &Conversation) -> Result<(String, Vec<u32>), ChatError> {
        let mut messages = conversation.to_json();
        if conversation.system.is_some() && !self.supports_system {
            messages = fold_system(&messages);
        }
        let text_of = |id: Option<u32>| {
            id.map(|id| String::from_utf8_lossy(self.tokenizer.token_bytes(id)).into_owned())
                .unwrap_or_default()
        };
        let special = self.tokenizer.special();
        let rendered = self.template.render(&RenderInput {
            messages,
            add_generation_prompt: true,
            bos_token: text_of(special.bos),
            eos_token: text_of(special.eos),
            extra: self.variables.clone(),
            special_tokens: self.special_tokens.clone(),
            turn_tokens: self.turn_tokens.clone(),
            ..RenderInput::default()
        })?;
        let mut parts = Vec::new();
        let mut at = 0;
        for span in &rendered.user_spans {
            parts.push(Part { text: &rendered.text[at..span.start], parse_special: true });
            parts.push(Part { text: &rendered.text[span.clone()], parse_special: false });
            at = span.end;
        }
        parts.push(Part { text: &rendered.text[at..], parse_special: true });
        let tokens = with_bos(&self.tokenizer, self.tokenizer.encode_parts(&parts, false));
        Ok((rendered.text, tokens))
    }

    /// Let the model answer. See [`generate`].
    ///
    /// # Errors
    /// The template refuses the conversation, or generation fails.
    pub fn answer(
        &mut self,
        conversation: &Conversation,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        emit: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Outcome, ChatError> {
        let (text, tokens) = self.prompt(conversation)?;
        let mut options = options.clone();
        if let Some((open, close)) = self.reasoning_marks {
            options.in_reasoning = text.trim_end().ends_with(open);
            options.reasoning = Some((open.into(), close.into()));
        }
        self.generate(&tokens, &options, watch, emit)
    }

    /// Continue raw text: BOS where the model adds one, control tokens where they are written.
    ///
    /// # Errors
    /// Generation fails.
    pub fn complete(
        &mut self,
        text: &str,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        emit: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Outcome, ChatError> {
        let tokens = self.raw_prompt(text);
        self.generate(&tokens, options, watch, emit)
    }

    /// Go on with an answer that has begun. `prompt` holds the tokens before it, which may have become fewer since: turns
    /// were dropped. Stop strings that lie across the seam are not found.
    ///
    /// # Errors
    /// Generation fails.
    pub fn go_on(
        &mut self,
        prompt: &[u32],
        begun: &Outcome,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        emit: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Outcome, ChatError> {
        let mut options = options.clone();
        options.max_tokens = options.max_tokens.map(|most| most.saturating_sub(begun.tokens.len()));
        if let Some((open, close)) = self.reasoning_marks {
            options.in_reasoning = begun.text.is_empty() && !begun.reasoning.is_empty();
            options.reasoning = Some((open.into(), close.into()));
        }
        let tokens = [prompt, &begun.tokens].concat();
        self.generate(&tokens, &options, watch, emit)
    }

    /// The tokens of raw text, as [`Chat::complete`] reads it.
    pub fn raw_prompt(&self, text: &str) -> Vec<u32> {
        let plain = EncodeOptions { add_special: false, parse_special: true };
        with_bos(&self.tokenizer, self.tokenizer.encode(text, plain))
    }

    fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        emit: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Outcome, ChatError> {
        let Chat { session, tokenizer, sampler, .. } = self;
        Ok(generate(session, tokenizer, sampler, prompt, options, watch, emit)?)
    }
}

fn make_sampler(
    session: &Session,
    tokenizer: &Tokenizer,
    mut params: Params,
    ignore_eos: bool,
) -> Result<Sampler, ChatError> {
    if ignore_eos {
        params.logit_bias.extend(tokenizer.end_of_generation().iter().map(|id| (*id, f32::NEG_INFINITY)));
    }
    let n_vocab = session.engine().model().hparams().n_vocab;
    Ok(Sampler::new(params, n_vocab, &TokenizerPieces(tokenizer))?)
}

/// The tokens with BOS before them where the model adds one and the text has not brought its own:
/// many templates write it themselves.
fn with_bos(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    if let Some(bos) = tokenizer.special().bos.filter(|_| tokenizer.adds_bos())
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    tokens
}

/// The texts of the vocabulary's control tokens, which nothing that a user types may become.
fn special_texts(tokenizer: &Tokenizer) -> Vec<String> {
    let ids = 0..tokenizer.vocab_size() as u32;
    let control = ids.filter(|id| tokenizer.token_kind(*id).is_special());
    control
        .filter_map(|id| std::str::from_utf8(tokenizer.token_bytes(id)).ok())
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Those control tokens that not even the model's own past answers may produce: the ones that begin
/// or end turns. They are the BOS and end-of-generation tokens, and every other control token that
/// the template writes, but for the marks of reasoning and of tools.
fn turn_texts(
    tokenizer: &Tokenizer,
    template: &Template,
    special: &[String],
    reasoning: Option<(&str, &str)>,
) -> Vec<String> {
    let known = tokenizer.special().bos.iter().chain(tokenizer.end_of_generation());
    let mut texts: Vec<String> =
        known.filter_map(|id| String::from_utf8(tokenizer.token_bytes(*id).to_vec()).ok()).collect();
    let is_mark = |text: &str| {
        text.to_lowercase().contains("tool") || reasoning.is_some_and(|(a, b)| text == a || text == b)
    };
    texts.extend(special.iter().filter(|t| template.source().contains(t.as_str()) && !is_mark(t)).cloned());
    texts.retain(|t| !t.is_empty());
    texts.sort_unstable();
    texts.dedup();
    texts
}
