//! `chaski devices`: what this machine has and what of it is used.

use serde_json::json;

use super::args::DevicesArgs;
use super::{output, show};
use crate::cpu::isa::Isa;
use crate::machine;

pub(super) fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let memory = machine::memory();
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
            "gpu": [],
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
        writeln!(out, "GPU      none: this build has no GPU backend")
    })?)
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
