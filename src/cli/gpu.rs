//! From the GPU flags to a device and a plan, and what is said of it: at load, in errors, in `inspect`.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::exit::Failure;
use super::options::GpuOptions;
use super::show;
use crate::backend::Backend;
use crate::cpu::CpuBackend;
use crate::engine::{
    self, GpuAdapter, GpuLayers, GpuWanted, LeftBehind, Offload, OffloadError, OffloadPlan, OpenGpu, Usage,
};
use crate::machine::Memory;
use crate::model::Model;

/// Of what is free on a GPU, `auto` leaves a tenth and this much to others and to what is made on the way.
const SPARE: u64 = 256 << 20;

/// A GPU to offload to.
pub(super) struct Gpu {
    pub(super) adapter: GpuAdapter,
    backend: Arc<dyn Backend>,
}

impl Gpu {
    /// The GPU that the flags mean; none where none is used.
    ///
    /// # Errors
    /// Exit code 4 where one is asked for and there is none, or it cannot be used.
    pub(super) fn open(options: &GpuOptions) -> Result<Option<Gpu>, Failure> {
        if !engine::HAS_GPU || options.is_off() {
            return Ok(None);
        }
        let asked = options.asks();
        let wanted =
            GpuWanted { device: options.device.clone(), software: asked.is_some(), exact: options.exact };
        match engine::open_gpu(&wanted) {
            Ok(Some(OpenGpu { adapter, backend })) => Ok(Some(Gpu { adapter, backend })),
            Ok(None) => options.without("this machine has no GPU that can be used").map(|()| None),
            Err(why) => {
                if let Some(flag) = asked {
                    return Err(Failure::does_not_fit(format!("{flag}: {why}")));
                }
                tracing::warn!("the GPU is not used: {why}");
                options.without("the GPU cannot be used").map(|()| None)
            }
        }
    }

    /// The devices: this CPU, and the GPU.
    pub(super) fn beside(&self, cpu: Arc<dyn Backend>) -> [Arc<dyn Backend>; 2] {
        [cpu, self.backend.clone()]
    }

    /// What is asked of the GPU for this model.
    ///
    /// # Errors
    /// Exit code 2 where a placement by name matches nothing.
    pub(super) fn ask(
        &self,
        model: &Model,
        options: &GpuOptions,
        memory: Option<&Memory>,
    ) -> Result<Offload, Failure> {
        Ok(Offload {
            layers: options.layers,
            pins: pins(model, options)?,
            kv: options.kv,
            budget: budget(options, &self.adapter, memory),
            strict: options.strict,
        })
    }

    /// What the machine has for the CPU beside a GPU whose memory is the machine's.
    pub(super) fn leaves(&self, memory: Memory, plan: &OffloadPlan) -> Memory {
        if !self.adapter.shares_memory || !plan.is_offloaded() {
            return memory;
        }
        let available = memory.available.saturating_sub(plan.gpu.total());
        let bound_by = format!("{} without what goes to the GPU, which shares it", memory.bound_by);
        Memory { available, bound_by, ..memory }
    }

    /// `llvmpipe (LLVM 15.0.6, 256 bits) (vulkan, software)`
    fn named(&self) -> String {
        format!("{} ({}, {})", self.adapter.name, self.adapter.api, self.adapter.kind)
    }

    /// Say what went where.
    pub(super) fn say(&self, plan: &OffloadPlan, options: &GpuOptions, formats: &str, mapped: bool) {
        let free =
            self.adapter.free.map_or_else(String::new, |free| format!("; {} are free", show::size(free)));
        if !plan.is_offloaded() {
            tracing::info!("GPU {}: nothing is offloaded: not even the output fits{free}", self.named());
            for flag in options.idle() {
                tracing::warn!("{flag} has no effect: no layer is offloaded");
            }
            return;
        }
        if plan.given_back > 0 {
            let n = plan.given_back;
            let were = if n == 1 { "layer was" } else { "layers were" };
            tracing::warn!("{n} {were} given back: the GPU refused memory that it had said to be free");
        }
        for line in self.lines(plan, formats, mapped) {
            tracing::info!("{line}");
        }
    }

    /// What is where, a line each, and what stays behind.
    pub(super) fn lines(&self, plan: &OffloadPlan, formats: &str, mapped: bool) -> Vec<String> {
        let mut lines = report(&self.named(), plan, formats, mapped);
        if let (Some(first), Some(free)) = (lines.first_mut(), self.adapter.free) {
            let _ = write!(first, "; {} are free", show::size(free));
        }
        if let Some(n) = plan.n_ubatch {
            lines.push(format!(
                "  micro-batches of {n} tokens: the intermediates of more exceed what it binds of one buffer"
            ));
        }
        let behind = left_behind(plan);
        lines
            .extend(behind.iter().map(|line| format!("  on the CPU though its layer is on the GPU: {line}")));
        lines
    }

    /// The same for programs.
    pub(super) fn as_json(&self, plan: &OffloadPlan) -> Json {
        let side = |used: &Usage| json!({ "weights": used.weights, "kv": used.kv, "compute": used.compute });
        let one = |b: LeftBehind| json!({ "op": b.op, "layers": b.layers, "why": b.why, "asked": b.asked });
        let behind: Vec<Json> = plan.left_behind().into_iter().map(one).collect();
        json!({
            "device": self.adapter.name, "backend": self.adapter.api, "kind": self.adapter.kind,
            "layers": plan.layers, "of": plan.of, "free": self.adapter.free,
            "ubatch": plan.n_ubatch, "on_gpu": side(&plan.gpu), "on_cpu": side(&plan.cpu), "left_behind": behind,
        })
    }

    /// What would go where, without allocating any of it.
    ///
    /// # Errors
    /// It does not fit, or cannot be as it is asked for.
    pub(super) fn plan(
        &self,
        model: &Model,
        with: &engine::EngineOptions,
        options: &GpuOptions,
        memory: Option<&Memory>,
    ) -> anyhow::Result<OffloadPlan> {
        let ask = self.ask(model, options, memory)?;
        let mut cpu = with.cpu;
        (cpu.threads, cpu.threads_batch) = (1, 1);
        let devices = self.beside(Arc::new(CpuBackend::new(cpu)?));
        engine::plan_offload(model, with, &devices, &ask).map_err(|error| explain(error, options))
    }
}

/// For every weight of the model, the device that a placement by name gives it.
fn pins(model: &Model, options: &GpuOptions) -> Result<Vec<Option<usize>>, Failure> {
    let mut used = vec![false; options.places.len()];
    let weights = model.weights().list().iter();
    let pins = weights
        .map(|weight| {
            let at = options.places.iter().position(|place| place.glob.matches(&weight.name))?;
            used[at] = true;
            Some(usize::from(options.places[at].gpu))
        })
        .collect();
    match used.iter().position(|used| !used) {
        Some(at) => Err(Failure::usage(format!(
            "{}: no weight of the model matches, or placements before it match them all",
            options.places[at]
        ))),
        None => Ok(pins),
    }
}

/// Bytes of the GPU's memory that may be taken. A number of layers that was asked for may fill it, `auto` leaves some. Where
/// the GPU does not say what is free, or its memory is the machine's, `auto` takes 60% of what is available there.
fn budget(options: &GpuOptions, adapter: &GpuAdapter, memory: Option<&Memory>) -> Option<u64> {
    let of_machine = memory.map(|m| m.available / 10 * 6);
    let free = match (options.layers, adapter.free) {
        (GpuLayers::Auto, Some(free)) if !adapter.shares_memory => {
            Some((free / 10 * 9).saturating_sub(SPARE))
        }
        (GpuLayers::Auto, free) => free.into_iter().chain(of_machine).min(),
        (_, free) => free,
    };
    free.into_iter().chain(options.memory).min()
}

/// What is on each side, a line each.
fn report(device: &str, plan: &OffloadPlan, formats: &str, mapped: bool) -> Vec<String> {
    let (layers, of) = (plan.layers, plan.of);
    let which = match layers {
        n if n == of => format!("{n} of {of} layers: the whole model, its embedding too"),
        0 => "what --place puts there".into(),
        1 => format!("1 of {of} layers: the output"),
        n => format!("{n} of {of} layers: the output and the last {} of {}", n - 1, of - 1),
    };
    let side = |name: &str, used: &Usage, how: &str| {
        let kv = if used.kv == 0 { String::new() } else { format!(" ({formats})") };
        format!(
            "  {name} {:>9}: weights {}{how}, KV cache {}{kv}, scratch {}",
            show::size(used.total()),
            show::size(used.weights),
            show::size(used.kv),
            show::size(used.compute),
        )
    };
    let mapped = if mapped { " (mapped)" } else { " (read)" };
    vec![format!("GPU {device}: {which}"), side("GPU", &plan.gpu, ""), side("CPU", &plan.cpu, mapped)]
}

/// What runs on the CPU although its layer is on the GPU, a line for every op and reason.
pub(super) fn left_behind(plan: &OffloadPlan) -> Vec<String> {
    let line = |behind: &LeftBehind| {
        let numbers: Vec<usize> = behind.layers.iter().copied().flatten().collect();
        let of = match numbers.len() {
            0 => "outside of the layers".to_owned(),
            1 => format!("layer {}", numbers[0]),
            n => format!("{n} layers ({})", ranges(&numbers)),
        };
        format!("{}, {of}: {}", behind.op, behind.why)
    };
    plan.left_behind().iter().map(line).collect()
}

/// `0-3, 7`
fn ranges(sorted: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for n in sorted {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *n => *end = *n,
            _ => parts.push((*n, *n)),
        }
    }
    let text = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    text.collect::<Vec<_>>().join(", ")
}

/// An error of offloading as the user reads it.
pub(super) fn explain(error: OffloadError, options: &GpuOptions) -> anyhow::Error {
    match error {
        OffloadError::DoesNotFit { device, asked, of, needed, budget, reach, fits } => {
            let flag = match options.layers {
                GpuLayers::Auto => "--gpu-layers auto".into(),
                GpuLayers::All => "--gpu-layers all".into(),
                GpuLayers::Count(n) => format!("--gpu-layers {n}"),
            };
            let which = format!("{asked} of {of} layers");
            let room = match (reach, budget) {
                (Some(reach), _) => format!(
                    "its kernels reach {} of a buffer, and the intermediates of a single token are more",
                    show::size(reach as u64)
                ),
                (None, Some(budget)) => format!("{} may be taken", show::size(budget)),
                (None, None) => "the device refused the memory".into(),
            };
            let hint = match fits {
                Some(0) => "-ngl 0 would: not even the output fits".into(),
                Some(n) => format!("-ngl {n} would fit"),
                None => "what --place puts there does not fit by itself".into(),
            };
            Failure::does_not_fit(format!(
                "{flag} does not fit: {which} take {} on {device} (weights {}, KV cache {}, scratch {}), {room}; {hint}",
                show::size(needed.total()),
                show::size(needed.weights),
                show::size(needed.kv),
                show::size(needed.compute),
            ))
            .into()
        }
        OffloadError::Strict { plan } => {
            let mut kept = *plan;
            kept.fallbacks.retain(|fallback| !fallback.asked);
            let ops = left_behind(&kept).join("; ");
            Failure::does_not_fit(format!("--strict-gpu: on the CPU though its layer is on the GPU: {ops}"))
                .into()
        }
        OffloadError::Engine(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::GpuArgs;
    use crate::engine::Fallback;

    fn adapter(shares_memory: bool, free: Option<u64>) -> GpuAdapter {
        GpuAdapter {
            number: 0,
            name: "card".into(),
            kind: "discrete",
            software: false,
            shares_memory,
            api: "vulkan".into(),
            driver: String::new(),
            free,
            tiers: Vec::new(),
            declined: None,
        }
    }

    #[test]
    fn a_budget_is_what_is_free_and_no_more_than_was_allowed() {
        let memory = Memory { total: 100 << 30, available: 50 << 30, bound_by: String::new() };
        let with = |layers: &str, cap: Option<&str>, adapter: &GpuAdapter| {
            let args = GpuArgs {
                gpu_layers: Some(layers.into()),
                gpu_memory: cap.map(Into::into),
                ..GpuArgs::default()
            };
            budget(&GpuOptions::new(&args).unwrap(), adapter, Some(&memory))
        };
        let card = adapter(false, Some(10 << 30));
        assert_eq!(with("auto", None, &card), Some((9 << 30) - SPARE));
        assert_eq!(with("20", None, &card), Some(10 << 30));
        assert_eq!(with("20", Some("3GiB"), &card), Some(3 << 30));
        assert_eq!(with("auto", Some("3GiB"), &card), Some(3 << 30));
        assert_eq!(with("all", Some("30GiB"), &card), Some(10 << 30));
        let unknown = adapter(false, None);
        assert_eq!(with("auto", None, &unknown), Some((50 << 30) / 10 * 6));
        assert_eq!(with("20", None, &unknown), None);
        let shared = adapter(true, Some(40 << 30));
        assert_eq!(with("auto", None, &shared), Some((50 << 30) / 10 * 6));
    }

    #[test]
    fn layers_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[3]), "3");
    }

    #[test]
    fn ops_left_behind_are_told_together() {
        let fallback = |op: &'static str, layer, why: &str| Fallback {
            op,
            node: String::new(),
            layer,
            why: why.into(),
            asked: false,
        };
        let mut fallbacks: Vec<Fallback> =
            (0..12).map(|l| fallback("attention", Some(l), "no kernel for a head size of 80")).collect();
        fallbacks.push(fallback("matmul", None, "no kernel for Q2_K"));
        fallbacks.push(fallback("rope", Some(3), "too long"));
        let mut plan = OffloadPlan::default();
        plan.fallbacks.append(&mut fallbacks);
        assert_eq!(
            left_behind(&plan),
            [
                "attention, 12 layers (0-11): no kernel for a head size of 80",
                "matmul, outside of the layers: no kernel for Q2_K",
                "rope, layer 3: too long"
            ]
        );
    }
}
