//! The classes of models that are read, and the names of their tensors in the checkpoint and in GGUF (those that llama.cpp's
//! `convert_hf_to_gguf.py` writes).
//!
//! To add a class of the same family, add its row to [`CLASSES`].

use super::ImportError;
use super::config::Config;
use super::json::Json;

/// A class of models, by its name in `config.json`.
pub(super) struct ModelClass {
    /// The names in `architectures`.
    names: &'static [&'static str],
    /// `general.architecture`.
    pub arch: &'static str,
    /// Rows of Q and K are interleaved, so that the halves of a head that turn together become neighbours.
    pub permuted: bool,
    /// How a mixture of experts is named.
    pub experts: Option<ExpertNames>,
}

/// The names of a mixture of experts.
#[derive(Clone, Copy)]
pub(super) struct ExpertNames {
    /// The field that counts the experts.
    pub count: &'static str,
    /// The field of their width, where they have one of their own.
    pub width: Option<&'static str>,
    /// The module that chooses experts.
    router: &'static str,
    /// The module that holds them.
    experts: &'static str,
    /// The matrices of one: gate, up, down.
    parts: [&'static str; 3],
}

const CLASSES: &[ModelClass] = &[
    ModelClass {
        names: &["LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM"],
        arch: "llama",
        permuted: true,
        experts: None,
    },
    ModelClass {
        names: &["MixtralForCausalLM"],
        arch: "llama",
        permuted: true,
        experts: Some(ExpertNames {
            count: "num_local_experts",
            width: None,
            router: "block_sparse_moe.gate",
            experts: "block_sparse_moe.experts",
            parts: ["w1", "w3", "w2"],
        }),
    },
    ModelClass { names: &["Qwen2ForCausalLM"], arch: "qwen2", permuted: false, experts: None },
    ModelClass { names: &["Qwen3ForCausalLM"], arch: "qwen3", permuted: false, experts: None },
    ModelClass {
        names: &["Qwen3MoeForCausalLM"],
        arch: "qwen3moe",
        permuted: false,
        experts: Some(ExpertNames {
            count: "num_experts",
            width: Some("moe_intermediate_size"),
            router: "mlp.gate",
            experts: "mlp.experts",
            parts: ["gate_proj", "up_proj", "down_proj"],
        }),
    },
];

/// The class that a configuration names.
pub(super) fn class_of(json: &Json) -> Result<&'static ModelClass, ImportError> {
    let field = json.get("architectures");
    let named = field.elements()?;
    let Some(first) = named.first() else {
        return Err(field.bad("names no class of models"));
    };
    let name = first.need_text()?;
    CLASSES.iter().find(|class| class.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = CLASSES.iter().flat_map(|class| class.names.iter().copied()).collect();
        field.bad(format!("names {name}, which cannot be imported (these can: {})", known.join(", ")))
    })
}

/// Refuse what the architecture's graph would not do, and say what it does otherwise.
pub(super) fn refuse_what_does_not_run(json: &Json, class: &ModelClass) -> Result<(), ImportError> {
    let act = json.get("hidden_act");
    if act.text()?.is_some_and(|name| name != "silu" && name != "swish") {
        return Err(act.bad("is not silu, which this architecture has"));
    }
    if class.experts.is_some() {
        let norm = json.get("norm_topk_prob");
        if norm.flag()? == Some(false) || class.arch == "qwen3moe" && !norm.is_there() {
            return Err(
                norm.bad("is not true: the weights of the experts that are used are made to sum to 1 here")
            );
        }
        let step = json.get("decoder_sparse_step");
        if step.count()?.is_some_and(|n| n != 1) {
            return Err(step.bad("is not 1: every layer is a mixture of experts here"));
        }
        let dense = json.get("mlp_only_layers");
        if !dense.elements()?.is_empty() {
            return Err(dense.bad("is not empty: every layer is a mixture of experts here"));
        }
    }
    // Qwen's configurations give a window and say that it is not used.
    let window = json.get("sliding_window");
    if json.get("use_sliding_window").flag()? != Some(false)
        && let Some(n) = window.count()?
        && json.get("max_position_embeddings").count()?.is_some_and(|max| n < max)
    {
        tracing::warn!(
            "sliding_window {n}: attention sees the whole context in a GGUF of {}, so answers may differ beyond {n} tokens",
            class.arch
        );
    }
    Ok(())
}

/// What a tensor of GGUF is made of.
pub(super) struct Wanted {
    /// Its name in GGUF.
    pub name: String,
    /// Its dimensions, the row length first.
    pub shape: Vec<u64>,
    /// The modules of the checkpoint, one, or one for each expert.
    pub modules: Vec<String>,
    /// `weight` or `bias`.
    pub part: &'static str,
    /// Values of a head whose rows are interleaved.
    pub heads_of: Option<u64>,
    /// The model cannot run without it.
    pub required: bool,
    /// It stays in binary32: vectors and routers.
    pub whole: bool,
}

/// Every tensor that the class can have.
pub(super) fn wanted(config: &Config) -> Vec<Wanted> {
    let Config { n_vocab, n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = *config;
    let mut all = Vec::new();
    let vector =
        |name: String, module: String, n: u64, part: &'static str, required: bool, heads_of| Wanted {
            name: format!("{name}.{part}"),
            shape: vec![n],
            modules: vec![module],
            part,
            heads_of,
            required,
            whole: true,
        };
    let matrix = |name: String, modules: Vec<String>, shape: Vec<u64>, heads_of| Wanted {
        name: format!("{name}.weight"),
        shape,
        modules,
        part: "weight",
        heads_of,
        required: true,
        whole: false,
    };
    all.push(matrix("token_embd".into(), vec!["model.embed_tokens".into()], vec![n_embd, n_vocab], None));
    for layer in 0..config.n_layer {
        let from = |module: &str| format!("model.layers.{layer}.{module}");
        let to = |name: &str| format!("blk.{layer}.{name}");
        all.push(vector(to("attn_norm"), from("input_layernorm"), n_embd, "weight", true, None));
        let turned = config.class.permuted.then_some(head_dim);
        let (q, kv) = (n_head * head_dim, n_head_kv * head_dim);
        for (name, module, columns, rows, heads_of) in [
            ("attn_q", "self_attn.q_proj", n_embd, q, turned),
            ("attn_k", "self_attn.k_proj", n_embd, kv, turned),
            ("attn_v", "self_attn.v_proj", n_embd, kv, None),
            ("attn_output", "self_attn.o_proj", q, n_embd, None),
        ] {
            all.push(matrix(to(name), vec![from(module)], vec![columns, rows], heads_of));
            all.push(vector(to(name), from(module), rows, "bias", false, heads_of));
        }
        let head_norms = config.class.arch.starts_with("qwen3");
        for (name, module) in [("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")] {
            if head_norms {
                all.push(vector(to(name), from(module), head_dim, "weight", true, None));
            }
        }
        all.push(vector(to("ffn_norm"), from("post_attention_layernorm"), n_embd, "weight", true, None));
        let up_and_down = |width: u64| {
            [("ffn_gate", n_embd, width), ("ffn_up", n_embd, width), ("ffn_down", width, n_embd)]
        };
        if let (Some(names), Some((count, width))) = (config.class.experts, config.experts) {
            let mut router = matrix(to("ffn_gate_inp"), vec![from(names.router)], vec![n_embd, count], None);
            router.whole = true;
            all.push(router);
            for ((name, columns, rows), part) in up_and_down(width).into_iter().zip(names.parts) {
                let modules = (0..count).map(|e| from(&format!("{}.{e}.{part}", names.experts))).collect();
                all.push(matrix(to(&format!("{name}_exps")), modules, vec![columns, rows, count], None));
            }
        } else {
            let parts = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
            for ((name, columns, rows), part) in up_and_down(n_ff).into_iter().zip(parts) {
                all.push(matrix(to(name), vec![from(part)], vec![columns, rows], None));
                all.push(vector(to(name), from(part), rows, "bias", false, None));
            }
        }
    }
    all.push(vector("output_norm".into(), "model.norm".into(), n_embd, "weight", true, None));
    let mut output = matrix("output".into(), vec!["lm_head".into()], vec![n_embd, n_vocab], None);
    output.required = config.tied == Some(false);
    all.push(output);
    all.push(vector("output".into(), "lm_head".into(), n_vocab, "bias", false, None));
    all
}

/// Tensors that a checkpoint may hold and that nothing is lost without: what follows from the configuration, and scales of
/// activations and caches, which are rounded by other means here.
pub(super) fn may_be_left(name: &str) -> bool {
    [".rotary_emb.inv_freq", ".input_scale", ".k_scale", ".v_scale", ".output_scale", ".attn.masked_bias"]
        .iter()
        .any(|ending| name.ends_with(ending))
}
