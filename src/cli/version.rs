//! `chaski --version`: the build, the kernel set and the adapters.

use super::output;
use crate::cpu::isa::Isa;

pub(super) fn run() -> anyhow::Result<()> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(output::stdout(|out| {
        writeln!(
            out,
            "chaski {} ({profile} build, {}-{})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        )?;
        writeln!(out, "CPU kernels: {}", Isa::detect())?;
        writeln!(out, "GPU adapters: none (this build has no GPU backend)")
    })?)
}
