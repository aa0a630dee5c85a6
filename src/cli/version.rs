//! `chaski --version`: the build, the kernel set and the adapters.

use super::output;
use crate::cpu::isa::Isa;
use crate::engine;

pub(super) fn run() -> anyhow::Result<()> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let gpus = engine::adapters();
    Ok(output::stdout(|out| {
        writeln!(
            out,
            "chaski {} ({profile} build, {}-{})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        )?;
        writeln!(out, "CPU kernels: {}", Isa::detect())?;
        let gpus: Vec<String> =
            gpus.iter().map(|gpu| format!("{} ({}, {})", gpu.name, gpu.kind, gpu.api)).collect();
        match (engine::HAS_GPU, gpus.is_empty()) {
            (false, _) => writeln!(out, "GPU adapters: none (this build has no GPU backend)"),
            (true, true) => writeln!(out, "GPU adapters: none"),
            (true, false) => writeln!(out, "GPU adapters: {}", gpus.join("; ")),
        }
    })?)
}
