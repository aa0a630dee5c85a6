//! The GPUs of this machine: the one place that knows whether the build has a GPU backend.

use std::sync::Arc;

use crate::backend::Backend;

/// Whether this build has a GPU backend.
pub const HAS_GPU: bool = false;

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuAdapter {
    /// Its place in the list.
    pub number: usize,
    /// What the driver calls it.
    pub name: String,
    /// In a word: `discrete`, `integrated`, `virtual`, `software`, `unknown`.
    pub kind: &'static str,
    /// Whether it is a program on the CPU that acts as a GPU.
    pub software: bool,
    /// Whether its memory is the machine's.
    pub shares_memory: bool,
    /// Through what it is reached: `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// The driver, with its version.
    pub driver: String,
    /// Bytes of its memory that are free, where the system tells.
    pub free: Option<u64>,
    /// What it can do beyond what all of them can.
    pub tiers: Vec<&'static str>,
    /// Why it cannot be used, if it cannot.
    pub declined: Option<String>,
}

/// Which GPU is wanted, and how it is to compute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuWanted {
    /// Its number, or a part of its name; none: the best one.
    pub device: Option<String>,
    /// Whether that may be a software adapter.
    pub software: bool,
    /// Activations are not rounded to 8 bits.
    pub exact: bool,
}

/// A GPU made ready.
pub struct OpenGpu {
    /// What it is.
    pub adapter: GpuAdapter,
    /// Runs graphs on it.
    pub backend: Arc<dyn Backend>,
}

/// Every GPU of this machine: none that this build could use.
pub fn adapters() -> Vec<GpuAdapter> {
    Vec::new()
}

/// Open the GPU that is wanted: this build has no backend for one.
///
/// # Errors
/// None.
pub fn open_gpu(_: &GpuWanted) -> Result<Option<OpenGpu>, String> {
    Ok(None)
}
