//! Every metadata key that the project uses, once. The names are those of the GGUF specification and of
//! llama.cpp where that goes further.
//!
//! A key that belongs to an architecture is a function of the architecture's name:
//!
//! ```
//! assert_eq!(chaski_gguf::keys::block_count("llama"), "llama.block_count");
//! ```

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $key;)*
        #[cfg(test)]
        const ALL: &[&str] = &[$($key),*];
    };
}

macro_rules! arch_keys {
    ($($(#[$doc:meta])* $name:ident = $suffix:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(arch: &str) -> String {
                format!(concat!("{}.", $suffix), arch)
            }
        )*
        #[cfg(test)]
        const ALL_SUFFIXES: &[&str] = &[$($suffix),*];
    };
}

keys! {
    /// The architecture's name: `llama`, `qwen3` ... (string).
    GENERAL_ARCHITECTURE = "general.architecture";
    /// What the file is: `model`, `adapter`, `imatrix`, `mmproj`, `vocab` (string).
    GENERAL_TYPE = "general.type";
    /// Tensors lie at multiples of this many bytes (u32; 32 where absent).
    GENERAL_ALIGNMENT = "general.alignment";
    /// The model's name for people (string).
    GENERAL_NAME = "general.name";
    /// The model's name without size or version (string).
    GENERAL_BASENAME = "general.basename";
    /// What it was tuned for (string).
    GENERAL_FINETUNE = "general.finetune";
    /// Who made it (string).
    GENERAL_AUTHOR = "general.author";
    /// Who published it (string).
    GENERAL_ORGANIZATION = "general.organization";
    /// Its version (string).
    GENERAL_VERSION = "general.version";
    /// What it is, in a sentence (string).
    GENERAL_DESCRIPTION = "general.description";
    /// Its size class, such as `8B` (string).
    GENERAL_SIZE_LABEL = "general.size_label";
    /// Its licence (string).
    GENERAL_LICENSE = "general.license";
    /// Who quantized it (string).
    GENERAL_QUANTIZED_BY = "general.quantized_by";
    /// The mixture of formats as llama.cpp numbers it (u32).
    GENERAL_FILE_TYPE = "general.file_type";
    /// The version of the block formats: 2 (u32).
    GENERAL_QUANTIZATION_VERSION = "general.quantization_version";
    /// Where it comes from (string).
    GENERAL_URL = "general.url";
    /// Where its source comes from (string).
    GENERAL_SOURCE_URL = "general.source.url";
    /// Tags (array of strings).
    GENERAL_TAGS = "general.tags";
    /// Languages, as two-letter codes (array of strings).
    GENERAL_LANGUAGES = "general.languages";

    /// This file's number in its split set, from 0 (u16).
    SPLIT_NO = "split.no";
    /// The files of the split set (u16).
    SPLIT_COUNT = "split.count";
    /// The tensors of the whole set (i32).
    SPLIT_TENSORS_COUNT = "split.tensors.count";

    /// The importance matrix that was used: its file (string).
    QUANTIZE_IMATRIX_FILE = "quantize.imatrix.file";
    /// ... the text that it was made from (string).
    QUANTIZE_IMATRIX_DATASET = "quantize.imatrix.dataset";
    /// ... its number of entries (u32).
    QUANTIZE_IMATRIX_ENTRIES = "quantize.imatrix.entries_count";
    /// ... its number of chunks (u32).
    QUANTIZE_IMATRIX_CHUNKS = "quantize.imatrix.chunks_count";

    /// The version of chaski that quantized the file (string).
    CHASKI_QUANTIZE_VERSION = "chaski.quantize.version";
    /// The file type that was asked for, by its name (string).
    CHASKI_QUANTIZE_FILE_TYPE = "chaski.quantize.file_type";
    /// How values were rounded: `nearest`, `imatrix` ... (string).
    CHASKI_QUANTIZE_METHOD = "chaski.quantize.method";
    /// The formats that were asked for by names of tensors, each `GLOB=FORMAT` (array of strings).
    CHASKI_QUANTIZE_TENSOR_TYPES = "chaski.quantize.tensor_types";
    /// The text that a method was calibrated on (string).
    CHASKI_QUANTIZE_CALIBRATION = "chaski.quantize.calibration";
    /// How many of its tokens (u64).
    CHASKI_QUANTIZE_CALIBRATION_TOKENS = "chaski.quantize.calibration_tokens";
    /// The size in bytes that the formats were chosen for (u64).
    CHASKI_QUANTIZE_SIZE = "chaski.quantize.size";

    /// The text that the file was measured by (string); the next keys say what was found.
    CHASKI_QUANTIZE_TEXT = "chaski.quantize.text";
    /// ... the windows of it that were read (u32).
    CHASKI_QUANTIZE_TEXT_WINDOWS = "chaski.quantize.text.windows";
    /// ... tokens of a window (u32).
    CHASKI_QUANTIZE_TEXT_CTX = "chaski.quantize.text.ctx";
    /// Bits of its tensors for each value (f64).
    CHASKI_QUANTIZE_BITS_PER_WEIGHT = "chaski.quantize.bits_per_weight";
    /// The perplexity (f64).
    CHASKI_QUANTIZE_PERPLEXITY = "chaski.quantize.perplexity";
    /// ... its standard error (f64).
    CHASKI_QUANTIZE_PERPLEXITY_STDERR = "chaski.quantize.perplexity.stderr";
    /// ... that of the source (f64).
    CHASKI_QUANTIZE_SOURCE_PERPLEXITY = "chaski.quantize.perplexity.source";
    /// The mean KL divergence from the source, in nats (f64).
    CHASKI_QUANTIZE_KL_MEAN = "chaski.quantize.kl.mean";
    /// ... which 99 % of the tokens do not exceed (f64).
    CHASKI_QUANTIZE_KL_P99 = "chaski.quantize.kl.p99";
    /// The share of tokens with the source's most likely successor (f64).
    CHASKI_QUANTIZE_TOP_AGREEMENT = "chaski.quantize.top_agreement";

    /// In an importance matrix: the chunks that were read (u32).
    IMATRIX_CHUNK_COUNT = "imatrix.chunk_count";
    /// In an importance matrix: tokens of a chunk (u32).
    IMATRIX_CHUNK_SIZE = "imatrix.chunk_size";
    /// In an importance matrix: the texts (array of strings).
    IMATRIX_DATASETS = "imatrix.datasets";

    /// In an adapter: its kind, such as `lora` (string).
    ADAPTER_TYPE = "adapter.type";
    /// In a LoRA adapter: alpha (f32).
    ADAPTER_LORA_ALPHA = "adapter.lora.alpha";

    /// In a projector: its kind (string).
    CLIP_PROJECTOR_TYPE = "clip.projector_type";
    /// In a projector: it has a vision encoder (bool).
    CLIP_HAS_VISION_ENCODER = "clip.has_vision_encoder";
    /// In a projector: it has an audio encoder (bool).
    CLIP_HAS_AUDIO_ENCODER = "clip.has_audio_encoder";

    /// The kind of tokenizer: `llama` (SentencePiece), `gpt2` (byte-level BPE), `bert`, `t5`, `rwkv` ... (string).
    TOKENIZER_MODEL = "tokenizer.ggml.model";
    /// The pre-tokenizer of a BPE tokenizer, by llama.cpp's name (string).
    TOKENIZER_PRE = "tokenizer.ggml.pre";
    /// The tokens in the order of their ids (array of strings).
    TOKENIZER_TOKENS = "tokenizer.ggml.tokens";
    /// The type of each token (array of i32: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte).
    TOKENIZER_TOKEN_TYPE = "tokenizer.ggml.token_type";
    /// The number of token types (segments) of BERT-like models (u32).
    TOKENIZER_TOKEN_TYPE_COUNT = "tokenizer.ggml.token_type_count";
    /// The score of each token (array of f32).
    TOKENIZER_SCORES = "tokenizer.ggml.scores";
    /// The merges of a BPE tokenizer in order of rank, each `left right` (array of strings).
    TOKENIZER_MERGES = "tokenizer.ggml.merges";
    /// Id of the beginning of a text (u32).
    TOKENIZER_BOS_ID = "tokenizer.ggml.bos_token_id";
    /// Id of the end of a text (u32).
    TOKENIZER_EOS_ID = "tokenizer.ggml.eos_token_id";
    /// Id of the end of a turn (u32).
    TOKENIZER_EOT_ID = "tokenizer.ggml.eot_token_id";
    /// Id of the end of a message (u32).
    TOKENIZER_EOM_ID = "tokenizer.ggml.eom_token_id";
    /// Id of the unknown token (u32).
    TOKENIZER_UNK_ID = "tokenizer.ggml.unknown_token_id";
    /// Id of the separator (u32); the key is misspelt in the format itself.
    TOKENIZER_SEP_ID = "tokenizer.ggml.seperator_token_id";
    /// Id of the padding (u32).
    TOKENIZER_PAD_ID = "tokenizer.ggml.padding_token_id";
    /// Id of the class token (u32).
    TOKENIZER_CLS_ID = "tokenizer.ggml.cls_token_id";
    /// Id of the mask (u32).
    TOKENIZER_MASK_ID = "tokenizer.ggml.mask_token_id";
    /// Id of what stands before the prefix in fill-in-the-middle (u32).
    TOKENIZER_FIM_PRE_ID = "tokenizer.ggml.fim_pre_token_id";
    /// ... before the suffix (u32).
    TOKENIZER_FIM_SUF_ID = "tokenizer.ggml.fim_suf_token_id";
    /// ... before the middle (u32).
    TOKENIZER_FIM_MID_ID = "tokenizer.ggml.fim_mid_token_id";
    /// ... padding (u32).
    TOKENIZER_FIM_PAD_ID = "tokenizer.ggml.fim_pad_token_id";
    /// ... a repository's name (u32).
    TOKENIZER_FIM_REP_ID = "tokenizer.ggml.fim_rep_token_id";
    /// ... between files (u32).
    TOKENIZER_FIM_SEP_ID = "tokenizer.ggml.fim_sep_token_id";
    /// BOS is put before a text (bool).
    TOKENIZER_ADD_BOS = "tokenizer.ggml.add_bos_token";
    /// EOS is put after a text (bool).
    TOKENIZER_ADD_EOS = "tokenizer.ggml.add_eos_token";
    /// SEP is put between texts (bool).
    TOKENIZER_ADD_SEP = "tokenizer.ggml.add_sep_token";
    /// A space is put before a text (bool).
    TOKENIZER_ADD_SPACE_PREFIX = "tokenizer.ggml.add_space_prefix";
    /// Runs of spaces become one (bool).
    TOKENIZER_REMOVE_EXTRA_WHITESPACES = "tokenizer.ggml.remove_extra_whitespaces";
    /// The normalisation table of a unigram tokenizer (array of u8 or i8).
    TOKENIZER_PRECOMPILED_CHARSMAP = "tokenizer.ggml.precompiled_charsmap";
    /// The chat template, in Jinja (string).
    CHAT_TEMPLATE = "tokenizer.chat_template";
    /// The names of further chat templates (array of strings); see [`chat_template_named`].
    CHAT_TEMPLATES = "tokenizer.chat_templates";
}

arch_keys! {
    /// Tokens in the vocabulary (u32).
    vocab_size = "vocab_size";
    /// Tokens that the model was trained to see at once (u32).
    context_length = "context_length";
    /// Width of the residual stream (u32).
    embedding_length = "embedding_length";
    /// Width of the output, where it differs (u32).
    embedding_length_out = "embedding_length_out";
    /// Layers (u32).
    block_count = "block_count";
    /// Layers at the start that are dense in a mixture of experts (u32).
    leading_dense_block_count = "leading_dense_block_count";
    /// Width of the feed-forward part (u32, or an array with one for each layer).
    feed_forward_length = "feed_forward_length";
    /// Residual branches run side by side (bool).
    use_parallel_residual = "use_parallel_residual";
    /// How the rows of Q and K lie (string).
    tensor_data_layout = "tensor_data_layout";
    /// Experts of a layer (u32).
    expert_count = "expert_count";
    /// Experts that a token goes through (u32).
    expert_used_count = "expert_used_count";
    /// Experts that every token goes through (u32).
    expert_shared_count = "expert_shared_count";
    /// Width of an expert (u32).
    expert_feed_forward_length = "expert_feed_forward_length";
    /// Width of the shared experts (u32).
    expert_shared_feed_forward_length = "expert_shared_feed_forward_length";
    /// Factor on the experts' weights (f32).
    expert_weights_scale = "expert_weights_scale";
    /// The experts' weights are made to sum up to 1 (bool).
    expert_weights_norm = "expert_weights_norm";
    /// How the router's logits become weights: 1 softmax, 2 sigmoid ... (u32).
    expert_gating_func = "expert_gating_func";
    /// Groups of experts (u32).
    expert_group_count = "expert_group_count";
    /// Groups of experts that are used (u32).
    expert_group_used_count = "expert_group_used_count";
    /// Every how many layers one is a mixture of experts (u32).
    interleave_moe_layer_step = "interleave_moe_layer_step";
    /// Layers that predict further tokens (u32).
    nextn_predict_layers = "nextn_predict_layers";
    /// Pooling of an embedding model: 0 none, 1 mean, 2 CLS, 3 last, 4 rank (u32).
    pooling_type = "pooling_type";
    /// Factor on the logits (f32).
    logit_scale = "logit_scale";
    /// Factor on what a layer adds (f32).
    residual_scale = "residual_scale";
    /// Factor on the token embeddings (f32).
    embedding_scale = "embedding_scale";
    /// Soft-cap of the attention scores (f32).
    attn_logit_softcapping = "attn_logit_softcapping";
    /// Soft-cap of the logits (f32).
    final_logit_softcapping = "final_logit_softcapping";
    /// Width of the per-layer inputs (u32).
    embedding_length_per_layer_input = "embedding_length_per_layer_input";
    /// Every how many layers one has full attention (u32).
    full_attention_interval = "full_attention_interval";

    /// Query heads (u32, or an array with one for each layer).
    attention_head_count = "attention.head_count";
    /// Key and value heads (u32, or an array with one for each layer).
    attention_head_count_kv = "attention.head_count_kv";
    /// Width of a key head (u32).
    attention_key_length = "attention.key_length";
    /// Width of a value head (u32).
    attention_value_length = "attention.value_length";
    /// Width of a key head in windowed layers (u32).
    attention_key_length_swa = "attention.key_length_swa";
    /// Width of a value head in windowed layers (u32).
    attention_value_length_swa = "attention.value_length_swa";
    /// Width of a key head before compression, in latent attention (u32).
    attention_key_length_mla = "attention.key_length_mla";
    /// Width of a value head before compression, in latent attention (u32).
    attention_value_length_mla = "attention.value_length_mla";
    /// Epsilon of the layer norm (f32).
    attention_layer_norm_epsilon = "attention.layer_norm_epsilon";
    /// Epsilon of the RMS norm (f32).
    attention_layer_norm_rms_epsilon = "attention.layer_norm_rms_epsilon";
    /// A token sees only those before it (bool).
    attention_causal = "attention.causal";
    /// Tokens of the sliding window (u32).
    attention_sliding_window = "attention.sliding_window";
    /// Which layers are windowed (u32: a period; or an array of bools with one for each layer).
    attention_sliding_window_pattern = "attention.sliding_window_pattern";
    /// Layers at the end that use the cache of earlier ones (u32).
    attention_shared_kv_layers = "attention.shared_kv_layers";
    /// Factor on the attention scores (f32).
    attention_scale = "attention.scale";
    /// Clamp of Q, K and V (f32).
    attention_clamp_kqv = "attention.clamp_kqv";
    /// Steepest ALiBi slope (f32).
    attention_max_alibi_bias = "attention.max_alibi_bias";
    /// Rank of the queries' compression (u32).
    attention_q_lora_rank = "attention.q_lora_rank";
    /// Rank of the keys' and values' compression (u32).
    attention_kv_lora_rank = "attention.kv_lora_rank";
    /// Context at which the attention's temperature starts to grow (u32).
    attention_temperature_length = "attention.temperature_length";
    /// Growth of the attention's temperature (f32).
    attention_temperature_scale = "attention.temperature_scale";

    /// Dimensions of a head that are rotated (u32).
    rope_dimension_count = "rope.dimension_count";
    /// Dimensions of a head that are rotated in windowed layers (u32).
    rope_dimension_count_swa = "rope.dimension_count_swa";
    /// Sections of a rotation by several positions (array of i32).
    rope_dimension_sections = "rope.dimension_sections";
    /// Base of the rotation's frequencies (f32).
    rope_freq_base = "rope.freq_base";
    /// Base of the rotation's frequencies in windowed layers (f32).
    rope_freq_base_swa = "rope.freq_base_swa";
    /// Linear scaling in old files: a factor on positions (f32).
    rope_scale_linear = "rope.scale_linear";
    /// How positions are scaled: `none`, `linear`, `yarn`, `longrope` (string).
    rope_scaling_type = "rope.scaling.type";
    /// How many times the original context (f32).
    rope_scaling_factor = "rope.scaling.factor";
    /// Factor on the attention's magnitude (f32).
    rope_scaling_attn_factor = "rope.scaling.attn_factor";
    /// The context before scaling (u32).
    rope_scaling_original_context_length = "rope.scaling.original_context_length";
    /// The model was tuned with scaling on (bool).
    rope_scaling_finetuned = "rope.scaling.finetuned";
    /// YaRN: multiplier on the logarithm in the magnitude (f32).
    rope_scaling_yarn_log_multiplier = "rope.scaling.yarn_log_multiplier";
    /// YaRN: extrapolation mix (f32).
    rope_scaling_yarn_ext_factor = "rope.scaling.yarn_ext_factor";
    /// YaRN: factor on the magnitude (f32).
    rope_scaling_yarn_attn_factor = "rope.scaling.yarn_attn_factor";
    /// YaRN: rotations above which a dimension extrapolates (f32).
    rope_scaling_yarn_beta_fast = "rope.scaling.yarn_beta_fast";
    /// YaRN: rotations below which a dimension interpolates (f32).
    rope_scaling_yarn_beta_slow = "rope.scaling.yarn_beta_slow";

    /// State-space layers: width of the convolution (u32).
    ssm_conv_kernel = "ssm.conv_kernel";
    /// State-space layers: inner width (u32).
    ssm_inner_size = "ssm.inner_size";
    /// State-space layers: width of the state (u32).
    ssm_state_size = "ssm.state_size";
    /// State-space layers: rank of the time step (u32).
    ssm_time_step_rank = "ssm.time_step_rank";
    /// State-space layers: groups (u32).
    ssm_group_count = "ssm.group_count";
    /// Short convolutions: width (u32).
    shortconv_l_cache = "shortconv.l_cache";
}

/// The key of a further chat template by its name (string).
pub fn chat_template_named(name: &str) -> String {
    format!("{CHAT_TEMPLATE}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_written_once() {
        for list in [ALL, ALL_SUFFIXES] {
            let mut seen = std::collections::HashSet::new();
            assert!(list.iter().all(|key| seen.insert(key)));
        }
    }
}
