//! What steers the model: special tokens, what is put around a text, what ends an answer, and the chat template.

use std::path::Path;

use chaski_gguf::{Gguf, OwnedValue, Writer, keys};

use super::ImportError;
use super::json::{Field, Json, read_bytes};
use super::vocab::{Edge, Vocabulary};
use crate::tokenizer::Tokenizer;

/// The special tokens by the names that the library gives them.
const SPECIAL: &[(&str, &str)] = &[
    ("bos", keys::TOKENIZER_BOS_ID),
    ("eos", keys::TOKENIZER_EOS_ID),
    ("unk", keys::TOKENIZER_UNK_ID),
    ("sep", keys::TOKENIZER_SEP_ID),
    ("pad", keys::TOKENIZER_PAD_ID),
    ("cls", keys::TOKENIZER_CLS_ID),
    ("mask", keys::TOKENIZER_MASK_ID),
];

/// Keys with their values, in the order of the file.
type Metadata = Vec<(String, OwnedValue)>;

/// Everything that a file says of its tokenizer. A tokenizer is built from it, so that what does not work is an error here.
pub(super) fn complete(
    folder: &Path,
    config: &Json,
    vocabulary: Vocabulary,
) -> Result<Metadata, ImportError> {
    let own = Json::read_if_there(&folder.join("tokenizer_config.json"))?;
    let map = Json::read_if_there(&folder.join("special_tokens_map.json"))?;
    let generation = Json::read_if_there(&folder.join("generation_config.json"))?;
    let Vocabulary { model, pre, tokens, scores, merges, add_space_prefix, around } = vocabulary;
    let n_tokens = tokens.ids().values().max().map_or(0, |id| *id + 1);
    let mut special: Vec<(&str, u32)> = Vec::new();
    {
        let ids = tokens.ids();
        for (name, _) in SPECIAL {
            let files = own.iter().chain(&map).map(|file| file.get(&format!("{name}_token")));
            let mut found = None;
            for field in files {
                found = found.or(token_text(&field)?.and_then(|text| ids.get(text).copied()));
            }
            let of_config = config.get(&format!("{name}_token_id"));
            if let Some(id) = found.map_or_else(|| first_id(&of_config), |id| Ok(Some(id)))? {
                if id >= n_tokens {
                    return Err(of_config.bad(format!("is {id}, but the tokenizer has {n_tokens} tokens")));
                }
                special.push((*name, id));
            }
        }
        // A token that is put before every text begins it, whatever the other files leave out.
        if let Edge::Token(text) = &around[0]
            && let Some(id) = ids.get(text.as_str())
            && !special.iter().any(|(name, _)| *name == "bos")
        {
            special.insert(0, ("bos", *id));
        }
    }
    let id_of = |name: &str| special.iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
    // What is put around a text: the post-processor's word counts before the flag. The libraries' byte-level tokenizers put
    // nothing by themselves, whereas some names of pre-tokenizers imply a BOS.
    let mut adds = Vec::new();
    let edges =
        ["bos", "eos"].into_iter().zip([keys::TOKENIZER_ADD_BOS, keys::TOKENIZER_ADD_EOS]).zip(around);
    for ((name, key), edge) in edges {
        let said = match &own {
            Some(own) => own.get(&format!("add_{name}_token")).flag()?,
            None => None,
        };
        let of_template = match edge {
            Edge::Unsaid => None,
            Edge::Nothing => Some(false),
            Edge::Token(text) => {
                let same = id_of(name).is_some_and(|id| tokens.text(id.into()) == Some(&text));
                if !same {
                    tracing::warn!(
                        "tokenizer.json puts {text:?} at one end of a text, which is not the {name} token: left out"
                    );
                }
                Some(same)
            }
        };
        let default = (model == "gpt2").then_some(false);
        if let Some(add) = of_template.or(said).or(default) {
            adds.push((key, add));
        }
    }

    let (texts, kinds) = tokens.finish();
    let mut all: Metadata = vec![
        (keys::TOKENIZER_MODEL.into(), model.into()),
        (keys::TOKENIZER_PRE.into(), pre.into()),
        (keys::TOKENIZER_TOKENS.into(), texts.into()),
    ];
    all.extend(scores.map(|scores| (keys::TOKENIZER_SCORES.into(), scores.into())));
    all.push((keys::TOKENIZER_TOKEN_TYPE.into(), kinds.into()));
    all.extend(merges.map(|merges| (keys::TOKENIZER_MERGES.into(), merges.into())));
    for (name, key) in SPECIAL {
        all.extend(id_of(name).map(|id| ((*key).to_owned(), id.into())));
    }
    all.extend(adds.into_iter().map(|(key, add)| (key.to_owned(), add.into())));
    all.extend(add_space_prefix.map(|add| (keys::TOKENIZER_ADD_SPACE_PREFIX.into(), add.into())));
    if let Some(generation) = &generation {
        ends(&generation.get("eos_token_id"), n_tokens, &mut all)?;
    }
    tokenizer_of(&all)?;
    templates(folder, own.as_ref(), &mut all)?;
    Ok(all)
}

/// The text of a token: `"</s>"`, or `{"content": "</s>", ...}`.
fn token_text<'a>(field: &Field<'a>) -> Result<Option<&'a str>, ImportError> {
    let content = field.get("content");
    if content.is_there() { content.text() } else { field.text() }
}

/// An id, or the first of several; -1 stands for none.
fn first_id(field: &Field<'_>) -> Result<Option<u32>, ImportError> {
    match field.value() {
        Some(value) if value.is_array() => match field.elements()?.first() {
            Some(first) => first.count(),
            None => Ok(None),
        },
        Some(value) if value.as_i64() == Some(-1) => Ok(None),
        _ => field.count(),
    }
}

fn tokenizer_of(metadata: &Metadata) -> Result<Tokenizer, ImportError> {
    let mut writer = Writer::new();
    for (key, value) in metadata {
        writer.set(key, value.clone())?;
    }
    Ok(Tokenizer::from_gguf(&Gguf::from_head(&writer.layout()?.head)?)?)
}

/// Every token that `generation_config.json` ends an answer at shall do so here. A file has room for three; those that a
/// tokenizer knows by their texts need none.
fn ends(field: &Field<'_>, n_tokens: u32, all: &mut Metadata) -> Result<(), ImportError> {
    let mut wanted = Vec::new();
    if field.value().is_some_and(serde_json::Value::is_array) {
        for element in field.elements()? {
            wanted.extend(element.count()?);
        }
    } else {
        wanted.extend(first_id(field)?);
    }
    if let Some(id) = wanted.iter().find(|id| **id >= n_tokens) {
        return Err(field.bad(format!("names token {id}, but the tokenizer has {n_tokens} tokens")));
    }
    for key in [keys::TOKENIZER_EOS_ID, keys::TOKENIZER_EOT_ID, keys::TOKENIZER_EOM_ID] {
        let known = tokenizer_of(all)?;
        let Some(id) = wanted.iter().find(|id| !known.is_end_of_generation(**id)) else { return Ok(()) };
        if !all.iter().any(|(k, _)| k == key) {
            all.push((key.to_owned(), (*id).into()));
        }
    }
    let known = tokenizer_of(all)?;
    wanted.retain(|id| !known.is_end_of_generation(*id));
    if !wanted.is_empty() {
        tracing::warn!(
            "generation_config.json ends an answer at more tokens than a GGUF can name; an answer will not end at {wanted:?}"
        );
    }
    Ok(())
}

/// A file of text.
fn text_of(path: &Path) -> Result<Option<String>, ImportError> {
    let of = |bytes| String::from_utf8(bytes).map_err(|_| ImportError::bad(path, "the file", "is not UTF-8"));
    read_bytes(path)?.map(of).transpose()
}

/// Where further templates lie beside `chat_template.jinja`.
const ADDITIONAL: &str = "additional_chat_templates";

/// The names of the templates in [`ADDITIONAL`], in their order as text.
fn additional(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join(ADDITIONAL)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(".jinja").map(str::to_owned)).collect();
    names.sort();
    names
}

/// The chat template: a file of its own, or a field of `tokenizer_config.json`, one or several by name.
fn templates(folder: &Path, own: Option<&Json>, all: &mut Metadata) -> Result<(), ImportError> {
    if let Some(text) = text_of(&folder.join("chat_template.jinja"))? {
        all.push((keys::CHAT_TEMPLATE.into(), text.into()));
        let names = additional(folder);
        for name in &names {
            let text = text_of(&folder.join(ADDITIONAL).join(format!("{name}.jinja")))?;
            all.extend(text.map(|text| (keys::chat_template_named(name), text.into())));
        }
        if !names.is_empty() {
            all.push((keys::CHAT_TEMPLATES.into(), names.into()));
        }
        return Ok(());
    }
    let file = Json::read_if_there(&folder.join("chat_template.json"))?;
    for json in file.iter().chain(own) {
        let field = json.get("chat_template");
        if !field.value().is_some_and(serde_json::Value::is_array) {
            if let Some(text) = field.text()? {
                all.push((keys::CHAT_TEMPLATE.into(), text.into()));
                return Ok(());
            }
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        for entry in field.elements()? {
            let (name, text) = (entry.get("name").need_text()?, entry.get("template").need_text()?);
            if name == "default" {
                all.push((keys::CHAT_TEMPLATE.into(), text.into()));
            } else {
                all.push((keys::chat_template_named(name), text.into()));
                names.push(name.to_owned());
            }
        }
        if !names.is_empty() {
            all.push((keys::CHAT_TEMPLATES.into(), names.into()));
        }
        return Ok(());
    }
    Ok(())
}
