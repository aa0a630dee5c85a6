//! What a template can do, found by looking at it or by trying it.

use serde_json::{Value, json};

use super::{RenderInput, Template};

/// Marks that models put around their reasoning: how it opens, how it closes. A template that names the
/// closing mark, or both parts of the opening one, is for a model that reasons in these marks.
const REASONING: &[(&str, &str)] = &[
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|think|>", "<|/think|>"),
    ("<mm:think>", "</mm:think>"),
    ("<thinking>", "</thinking>"),
    ("<think>", "</think>"),
];

impl Template {
    /// The marks around the model's reasoning, where the template names some that are known: how it opens and
    /// how it closes. Only what the template could write counts, not its comments.
    pub fn reasoning_delimiters(&self) -> Option<(&'static str, &'static str)> {
        let texts: Vec<&str> = self
            .rewritten
            .literals
            .iter()
            .map(String::as_str)
            .chain(self.rewritten.raw.iter().map(|r| &**r))
            .collect();
        let has = |part: &str| texts.iter().any(|text| text.contains(part));
        REASONING.iter().copied().find(|(open, close)| match *open {
            // Written in pieces, and `<|end|>` ends every message of these models.
            "<|channel|>analysis<|message|>" => {
                has("<|channel|>analysis") || has("<|channel|>") && has("analysis")
            }
            "<|channel>thought\n" => has("<|channel>thought") || has("<|channel>") && has(close),
            _ => has(close) || has(open),
        })
    }

    /// Whether a system message reaches the text: some templates refuse one, some leave it out.
    /// Where it does not, [`fold_system`] keeps what it says.
    pub fn supports_system(&self) -> bool {
        const PROBE: &str = "chaski-system-probe";
        let input = RenderInput {
            messages: json!([{ "role": "system", "content": PROBE }, { "role": "user", "content": "Hello" }]),
            add_generation_prompt: true,
            ..RenderInput::default()
        };
        self.render(&input).is_ok_and(|rendered| rendered.text.contains(PROBE))
    }
}

/// Puts the system messages that a conversation begins with in front of its first user message, for templates
/// without a place for them. Without a user message, they become one. What is no array comes back unchanged.
pub fn fold_system(messages: &Value) -> Value {
    let Some(list) = messages.as_array() else { return messages.clone() };
    let is = |message: &Value, roles: &[&str]| {
        message.get("role").and_then(Value::as_str).is_some_and(|role| roles.contains(&role))
    };
    let count = list.iter().take_while(|m| is(m, &["system", "developer"])).count();
    if count == 0 {
        return messages.clone();
    }
    let (system, rest) = list.split_at(count);
    let system: Vec<String> = system.iter().filter_map(|m| m.get("content")).map(text_of).collect();
    let system = system.join("\n\n");
    let mut rest = rest.to_vec();
    match rest.iter_mut().find(|m| is(m, &["user"])).and_then(|m| m.get_mut("content")) {
        Some(Value::Array(parts)) => {
            parts.insert(0, json!({ "type": "text", "text": format!("{system}\n\n") }));
        }
        Some(content) => *content = Value::String(format!("{system}\n\n{}", text_of(content))),
        None => rest.insert(0, json!({ "role": "user", "content": system })),
    }
    Value::Array(rest)
}

/// The text of a message's content, which is a string or a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p.get("text")).filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}
