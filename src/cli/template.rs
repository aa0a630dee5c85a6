//! `chaski template`: a conversation through a chat template.

use std::io::Read;
use std::path::Path;

use chaski_gguf::{Gguf, keys};
use serde_json::Value as Json;

use super::args::TemplateArgs;
use super::exit::Failure;
use super::source::ModelSource;
use super::{file, output};
use crate::chat::template::{RenderInput, Template, parse_time};

pub(super) fn run(args: &TemplateArgs) -> anyhow::Result<()> {
    let model = ModelSource::new(args.model.clone().or_else(|| args.model_flag.clone()))?;
    let now = match &args.now {
        None => None,
        Some(text) => Some(parse_time(text).map_err(|why| Failure::usage(format!("--now: {why}")))?),
    };
    let messages = json_array("--messages", &args.messages)?;
    let tools = args.tools.as_ref().map(|path| json_array("--tools", path)).transpose()?;
    let mut input = RenderInput {
        messages,
        add_generation_prompt: !args.no_generation_prompt,
        now,
        ..RenderInput::default()
    };
    let bare = match model.path() {
        Some(path) if !is_gguf(path)? => Some(path),
        _ => None,
    };
    let source = if let Some(path) = bare {
        String::from_utf8(file::read(path)?).map_err(|error| {
            Failure::input(format!("{} is no template: it is not UTF-8", path.display())).because(error)
        })?
    } else {
        let gguf = model.open(true, &[])?;
        input.bos_token = token_text(&gguf, keys::TOKENIZER_BOS_ID)?;
        input.eos_token = token_text(&gguf, keys::TOKENIZER_EOS_ID)?;
        model_template(&gguf, tools.is_some())?.ok_or_else(|| {
            Failure::input(format!("{model} has no chat template (tokenizer.chat_template)"))
        })?
    };
    input.tools = tools;
    if let Some(bos) = &args.bos {
        input.bos_token.clone_from(bos);
    }
    if let Some(eos) = &args.eos {
        input.eos_token.clone_from(eos);
    }
    let rendered = Template::parse(&source)?.render(&input)?;
    Ok(output::stdout(|out| out.write_all(rendered.text.as_bytes()))?)
}

/// The template of a model file; where tools are on offer and the file has one for that, that one.
pub(super) fn model_template(gguf: &Gguf, tools: bool) -> anyhow::Result<Option<String>> {
    if tools && let Some(text) = gguf.str("tokenizer.chat_template.tool_use")? {
        return Ok(Some(text.to_owned()));
    }
    Ok(gguf.str(keys::CHAT_TEMPLATE)?.map(str::to_owned))
}

/// The text of the token that this key names, from the vocabulary itself: no tokenizer that could be run is needed. Empty if
/// there is none.
fn token_text(gguf: &Gguf, key: &str) -> anyhow::Result<String> {
    let (Some(id), Some(tokens)) = (gguf.token_id(key)?, gguf.string_array(keys::TOKENIZER_TOKENS)?) else {
        return Ok(String::new());
    };
    let token = tokens.strings().and_then(|mut all| all.nth(id as usize));
    let token = token
        .ok_or_else(|| Failure::input(format!("{key}: token {id} of a vocabulary of {}", tokens.len)))?;
    Ok(token.to_owned())
}

/// Whether a file is to be read as a model: by its first bytes, or else by its name.
fn is_gguf(path: &Path) -> Result<bool, Failure> {
    let cannot = |error| Failure::input(format!("cannot read {}", path.display())).because(error);
    if path.is_dir() {
        return Err(Failure::input(format!("{} is a folder; name a file in it", path.display())));
    }
    let mut magic = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(4).read_to_end(&mut magic)).map_err(cannot)?;
    Ok(magic == b"GGUF" || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")))
}

fn json_array(flag: &str, path: &Path) -> Result<Json, Failure> {
    let bytes = file::read(path)?;
    let value: Json = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::input(format!("{flag} {} is not JSON", path.display())).because(error))?;
    if value.is_array() {
        Ok(value)
    } else {
        Err(Failure::input(format!("{flag} {} is not a JSON array", path.display())))
    }
}
