//! `chaski devices`: what this machine has and what of it is used.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::args::DevicesArgs;
use super::{output, show};
use crate::cpu::isa::Isa;
use crate::engine::{self, GpuAdapter};
use crate::machine;

pub(super) fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let memory = machine::memory();
    let gpus = engine::adapters();
    let chosen = Isa::detect();
    let (cores, threads) = (machine::cores(), machine::hardware_threads());
    if args.json {
        let value = json!({
            "cpu": { "arch": std::env::consts::ARCH, "features": features(), "isa": chosen.name(),
                "isas": Isa::all_available().map(Isa::name).collect::<Vec<_>>(),
                "cores": cores, "hardware_threads": threads },
            "memory": memory.as_ref().map(|m| json!({
                "total": m.total, "available": m.available, "bound_by": m.bound_by,
            })),
            "gpu": gpus.iter().map(as_json).collect::<Vec<_>>(),
        });
        return Ok(output::stdout(|out| writeln!(out, "{value:#}"))?);
    }
    Ok(output::stdout(|out| {
        writeln!(
            out,
            "CPU      {}, {cores} physical cores and {threads} hardware threads for this process",
            std::env::consts::ARCH
        )?;
        let features = features();
        writeln!(
            out,
            "features {}",
            if features.is_empty() { "none beyond the baseline".into() } else { features.join(" ") }
        )?;
        let others: Vec<&str> = Isa::all_available().filter(|isa| *isa != chosen).map(Isa::name).collect();
        writeln!(out, "kernels  {chosen} (--isa may lower it to: {})", others.join(", "))?;
        match &memory {
            Some(m) => writeln!(
                out,
                "memory   {} available of {}, set by {}",
                show::size(m.available),
                show::size(m.total),
                m.bound_by
            )?,
            None => writeln!(out, "memory   unknown: the system does not tell")?,
        }
        if gpus.is_empty() {
            let why = if engine::HAS_GPU { "" } else { ": this build has no GPU backend" };
            writeln!(out, "GPU      none{why}")?;
        }
        gpus.iter().try_for_each(|gpu| as_text(out, gpu))
    })?)
}

fn as_text(out: &mut dyn Write, gpu: &GpuAdapter) -> io::Result<()> {
    writeln!(out, "GPU {:<4} {} ({}, {})", gpu.number, gpu.name, gpu.kind, gpu.api)?;
    if !gpu.driver.is_empty() {
        writeln!(out, "         driver {}", gpu.driver)?;
    }
    match gpu.free {
        Some(free) => writeln!(out, "         memory {} free", show::size(free))?,
        None => writeln!(out, "         memory not told by the driver")?,
    }
    if let Some(why) = &gpu.declined {
        return writeln!(out, "         cannot be used: {why}");
    }
    let tiers = if gpu.tiers.is_empty() { "none beyond the baseline".into() } else { gpu.tiers.join(", ") };
    writeln!(out, "         tiers  {tiers}")?;
    if gpu.software {
        writeln!(out, "         a software adapter: used only where -ngl or --device asks for it")?;
    }
    Ok(())
}

fn as_json(gpu: &GpuAdapter) -> Json {
    json!({
        "number": gpu.number, "name": gpu.name, "kind": gpu.kind, "software": gpu.software, "backend": gpu.api,
        "driver": gpu.driver, "free": gpu.free, "tiers": gpu.tiers, "declined": gpu.declined,
    })
}

/// The features of this CPU that matter to kernels, as the compiler names them.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! present {
            ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
        }
        let all = present!("sse4.2" "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni"
            "avx512vbmi" "avx512bf16" "avx512fp16");
        all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}
