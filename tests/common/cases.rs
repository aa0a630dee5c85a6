//! llama.cpp's logits on tiny models: `conformance/` of the folder that `CHASKI_TEST_DATA` names.

use std::path::{Path, PathBuf};

use chaski::kv::KvFormat;
use chaski::model::{ARCHS, Model};
use chaski_gguf::Gguf;
use serde_json::Value;

/// A tiny model of another runtime's making, with its logits.
pub struct Case {
    pub name: String,
    pub model: PathBuf,
    pub arch: String,
    pub quant: String,
    pub kv: (KvFormat, KvFormat),
    pub tokens: Vec<u32>,
    pub logits: Vec<f32>,
    /// For a quantized cache: the logits with an f16 cache, and llama.cpp's own loss against them.
    pub base: Option<(Vec<f32>, f64)>,
}

/// The cases of the folder that `CHASKI_TEST_DATA` names; none, and said so, where it is not set.
pub fn cases() -> Option<Vec<Case>> {
    let Some(data) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("skipped: CHASKI_TEST_DATA is not set, so there are no reference logits to agree with");
        return None;
    };
    let folder = Path::new(&data).join("conformance");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            cases.push(read_case(&folder, &path));
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    Some(cases)
}

fn read_case(folder: &Path, path: &Path) -> Case {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |key: &str| json[key].as_str().unwrap().to_owned();
    let floats = |name: &str| -> Vec<f32> {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let kv = |i: usize| json["kv"][i].as_str().unwrap().parse().unwrap();
    Case {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        model: folder.join(text("model")),
        arch: text("arch"),
        quant: text("quant"),
        kv: (kv(0), kv(1)),
        tokens: json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect(),
        logits: floats(&text("logits")),
        base: json
            .get("base_logits")
            .map(|b| (floats(b.as_str().unwrap()), json["peer_nmse_to_base"].as_f64().unwrap())),
    }
}

/// What the data's README allows.
pub fn allowed(case: &Case, model: &Model) -> f64 {
    if let Some((_, peer)) = case.base {
        return 1.3 * peer;
    }
    allowed_with_f16(case, model)
}

/// The same with an f16 cache, whatever the case has.
pub fn allowed_with_f16(case: &Case, model: &Model) -> f64 {
    if model.hparams().experts.is_some() {
        return 3e-2;
    }
    match case.quant.as_str() {
        "F32" | "F16" => 1e-5,
        "BF16" => 1e-4,
        _ => 2e-3,
    }
}

/// By the file's own word: a case's name for its architecture may say more (`llama-moe`).
pub fn runs(case: &Case) -> bool {
    let file = Gguf::open(&case.model).unwrap();
    let arch = file.require_str("general.architecture").unwrap();
    ARCHS.iter().any(|a| a.name() == arch)
}
