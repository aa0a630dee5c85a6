//! How a model is loaded and evaluated.

use chaski_gguf::OwnedValue;

use super::gpu::GpuOptions;
use crate::cli::args::{EngineArgs, OverrideArgs};
use crate::cli::exit::Failure;
use crate::cpu::isa::{Isa, IsaError};
use crate::engine;
use crate::kv::KvFormat;
use crate::kv::format::UnknownKvFormat;
use crate::machine;
use crate::model::{KvChoice, RopeOptions};

/// The size of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// The model's own, but at most 8192 tokens and at most what fits in memory.
    Default,
    /// The model's own.
    Model,
    /// So many tokens.
    Tokens(u32),
}

/// `--ctx-size`
pub fn context(ctx_size: Option<u32>) -> Context {
    match ctx_size {
        None => Context::Default,
        Some(0) => Context::Model,
        Some(tokens) => Context::Tokens(tokens),
    }
}

/// How a model is loaded and evaluated, ready for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// The context.
    pub context: Context,
    /// Logical batch in tokens.
    pub batch: usize,
    /// Physical batch in tokens, at most `batch`.
    pub ubatch: usize,
    /// How K and V rows are kept.
    pub kv: KvChoice,
    /// Threads while decoding.
    pub threads: usize,
    /// Threads while reading a prompt.
    pub threads_batch: usize,
    /// Float activations everywhere.
    pub cpu_exact: bool,
    /// The kernel set: the best of this machine, or a lesser one.
    pub isa: Isa,
    /// Whether the file is mapped instead of read.
    pub mmap: bool,
    /// Whether weights are locked in RAM.
    pub mlock: bool,
    /// Whether every node is watched for NaN and infinity.
    pub check: bool,
    /// What is asked of a GPU.
    pub gpu: GpuOptions,
    /// RoPE parameters that stand above the file's.
    pub rope: RopeOptions,
    /// Metadata values that stand above the file's.
    pub overrides: Vec<(String, OwnedValue)>,
}

impl EngineOptions {
    /// What the flags mean on this machine.
    ///
    /// # Errors
    /// A value that makes no sense, or a flag that asks for a GPU in a build without.
    pub fn new(args: &EngineArgs) -> Result<EngineOptions, Failure> {
        let gpu = GpuOptions::new(&args.gpu)?;
        if !engine::HAS_GPU {
            gpu.without("this build has no GPU backend")?;
        } else if gpu.is_off() {
            gpu.without(if gpu.none { "--device none" } else { "--gpu-layers 0" })?;
        }
        if args.cpu.no_repack {
            tracing::warn!(
                "--no-repack has no effect: this build uses every weight in the file's own layout"
            );
        }
        let batch = args.batch.batch_size;
        let ubatch = args.batch.ubatch_size.unwrap_or(512);
        if ubatch > batch && args.batch.ubatch_size.is_some() {
            tracing::warn!("--ubatch-size {ubatch} is more than --batch-size {batch}: {batch} is used");
        }
        let threads = threads("--threads", args.cpu.threads)?.unwrap_or_else(machine::cores);
        let threads_batch = self::threads("--threads-batch", args.cpu.threads_batch)?.unwrap_or(threads);
        let (rope, overrides) = overrides(&args.overrides)?;
        Ok(EngineOptions {
            context: context(args.batch.ctx_size),
            batch: batch as usize,
            ubatch: ubatch.min(batch) as usize,
            kv: KvChoice::new(
                cache_format("--cache-type-k", &args.batch.cache_type_k)?,
                cache_format("--cache-type-v", &args.batch.cache_type_v)?,
            ),
            threads,
            threads_batch,
            cpu_exact: args.cpu.cpu_exact,
            isa: isa(args.cpu.isa.as_deref())?,
            mmap: !args.cpu.no_mmap,
            mlock: args.cpu.mlock,
            check: args.cpu.check,
            gpu,
            rope,
            overrides,
        })
    }
}

/// The format of a cache by its name on the command line.
///
/// # Errors
/// No format has this name.
pub fn cache_format(flag: &str, name: &str) -> Result<KvFormat, Failure> {
    name.parse().map_err(|error: UnknownKvFormat| Failure::usage(format!("{flag}: {error}")))
}

/// The kernel set: the best of this machine, or the one asked for where the machine has it.
fn isa(name: Option<&str>) -> Result<Isa, Failure> {
    let Some(name) = name else { return Ok(Isa::detect()) };
    let isa: Isa = name.parse().map_err(|error: IsaError| Failure::usage(format!("--isa: {error}")))?;
    isa.require().map_err(|error| Failure::usage(format!("--isa: {error}")))
}

/// A number of threads; none for llama.cpp's -1, the default.
fn threads(flag: &str, given: Option<i32>) -> Result<Option<usize>, Failure> {
    const MOST: i32 = 1024;
    match given {
        None | Some(-1) => Ok(None),
        Some(n @ 1..=MOST) => Ok(Some(n as usize)),
        Some(n) => Err(Failure::usage(format!("{flag} {n}: not 1 to {MOST}, nor -1 for the default"))),
    }
}

fn overrides(args: &OverrideArgs) -> Result<(RopeOptions, Vec<(String, OwnedValue)>), Failure> {
    let positive = |flag: &str, value: Option<f32>| match value {
        Some(v) if v <= 0.0 => Err(Failure::usage(format!("{flag} {v}: not above 0"))),
        other => Ok(other),
    };
    let rope = RopeOptions {
        scaling: args.rope_scaling.clone(),
        scale: positive("--rope-scale", args.rope_scale)?,
        freq_base: positive("--rope-freq-base", args.rope_freq_base)?,
    };
    if rope.scaling.as_deref() == Some("none") && rope.scale.is_some() {
        return Err(Failure::usage("--rope-scale has no effect with --rope-scaling none"));
    }
    let pairs = args.override_kv.iter().map(|text| {
        chaski_gguf::parse_override(text).map_err(|error| Failure::usage(format!("--override-kv: {error}")))
    });
    Ok((rope, pairs.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_one_or_more_and_minus_one_is_the_default() {
        assert_eq!(threads("-t", Some(3)).unwrap(), Some(3));
        assert_eq!(threads("-t", Some(-1)).unwrap(), None);
        for bad in [0, -2, 1_000_000] {
            assert!(threads("-t", Some(bad)).is_err(), "{bad}");
        }
    }
}
