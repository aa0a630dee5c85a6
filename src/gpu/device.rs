//! The device: what it can do, its memory, its errors, and the pipelines that were made for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, CommandEncoder, CommandEncoderDescriptor, ComputePipeline,
    DeviceDescriptor, ErrorFilter, Features, MapMode, MemoryHints, PollType, Trace,
};

use super::GpuError;
use super::adapter::{self, Adapter, GpuOptions};
use super::shader::KernelKey;
use crate::backend::{BackendError, Result};

/// Threads that work on a row together, at least.
const LANES: u32 = 32;
/// Bytes that a kernel can name: it counts 32-bit words in 32 bits.
const REACH: u64 = 16 << 30;

/// What a device can do beyond what all of them can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Caps {
    /// Threads that run in step may exchange values.
    pub subgroups: bool,
    /// Shaders compute with 16-bit floats.
    pub f16: bool,
    /// The device takes the time of single kernels.
    pub timestamps: bool,
    /// Threads that work on a row together: a multiple of every size of subgroup that the device may choose.
    pub lanes: u32,
}

/// What a device was asked to do so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Plans submitted.
    pub submissions: u64,
    /// Kernels that they ran.
    pub dispatches: u64,
    /// Copies from the device to the host.
    pub reads: u64,
    /// Bytes that they copied.
    pub bytes_read: u64,
}

/// Where values pass on their way to the host.
#[derive(Default)]
struct Staging {
    buffer: Option<Buffer>,
    /// What a plan that was submitted copies there by itself: from which buffer, from where, and how many bytes.
    coming: Option<(Buffer, usize, usize)>,
}

impl Staging {
    /// The buffer, at least so large.
    fn at_least(&mut self, device: &Device, bytes: usize) -> Result<Buffer> {
        if let Some(buffer) = self.buffer.as_ref().filter(|b| b.size() >= bytes as u64) {
            return Ok(buffer.clone());
        }
        self.coming = None;
        let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
        let buffer = device.buffer(bytes.next_power_of_two(), usage, "what is read back")?;
        self.buffer = Some(buffer.clone());
        Ok(buffer)
    }
}

/// A device with everything that was made for it.
#[allow(clippy::struct_field_names, reason = "wgpu's own device is what it is called")]
pub(crate) struct Device {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) adapter: Adapter,
    pub(crate) caps: Caps,
    pub(crate) limits: wgpu::Limits,
    /// Kept for its memory budget.
    raw: wgpu::Adapter,
    failed: Arc<OnceLock<String>>,
    /// Whether kernels guard their accesses and loops.
    pub(crate) checked: bool,
    max_binding: usize,
    pub(super) pipelines: Mutex<HashMap<KernelKey, Arc<ComputePipeline>>>,
    pub(super) layouts: Mutex<HashMap<super::shader::Bindings, super::pipeline::Layout>>,
    staging: Mutex<Staging>,
    counters: Mutex<Counters>,
}

impl Device {
    /// Open the adapter that the options mean.
    pub(crate) fn open(options: &GpuOptions) -> Result<Device, GpuError> {
        let instance = adapter::instance();
        let (raw, adapter) = adapter::choose(&instance, options)?;
        let limits = raw.limits();
        let wanted = if options.baseline {
            Features::empty()
        } else {
            Features::SUBGROUP | Features::SUBGROUP_BARRIER | Features::SHADER_F16
        };
        let timing = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let features = raw.features() & (wanted | timing | Features::IMMEDIATES);
        let asked = DeviceDescriptor {
            label: Some("chaski"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: MemoryHints::MemoryUsage,
            trace: Trace::Off,
            ..DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(raw.request_device(&asked))
            .map_err(|e| GpuError::Device { name: adapter.name.clone(), why: e.to_string() })?;
        let failed = Arc::new(OnceLock::new());
        let lost = failed.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device is told as its loss too; nobody asks for the reason then.
            let _ = lost.set(format!("the device was lost ({reason:?}): {message}"));
        });
        let uncaptured = failed.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let _ = uncaptured.set(error.to_string());
        }));
        let caps = Caps {
            subgroups: features.contains(Features::SUBGROUP),
            f16: features.contains(Features::SHADER_F16),
            timestamps: features.contains(timing),
            lanes: if features.contains(Features::SUBGROUP) {
                raw.get_info().subgroup_max_size.clamp(LANES, 4 * LANES)
            } else {
                LANES
            },
        };
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(REACH);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let max_binding = options.max_binding.map_or(most, |lower| lower.min(most)) / 16 * 16;
        Ok(Device {
            device,
            queue,
            adapter,
            caps,
            limits,
            raw,
            failed,
            checked: options.checked || cfg!(debug_assertions),
            max_binding,
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
            staging: Mutex::default(),
            counters: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.adapter.name
    }

    /// What was done so far.
    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn count(&self, more: Counters) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.submissions += more.submissions;
        counters.dispatches += more.dispatches;
        counters.reads += more.reads;
        counters.bytes_read += more.bytes_read;
    }

    /// Bytes that a kernel can reach of one buffer.
    pub(crate) fn max_binding(&self) -> usize {
        self.max_binding
    }

    /// Bytes of the device's memory that are free now, where the system tells.
    pub(crate) fn free_memory(&self) -> Option<u64> {
        super::budget::free(&self.raw)
    }

    pub(crate) fn error(&self, why: impl Into<String>) -> BackendError {
        BackendError::Failed { device: self.name().into(), why: why.into() }
    }

    /// An error if anything has gone wrong on the device that no call has told.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(self.error(why)),
        }
    }

    /// A buffer of at least one word; refused memory is an error, not the end.
    pub(crate) fn buffer(&self, bytes: usize, usage: BufferUsages, what: &str) -> Result<Buffer> {
        self.check()?;
        let refused = |what: String| BackendError::OutOfMemory { device: self.name().into(), what, bytes };
        let size = bytes.max(4).checked_next_multiple_of(16).ok_or_else(|| refused(what.into()))?;
        let most = self.max_binding();
        if usage.contains(BufferUsages::STORAGE) && size > most {
            return Err(refused(format!("{what}: a kernel reaches {most} bytes of a buffer")));
        }
        let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let valid = self.device.push_error_scope(ErrorFilter::Validation);
        let internal = self.device.push_error_scope(ErrorFilter::Internal);
        let buffer = self.device.create_buffer(&BufferDescriptor {
            label: Some(what),
            size: size as u64,
            usage,
            mapped_at_creation: false,
        });
        let errors = [internal, valid, memory].map(|scope| pollster::block_on(scope.pop()));
        match errors.into_iter().flatten().next() {
            None => Ok(buffer),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(refused(what.into())),
            Some(error) => Err(self.error(format!("memory for {what}: {error}"))),
        }
    }

    /// Wait until everything submitted has run.
    pub(crate) fn wait(&self) -> Result<()> {
        self.device.poll(PollType::wait_indefinitely()).map_err(|e| self.error(e.to_string()))?;
        self.check()
    }

    /// Copy `out.len()` bytes at `offset` of `buffer` to the host, after everything submitted before. Offsets are multiples
    /// of four.
    pub(crate) fn read(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let size = out.len().next_multiple_of(4);
        self.count(Counters { reads: 1, bytes_read: out.len() as u64, ..Counters::default() });
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = staging.coming.take();
        let to = staging.at_least(self, size)?;
        if coming.is_none_or(|(of, at, bytes)| (of, at, bytes) != (buffer.clone(), offset, size)) {
            let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, offset as u64, &to, 0, size as u64);
            self.queue.submit([encoder.finish()]);
        }
        let (told, result) = std::sync::mpsc::channel();
        to.map_async(MapMode::Read, 0..size as u64, move |mapped| {
            // The receiver is gone only if this call has already failed.
            let _ = told.send(mapped);
        });
        self.wait()?;
        let mapped = result.try_recv().map_err(|_| self.error("a buffer was not mapped"))?;
        mapped.map_err(|e| self.error(format!("reading back: {e}")))?;
        let view = to.get_mapped_range(0..size as u64).map_err(|e| self.error(e.to_string()))?;
        out.copy_from_slice(&view[..out.len()]);
        drop(view);
        to.unmap();
        Ok(())
    }

    /// Have a plan copy what will be read when it has run: `bytes` bytes at `offset` of `buffer`.
    pub(crate) fn expect_read(
        &self,
        encoder: &mut CommandEncoder,
        buffer: &Buffer,
        offset: usize,
        bytes: usize,
    ) -> Result<()> {
        let size = bytes.next_multiple_of(4);
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let to = staging.at_least(self, size)?;
        encoder.copy_buffer_to_buffer(buffer, offset as u64, &to, 0, size as u64);
        staging.coming = Some((buffer.clone(), offset, size));
        Ok(())
    }

    /// What a plan before has copied may be outdated now.
    pub(crate) fn expect_nothing(&self) {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner).coming = None;
    }

    /// Copy bytes into `buffer`, before everything that is submitted after. Offsets and lengths are multiples of four.
    pub(crate) fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.check()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.coming.take_if(|(of, ..)| of == buffer);
        drop(staging);
        self.queue.write_buffer(buffer, offset as u64, bytes);
        Ok(())
    }
}
