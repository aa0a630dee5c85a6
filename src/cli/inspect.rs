//! `chaski inspect`: what a file says, without running it.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;

use chaski_gguf::{FileKind, Format, Gguf};
use serde_json::{Map, Value as Json, json};

use super::args::{CpuArgs, EngineArgs, InspectArgs};
use super::gpu::Gpu;
use super::options::EngineOptions;
use super::source::ModelSource;
use super::{exit, load, output, show};
use crate::engine::{MemoryPlan, OffloadPlan, plan_memory};
use crate::machine::{self, Memory};
use crate::model::{KvChoice, Model};

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&EngineArgs {
        batch: args.batch.clone(),
        gpu: args.gpu.clone(),
        cpu: CpuArgs::default(),
        overrides: args.overrides.clone(),
    })?;
    let gguf = Arc::new(source.open(true, &options.overrides)?);
    let totals = Totals::of(&gguf);
    let plan = Plan::of(&gguf, &options)?;
    if args.json {
        let value = as_json(&gguf, &totals, &plan, args.placement);
        return Ok(output::stdout(|out| {
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)
        })?);
    }
    Ok(output::stdout(|out| as_text(out, &source, &gguf, &totals, &plan, args.placement))?)
}

/// What running the model would take.
struct Plan {
    /// The plan with its context in tokens, or why there is none.
    figures: Result<(MemoryPlan, usize), String>,
    /// What must be had at once, beside mapped weights.
    required: u64,
    memory: Option<Memory>,
    kv: KvChoice,
    /// What would go to a GPU, and for every tensor of the file that is used whether it would.
    gpu: Option<OnGpu>,
}

/// What would go to a GPU.
struct OnGpu {
    gpu: Gpu,
    plan: OffloadPlan,
    /// Tensors that would be there.
    tensors: HashSet<String>,
}

impl Plan {
    fn of(gguf: &Arc<Gguf>, options: &EngineOptions) -> anyhow::Result<Plan> {
        let memory = machine::memory();
        let mut plan = Plan {
            figures: Err(String::new()),
            required: 0,
            memory: memory.clone(),
            kv: options.kv,
            gpu: None,
        };
        let model = match gguf.kind() {
            FileKind::Model => Model::new(gguf.clone(), &options.rope).map_err(anyhow::Error::from),
            kind => Err(anyhow::anyhow!("the file is {kind}")),
        };
        let figures = model.and_then(|model| {
            let n_ctx = load::choose_context(&model, options, memory.as_ref())?;
            let with = load::engine_options(options, n_ctx);
            Ok((plan_memory(&model, &with)?, n_ctx, model, with))
        });
        let (whole, n_ctx, model, with) = match figures {
            Ok(figures) => figures,
            Err(error) => {
                plan.figures = Err(exit::report(&error));
                return Ok(plan);
            }
        };
        plan.required = load::required(&whole, options);
        if let Some(gpu) = Gpu::open(&options.gpu)? {
            let planned = gpu.plan(&model, &with, &options.gpu, memory.as_ref())?;
            let of_cpu = load::on_the_cpu(&whole, &planned, options);
            plan.required = load::required(&of_cpu, options);
            plan.memory = memory.map(|memory| gpu.leaves(memory, &planned));
            let names = model.weights().list().iter().zip(planned.weights());
            let tensors =
                names.filter(|(_, home)| **home != 0).map(|(weight, _)| weight.name.clone()).collect();
            plan.gpu = Some(OnGpu { gpu, plan: planned, tensors });
        }
        plan.figures = Ok((whole, n_ctx));
        Ok(plan)
    }

    /// The device of a tensor: `cpu` or `gpu`.
    fn device(&self, tensor: &str) -> &'static str {
        if self.gpu.as_ref().is_some_and(|on| on.tensors.contains(tensor)) { "gpu" } else { "cpu" }
    }
}

/// Sums over the tensors.
struct Totals {
    elements: u64,
    bytes: u64,
    /// For every format: how many tensors, and their bytes.
    formats: BTreeMap<Format, (u64, u64)>,
}

impl Totals {
    fn of(gguf: &Gguf) -> Totals {
        let mut totals = Totals { elements: 0, bytes: 0, formats: BTreeMap::new() };
        for tensor in gguf.tensors() {
            totals.elements = totals.elements.saturating_add(tensor.n_values());
            totals.bytes = totals.bytes.saturating_add(tensor.bytes);
            let (n, bytes) = totals.formats.entry(tensor.format).or_default();
            *n += 1;
            *bytes += tensor.bytes;
        }
        totals
    }
    /// None where there is no weight.
    fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.bytes as f64 * 8.0 / self.elements as f64)
    }
}

fn as_json(gguf: &Gguf, totals: &Totals, plan: &Plan, placement: bool) -> Json {
    let metadata: Map<String, _> =
        gguf.metadata().map(|(key, value)| (key.to_owned(), show::json(value))).collect();
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| {
            json!({
                "name": t.name, "format": t.format.to_string(), "shape": t.shape.get(..t.n_dims),
                "offset": t.offset, "bytes": t.bytes, "shard": t.shard,
            })
        })
        .collect();
    let formats: Map<String, _> = totals
        .formats
        .iter()
        .map(|(format, (n, bytes))| (format.to_string(), json!({ "tensors": n, "bytes": bytes })))
        .collect();
    let available = plan.memory.as_ref().map(|m| m.available);
    let memory = match &plan.figures {
        Ok((plan, n_ctx)) => json!({
            "weights": plan.weights, "kv": plan.kv, "compute": plan.compute, "total": plan.total(),
            "n_ctx": n_ctx, "kv_f16": plan.kv_f16, "available": available,
        }),
        Err(why) => json!({
            "weights": totals.bytes, "kv": null, "compute": null, "available": available, "why": why,
        }),
    };
    let mut value = json!({
        "arch": gguf.get("general.architecture").and_then(|v| v.as_str()),
        "kind": gguf.kind().to_string(),
        "version": gguf.version(),
        "metadata": metadata,
        "tensors": tensors,
        "parameters": totals.elements,
        "bytes": totals.bytes,
        "formats": formats,
        "bits_per_weight": totals.bits_per_weight(),
        "memory": memory,
    });
    if placement {
        let homes = gguf.tensors().iter().map(|t| (t.name.clone(), plan.device(&t.name).into()));
        value["placement"] = Json::Object(homes.collect());
    }
    if let Some(on) = &plan.gpu {
        value["gpu"] = on.gpu.as_json(&on.plan);
    }
    value
}

fn as_text(
    out: &mut dyn Write,
    source: &ModelSource,
    gguf: &Gguf,
    totals: &Totals,
    plan: &Plan,
    placement: bool,
) -> io::Result<()> {
    let arch = gguf.get("general.architecture").and_then(|v| v.as_str()).unwrap_or("not said");
    writeln!(out, "file           {source} ({})", show::size(gguf.file_bytes()))?;
    if gguf.n_shards() > 1 {
        for path in gguf.paths() {
            writeln!(out, "  of the set   {}", path.display())?;
        }
    }
    writeln!(out, "kind           {}", gguf.kind())?;
    writeln!(out, "GGUF version   {}", gguf.version())?;
    writeln!(out, "architecture   {arch}")?;
    write!(
        out,
        "weights        {} parameters in {} tensors",
        show::count(totals.elements),
        gguf.tensors().len()
    )?;
    if let Some(bits) = totals.bits_per_weight() {
        write!(out, ", {}, {bits:.2} bits per weight", show::size(totals.bytes))?;
    }
    writeln!(out)?;
    for (format, (n, bytes)) in &totals.formats {
        writeln!(out, "  {:<8} {n:>5} tensors, {}", format.to_string(), show::size(*bytes))?;
    }
    memory_as_text(out, source, totals, plan)?;
    writeln!(out, "\nmetadata")?;
    for (key, value) in gguf.metadata() {
        writeln!(out, "  {key} ({}) = {}", show::type_name(value), show::value(value))?;
    }
    if !gguf.tensors().is_empty() {
        writeln!(out, "\ntensors")?;
    }
    let width = gguf.tensors().iter().map(|t| t.name.chars().count()).max().unwrap_or(0).min(64);
    for tensor in gguf.tensors() {
        let dims: Vec<String> = tensor.shape.iter().take(tensor.n_dims).map(u64::to_string).collect();
        let device = if placement { format!("  {}", plan.device(&tensor.name)) } else { String::new() };
        writeln!(
            out,
            "  {:<width$}  {:<7} {:>10}{device}  [{}]",
            tensor.name.escape_debug().to_string(),
            tensor.format.to_string(),
            show::size(tensor.bytes),
            dims.join(", ")
        )?;
    }
    Ok(())
}

fn memory_as_text(out: &mut dyn Write, source: &ModelSource, totals: &Totals, plan: &Plan) -> io::Result<()> {
    let (memory, n_ctx) = match &plan.figures {
        Ok(plan) => plan,
        Err(why) => {
            writeln!(out, "memory         weights {}; cannot be run: {why}", show::size(totals.bytes))?;
            return Ok(());
        }
    };
    let formats = if plan.kv.k == plan.kv.v {
        plan.kv.k.to_string()
    } else {
        format!("K {}, V {}", plan.kv.k, plan.kv.v)
    };
    let where_from = if source.path().is_some() { "mapped from the file" } else { "part of the program" };
    writeln!(out, "memory         {} in all", show::size(memory.total()))?;
    writeln!(out, "  weights      {} ({where_from})", show::size(memory.weights))?;
    let saved = if memory.kv == memory.kv_f16 {
        String::new()
    } else {
        format!("; f16 would take {}", show::size(memory.kv_f16))
    };
    writeln!(out, "  KV cache     {} ({formats}, {n_ctx} tokens of context){saved}", show::size(memory.kv))?;
    writeln!(out, "  compute      {} (intermediates)", show::size(memory.compute))?;
    if let Some(machine) = &plan.memory {
        let verdict = if plan.required > machine.available {
            "does not fit"
        } else if memory.total() > machine.available {
            "fits, but weights will be read from the disk again and again"
        } else {
            "fits"
        };
        writeln!(
            out,
            "  available    {}, set by {}: {verdict}",
            show::size(machine.available),
            machine.bound_by
        )?;
    }
    if let Some(on) = &plan.gpu {
        for line in on.gpu.lines(&on.plan, &formats, true) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
