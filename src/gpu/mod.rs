//! The GPU backend: compute shaders on Vulkan, Metal and DX12, through wgpu.
//!
//! Weights stay in their blocks (`layout`), and kernels decode them in registers. A segment becomes a list of dispatches
//! with everything fixed (`plan`); a batch is one submission of one compute pass. Shaders are files of `shaders/`, put
//! together by `shader`. What no kernel computes is declined with the reason (`ops`).

mod adapter;
mod budget;
mod cache;
mod device;
mod formats;
mod fuse;
mod inputs;
mod layout;
mod matrix;
#[cfg(test)]
mod matrix_harness;
#[cfg(test)]
mod matrix_tests;
mod memory;
mod ops;
mod pipeline;
mod plan;
mod profile;
mod shader;
#[cfg(test)]
mod shader_tests;
mod weight;

use std::sync::{Arc, Mutex, PoisonError};

use chaski_gguf::{Format, Gguf};

pub use adapter::{Adapter, GpuOptions, Kind, adapters};
pub use device::{Caps, Counters};

use crate::backend::{Backend, Buffer, Fused, Plan, Result, Segment, Weight, Why};
use crate::graph::{Graph, NodeId};
use crate::tensor::{Act, Shape};
use device::Device;
use memory::{GpuBuffer, gpu_buffer};
use weight::VectorPool;

/// Why there is no GPU to run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No adapter is what was asked for.
    #[error("{}; {}", no_adapter(.asked.as_deref()), known_adapters(.known))]
    NoAdapter {
        /// What [`GpuOptions::device`] said.
        asked: Option<String>,
        /// The adapters that there are, with their kind.
        known: Vec<String>,
    },
    /// The adapter cannot be used.
    #[error("{name} cannot be used: {why}")]
    Declined {
        /// The adapter.
        name: String,
        /// What it lacks.
        why: String,
    },
    /// The driver does not open the adapter.
    #[error("{name}: {why}")]
    Device {
        /// The adapter.
        name: String,
        /// What the driver says.
        why: String,
    },
}

fn no_adapter(asked: Option<&str>) -> String {
    asked.map_or_else(|| "no GPU was found".into(), |name| format!("no GPU is called `{name}`"))
}

fn known_adapters(known: &[String]) -> String {
    if known.is_empty() {
        "the system knows of none".into()
    } else {
        format!("there is {}", known.join(", "))
    }
}

/// The GPU backend: one device.
pub struct Gpu {
    device: Arc<Device>,
    vectors: VectorPool,
    scratch: Mutex<Option<Arc<GpuBuffer>>>,
}

impl Gpu {
    /// Open the adapter that the options mean.
    ///
    /// # Errors
    /// There is none, it lacks something, or the driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Gpu, GpuError> {
        let device = Arc::new(Device::open(options)?);
        Ok(Gpu { device, vectors: VectorPool::default(), scratch: Mutex::default() })
    }
    /// The adapter that was opened.
    pub fn adapter(&self) -> &Adapter {
        &self.device.adapter
    }
    /// What the device can do beyond what all of them can.
    pub fn caps(&self) -> Caps {
        self.device.caps
    }
    /// Bytes of the device's memory that are free now, where the system tells.
    pub fn memory_budget(&self) -> Option<u64> {
        self.device.free_memory()
    }
    /// What the device was asked to do so far.
    pub fn counters(&self) -> Counters {
        self.device.counters()
    }
    /// Bytes that a weight of this shape takes on the device; none where no kernel reads the format.
    pub fn stored_bytes(format: Format, shape: Shape) -> Option<u64> {
        if shape.rows() == 1 {
            return Some(shape.len() as u64 * 4);
        }
        let bytes = layout::Layout::of(format, shape.row())?.bytes(shape.rows())?;
        u64::try_from(bytes).ok()
    }
    /// Memory that the dispatches of one op share; nobody else uses it while a plan runs.
    fn scratch(&self, bytes: usize) -> Result<Arc<GpuBuffer>> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = scratch.as_ref().filter(|s| s.bytes() >= bytes) {
            return Ok(scratch.clone());
        }
        let larger = Arc::new(GpuBuffer::new(&self.device, bytes, "intermediates of attention")?);
        *scratch = Some(larger.clone());
        Ok(larger)
    }
    fn buffer<'a>(&self, buffer: &'a Arc<dyn Buffer>, offset: usize, bytes: usize) -> Result<&'a GpuBuffer> {
        let gpu = gpu_buffer(buffer).map_err(|why| self.device.error(why))?;
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= gpu.bytes());
        if fits && offset.is_multiple_of(4) && bytes.is_multiple_of(4) {
            return Ok(gpu);
        }
        Err(self.device.error(format!("{bytes} bytes at {offset} of a buffer of {}", gpu.bytes())))
    }
}

impl Backend for Gpu {
    fn name(&self) -> &str {
        self.device.name()
    }
    fn supports(&self, graph: &Graph, node: NodeId) -> Result<(), Why> {
        ops::supports(&ops::Query { device: &self.device, graph, id: node })
    }
    fn fuse(&self, graph: &Graph, nodes: &[NodeId]) -> Vec<Fused> {
        fuse::fuse(&self.device, graph, nodes)
    }
    fn activation(&self, _: Format) -> Act {
        Act::F32
    }
    fn max_buffer(&self) -> usize {
        self.device.max_binding()
    }
    fn alloc(&self, bytes: usize, what: &str) -> Result<Arc<dyn Buffer>> {
        Ok(Arc::new(GpuBuffer::new(&self.device, bytes, what)?))
    }
    fn load_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        let weight = self.alloc_weight(file, index)?;
        self.fill_weight(file, index, &weight)?;
        Ok(weight)
    }
    fn weight_bytes(&self, file: &Gguf, index: usize) -> u64 {
        let Some(info) = file.tensors().get(index) else { return 0 };
        let shape = Shape(info.shape.map(|d| d as usize));
        Gpu::stored_bytes(info.format, shape).unwrap_or(info.bytes)
    }
    fn alloc_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        Ok(Arc::new(weight::alloc(&self.device, &self.vectors, file, index)?))
    }
    fn fill_weight(&self, file: &Arc<Gguf>, index: usize, weight: &Arc<dyn Weight>) -> Result<()> {
        let weight = weight::gpu_weight(weight).map_err(|why| self.device.error(why))?;
        weight::fill(&self.device, file, index, weight)
    }
    fn plan(&self, segment: &Segment) -> Result<Box<dyn Plan>> {
        plan::make(self, segment)
    }
    fn read(&self, buffer: &Arc<dyn Buffer>, offset: usize, out: &mut [u8]) -> Result<()> {
        let gpu = self.buffer(buffer, offset, out.len())?;
        self.device.read(&gpu.buffer, offset, out)
    }
    fn write(&self, buffer: &Arc<dyn Buffer>, offset: usize, bytes: &[u8]) -> Result<()> {
        let gpu = self.buffer(buffer, offset, bytes.len())?;
        self.device.write(&gpu.buffer, offset, bytes)
    }
}
