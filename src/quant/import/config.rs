//! `config.json`: which architecture, its hyper-parameters under the names of GGUF, and how its tensors are quantized.

use std::path::Path;

use chaski_gguf::{OwnedValue, keys};

use super::ImportError;
use super::json::{Field, Json};
use super::models::{self, ModelClass};

/// How a checkpoint was quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// AWQ, in its `gemm` layout.
    Awq,
    /// GPTQ.
    Gptq {
        /// Zero points are stored as one less than they are.
        stored_less_one: bool,
    },
    /// 8-bit floats.
    Float8,
}

/// What `quantization_config` says.
#[derive(Debug, Clone, Default)]
pub(super) struct Quantization {
    method: Option<Method>,
    bits: u32,
    /// None for one group a row.
    group_size: Option<u64>,
    block: Option<(u64, u64)>,
}

impl Quantization {
    pub(super) fn method(&self) -> Option<Method> {
        self.method
    }
    /// Bits of a packed integer: 4 or 8.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }
    /// Columns of a group; none where a row is one.
    pub(super) fn group_size(&self) -> Option<u64> {
        self.group_size
    }
    /// Rows and columns that share a scale of 8-bit floats, where scales are a matrix.
    pub(super) fn float8_block(&self) -> (u64, u64) {
        self.block.unwrap_or((128, 128))
    }

    fn read(config: &Json, folder: &Path) -> Result<Quantization, ImportError> {
        let own = config.get("quantization_config");
        if own.is_there() {
            return Quantization::of(&own);
        }
        // Older checkpoints of GPTQ have it in a file of its own, which does not name the method.
        match Json::read_if_there(&folder.join("quantize_config.json"))? {
            Some(file) => Quantization::of(&file.root()),
            None => Ok(Quantization::default()),
        }
    }

    fn of(q: &Field<'_>) -> Result<Quantization, ImportError> {
        let name = q.get("quant_method");
        let method = match name.text()? {
            Some("awq") => {
                let version = q.get("version");
                if !version.text()?.is_none_or(|v| v.eq_ignore_ascii_case("gemm")) {
                    return Err(version.bad("is not gemm, the only layout of AWQ that is read"));
                }
                Method::Awq
            }
            Some("gptq") | None => {
                let layout = q.get("checkpoint_format");
                match layout.text()? {
                    None | Some("gptq") => Method::Gptq { stored_less_one: true },
                    Some("gptq_v2") => Method::Gptq { stored_less_one: false },
                    Some(_) => {
                        return Err(layout.bad("is neither gptq nor gptq_v2, the layouts that are read"));
                    }
                }
            }
            Some("fp8" | "fbgemm_fp8" | "compressed-tensors" | "modelopt") => Method::Float8,
            Some(other) => {
                let why = format!(
                    "is {other}; awq, gptq, fp8, fbgemm_fp8, and 8-bit floats of compressed-tensors and \
                                   modelopt are read"
                );
                return Err(name.bad(why));
            }
        };
        let mut found = Quantization { method: Some(method), ..Quantization::default() };
        if method == Method::Float8 {
            let block = q.get("weight_block_size");
            if block.is_there() {
                let sizes = block.elements()?.iter().map(Field::count).collect::<Result<Vec<_>, _>>()?;
                let [Some(rows @ 1..), Some(columns @ 1..)] = sizes[..] else {
                    return Err(block.bad("is no pair of counts"));
                };
                found.block = Some((rows.into(), columns.into()));
            }
            return Ok(found);
        }
        let bits = q.get(if q.get("w_bit").is_there() { "w_bit" } else { "bits" });
        found.bits = bits.need_count()?;
        let usable = if method == Method::Awq { &[4][..] } else { &[4, 8] };
        if !usable.contains(&found.bits) {
            return Err(bits.bad(format!("is {}; {usable:?} are read", found.bits)));
        }
        let size = q.get(if q.get("q_group_size").is_there() { "q_group_size" } else { "group_size" });
        found.group_size = match size.number()? {
            Some(-1.0) => None,
            _ => Some(u64::from(size.need_count()?)),
        };
        if found.group_size == Some(0) {
            return Err(size.bad("is 0"));
        }
        Ok(found)
    }
}

/// A model as its configuration describes it.
pub(super) struct Config {
    pub json: Json,
    pub class: &'static ModelClass,
    pub quantization: Quantization,
    pub n_vocab: u64,
    pub n_layer: u64,
    pub n_embd: u64,
    pub n_head: u64,
    pub n_head_kv: u64,
    pub head_dim: u64,
    pub n_ff: u64,
    /// Experts and the width of each.
    pub experts: Option<(u64, u64)>,
    /// Whether the output matrix is the embedding, where the file says.
    pub tied: Option<bool>,
    /// The key of each hyper-parameter with its value, in the order of the file.
    pub keys: Vec<(String, OwnedValue)>,
    /// Factors on the frequencies of the rotary embedding.
    pub rope_factors: Option<Vec<f32>>,
}

/// Far above any model; sums and products of what is below stay inside 64 bits.
const WIDTH: u32 = 1 << 24;

impl Config {
    pub(super) fn read(folder: &Path) -> Result<Config, ImportError> {
        let json = Json::read(&folder.join("config.json"))?;
        let class = models::class_of(&json)?;
        let quantization = Quantization::read(&json, folder)?;
        let between = |name: &str, max: u32| -> Result<u32, ImportError> {
            let field = json.get(name);
            match field.need_count()? {
                n if (1..=max).contains(&n) => Ok(n),
                n => Err(field.bad(format!("is {n}, not from 1 to {max}"))),
            }
        };
        let n_layer = between("num_hidden_layers", 1 << 12)?;
        let n_embd = between("hidden_size", WIDTH)?;
        let n_head = between("num_attention_heads", 1 << 16)?;
        let heads_kv = json.get("num_key_value_heads").is_there();
        let n_head_kv = if heads_kv { between("num_key_value_heads", n_head)? } else { n_head };
        let own_head_dim =
            if json.get("head_dim").is_there() { Some(between("head_dim", 1 << 14)?) } else { None };
        let head_dim = match own_head_dim {
            Some(n) => n,
            None if n_embd % n_head == 0 => n_embd / n_head,
            None => {
                return Err(json
                    .get("head_dim")
                    .bad(format!("is missing, and {n_head} heads do not divide {n_embd}")));
            }
        };
        if head_dim % 2 != 0 {
            return Err(json.get("head_dim").bad(format!("is {head_dim}, which cannot be turned in pairs")));
        }
        let n_ff = between("intermediate_size", WIDTH)?;
        let n_vocab = between("vocab_size", 1 << 28)?;
        let arch = class.arch;
        let mut keys: Vec<(String, OwnedValue)> = vec![
            (keys::block_count(arch), n_layer.into()),
            (keys::context_length(arch), between("max_position_embeddings", 1 << 30)?.into()),
            (keys::embedding_length(arch), n_embd.into()),
            (keys::feed_forward_length(arch), n_ff.into()),
            (keys::attention_head_count(arch), n_head.into()),
            (keys::attention_head_count_kv(arch), n_head_kv.into()),
        ];
        let eps = json.get("rms_norm_eps").need_number()?;
        let mut experts = None;
        if let Some(names) = class.experts {
            let count = between(names.count, 1 << 16)?;
            keys.push((keys::expert_count(arch), count.into()));
            keys.push((keys::expert_used_count(arch), between("num_experts_per_tok", count)?.into()));
            let width = match names.width {
                Some(name) => {
                    let width = between(name, WIDTH)?;
                    keys.push((keys::expert_feed_forward_length(arch), width.into()));
                    width
                }
                None => n_ff,
            };
            experts = Some((count.into(), width.into()));
        }
        keys.push((keys::attention_layer_norm_rms_epsilon(arch), (eps as f32).into()));
        if let Some(n) = own_head_dim {
            keys.push((keys::attention_key_length(arch), n.into()));
            keys.push((keys::attention_value_length(arch), n.into()));
        }
        if class.permuted {
            // llama.cpp writes these two for this architecture alone.
            keys.push((keys::vocab_size(arch), n_vocab.into()));
            keys.push((keys::rope_dimension_count(arch), head_dim.into()));
        }
        let rope_factors = rope(&json, arch, head_dim, &mut keys)?;
        models::refuse_what_does_not_run(&json, class)?;
        let tied = json.get("tie_word_embeddings").flag()?;
        Ok(Config {
            quantization,
            class,
            n_vocab: n_vocab.into(),
            n_layer: n_layer.into(),
            n_embd: n_embd.into(),
            n_head: n_head.into(),
            n_head_kv: n_head_kv.into(),
            head_dim: head_dim.into(),
            n_ff: n_ff.into(),
            experts,
            tied,
            keys,
            rope_factors,
            json,
        })
    }
}

/// The rotary embedding: keys, or factors for each frequency (which is how Llama 3.1 stretches its context).
fn rope(
    json: &Json,
    arch: &str,
    head_dim: u32,
    keys: &mut Vec<(String, OwnedValue)>,
) -> Result<Option<Vec<f32>>, ImportError> {
    // Since version 5 of transformers everything is in one field.
    let all = json.get("rope_parameters");
    let (base, scaling) = if all.is_there() {
        (all.get("rope_theta"), all)
    } else {
        (json.get("rope_theta"), json.get("rope_scaling"))
    };
    let theta = base.number()?.unwrap_or(10_000.0);
    if theta <= 0.0 {
        return Err(base.bad(format!("is {theta}, no base of frequencies")));
    }
    keys.push((keys::rope_freq_base(arch), (theta as f32).into()));
    for part in [json.get("partial_rotary_factor"), scaling.get("partial_rotary_factor")] {
        if part.number()?.is_some_and(|part| part != 1.0) {
            return Err(part.bad("is not 1: this architecture turns whole heads"));
        }
    }
    let kind = scaling.get(if scaling.get("rope_type").is_there() { "rope_type" } else { "type" });
    let factor = scaling.get("factor");
    let positive = |field: &Field<'_>, value: f64| {
        if value > 0.0 { Ok(value) } else { Err(field.bad(format!("is {value}, not above 0"))) }
    };
    match kind.text()? {
        None | Some("default") => {}
        Some(name @ ("linear" | "yarn")) => {
            let by = positive(&factor, factor.need_number()?)?;
            keys.push((keys::rope_scaling_type(arch), name.into()));
            keys.push((keys::rope_scaling_factor(arch), (by as f32).into()));
            if name == "yarn" {
                yarn(json, &scaling, arch, by, keys)?;
            }
        }
        Some("llama3") => {
            let by = positive(&factor, factor.need_number()?)?;
            let mut numbers = [0.0; 3];
            for (number, name) in numbers.iter_mut().zip([
                "low_freq_factor",
                "high_freq_factor",
                "original_max_position_embeddings",
            ]) {
                let field = scaling.get(name);
                *number = positive(&field, field.need_number()?)?;
            }
            let [low, high, original] = numbers;
            if high <= low {
                return Err(scaling
                    .get("high_freq_factor")
                    .bad(format!("is {high}, not above low_freq_factor {low}")));
            }
            return Ok(Some(llama3_factors(theta, head_dim, by, low, high, original)));
        }
        Some("dynamic") => {
            tracing::warn!(
                "rope_scaling of type dynamic changes nothing within the trained context and is left out: do not go beyond it"
            );
        }
        Some(other) => {
            return Err(kind.bad(format!("is {other}; linear, yarn, llama3 and dynamic are known")));
        }
    }
    Ok(None)
}

fn yarn(
    json: &Json,
    scaling: &Field<'_>,
    arch: &str,
    factor: f64,
    keys: &mut Vec<(String, OwnedValue)>,
) -> Result<(), ImportError> {
    let original = scaling.get("original_max_position_embeddings").count()?;
    let original = match original {
        Some(n) => n,
        None => json.get("max_position_embeddings").need_count()?,
    };
    keys.push((keys::rope_scaling_original_context_length(arch), original.into()));
    for (name, key) in [
        ("beta_fast", keys::rope_scaling_yarn_beta_fast(arch)),
        ("beta_slow", keys::rope_scaling_yarn_beta_slow(arch)),
    ] {
        if let Some(beta) = scaling.get(name).number()? {
            keys.push((key, (beta as f32).into()));
        }
    }
    let attention = scaling.get("attention_factor");
    if let Some(magnitude) = attention.number()? {
        // What runs multiplies YaRN's own magnitude, 1 + 0.1 ln s; here the whole of it is given.
        let own = 1.0 + 0.1 * factor.max(1.0).ln();
        keys.push((keys::rope_scaling_attn_factor(arch), ((magnitude / own) as f32).into()));
    }
    for name in ["mscale", "mscale_all_dim"] {
        if scaling.get(name).is_there() {
            return Err(scaling
                .get(name)
                .bad("changes YaRN's magnitude in a way that is not read for this architecture"));
        }
    }
    let truncate = scaling.get("truncate");
    if truncate.flag()? == Some(false) {
        return Err(truncate.bad("is false; YaRN's bounds are rounded to whole dimensions here"));
    }
    Ok(())
}

/// By what each frequency is divided: 1 for waves much shorter than the original context, `factor` for much longer ones, and
/// a way between (Llama 3.1).
fn llama3_factors(theta: f64, head_dim: u32, factor: f64, low: f64, high: f64, original: f64) -> Vec<f32> {
    let of = |i: u32| {
        let wave = 2.0 * std::f64::consts::PI * theta.powf(f64::from(2 * i) / f64::from(head_dim));
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head_dim / 2).map(|i| of(i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_factors_go_from_one_to_the_factor() {
        // Llama 3.1's own numbers.
        let f = llama3_factors(500_000.0, 128, 8.0, 1.0, 4.0, 8192.0);
        assert_eq!((f.len(), f[0], f[28], f[36], f[63]), (64, 1.0, 1.0, 8.0, 8.0));
        assert!(f.windows(2).all(|w| w[0] <= w[1]));
        // Between: wave 2 pi 500000^(60/128) = 2948.3, smooth = (8192 / wave - 1) / 3 = 0.59285.
        assert!((f[30] - 1.0 / ((1.0 - 0.592_85) / 8.0 + 0.592_85)).abs() < 1e-3, "{}", f[30]);
    }
}
