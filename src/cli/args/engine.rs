use clap::Args;

/// Everything that decides how a model is loaded and evaluated.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub batch: BatchArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub gpu: GpuArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cpu: CpuArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: OverrideArgs,
}

/// Context, batches and the cache: what the memory plan depends on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Context and cache")]
pub struct BatchArgs {
    /// Context in tokens; 0 = the model's own [default: the model's own, at most 8192 and at most what fits]
    #[arg(short, long, value_name = "N")]
    pub ctx_size: Option<u32>,
    /// Logical batch in tokens
    #[arg(short, long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Physical batch in tokens; 1 evaluates token by token [short: -ub] [default: 512, at most the logical batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ubatch_size: Option<u32>,
    /// Format of the K cache [short: -ctk] [formats: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl f8_e4m3]
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub cache_type_k: String,
    /// Format of the V cache [short: -ctv]
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub cache_type_v: String,
}

/// The heading of the GPU flags.
const GPU: &str = if crate::engine::HAS_GPU { "GPU" } else { "GPU (this build has no GPU backend)" };

/// Placement on a GPU.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = GPU)]
pub struct GpuArgs {
    /// Layers on the GPU, counted from the end, the output being the last; auto: what fits [short: -ngl] [values: N, auto, all] [default: auto]
    #[arg(long, visible_alias = "n-gpu-layers", value_name = "N", allow_negative_numbers = true)]
    pub gpu_layers: Option<String>,
    /// The adapter to use, by a part of its name or its number in `chaski devices`; `none` keeps everything on the CPU
    /// [short: -dev]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Refuse any CPU fallback in an offloaded layer
    #[arg(long)]
    pub strict_gpu: bool,
    /// Place weights by name, whatever their layer: 'blk.*.ffn_*=cpu' or =gpu (may be repeated; the first that matches holds)
    #[arg(long, value_name = "GLOB=DEVICE")]
    pub place: Vec<String>,
    /// Keep the KV cache in RAM [short: -nkvo]
    #[arg(long)]
    pub no_kv_offload: bool,
    /// A budget below what the GPU has free, such as 3GiB
    #[arg(long, value_name = "SIZE")]
    pub gpu_memory: Option<String>,
    /// Float activations on the GPU, never rounded to 8 bits: so far it computes with no others
    #[arg(long)]
    pub gpu_exact: bool,
}

/// Threads, kernels and memory.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "CPU and memory")]
pub struct CpuArgs {
    /// Threads while decoding [default: physical cores that this process may use]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i32>,
    /// Threads while reading a prompt [short: -tb] [default: as --threads]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads_batch: Option<i32>,
    /// Float activations instead of activations rounded to 8 bits (slow; for comparisons). Queries still meet a quantized
    /// cache as 16-bit integers
    #[arg(long)]
    pub cpu_exact: bool,
    /// Use at most these CPU kernels; `chaski devices` lists them [default: the best the CPU has]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Keep the weights in the file's own layout
    #[arg(long)]
    pub no_repack: bool,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    pub no_mmap: bool,
    /// Lock the weights in RAM
    #[arg(long)]
    pub mlock: bool,
    /// Watch every node for NaN and infinity (slow)
    #[arg(long)]
    pub check: bool,
}

/// What the file says, overridden.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What the file says, overridden")]
pub struct OverrideArgs {
    /// RoPE scaling [values: none, linear, yarn] [default: the model's own]
    #[arg(long, value_name = "KIND", value_parser = ["none", "linear", "yarn"])]
    pub rope_scaling: Option<String>,
    /// RoPE scaling factor: the context grows by it [default: the model's own]
    #[arg(long, value_name = "F", value_parser = super::sampling::finite, allow_negative_numbers = true)]
    pub rope_scale: Option<f32>,
    /// RoPE base frequency [default: the model's own]
    #[arg(long, value_name = "F", value_parser = super::sampling::finite, allow_negative_numbers = true)]
    pub rope_freq_base: Option<f32>,
    /// A metadata value: KEY=TYPE:VALUE, TYPE one of int float bool str (may be repeated)
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    pub override_kv: Vec<String>,
}
