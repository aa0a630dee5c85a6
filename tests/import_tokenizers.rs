//! Real vocabularies, written as `tokenizer.json` or `tokenizer.model` and imported again, give the ids that they gave.

mod common;

use std::fs;
use std::path::Path;

use chaski::quant::{Folder as Source, ImportOptions, Source as _};
use chaski::tokenizer::{EncodeOptions, TokenKind, Tokenizer};
use chaski_gguf::{Format, Gguf, keys};
use common::hf::{Folder, QWEN2, Raw};
use common::test_data;
use serde_json::{Map, Value as Json, json};

/// The smallest llama that has room for `n` tokens.
fn model(n: usize) -> Folder {
    let vector = |name: &str| Raw::f32s(name, &[2], &[1.0; 2]);
    let matrix = |name: &str| Raw::f32s(name, &[2, 2], &[1.0; 4]);
    let mut tensors = vec![
        Raw::new("model.embed_tokens.weight", "BF16", &[n as u64, 2], vec![0; n * 4]),
        vector("model.norm.weight"),
        vector("model.layers.0.input_layernorm.weight"),
        vector("model.layers.0.post_attention_layernorm.weight"),
    ];
    for module in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ] {
        tensors.push(matrix(&format!("model.layers.0.{module}.weight")));
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 2, "intermediate_size": 2, "num_attention_heads": 1,
        "num_hidden_layers": 1, "max_position_embeddings": 8, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
        "vocab_size": n,
    });
    Folder { config, tokenizer: Json::Null, tensors, files: Vec::new(), shards: 1 }
}

fn import(folder: &Folder) -> Gguf {
    let at = tempfile::tempdir().unwrap();
    folder.write(at.path());
    let source = Source::open(at.path(), &ImportOptions::new(Format::F16)).unwrap();
    let mut writer = chaski_gguf::Writer::new();
    writer.copy_metadata(source.head(), |_| true).unwrap();
    Gguf::from_head(&writer.layout().unwrap().head).unwrap()
}

fn strings<'a>(file: &'a Gguf, key: &str) -> Vec<&'a str> {
    file.require_string_array(key).unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

/// Texts of the vocabulary's own and of WikiText.
fn texts(data: &Path, name: &str) -> Vec<String> {
    let own = fs::read_to_string(data.join(format!("vocab/{name}.gguf.inp"))).unwrap_or_default();
    let mut texts: Vec<String> = own.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    let wiki = fs::read_to_string(data.join("text/wikitext2.valid.txt")).unwrap();
    texts.extend(wiki.lines().take(600).map(str::to_owned));
    texts.push("<s><|im_start|>user\nA <|eot_id|></s> <unk> <0x41>".to_owned());
    texts
}

fn same_ids(name: &str, data: &Path, old: &Gguf, new: &Gguf) {
    let (old, new) = (Tokenizer::from_gguf(old).unwrap(), Tokenizer::from_gguf(new).unwrap());
    for text in texts(data, name) {
        for parse_special in [false, true] {
            let options = EncodeOptions { add_special: false, parse_special };
            assert_eq!(new.encode(&text, options), old.encode(&text, options), "{name}: {text:?}");
        }
    }
    for id in 0..old.vocab_size() as u32 {
        assert_eq!(new.token_bytes(id), old.token_bytes(id), "{name}: token {id}");
    }
}

fn split(regex: &str) -> Json {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

/// The pre-tokenizer of a vocabulary as its `tokenizer.json` has it, and whether words that are tokens are never cut.
fn rules(name: &str) -> (Vec<Json>, bool) {
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let cjk = split("[一-龥ࠀ-一가-\u{D7FF}]+");
    let steps = match name {
        "llama-bpe" => vec![split(&QWEN2.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")), bytes(false)],
        "qwen2" => vec![split(QWEN2), bytes(false)],
        "qwen35" => {
            let words = QWEN2
                .replace(r"?\p{L}+", r"?[\p{L}\p{M}]+")
                .replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]");
            vec![split(&words), bytes(false)]
        }
        "gpt-2" => vec![bytes(true)],
        "starcoder" => vec![digits, bytes(true)],
        "falcon" => vec![
            json!({"type": "Punctuation", "behavior": "Contiguous"}),
            bytes(true),
            json!({"type": "Digits", "individual_digits": false}),
            split("[0-9][0-9][0-9]"),
        ],
        "deepseek-coder" => {
            vec![split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), cjk, digits, bytes(false)]
        }
        _ => panic!("{name}: give its rules"),
    };
    (steps, name == "llama-bpe")
}

#[test]
fn byte_level_vocabularies_survive_the_way_through_tokenizer_json() {
    let Some(data) = test_data("byte_level_vocabularies_survive_the_way_through_tokenizer_json") else {
        return;
    };
    for (i, name) in ["llama-bpe", "qwen2", "qwen35", "gpt-2", "starcoder", "falcon", "deepseek-coder"]
        .into_iter()
        .enumerate()
    {
        let old = Gguf::open(data.join(format!("vocab/{name}.gguf"))).unwrap();
        let tokenizer = Tokenizer::from_gguf(&old).unwrap();
        let tokens = strings(&old, keys::TOKENIZER_TOKENS);
        let types: Vec<i64> = old
            .get(keys::TOKENIZER_TOKEN_TYPE)
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .collect();
        let (mut vocab, mut added) = (Map::new(), Vec::new());
        for (id, (text, kind)) in tokens.iter().zip(&types).enumerate() {
            match TokenKind::from_id(*kind) {
                TokenKind::Unused => {}
                TokenKind::Normal => drop(vocab.insert((*text).to_owned(), json!(id))),
                kind => added.push(json!({"id": id, "content": text, "special": kind == TokenKind::Control})),
            }
        }
        // Both spellings of merges.
        let merges: Vec<Json> = strings(&old, keys::TOKENIZER_MERGES)
            .into_iter()
            .map(|m| if i % 2 == 0 { json!(m) } else { json!(m.split_once(' ').unwrap()) })
            .collect();
        let (steps, ignore_merges) = rules(name);
        let mut folder = model(tokens.len());
        folder.tokenizer = json!({
            "added_tokens": added,
            "normalizer": if name == "qwen2" { json!({"type": "NFC"}) } else { Json::Null },
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": ignore_merges},
        });
        let new = import(&folder);
        let pre = new.require_str(keys::TOKENIZER_PRE).unwrap();
        assert_eq!(Some(pre), tokenizer.pre(), "{name}");
        same_ids(name, &data, &old, &new);
    }
}

/// A length-delimited field of protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n > 127 {
        out.push(n as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(bytes);
    out
}

/// The pieces of a SentencePiece vocabulary: text, score, kind.
fn pieces(file: &Gguf) -> Vec<(&str, f32, i64)> {
    let scores = file.get(keys::TOKENIZER_SCORES).unwrap().as_array().unwrap();
    let kinds = file.get(keys::TOKENIZER_TOKEN_TYPE).unwrap().as_array().unwrap();
    let numbers = scores.iter().map(|v| v.as_f32().unwrap()).zip(kinds.iter().map(|v| v.as_i64().unwrap()));
    strings(file, keys::TOKENIZER_TOKENS)
        .into_iter()
        .zip(numbers)
        .map(|(text, (score, kind))| (text, score, kind))
        .collect()
}

#[test]
fn sentencepiece_vocabularies_survive_the_way_through_both_files() {
    let Some(data) = test_data("sentencepiece_vocabularies_survive_the_way_through_both_files") else {
        return;
    };
    let old = Gguf::open(data.join("vocab/llama-spm.gguf")).unwrap();
    let pieces = pieces(&old);
    let config =
        json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": true});

    let mut bytes = Vec::new();
    for (text, score, kind) in &pieces {
        let mut piece = field(1, text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind as u8]);
        bytes.extend(field(1, &piece));
    }
    bytes.extend(field(2, &[0x18, 2]));
    bytes.extend(field(3, &[0x18, 1]));
    let mut folder = model(pieces.len());
    folder.file("tokenizer.model", bytes);
    folder.file("tokenizer_config.json", config.to_string());
    let new = import(&folder);
    assert_eq!(new.require_str(keys::TOKENIZER_MODEL).unwrap(), "llama");
    assert_eq!(new.require_u32(keys::TOKENIZER_BOS_ID).unwrap(), 1);
    assert_eq!(new.require_u32(keys::TOKENIZER_EOS_ID).unwrap(), 2);
    same_ids("llama-spm", &data, &old, &new);
    assert!(Tokenizer::from_gguf(&new).unwrap().adds_bos());

    // As the library makes tokenizer.json of it: every way to put a piece together from two others, the best piece first.
    let known: std::collections::HashMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, p)| (p.0, id)).collect();
    let mut merges: Vec<(f32, &str, &str)> = Vec::new();
    for (text, score, kind) in &pieces {
        let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let mut own: Vec<(&str, &str)> =
            cuts.filter(|(a, b)| *kind == 1 && known.contains_key(a) && known.contains_key(b)).collect();
        own.sort_by_key(|(a, b)| (known[a], known[b]));
        merges.extend(own.into_iter().map(|(a, b)| (*score, a, b)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then((length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2))))
    });
    let vocab: Map<String, Json> =
        pieces.iter().enumerate().map(|(id, p)| (p.0.to_owned(), json!(id))).collect();
    let added: Vec<Json> =
        (0..3).map(|id| json!({"id": id, "content": pieces[id].0, "special": true})).collect();
    let mut folder = model(pieces.len());
    folder.tokenizer = json!({
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {"type": "BPE", "vocab": vocab, "byte_fallback": true, "unk_token": "<unk>",
            "merges": merges.iter().map(|(_, a, b)| format!("{a} {b}")).collect::<Vec<_>>()},
    });
    folder.file("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": "</s>"}).to_string());
    let new = import(&folder);
    same_ids("llama-spm", &data, &old, &new);
    let tokenizer = Tokenizer::from_gguf(&new).unwrap();
    assert!(tokenizer.adds_bos() && tokenizer.adds_space_prefix());
}
