//! `chaski devices`: what this machine has and what of it is used.

use serde_json::json;

use super::args::DevicesArgs;
use super::{output, show};
use crate::machine;

pub(super) fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let memory = machine::memory();
    let (cores, threads) = (machine::cores(), machine::hardware_threads());
    if args.json {
        let value = json!({
            "cpu": { "arch": std::env::consts::ARCH, "cores": cores, "hardware_threads": threads },
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
