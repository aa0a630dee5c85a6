//! What a model will need, worked out by the same allocator that will then be used.

use super::{EngineOptions, Result, compile};
use crate::backend::Backend;
use crate::cpu::CpuBackend;
use crate::exec::Homes;
use crate::kv::KvFormat;
use crate::model::{BatchShape, Model};

/// Bytes that a model will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights that are used; mapped, so that the system may drop and re-read them.
    pub weights: u64,
    /// The K and V cache for the whole context.
    pub kv: u64,
    /// What the cache would take in f16.
    pub kv_f16: u64,
    /// Intermediates of the largest batch.
    pub compute: u64,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// Bytes of the cache of `n_ctx` tokens in these formats.
pub fn kv_bytes(model: &Model, n_ctx: usize, k: KvFormat, v: KvFormat) -> u64 {
    let hp = model.hparams();
    let token = (k.row_bytes(hp.d_k) + v.row_bytes(hp.d_v)) as u64;
    // Saturating: heads and context may come from a file that means no good, and are refused by the sum.
    [n_ctx, hp.n_layer, hp.n_head_kv].into_iter().fold(token, |bytes, n| bytes.saturating_mul(n as u64))
}

/// Work out what `model` takes with these options, without allocating any of it.
///
/// # Errors
/// The graph of the model cannot be built, or threads are refused.
pub fn plan_memory(model: &Model, options: &EngineOptions) -> Result<MemoryPlan> {
    let mut cpu = options.cpu;
    (cpu.threads, cpu.threads_batch) = (1, 1);
    let cpu = CpuBackend::new(cpu)?;
    let backends: [&dyn Backend; 1] = [&cpu];
    let (weights, kv) = (vec![0; model.weights().list().len()], vec![0; model.hparams().n_layer]);
    let homes = Homes { weights: &weights, kv: &kv };
    let n_tokens = options.n_ubatch.min(options.n_ctx);
    let shape = BatchShape { n_tokens, n_out: options.n_outputs.min(n_tokens) };
    let (_, layout) = compile(model, options.kv, shape, &homes, &backends)?;
    Ok(MemoryPlan {
        weights: model.weights().list().iter().map(|w| w.bytes).sum(),
        kv: kv_bytes(model, options.n_ctx, options.kv.k, options.kv.v),
        kv_f16: kv_bytes(model, options.n_ctx, KvFormat::F16, KvFormat::F16),
        compute: layout.arena.iter().map(|b| *b as u64).sum(),
    })
}
