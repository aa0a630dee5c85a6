//! Buffers of the device as the seam knows them.

use std::any::Any;
use std::sync::Arc;

use wgpu::BufferUsages;

use super::device::Device;
use crate::backend::{self, Result};

/// What every buffer that a kernel touches is used for.
pub(crate) const STORAGE: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_DST).union(BufferUsages::COPY_SRC);

/// Memory of the device, zeroed when it is first touched.
pub(crate) struct GpuBuffer {
    pub(crate) buffer: wgpu::Buffer,
    bytes: usize,
}

impl GpuBuffer {
    pub(crate) fn new(device: &Device, bytes: usize, what: &str) -> Result<GpuBuffer> {
        Ok(GpuBuffer { buffer: device.buffer(bytes, STORAGE, what)?, bytes })
    }
}

impl backend::Buffer for GpuBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The GPU's view of a buffer.
pub(crate) fn gpu_buffer(buffer: &Arc<dyn backend::Buffer>) -> Result<&GpuBuffer, String> {
    let any: &dyn Any = &**buffer;
    any.downcast_ref::<GpuBuffer>().ok_or_else(|| "is another backend's buffer".into())
}
