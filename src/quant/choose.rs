//! Which format a tensor gets in a mixture: llama.cpp's choices (`llama-quant.cpp` of llama.cpp 0.5.0), so that a file of the
//! same name has the same formats tensor by tensor.
//!
//! The rules count: "the first two value matrices", "every third layer". They count in the order in which llama.cpp walks
//! over tensors (tensors outside layers first, then layer by layer, by name within), whatever the order of the file.

use chaski_gguf::{Format, Gguf, Value, keys};

use super::{FileType, QuantError};

/// What the rules ask of the model.
#[derive(Debug, Clone)]
pub(super) struct Traits {
    falcon: bool,
    /// Query heads for each key-value head (rounded down).
    gqa: u32,
    experts: u32,
    n_layer: u32,
    /// One of the models with 80 layers that llama.cpp calls 70B: their value matrices are small, so they get more bits.
    is_70b: bool,
    /// Value-like matrices in the file.
    n_attn_v: u32,
    /// The embedding is the output matrix too.
    tied: bool,
    arch: String,
}

/// What a matrix is for. Names are matched as llama.cpp matches them: by parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Embedding,
    Output,
    /// Values, or a matrix that holds them among others.
    AttnV,
    AttnK,
    AttnOutput,
    FfnDown,
    Other,
}

impl Role {
    pub(super) fn of(name: &str) -> Role {
        let has = |part: &str| name.contains(part);
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Role::AttnV,
            _ if has("attn_k.weight") => Role::AttnK,
            _ if has("attn_q.weight") => Role::Other,
            _ if has("attn_output.weight") => Role::AttnOutput,
            _ if has("ffn_up") || has("ffn_gate") => Role::Other,
            _ if has("ffn_down") => Role::FfnDown,
            _ => Role::Other,
        }
    }
}

impl Traits {
    pub(super) fn read(source: &Gguf) -> Result<Traits, QuantError> {
        let arch = source.str(keys::GENERAL_ARCHITECTURE)?.unwrap_or_default().to_owned();
        let number = |key: String| -> Result<u32, QuantError> {
            // A count may be given layer by layer; the rules look at the first.
            Ok(match source.get(&key) {
                Some(Value::Array(array)) => {
                    array.iter().next().and_then(|v| v.as_u64()).and_then(|n| n.try_into().ok()).unwrap_or(0)
                }
                _ => source.u32(&key)?.unwrap_or(0),
            })
        };
        let n_layer = number(keys::block_count(&arch))?;
        let heads = number(keys::attention_head_count(&arch))?;
        let heads_kv = match source.get(&keys::attention_head_count_kv(&arch)) {
            None => heads,
            Some(_) => number(keys::attention_head_count_kv(&arch))?,
        };
        let is_70b = n_layer == 80
            && match arch.as_str() {
                "llama" => heads != heads_kv,
                "qwen2" | "qwen2vl" | "deci" => true,
                _ => false,
            };
        let names = || source.tensors().iter().map(|t| t.name.as_str());
        Ok(Traits {
            falcon: arch == "falcon",
            gqa: heads.checked_div(heads_kv).unwrap_or(0),
            experts: number(keys::expert_count(&arch))?,
            n_layer,
            is_70b,
            n_attn_v: names().filter(|name| Role::of(name) == Role::AttnV).count() as u32,
            tied: source.tensor_info("output.weight").is_none(),
            arch,
        })
    }

    /// Whether this tensor plays the part of the output matrix.
    pub(super) fn is_output(&self, role: Role) -> bool {
        role == Role::Output || self.tied && role == Role::Embedding
    }
}

/// Tensors that stay as they are, by parts of their names: norms, routers, and what is small or delicate.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Why a tensor stays as it is; none if it may be quantized.
pub(super) fn kept(name: &str, n_dims: usize) -> Option<&'static str> {
    if n_dims < 2 {
        Some("a vector")
    } else if !name.ends_with("weight") {
        Some("no weight by its name")
    } else if matches!(name, "position_embd.weight" | "token_types.weight") {
        Some("an embedding of positions or types")
    } else {
        KEPT.iter().find(|part| name.contains(**part)).map(|part| match *part {
            "_norm.weight" => "a norm",
            "ffn_gate_inp.weight" => "a router",
            _ => "small and delicate",
        })
    }
}

/// Layers at both ends, and every third between.
fn gets_more_bits(layer: u32, n_layer: u32) -> bool {
    let eighth = n_layer / 8;
    layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2
}

/// The chooser, which has to be asked in the order of [`walk`].
pub(super) struct Chooser<'a> {
    traits: &'a Traits,
    file_type: FileType,
    has_imatrix: bool,
    i_attn_v: u32,
    i_ffn_down: u32,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(traits: &'a Traits, file_type: FileType, has_imatrix: bool) -> Chooser<'a> {
        Chooser { traits, file_type, has_imatrix, i_attn_v: 0, i_ffn_down: 0 }
    }

    /// The format that the mixture has for this matrix, before its shape is looked at. `slices` is its third dimension.
    pub(super) fn choose(&mut self, name: &str, slices: u64) -> Result<Format, QuantError> {
        let (t, base, role) = (self.traits, self.file_type.base(), Role::of(name));
        if self.file_type == FileType::MXFP4 {
            return Ok(base);
        }
        if self.traits.is_output(role) {
            let eight = t.falcon || matches!(self.file_type, FileType::MXFP4_MOE | FileType::Q8_0);
            return Ok(if eight { Format::Q8_0 } else { Format::Q6_K });
        }
        if self.file_type == FileType::MXFP4_MOE {
            let expert = slices > 1 && (t.arch != "bailingmoe3" || name.contains("ffn_"));
            return Ok(if expert { base } else { Format::Q8_0 });
        }
        Ok(match role {
            Role::AttnV => {
                let i = self.i_attn_v;
                self.i_attn_v += 1;
                self.attn_v(i)
            }
            Role::AttnK if t.experts == 8 => Format::Q8_0,
            Role::FfnDown => {
                // Experts' matrices do not come one a layer: their names say the layer.
                let layer = if t.experts > 1 {
                    layer_of(name)
                        .filter(|layer| *layer < t.n_layer)
                        .ok_or_else(|| QuantError::Layer { tensor: name.to_owned(), n_layer: t.n_layer })?
                } else {
                    self.i_ffn_down
                };
                self.i_ffn_down += 1;
                self.ffn_down(layer)
            }
            Role::AttnOutput => self.attn_output(),
            _ => base,
        })
    }

    fn attn_v(&self, i: u32) -> Format {
        use FileType as T;
        let t = self.traits;
        let grouped = t.gqa >= 4;
        let format = match self.file_type {
            T::Q2_K if !grouped => Format::Q3_K,
            T::Q2_K | T::Q2_K_S if grouped => Format::Q4_K,
            T::Q3_K_M => {
                if i < 2 {
                    Format::Q5_K
                } else {
                    Format::Q4_K
                }
            }
            T::Q3_K_L => Format::Q5_K,
            T::IQ4_NL | T::IQ4_XS if grouped => Format::Q5_K,
            T::Q4_K_M | T::Q5_K_M if gets_more_bits(i, t.n_attn_v) => Format::Q6_K,
            T::Q4_K_S if i < 4 => Format::Q5_K,
            other => other.base(),
        };
        match format {
            _ if t.experts == 8 => Format::Q8_0,
            Format::Q3_K | Format::Q4_K if t.is_70b => Format::Q5_K,
            format => format,
        }
    }

    fn ffn_down(&self, layer: u32) -> Format {
        use FileType as T;
        let t = self.traits;
        let first = |part: u32| layer < t.n_layer / part;
        let more = gets_more_bits(layer, t.n_layer);
        match self.file_type {
            T::Q2_K => Format::Q3_K,
            T::Q2_K_S if first(8) => Format::Q4_K,
            T::Q3_K_M if first(16) => Format::Q5_K,
            T::Q3_K_M if !t.falcon || more => Format::Q4_K,
            T::Q3_K_L => {
                if t.falcon {
                    Format::Q4_K
                } else {
                    Format::Q5_K
                }
            }
            T::Q4_K_M if t.falcon && first(16) => Format::Q6_K,
            T::Q4_K_M if more => {
                if t.falcon {
                    Format::Q5_K
                } else {
                    Format::Q6_K
                }
            }
            T::Q5_K_M if more => Format::Q6_K,
            T::IQ4_NL | T::IQ4_XS if first(8) && !self.has_imatrix => Format::Q5_K,
            T::Q4_K_S if first(8) && !t.falcon => Format::Q5_K,
            // With weights, symmetric blocks of 32 do badly on the first of these matrices.
            T::Q4_0 if first(8) && self.has_imatrix => Format::Q4_1,
            T::Q5_0 if first(8) && self.has_imatrix => Format::Q5_1,
            other => other.base(),
        }
    }

    fn attn_output(&self) -> Format {
        use FileType as T;
        let t = self.traits;
        match self.file_type {
            T::Q3_K_L if t.falcon => Format::Q4_K,
            other if t.falcon => other.base(),
            T::Q2_K | T::Q3_K_S | T::Q3_K_M | T::IQ4_NL | T::Q4_K_S | T::Q4_K_M | T::IQ4_XS
                if t.experts == 8 =>
            {
                Format::Q5_K
            }
            other if t.experts == 8 => other.base(),
            T::Q2_K => Format::Q3_K,
            T::Q3_K_M => Format::Q4_K,
            T::Q3_K_L => Format::Q5_K,
            other => other.base(),
        }
    }
}

/// The number behind `blk.` in a tensor's name.
fn layer_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("blk.")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest.get(..digits)?.parse().ok()
}

/// Places of the tensors in the order in which the rules count.
pub(super) fn walk(source: &Gguf) -> Vec<usize> {
    let tensors = source.tensors();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_cached_key(|i| walk_key(tensors.get(*i).map_or("", |t| t.name.as_str())));
    order
}

/// The place of a tensor in that order.
pub(super) fn walk_key(name: &str) -> (i64, String) {
    (layer_of(name).map_or(-1, i64::from), name.to_owned())
}

/// The format that takes the place of one whose blocks do not divide a row: of the smaller formats the next better one, or
/// binary16 where not even 32 divides the row. llama.cpp's substitutes; for its errors (formats with blocks of 32) binary16.
pub(super) fn substitute(format: Format, row: u64) -> Format {
    let fits = |format: Format| row.is_multiple_of(format.info().block_len as u64);
    if fits(format) {
        return format;
    }
    let other = match format {
        Format::IQ4_XS => Format::IQ4_NL,
        Format::Q2_K | Format::Q3_K => Format::Q4_0,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        _ => Format::F16,
    };
    if fits(other) { other } else { Format::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bits_for_both_ends_and_every_third_layer_between() {
        let chosen: Vec<u32> = (0..16).filter(|i| gets_more_bits(*i, 16)).collect();
        assert_eq!(chosen, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!((0..2).filter(|i| gets_more_bits(*i, 2)).count(), 1);
    }

    #[test]
    fn a_layer_is_the_number_behind_blk() {
        assert_eq!(layer_of("blk.12.ffn_down.weight"), Some(12));
        assert_eq!(layer_of("blk.x.weight"), None);
        assert_eq!(layer_of("output.weight"), None);
        assert_eq!(layer_of("blk.99999999999999.weight"), None);
    }

    #[test]
    fn substitutes_are_named_and_fit() {
        assert_eq!(substitute(Format::Q4_K, 256), Format::Q4_K);
        assert_eq!(substitute(Format::Q4_K, 96), Format::Q5_0);
        assert_eq!(substitute(Format::Q6_K, 172), Format::F16);
        assert_eq!(substitute(Format::Q8_0, 172), Format::F16);
        for format in Format::ALL {
            for row in [1, 20, 32, 172, 256, 288] {
                assert!(row % substitute(*format, row).info().block_len as u64 == 0);
            }
        }
    }
}
