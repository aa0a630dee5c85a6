//! From a model and options to an engine: open, understand, plan, check against the machine's memory, load.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use chaski_gguf::{FileKind, Gguf};

use super::exit::Failure;
use super::gpu::{Gpu, explain};
use super::options::{Context, EngineOptions};
use super::source::ModelSource;
use super::{output, progress, show};
use crate::backend::Backend;
use crate::cpu::{CpuBackend, CpuOptions};
use crate::engine::{self, Engine, MemoryPlan, OffloadPlan, offload, plan_memory, plan_offload};
use crate::machine::{self, Memory};
use crate::model::Model;

/// Threads that read ahead, at least: a disk is asked for more than one thing at a time, however many cores there are.
const LEAST_READERS: usize = 4;
/// And at most: more only wait for each other.
const MOST_READERS: usize = 16;
/// The context that a model gets without `--ctx-size`, at most.
const DEFAULT_CONTEXT: usize = 8192;
/// A context below this is not worth having; one that does not fit is then an error.
const LEAST_CONTEXT: usize = 256;

/// Bytes from which on the size of pages is worth a word: smaller files lie in caches for a good part.
const WORTH_LARGE_PAGES: u64 = 256 << 20;

/// Open a model, with the overrides of the command line. A file is mapped in any case: see [`load`].
///
/// # Errors
/// The file is no model that can be run.
pub fn open_model(source: &ModelSource, options: &EngineOptions) -> anyhow::Result<Arc<Model>> {
    let gguf = source.open(true, &options.overrides)?;
    understand(source, gguf, options)
}

fn understand(source: &ModelSource, gguf: Gguf, options: &EngineOptions) -> anyhow::Result<Arc<Model>> {
    match gguf.kind() {
        FileKind::Model => {}
        kind => return Err(Failure::input(format!("{source} is {kind}; it cannot be run")).into()),
    }
    let model = Model::new(Arc::new(gguf), &options.rope).map_err(|error| source.named(error))?;
    Ok(Arc::new(model))
}

/// Of which tokens a command wants the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Of the last one of a prompt.
    Last,
    /// Of all of them, or many.
    Every,
}

/// Load a model. `n_ctx` is the context in tokens where the command knows it better than the options.
///
/// # Errors
/// The file is no model that can be run, or does not fit.
pub fn load(
    source: &ModelSource,
    options: &EngineOptions,
    n_ctx: Option<usize>,
    wanted: Wanted,
) -> anyhow::Result<Engine> {
    let options = &source.suited(options);
    let mut model = open_model(source, options)?;
    warn_of_unused(&model);
    let memory = machine::memory();
    let n_ctx = match n_ctx {
        Some(n_ctx) => n_ctx,
        None => choose_context(&model, options, memory.as_ref())?,
    };
    let trained = model.hparams().n_ctx_train;
    if n_ctx > trained {
        tracing::warn!(
            "a context of {n_ctx} tokens is more than the {trained} that the model was trained for"
        );
    }
    let mut with = engine_options(options, n_ctx);
    if wanted == Wanted::Every {
        with.n_outputs = with.n_ubatch;
    }
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(with.cpu)?);
    let gpu = match Gpu::open(&options.gpu)? {
        None => None,
        Some(gpu) => {
            let ask = gpu.ask(&model, &options.gpu, memory.as_ref())?;
            let devices = gpu.beside(cpu.clone());
            let planned =
                plan_offload(&model, &with, &devices, &ask).map_err(|e| explain(e, &options.gpu))?;
            Some((gpu, ask, devices, planned))
        }
    };
    let whole = plan_memory(&model, &with)?;
    let (plan, left) = match &gpu {
        None => (whole, memory.clone()),
        Some((gpu, _, _, planned)) => {
            (on_the_cpu(&whole, planned, options), memory.clone().map(|memory| gpu.leaves(memory, planned)))
        }
    };
    check_memory(&plan, &with, options, left.as_ref())?;
    let fits = memory.as_ref().is_none_or(|m| whole.total() <= m.available);
    if fits {
        read_ahead(model.file(), options.threads_batch)?;
    } else {
        tracing::debug!("not read ahead: the weights will not stay in memory");
    }
    if !options.mmap {
        let gguf = source.open(false, &options.overrides)?;
        model = understand(source, gguf, options)?;
    }
    if options.mlock {
        lock(model.file());
    }
    tracing::debug!(
        "{}: {n_ctx} tokens of context, {} kernels, {} + {} threads",
        model.arch(),
        with.cpu.isa,
        with.cpu.threads,
        with.cpu.threads_batch,
    );
    let Some((gpu, ask, devices, _)) = gpu else {
        say_memory(&plan, &with, options.mmap);
        let homes = (vec![0; model.weights().list().len()], vec![0; model.hparams().n_layer]);
        return Ok(Engine::with_devices(model, with, &[cpu], homes)?);
    };
    if options.check {
        tracing::warn!("--check watches what the CPU computes, and nothing on the GPU");
    }
    let engine = offload(&model, &with, &devices, &ask).map_err(|e| explain(e, &options.gpu))?;
    match engine.offloaded() {
        Some(went) if went.is_offloaded() => gpu.say(went, &options.gpu, &formats(&with), options.mmap),
        Some(went) => {
            gpu.say(went, &options.gpu, &formats(&with), options.mmap);
            say_memory(&plan, &with, options.mmap);
        }
        None => {}
    }
    Ok(engine)
}

/// The plan of what stays on the CPU. Weights that are copied or locked are so whether they are offloaded or not.
pub(super) fn on_the_cpu(whole: &MemoryPlan, planned: &OffloadPlan, options: &EngineOptions) -> MemoryPlan {
    let (part, all) = (planned.cpu.kv, whole.kv.max(1));
    let kv_f16 = u64::try_from(u128::from(whole.kv_f16) * u128::from(part) / u128::from(all));
    MemoryPlan {
        weights: if options.mmap && !options.mlock { planned.cpu.weights } else { whole.weights },
        kv: part,
        kv_f16: kv_f16.unwrap_or(u64::MAX),
        compute: planned.cpu.compute,
    }
}

/// Say which tensors the model's architecture knows nothing of: the answers may not be what the file's maker meant.
fn warn_of_unused(model: &Model) {
    let (count, first) = (model.unused().count(), model.unused().next());
    if let Some(first) = first {
        let rest = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        tracing::warn!("tensor {first}{rest}: architecture {} does not use that", model.arch());
    }
}

/// What the engine is made with.
pub fn engine_options(options: &EngineOptions, n_ctx: usize) -> engine::EngineOptions {
    engine::EngineOptions {
        cpu: CpuOptions {
            threads: options.threads,
            threads_batch: options.threads_batch,
            isa: options.isa,
            exact: options.cpu_exact,
            invariant: false,
            check: options.check,
        },
        n_ctx,
        n_sequences: 1,
        n_ubatch: options.ubatch,
        n_outputs: 1,
        kv: options.kv,
    }
}

/// The number of tokens of context that the options mean for this model on this machine.
///
/// # Errors
/// The model's graph cannot be built.
pub fn choose_context(
    model: &Model,
    options: &EngineOptions,
    memory: Option<&Memory>,
) -> anyhow::Result<usize> {
    let trained = model.hparams().n_ctx_train;
    let wanted = match options.context {
        Context::Tokens(tokens) => return Ok(tokens as usize),
        Context::Model => return Ok(trained),
        Context::Default => trained.min(DEFAULT_CONTEXT),
    };
    let mut n_ctx = wanted;
    while n_ctx / 2 >= LEAST_CONTEXT {
        let plan = plan_memory(model, &engine_options(options, n_ctx))?;
        if memory.is_none_or(|m| required(&plan, options) <= m.available) {
            break;
        }
        n_ctx /= 2;
    }
    if n_ctx < wanted {
        tracing::warn!("the context is {n_ctx} tokens instead of {wanted}: no more fits in memory");
    }
    Ok(n_ctx)
}

/// Bytes that must be had: the system can drop and re-read mapped weights, but not locked or copied ones.
pub fn required(plan: &MemoryPlan, options: &EngineOptions) -> u64 {
    let held = if options.mmap && !options.mlock { 0 } else { plan.weights };
    plan.kv.saturating_add(plan.compute).saturating_add(held)
}

/// Compare the plan with the memory there is: refuse what cannot be had, warn where weights will not stay in memory.
fn check_memory(
    plan: &MemoryPlan,
    with: &engine::EngineOptions,
    options: &EngineOptions,
    memory: Option<&Memory>,
) -> Result<(), Failure> {
    let Some(memory) = memory else { return Ok(()) };
    let needed = required(plan, options);
    let parts = format!(
        "weights {}, KV cache {} ({} tokens, {}), intermediates {}",
        show::size(plan.weights),
        show::size(plan.kv),
        with.n_ctx,
        formats(with),
        show::size(plan.compute)
    );
    let available = format!("{} are available, set by {}", show::size(memory.available), memory.bound_by);
    if needed > memory.available {
        let which = if options.mmap && !options.mlock { " beside the mapped weights" } else { "" };
        let hint = largest_context(plan, with.n_ctx, options, memory.available)
            .map_or_else(String::new, |n| format!("; -c {n} would fit"));
        return Err(Failure::does_not_fit(format!(
            "does not fit: {}{which} are needed ({parts}), {available}{hint}",
            show::size(needed)
        )));
    }
    let all = plan.total();
    if all > memory.available {
        tracing::warn!(
            "{} are needed in all ({parts}), {available}: weights will be read from the disk again and again, which is slow",
            show::size(all)
        );
    }
    Ok(())
}

/// The largest context, in steps of 256, whose cache leaves room for the rest; none where not even the least does.
fn largest_context(
    plan: &MemoryPlan,
    n_ctx: usize,
    options: &EngineOptions,
    available: u64,
) -> Option<usize> {
    let per_token = plan.kv / (n_ctx as u64).max(1);
    let room = available.checked_sub(required(plan, options).saturating_sub(plan.kv))?;
    let fits = usize::try_from(room.checked_div(per_token)?).ok()?.min(n_ctx) / LEAST_CONTEXT * LEAST_CONTEXT;
    (fits > 0).then_some(fits)
}

fn formats(with: &engine::EngineOptions) -> String {
    let (k, v) = (with.kv.k, with.kv.v);
    if k == v { k.to_string() } else { format!("K {k}, V {v}") }
}

/// Bring the weights into memory: the first token needs them all, and so they come as fast as the disk gives them.
fn read_ahead(gguf: &Gguf, threads: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    let bar = progress::bytes(output::terminal(), "loading", gguf.file_bytes());
    let mut bytes = 0;
    gguf.read_ahead(threads.clamp(LEAST_READERS, MOST_READERS), &mut |done, total| {
        bytes = total;
        bar.set_length(total);
        bar.set_position(done);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let seconds = begin.elapsed().as_secs_f64();
    if bytes > 0 {
        let rate = bytes as f64 / seconds.max(1e-9) / 1e9;
        tracing::debug!("{} read in {seconds:.2} s ({rate:.1} GB/s)", show::size(bytes));
        say_pages(gguf, bytes);
    }
    Ok(())
}

/// Say where the pages of a large mapped file make every token slower than need be.
fn say_pages(gguf: &Gguf, bytes: u64) {
    let Some(large) = gguf.large_page_bytes() else { return };
    tracing::debug!("{} of {} lie in large pages", show::size(large), show::size(bytes));
    if bytes >= WORTH_LARGE_PAGES && large < bytes / 2 {
        tracing::info!(
            "the file is in memory in small pages, which slows answers down; --no-mmap reads it into large ones"
        );
    }
}

/// Say what will be resident: weights, cache and intermediates, and what the cache's formats save.
fn say_memory(plan: &MemoryPlan, with: &engine::EngineOptions, mmap: bool) {
    let how = if mmap { "mapped" } else { "read" };
    let saved = if plan.kv == plan.kv_f16 {
        String::new()
    } else {
        format!("; f16 would take {}", show::size(plan.kv_f16))
    };
    tracing::info!(
        "memory {}: weights {} ({how}), KV cache {} ({}{saved}), intermediates {}",
        show::size(plan.total()),
        show::size(plan.weights),
        show::size(plan.kv),
        formats(with),
        show::size(plan.compute),
    );
}

/// Keep the file in RAM. Where the system refuses, that is a warning: the model runs all the same.
fn lock(gguf: &Gguf) {
    match gguf.lock() {
        Ok(()) => tracing::debug!("{} locked in RAM", show::size(gguf.file_bytes())),
        Err(error) => tracing::warn!("--mlock has no effect: {error} (`ulimit -l` is the limit)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::GpuArgs;
    use crate::cli::exit::{Exit, exit_of};
    use crate::cli::options::GpuOptions;
    use crate::cpu::isa::Isa;
    use crate::kv::KvFormat;
    use crate::model::{KvChoice, RopeOptions};

    const PLAN: MemoryPlan =
        MemoryPlan { weights: 1000 << 20, kv: 512 << 20, kv_f16: 512 << 20, compute: 64 << 20 };

    fn options(mmap: bool) -> EngineOptions {
        EngineOptions {
            context: Context::Default,
            batch: 2048,
            ubatch: 512,
            kv: KvChoice::new(KvFormat::F16, KvFormat::F16),
            threads: 1,
            threads_batch: 1,
            cpu_exact: false,
            isa: Isa::Reference,
            mmap,
            mlock: false,
            check: false,
            gpu: GpuOptions::new(&GpuArgs::default()).unwrap(),
            rope: RopeOptions::default(),
            overrides: Vec::new(),
        }
    }

    fn refused(mmap: bool, available: u64) -> Option<String> {
        let options = options(mmap);
        let memory = Memory { total: 8 << 30, available, bound_by: "MemAvailable".into() };
        let result = check_memory(&PLAN, &engine_options(&options, 4096), &options, Some(&memory));
        result.err().map(|failure| {
            let error = anyhow::Error::new(failure);
            assert_eq!(exit_of(&error), Exit::DoesNotFit);
            error.to_string()
        })
    }

    #[test]
    fn mapped_weights_may_be_more_than_there_is_but_the_cache_may_not() {
        assert_eq!(refused(true, 576 << 20), None);
        let said = refused(true, 575 << 20).unwrap();
        assert!(
            said.contains("576 MiB") && said.contains("575 MiB") && said.contains("-c 3840 would fit"),
            "{said}"
        );
    }

    #[test]
    fn weights_that_are_copied_count_in_full() {
        assert_eq!(refused(false, 1576 << 20), None);
        assert!(refused(false, 1575 << 20).is_some());
        assert!(!refused(false, 100 << 20).unwrap().contains("would fit"));
    }
}
