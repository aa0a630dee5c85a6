//! What `quantize FOLDER` promises: a folder of safetensors becomes the GGUF file that llama.cpp's converter makes, and a
//! folder that cannot be one is refused before the first byte, with the name of what is wrong.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use chaski::engine::Engine;
use chaski::model::RopeOptions;
use chaski::quant::{self, FileType, Folder as Source, ImportOptions, Job, Outcome, Plan, PlanOptions};
use chaski::tokenizer::Tokenizer;
use chaski_gguf::{Format, Gguf, keys};
use common::hf::{Folder, Raw, importable, safetensors};
use common::tiny::{Tiny, decode, ids, options, sequence};
use common::{Run, arg, run};
use serde_json::{Value as Json, json};

/// Every class of models: architecture, with experts.
const CLASSES: &[(&str, bool)] =
    &[("llama", false), ("llama", true), ("qwen2", false), ("qwen3", false), ("qwen3moe", true)];

/// Write a folder and quantize it.
fn import(folder: &Folder, format: &str, more: &[&str]) -> (tempfile::TempDir, Run) {
    let at = tempfile::tempdir().unwrap();
    let source = at.path().join("model");
    fs::create_dir(&source).unwrap();
    folder.write(&source);
    let out = at.path().join("out.gguf");
    let done = run(&[&["quantize", arg(&source), arg(&out), format], more].concat());
    (at, done)
}

fn imported(folder: &Folder, format: &str, more: &[&str]) -> Gguf {
    let (at, done) = import(folder, format, more);
    assert_eq!(done.code, Some(0), "{done:?}");
    Gguf::open(at.path().join("out.gguf")).unwrap()
}

fn logits(file: Gguf) -> Vec<f32> {
    let mut engine = Engine::open(file, &RopeOptions::default(), options(2, 64, 32)).unwrap();
    decode(&mut engine, &sequence(0, 0, &ids(16, 1)))
}

/// That a file holds exactly the tensors of a tiny model.
fn same_tensors(file: &Gguf, tiny: &Tiny, what: &str) {
    assert_eq!(file.tensors().len(), tiny.tensors.len(), "{what}");
    for t in &tiny.tensors {
        let found = file.require_tensor(&t.name).unwrap();
        assert_eq!(&found.info.shape[..t.shape.len()], &t.shape[..], "{what}: {}", t.name);
        assert!(found.bytes == t.bytes, "{what}: {}", t.name);
    }
}

#[test]
fn every_class_gives_the_model_that_was_saved() {
    for (arch, experts) in CLASSES {
        for (tied, shards) in [(false, 1), (true, 3)] {
            let what = format!("{arch}, experts: {experts}, tied: {tied}");
            let tiny = importable(arch, *experts, tied);
            let mut folder = Folder::of(&tiny);
            folder.shards = shards;
            let file = imported(&folder, "F32", &[]);
            same_tensors(&file, &tiny, &what);
            for (key, value) in tiny.file().metadata() {
                // Only llama's files give what follows from the rest.
                if key.ends_with("rope.dimension_count") && file.get(key).is_none() {
                    continue;
                }
                assert_eq!(file.get(key), Some(value), "{what}: {key}");
            }
            assert_eq!(logits(file), logits(tiny.file()), "{what}");
        }
    }
}

#[test]
fn sixteen_bits_are_taken_as_they_are_and_vectors_become_32() {
    let tiny = importable("llama", false, false);
    let mut folder = Folder::of(&tiny);
    for t in &mut folder.tensors {
        let values = t.values();
        (t.dtype, t.bytes) = (
            "BF16",
            values
                .iter()
                .flat_map(|v| v.to_bits().to_be_bytes()[..2].iter().rev().copied().collect::<Vec<u8>>())
                .collect(),
        );
    }
    let file = imported(&folder, "BF16", &[]);
    for t in file.tensors() {
        let vector = t.n_dims == 1;
        assert_eq!(t.format, if vector { Format::F32 } else { Format::BF16 }, "{}", t.name);
    }
    let up = file.require_tensor("blk.0.ffn_up.weight").unwrap().bytes;
    assert_eq!(up, folder.tensor("model.layers.0.mlp.up_proj.weight").bytes);
    assert_eq!(file.require_u32(keys::GENERAL_FILE_TYPE).unwrap(), 32);
    assert_eq!(file.require_str(keys::GENERAL_NAME).unwrap(), "model");
}

#[test]
fn a_mixture_has_the_bytes_that_the_gguf_file_would_give() {
    let tiny = importable("llama", true, false);
    let folder = Folder::of(&tiny);
    let from_folder = imported(&folder, "Q4_K_M", &[]);
    let at = tempfile::tempdir().unwrap();
    let (source, out) = (at.path().join("source.gguf"), at.path().join("out.gguf"));
    fs::write(&source, tiny.bytes()).unwrap();
    assert_eq!(run(&["quantize", arg(&source), arg(&out), "Q4_K_M"]).code, Some(0));
    let from_file = Gguf::open(out).unwrap();
    for t in from_file.tensors() {
        let found = from_folder.require_tensor(&t.name).unwrap();
        assert_eq!(found.info.format, t.format, "{}", t.name);
        assert!(found.bytes == from_file.require_tensor(&t.name).unwrap().bytes, "{}", t.name);
    }
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let folder = Folder::of(&importable("qwen3moe", true, false));
    let (at, done) = import(&folder, "Q4_K_M", &["--dry-run"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("blk.1.ffn_down_exps.weight"), "{done:?}");
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 1);
    let (_, done) = import(&folder, "Q4_K_M", &["--dry-run", "--json"]);
    let plan: Json = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(plan["tensors"][0]["name"], "token_embd.weight");
}

#[test]
fn a_run_that_was_cut_off_is_taken_up() {
    let at = tempfile::tempdir().unwrap();
    let source = at.path().join("model");
    fs::create_dir(&source).unwrap();
    Folder::of(&importable("llama", true, false)).write(&source);
    let source = Source::open(&source, &ImportOptions::new(Format::Q4_K)).unwrap();
    let plan = Plan::new(quant::Source::head(&source), &PlanOptions::new(FileType::Q4_K_S)).unwrap();
    let path = at.path().join("out.gguf");
    let job = |path| Job {
        source: &source,
        plan: &plan,
        path,
        metadata: Vec::new(),
        imatrix: None,
        threads: 2,
        measure: false,
    };
    let whole = at.path().join("whole.gguf");
    quant::run(&job(&whole), &mut |_| ControlFlow::Continue(())).unwrap();
    let half = plan.bytes().0 / 2;
    let stop = &mut |p: quant::Progress<'_>| {
        if p.bytes > half { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = quant::run(&job(&path), stop).unwrap();
    assert!(matches!(stopped, Outcome::Stopped { tensors } if tensors > 3), "{stopped:?}");
    let done = quant::run(&job(&path), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(done, Outcome::Done(written) if written.resumed > 3));
    assert!(fs::read(path).unwrap() == fs::read(whole).unwrap());
}

#[test]
fn ways_to_stretch_the_context_are_taken_over() {
    let tiny = importable("llama", false, false);
    let with = |scaling: Json| {
        let mut folder = Folder::of(&tiny);
        folder.config["rope_scaling"] = scaling;
        imported(&folder, "F32", &[])
    };
    let linear = with(json!({"type": "linear", "factor": 4.0}));
    assert_eq!(linear.require_str("llama.rope.scaling.type").unwrap(), "linear");
    assert_eq!(linear.get("llama.rope.scaling.factor").unwrap().as_f32(), Some(4.0));
    let yarn = with(
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0}),
    );
    assert_eq!(yarn.require_str("llama.rope.scaling.type").unwrap(), "yarn");
    assert_eq!(yarn.require_u32("llama.rope.scaling.original_context_length").unwrap(), 64);
    assert_eq!(yarn.get("llama.rope.scaling.yarn_beta_fast").unwrap().as_f32(), Some(16.0));
    let llama3 =
        with(json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}));
    assert!(llama3.get("llama.rope.scaling.type").is_none());
    let factors = llama3.require_tensor("rope_freqs.weight").unwrap();
    assert_eq!((factors.info.format, factors.info.shape[0]), (Format::F32, 32));
    // Short waves as they are, long ones eight times as long: 2 pi 10000^(62/64) = 47116 is beyond 8192.
    assert_eq!(&factors.bytes[..4], 1f32.to_le_bytes());
    assert_eq!(&factors.bytes[31 * 4..], 8f32.to_le_bytes());

    // The newer spelling, with everything in one field.
    let mut folder = Folder::of(&tiny);
    folder.config["rope_theta"] = Json::Null;
    folder.config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500_000.0});
    let file = imported(&folder, "F32", &[]);
    assert_eq!(file.get("llama.rope.freq_base").unwrap().as_f32(), Some(500_000.0));
}

#[test]
fn special_tokens_templates_and_every_end_are_taken_over() {
    let mut folder = Folder::of(&importable("qwen2", false, false));
    folder.file(
        "tokenizer_config.json",
        json!({"bos_token": null, "eos_token": {"content": "<|end|>"}, "pad_token": "~", "add_bos_token": false,
               "chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]})
        .to_string(),
    );
    folder.file("generation_config.json", json!({"eos_token_id": [95, 3, 7]}).to_string());
    let file = imported(&folder, "F32", &[]);
    assert_eq!(file.require_u32(keys::TOKENIZER_EOS_ID).unwrap(), 95);
    assert_eq!(file.require_u32(keys::TOKENIZER_PAD_ID).unwrap(), u32::from(b'~' - b'!'));
    assert!(file.get(keys::TOKENIZER_BOS_ID).is_none());
    assert_eq!(file.require_str(keys::CHAT_TEMPLATE).unwrap(), "A");
    assert_eq!(file.require_str("tokenizer.chat_template.tool_use").unwrap(), "B");
    assert_eq!(file.require_str(keys::TOKENIZER_PRE).unwrap(), "qwen2");
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    assert_eq!(tokenizer.end_of_generation(), [3, 7, 95]);
    assert!(!tokenizer.adds_bos());

    // A file of its own outranks the field, and a template of the post-processor says what is put before a text.
    folder.file("chat_template.jinja", "C\n");
    folder.file("additional_chat_templates/rag.jinja", "D");
    folder.files.retain(|(name, _)| name != "tokenizer_config.json");
    folder.file("tokenizer_config.json", json!({"bos_token": "<|end|>"}).to_string());
    folder.tokenizer["post_processor"] = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}]});
    let file = imported(&folder, "F32", &[]);
    assert_eq!(file.require_str(keys::CHAT_TEMPLATE).unwrap(), "C\n");
    assert_eq!(file.require_str("tokenizer.chat_template.rag").unwrap(), "D");
    assert!(Tokenizer::from_gguf(&file).unwrap().adds_bos());
}

/// What must be refused, and what the message must hold.
type Damage = (&'static str, fn(&mut Folder), &'static [&'static str]);

const UP: &str = "model.layers.0.mlp.up_proj.weight";

const DAMAGES: &[Damage] = &[
    ("no configuration", |f| f.config = json!([]), &["config.json"]),
    ("no class", |f| f.config["architectures"] = json!([]), &["architectures"]),
    ("another class", |f| f.config["architectures"] = json!(["BertModel"]), &["architectures", "BertModel"]),
    ("no width", |f| f.config["hidden_size"] = Json::Null, &["config.json", "hidden_size", "missing"]),
    ("text for a width", |f| f.config["hidden_size"] = json!("wide"), &["hidden_size", "wide"]),
    ("an absurd width", |f| f.config["hidden_size"] = json!(1u64 << 40), &["hidden_size"]),
    ("negative heads", |f| f.config["num_attention_heads"] = json!(-4), &["num_attention_heads", "-4"]),
    ("no layers", |f| f.config["num_hidden_layers"] = json!(0), &["num_hidden_layers"]),
    ("too many layers", |f| f.config["num_hidden_layers"] = json!(4000), &["num_hidden_layers"]),
    (
        "another layer",
        |f| f.config["num_hidden_layers"] = json!(3),
        &["model.layers.2.input_layernorm.weight"],
    ),
    ("one layer less", |f| f.config["num_hidden_layers"] = json!(1), &["model.layers.1.", "no place"]),
    ("other heads", |f| f.config["num_key_value_heads"] = json!(4), &["self_attn.k_proj.weight", "shape"]),
    ("another vocabulary", |f| f.config["vocab_size"] = json!(97), &["embed_tokens", "shape"]),
    ("another activation", |f| f.config["hidden_act"] = json!("gelu"), &["hidden_act"]),
    (
        "unknown scaling",
        |f| f.config["rope_scaling"] = json!({"type": "wavy"}),
        &["rope_scaling.type", "wavy"],
    ),
    (
        "scaling without factor",
        |f| f.config["rope_scaling"] = json!({"type": "linear"}),
        &["rope_scaling.factor"],
    ),
    ("part of a head", |f| f.config["partial_rotary_factor"] = json!(0.5), &["partial_rotary_factor"]),
    (
        "unknown method",
        |f| f.config["quantization_config"] = json!({"quant_method": "bitsandbytes"}),
        &["quant_method", "bitsandbytes"],
    ),
    ("a tensor is missing", |f| f.tensors.retain(|t| t.name != UP), &[UP, "none of the safetensors"]),
    (
        "a tensor too many",
        |f| f.tensors.push(Raw::f32s("model.vision.weight", &[1], &[0.0])),
        &["model.vision.weight", "no place"],
    ),
    ("a wrong shape", |f| f.tensor(UP).shape = vec![128, 512], &[UP, "shape", "[256, 256]"]),
    ("integers", |f| f.tensor(UP).dtype = "I32", &[UP, "I32"]),
    (
        "not a number",
        |f| f.tensor(UP).bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes()),
        &["blk.0.ffn_up.weight", "value 100", "NaN"],
    ),
    (
        "infinity in a norm",
        |f| f.tensor("model.norm.weight").bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes()),
        &["output_norm.weight", "value 0", "inf"],
    ),
    ("no tokenizer", |f| f.tokenizer = Json::Null, &["tokenizer.json", "tokenizer.model"]),
    (
        "another kind of tokenizer",
        |f| f.tokenizer["model"]["type"] = json!("Unigram"),
        &["tokenizer.json", "model.type"],
    ),
    (
        "an id too large",
        |f| f.tokenizer["model"]["vocab"]["zzz"] = json!(96),
        &["tokenizer.json", "zzz", "96"],
    ),
    ("an id twice", |f| f.tokenizer["model"]["vocab"]["zzz"] = json!(4), &["tokenizer.json", "zzz", "id 4"]),
    ("a merge of one", |f| f.tokenizer["model"]["merges"] = json!([["a"]]), &["model.merges[0]", "pair"]),
    ("a merge of nothing known", |f| f.tokenizer["model"]["merges"] = json!(["a zzz"]), &["tokenizer"]),
    (
        "unknown cuts",
        |f| f.tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "\\S+"}),
        &["pre_tokenizer", "\\S+", "--pre-tokenizer"],
    ),
    ("a normalizer", |f| f.tokenizer["normalizer"] = json!({"type": "Lowercase"}), &["normalizer.type"]),
    (
        "an end beyond",
        |f| f.file("generation_config.json", r#"{"eos_token_id": [96]}"#),
        &["generation_config.json", "eos_token_id"],
    ),
];

#[test]
fn what_is_wrong_with_a_folder_is_named() {
    let good = Folder::of(&importable("llama", false, false));
    for (what, damage, named) in DAMAGES {
        let mut bad = good.clone();
        damage(&mut bad);
        let (at, done) = import(&bad, "Q8_0", &[]);
        assert_eq!(done.code, Some(3), "{what}: {done:?}");
        assert!(named.iter().all(|name| done.stderr.contains(name)), "{what}: {named:?}: {}", done.stderr);
        assert!(!at.path().join("out.gguf").exists(), "{what}");
        assert!(done.stdout.is_empty() && done.stderr.lines().count() < 8, "{what}: {done:?}");
    }
}

/// Damage to the files of a written folder: done to it, and what the message must hold.
type FileDamage = (&'static str, fn(&Path), &'static [&'static str]);

const FIRST: &str = "model-00001-of-00002.safetensors";

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

const FILE_DAMAGES: &[FileDamage] = &[
    (
        "no weights",
        |f| {
            fs::remove_file(f.join("model.safetensors.index.json")).unwrap();
        },
        &["model.safetensors.index.json", "model.safetensors"],
    ),
    (
        "only a pickle",
        |f| {
            fs::remove_file(f.join("model.safetensors.index.json")).unwrap();
            fs::write(f.join("pytorch_model.bin"), b"x").unwrap();
        },
        &["pytorch_model.bin", "safetensors"],
    ),
    ("a missing shard", |f| fs::remove_file(f.join(FIRST)).unwrap(), &[FIRST]),
    (
        "a shard that was cut",
        |f| edit(&f.join(FIRST), |b| b.truncate(b.len() - 100)),
        &[FIRST, "ends at byte"],
    ),
    ("an absurd header", |f| edit(&f.join(FIRST), |b| b[..8].fill(0xFF)), &[FIRST, "header"]),
    ("a header that is no JSON", |f| edit(&f.join(FIRST), |b| b[8] = b'['), &[FIRST, "header", "JSON"]),
    ("an empty shard", |f| fs::write(f.join(FIRST), b"").unwrap(), &[FIRST]),
    (
        "a pointer instead of a shard",
        |f| {
            fs::write(f.join(FIRST), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
                .unwrap();
        },
        &[FIRST, "git lfs"],
    ),
    (
        "an index that points outside",
        |f| {
            fs::write(f.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "../x.safetensors"}}"#)
                .unwrap();
        },
        &["index.json", "../x.safetensors"],
    ),
    (
        "an index that lies",
        |f| {
            let first = format!(r#"{{"weight_map": {{"a": "{FIRST}"}}}}"#);
            fs::write(f.join("model.safetensors.index.json"), first).unwrap();
        },
        &["index.json", "tensor a"],
    ),
    (
        "a tensor in two shards",
        |f| {
            let twice = Raw::f32s("model.norm.weight", &[1], &[0.0]);
            let other = Raw::f32s("b", &[1], &[0.0]);
            fs::write(f.join(FIRST), safetensors(&[&twice, &other])).unwrap();
            fs::write(f.join("model-00002-of-00002.safetensors"), safetensors(&[&twice])).unwrap();
        },
        &["model.norm.weight", "as well"],
    ),
    (
        "a configuration that was cut",
        |f| edit(&f.join("config.json"), |b| b.truncate(20)),
        &["config.json", "JSON"],
    ),
    ("no configuration", |f| fs::remove_file(f.join("config.json")).unwrap(), &["config.json"]),
    (
        "a deep configuration",
        |f| fs::write(f.join("config.json"), "[".repeat(100_000)).unwrap(),
        &["config.json"],
    ),
];

#[test]
fn damaged_files_are_named() {
    let mut good = Folder::of(&importable("llama", false, false));
    good.shards = 2;
    for (what, damage, named) in FILE_DAMAGES {
        let at = tempfile::tempdir().unwrap();
        let (source, out) = (at.path().join("model"), at.path().join("out.gguf"));
        fs::create_dir(&source).unwrap();
        good.write(&source);
        damage(&source);
        let done = run(&["quantize", arg(&source), arg(&out), "Q8_0"]);
        assert_eq!(done.code, Some(3), "{what}: {done:?}");
        assert!(named.iter().all(|name| done.stderr.contains(name)), "{what}: {named:?}: {}", done.stderr);
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn flags_that_would_have_no_effect_are_refused() {
    let folder = Folder::of(&importable("llama", false, false));
    let (_, done) = import(&folder, "F16", &["--pre-tokenizer", "nonesuch"]);
    assert!(done.code == Some(3) && done.stderr.contains("nonesuch"), "{done:?}");
    assert_eq!(
        imported(&folder, "F16", &["--pre-tokenizer", "llama-bpe"]).require_str(keys::TOKENIZER_PRE).unwrap(),
        "llama-bpe"
    );
    let at = tempfile::tempdir().unwrap();
    let source = at.path().join("source.gguf");
    fs::write(&source, importable("llama", false, false).bytes()).unwrap();
    let out = at.path().join("out.gguf");
    let done = run(&["quantize", arg(&source), arg(&out), "F16", "--pre-tokenizer", "qwen2"]);
    assert!(done.code == Some(2) && done.stderr.contains("--pre-tokenizer"), "{done:?}");
}
