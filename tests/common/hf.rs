//! Folders as Hugging Face's libraries save models, written by hand: safetensors, `config.json`, a tokenizer. Names are
//! mapped back from GGUF here on their own, so that a mistake in the importer's table cannot hide.

use std::fs;
use std::path::Path;

use chaski_gguf::OwnedValue;
use serde_json::{Map, Value as Json, json};

use super::tiny::{Random, Tensor, Tiny, VOCAB};

/// A tensor of a safetensors file: its shape has the row length last.
#[derive(Clone, Debug)]
pub struct Raw {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn new(name: &str, dtype: &'static str, shape: &[u64], bytes: Vec<u8>) -> Raw {
        Raw { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }
    pub fn f32s(name: &str, shape: &[u64], values: &[f32]) -> Raw {
        Raw::new(name, "F32", shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
    pub fn i32s(name: &str, shape: &[u64], values: &[u32]) -> Raw {
        Raw::new(name, "I32", shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
    /// The values of F32.
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, "F32");
        self.bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// The bytes of a safetensors file.
pub fn safetensors(tensors: &[&Raw]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for t in tensors {
        let end = at + t.bytes.len();
        header.insert(t.name.clone(), json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = Json::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    for t in tensors {
        bytes.extend(&t.bytes);
    }
    bytes
}

/// A folder to be written, open to damage.
#[derive(Clone)]
pub struct Folder {
    pub config: Json,
    pub tokenizer: Json,
    pub tensors: Vec<Raw>,
    /// Other files.
    pub files: Vec<(String, Vec<u8>)>,
    pub shards: usize,
}

/// Characters of GPT-2's alphabet for the bytes of ASCII, and one special token: a vocabulary of [`VOCAB`].
pub fn byte_tokenizer() -> Json {
    let mut vocab = Map::new();
    for (id, c) in ('!'..='~').chain(['Ġ']).enumerate() {
        vocab.insert(c.to_string(), json!(id));
    }
    assert_eq!(vocab.len() + 1, VOCAB);
    json!({
        "added_tokens": [{"id": VOCAB - 1, "content": "<|end|>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex": QWEN2}},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// How Qwen 2 cuts words, from its `tokenizer.json`.
pub const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The class of an architecture's models.
pub fn class(arch: &str, experts: bool) -> &'static str {
    match (arch, experts) {
        ("llama", false) => "LlamaForCausalLM",
        ("llama", true) => "MixtralForCausalLM",
        ("qwen2", false) => "Qwen2ForCausalLM",
        ("qwen3", false) => "Qwen3ForCausalLM",
        ("qwen3moe", true) => "Qwen3MoeForCausalLM",
        _ => panic!("no class of {arch}, experts: {experts}"),
    }
}

fn number(tiny: &Tiny, key: &str) -> Option<u64> {
    let name = format!("{}.{key}", tiny.arch);
    match tiny.keys.iter().find(|(k, _)| *k == name)?.1 {
        OwnedValue::U32(n) => Some(n.into()),
        OwnedValue::I32(n) => Some(n as u64),
        _ => None,
    }
}

/// Rows of heads of `d`, as the converter of llama.cpp finds them before it interleaves them.
fn apart(bytes: &[u8], rows: usize, d: usize) -> Vec<u8> {
    let size = bytes.len() / rows;
    let row = |r: usize| &bytes[r * size..(r + 1) * size];
    // In GGUF rows 2i and 2i + 1 of a head turn together; in the checkpoint rows i and i + d/2.
    (0..rows).flat_map(|r| row(r / d * d + (r % (d / 2)) * 2 + (r % d) / (d / 2)).to_vec()).collect()
}

impl Folder {
    /// A tiny model of f32 weights as a folder.
    pub fn of(tiny: &Tiny) -> Folder {
        let experts = number(tiny, "expert_count");
        let heads = number(tiny, "attention.head_count").unwrap();
        let embd = number(tiny, "embedding_length").unwrap();
        let d = embd / heads;
        let mut config = json!({
            "architectures": [class(&tiny.arch, experts.is_some())],
            "hidden_act": "silu",
            "hidden_size": embd,
            "intermediate_size": number(tiny, "feed_forward_length").unwrap(),
            "max_position_embeddings": number(tiny, "context_length").unwrap(),
            "num_attention_heads": heads,
            "num_hidden_layers": number(tiny, "block_count").unwrap(),
            "num_key_value_heads": number(tiny, "attention.head_count_kv").unwrap(),
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "vocab_size": VOCAB,
            "tie_word_embeddings": !tiny.tensors.iter().any(|t| t.name == "output.weight"),
        });
        if let Some(n) = experts {
            config["num_experts_per_tok"] = number(tiny, "expert_used_count").into();
            if tiny.arch == "llama" {
                config["num_local_experts"] = n.into();
            } else {
                config["num_experts"] = n.into();
                config["moe_intermediate_size"] = number(tiny, "feed_forward_length").into();
                config["norm_topk_prob"] = true.into();
            }
        }
        let mut tensors = Vec::new();
        for t in &tiny.tensors {
            let shape: Vec<u64> = t.shape.iter().rev().copied().collect();
            let (stem, part) = t.name.rsplit_once('.').unwrap();
            let (layer, stem) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
                Some((layer, stem)) => (Some(layer), stem),
                None => (None, stem),
            };
            let moe = if tiny.arch == "llama" { "block_sparse_moe" } else { "mlp" };
            if let Some(kind) = stem.strip_suffix("_exps") {
                let names = if tiny.arch == "llama" {
                    ["w1", "w3", "w2"]
                } else {
                    ["gate_proj", "up_proj", "down_proj"]
                };
                let kind = names[["ffn_gate", "ffn_up", "ffn_down"].iter().position(|k| *k == kind).unwrap()];
                let size = t.bytes.len() / shape[0] as usize;
                for (e, bytes) in t.bytes.chunks(size).enumerate() {
                    let name = format!("model.layers.{}.{moe}.experts.{e}.{kind}.{part}", layer.unwrap());
                    tensors.push(Raw::new(&name, "F32", &shape[1..], bytes.to_vec()));
                }
                continue;
            }
            let turned = tiny.arch == "llama" && matches!(stem, "attn_q" | "attn_k");
            let bytes = if turned { apart(&t.bytes, shape[0] as usize, d as usize) } else { t.bytes.clone() };
            let router = format!("{moe}.gate");
            let module = match stem {
                "token_embd" => "model.embed_tokens",
                "output_norm" => "model.norm",
                "output" => "lm_head",
                "attn_norm" => "input_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "attn_q_norm" => "self_attn.q_norm",
                "attn_k_norm" => "self_attn.k_norm",
                "ffn_norm" => "post_attention_layernorm",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                "ffn_gate_inp" => &router,
                other => panic!("no module for {other}"),
            };
            let name = layer
                .map_or_else(|| format!("{module}.{part}"), |n| format!("model.layers.{n}.{module}.{part}"));
            tensors.push(Raw::new(&name, "F32", &shape, bytes));
        }
        Folder { config, tokenizer: byte_tokenizer(), tensors, files: Vec::new(), shards: 1 }
    }

    pub fn tensor(&mut self, name: &str) -> &mut Raw {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn file(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.files.push((name.into(), content.into()));
    }

    /// Write the folder, which is there and empty.
    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        if !self.tokenizer.is_null() {
            fs::write(folder.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        }
        if self.shards == 1 {
            let all: Vec<&Raw> = self.tensors.iter().collect();
            fs::write(folder.join("model.safetensors"), safetensors(&all)).unwrap();
        } else {
            let mut map = Map::new();
            for shard in 0..self.shards {
                let name = format!("model-{:05}-of-{:05}.safetensors", shard + 1, self.shards);
                // Dealt like cards, so that experts and their like lie in different files.
                let own: Vec<&Raw> = self.tensors.iter().skip(shard).step_by(self.shards).collect();
                for t in &own {
                    map.insert(t.name.clone(), name.clone().into());
                }
                fs::write(folder.join(name), safetensors(&own)).unwrap();
            }
            let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
            fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        for (name, content) in &self.files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

/// A tiny model whose weights can all come from a folder: without factors on frequencies, which folders say otherwise.
pub fn importable(arch: &str, experts: bool, tied: bool) -> Tiny {
    let mut tiny = Tiny::new(arch, experts, chaski_gguf::Format::F32, tied).unwrap();
    tiny.tensors.retain(|t| t.name != "rope_freqs.weight" && !(tied && t.name == "output.bias"));
    if arch == "qwen3moe" {
        let width = number(&tiny, "feed_forward_length").unwrap() as u32;
        tiny.set("expert_feed_forward_length", width);
    }
    tiny
}

/// The tensor of a tiny model with other values.
pub fn replace(tiny: &mut Tiny, name: &str, values: &[f32]) {
    let tensor: &mut Tensor = tiny.tensor(name);
    assert_eq!(tensor.bytes.len(), 4 * values.len());
    tensor.bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
}

/// Bytes from a generator.
pub fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..n).map(|_| random.next() as u8).collect()
}
