//! Hyper-parameters: read from the metadata, checked against each other before anything is built.

use chaski_gguf::{Gguf, Value};

use super::{ModelError, Result};
use crate::graph::RopeParams;

/// What the metadata says of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct HParams {
    /// Tokens of the vocabulary: rows of the embedding.
    pub n_vocab: usize,
    /// The context length that the model was trained for.
    pub n_ctx_train: usize,
    /// Values of the hidden state.
    pub n_embd: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// K and V heads; `n_head / n_head_kv` query heads share one (GQA, arXiv 2305.13245).
    pub n_head_kv: usize,
    /// Values of a query or K row of one head.
    pub d_k: usize,
    /// Values of a V row of one head.
    pub d_v: usize,
    /// Values between the two matrices of a feed-forward block.
    pub n_ff: usize,
    /// Epsilon of the RMS norms.
    pub eps: f32,
    /// Rotary embedding.
    pub rope: RopeScaling,
    /// Mixture of experts, if the feed-forward blocks are one.
    pub experts: Option<Experts>,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a block.
    pub count: usize,
    /// Experts that a token uses.
    pub used: usize,
    /// Values between the two matrices of one expert.
    pub n_ff: usize,
}

/// Rotary embedding, and how it is stretched beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeScaling {
    /// Frequencies as the graph wants them.
    pub params: RopeParams,
    /// `none`, `linear` or `yarn`.
    pub kind: String,
    /// By how much the context is stretched.
    pub factor: f32,
    /// `rope.scaling.attn_factor` of the file.
    attn_factor: f32,
}

/// What the command line overrides of the rotary embedding.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RopeOptions {
    /// `none`, `linear` or `yarn`.
    pub scaling: Option<String>,
    /// The factor by which the context is stretched.
    pub scale: Option<f32>,
    /// The base of the frequencies.
    pub freq_base: Option<f32>,
}

impl RopeScaling {
    /// Apply what the command line overrides.
    ///
    /// # Errors
    /// A scaling of another name, a factor where nothing is scaled, or a number that is not finite and positive.
    pub fn apply(&mut self, options: &RopeOptions) -> Result<()> {
        let bad = |key: &str, why: String| ModelError::Key { key: key.into(), why };
        if let Some(kind) = &options.scaling {
            self.kind.clone_from(kind);
        }
        if let Some(factor) = options.scale {
            if self.kind == "none" {
                let why = "is none, so that a rope scale has no effect (--rope-scaling names a kind)".into();
                return Err(bad("rope.scaling.type", why));
            }
            self.factor = factor;
        }
        if let Some(base) = options.freq_base {
            self.params.freq_base = base;
        }
        for (key, v) in [("rope scale", self.factor), ("rope.freq_base", self.params.freq_base)] {
            if !(v.is_finite() && v > 0.0) {
                return Err(bad(key, format!("{v} is not a positive number")));
            }
        }
        let (stretch, yarn) = match self.kind.as_str() {
            "none" => (1.0, false),
            "linear" => (self.factor, false),
            "yarn" => (self.factor, true),
            other => {
                let why = format!("scaling {other:?} is not known (none, linear, yarn are)");
                return Err(bad("rope.scaling.type", why));
            }
        };
        self.params.freq_scale = 1.0 / stretch;
        if !self.params.freq_scale.is_finite() {
            return Err(bad("rope.scaling.factor", format!("{stretch} is too small")));
        }
        self.params.ext_factor = f32::from(u8::from(yarn));
        self.params.attn_factor = self.attn_factor;
        if yarn && stretch < 1.0 {
            // YaRN's magnitude, 1 + 0.1 ln s, comes with the table. It is meant for a context that grows: for one that
            // shrinks llama.cpp cancels it, and so must who wants its logits.
            self.params.attn_factor /= 1.0 + 0.1 * stretch.ln();
            if !self.params.attn_factor.is_finite() {
                return Err(bad("rope.scaling.factor", format!("{stretch} is too small for YaRN")));
            }
        }
        Ok(())
    }
}

/// Typed access to the metadata of one architecture.
pub struct Keys<'a> {
    file: &'a Gguf,
    arch: String,
}

impl<'a> Keys<'a> {
    /// The keys of the file's architecture.
    ///
    /// # Errors
    /// `general.architecture` is missing or no string.
    pub fn new(file: &'a Gguf) -> Result<Keys<'a>> {
        let key = "general.architecture";
        let bad = |why: &str| ModelError::Key { key: key.into(), why: why.into() };
        let arch = file.get(key).ok_or_else(|| bad("is missing: this file is not a model"))?;
        let arch = arch.as_str().ok_or_else(|| bad("is not a string"))?.to_owned();
        Ok(Keys { file, arch })
    }
    /// The architecture's name.
    pub fn arch(&self) -> &str {
        &self.arch
    }
    /// The file.
    pub fn file(&self) -> &'a Gguf {
        self.file
    }
    fn get(&self, key: &str) -> (String, Option<Value<'a>>) {
        let key = format!("{}.{key}", self.arch);
        let value = self.file.get(&key);
        (key, value)
    }
    /// A count that must be there, from 1 to `max`.
    ///
    /// # Errors
    /// It is missing, no integer, or out of range.
    pub fn count(&self, key: &str, max: usize) -> Result<usize> {
        match self.optional_count(key, max)? {
            Some(n) => Ok(n),
            None => Err(ModelError::Key { key: self.get(key).0, why: "is missing".into() }),
        }
    }
    /// A count that may be missing, from 1 to `max`; an array is taken where all layers agree.
    ///
    /// # Errors
    /// It is no integer, or out of range.
    pub fn optional_count(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let (key, value) = self.get(key);
        let Some(value) = value else { return Ok(None) };
        let value = match value {
            Value::Array(array) => {
                let mut all = array.iter();
                let first = all.next();
                if all.any(|v| Some(v) != first) {
                    let why = "differs from layer to layer, which no architecture here can run".into();
                    return Err(ModelError::Key { key, why });
                }
                first
            }
            other => Some(other),
        };
        let n = value.and_then(|v| v.as_u64());
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
            _ => Err(ModelError::Key { key, why: format!("{value:?} is not a number from 1 to {max}") }),
        }
    }
    /// A finite number, or a default where it is missing.
    ///
    /// # Errors
    /// It is no number, or not finite.
    pub fn float(&self, key: &str, default: f32) -> Result<f32> {
        let (key, value) = self.get(key);
        let Some(value) = value else { return Ok(default) };
        match value.as_f32() {
            Some(v) if v.is_finite() => Ok(v),
            _ => Err(ModelError::Key { key, why: format!("{value:?} is not a finite number") }),
        }
    }
    /// A string that may be missing.
    ///
    /// # Errors
    /// It is no string.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>> {
        let (key, value) = self.get(key);
        let Some(value) = value else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ModelError::Key { key, why: "is not a string".into() })
    }

    /// The hyper-parameters that transformers of the llama family share.
    ///
    /// # Errors
    /// A key is missing or out of range, or two of them contradict each other.
    pub fn transformer(&self) -> Result<HParams> {
        // Far above any model; they keep sums and products of what follows inside 64 bits.
        const WIDTH: usize = 1 << 24;
        const HEADS: usize = 1 << 16;
        // Each layer needs weights of its own, so a count beyond the tensors cannot be true.
        let n_layer = self.count("block_count", self.file.tensors().len().max(1))?;
        let n_embd = self.count("embedding_length", WIDTH)?;
        let n_head = self.count("attention.head_count", HEADS)?;
        let n_head_kv = self.optional_count("attention.head_count_kv", HEADS)?.unwrap_or(n_head);
        if n_head % n_head_kv != 0 {
            let key = self.get("attention.head_count_kv").0;
            let why = format!("{n_head_kv} heads cannot be shared evenly by {n_head} query heads");
            return Err(ModelError::Key { key, why });
        }
        let default_d = || {
            if n_embd % n_head == 0 && n_embd >= n_head {
                return Ok(n_embd / n_head);
            }
            let why = format!("is missing, and {n_embd} values do not divide into {n_head} heads");
            Err(ModelError::Key { key: self.get("attention.key_length").0, why })
        };
        let d_k = self.optional_count("attention.key_length", 1 << 14)?.map_or_else(default_d, Ok)?;
        let d_v = self.optional_count("attention.value_length", 1 << 14)?.map_or_else(default_d, Ok)?;
        let n_rot = self.optional_count("rope.dimension_count", d_k)?.unwrap_or(d_k);
        if n_rot % 2 != 0 {
            let key = self.get("rope.dimension_count").0;
            return Err(ModelError::Key { key, why: format!("{n_rot} values cannot be turned in pairs") });
        }
        let n_ctx_train = self.count("context_length", 1 << 30)?;
        let embedding = self.file.tensor_info("token_embd.weight").ok_or_else(|| ModelError::Tensor {
            name: "token_embd.weight".into(),
            why: "is missing".into(),
        })?;
        let n_vocab = usize::try_from(embedding.shape[1]).unwrap_or(usize::MAX);
        if n_vocab == 0 || n_vocab > 1 << 28 {
            let why = format!("{n_vocab} rows are no vocabulary");
            return Err(ModelError::Tensor { name: "token_embd.weight".into(), why });
        }
        let experts = match self.optional_expert_count()? {
            None => None,
            Some(count) => {
                let used = self.count("expert_used_count", count)?;
                let n_ff = match self.optional_count("expert_feed_forward_length", WIDTH)? {
                    Some(n) => n,
                    None => self.count("feed_forward_length", WIDTH)?,
                };
                Some(Experts { count, used, n_ff })
            }
        };
        let n_ff = match self.optional_count("feed_forward_length", WIDTH)? {
            Some(n) => n,
            None if experts.is_some() => 0,
            None => self.count("feed_forward_length", WIDTH)?,
        };
        let eps = self.float("attention.layer_norm_rms_epsilon", 1e-5)?;
        if eps < 0.0 {
            let key = self.get("attention.layer_norm_rms_epsilon").0;
            return Err(ModelError::Key { key, why: format!("{eps} is negative") });
        }
        Ok(HParams {
            n_vocab,
            n_ctx_train,
            n_embd,
            n_layer,
            n_head,
            n_head_kv,
            d_k,
            d_v,
            n_ff,
            eps,
            rope: self.rope(n_rot, n_ctx_train)?,
            experts,
        })
    }

    /// `expert_count`, where 0 means a dense model.
    fn optional_expert_count(&self) -> Result<Option<usize>> {
        if self.get("expert_count").1.and_then(|v| v.as_u64()) == Some(0) {
            return Ok(None);
        }
        self.optional_count("expert_count", 1 << 16)
    }

    fn rope(&self, n_rot: usize, n_ctx_train: usize) -> Result<RopeScaling> {
        let factor = match self.float("rope.scaling.factor", 0.0)? {
            // An older key for the same; 0 in either means that nothing is stretched.
            0.0 => self.float("rope.scale_linear", 0.0)?,
            factor => factor,
        };
        let n_ctx_orig = self.optional_count("rope.scaling.original_context_length", 1 << 30)?;
        let mut rope = RopeScaling {
            params: RopeParams {
                n_rot,
                freq_base: self.float("rope.freq_base", 10_000.0)?,
                freq_scale: 1.0,
                ext_factor: 0.0,
                attn_factor: 1.0,
                beta_fast: self.float("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: self.float("rope.scaling.yarn_beta_slow", 1.0)?,
                n_ctx_orig: n_ctx_orig.unwrap_or(n_ctx_train) as u32,
            },
            // A file that gives a factor without a type means linear scaling.
            kind: self.string("rope.scaling.type")?.unwrap_or("linear").to_owned(),
            factor: if factor == 0.0 { 1.0 } else { factor },
            attn_factor: self.float("rope.scaling.attn_factor", 1.0)?,
        };
        rope.apply(&RopeOptions::default())?;
        Ok(rope)
    }
}
