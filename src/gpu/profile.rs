//! The time of every dispatch, taken by the device.

use std::time::Duration;

use wgpu::{BufferUsages, CommandEncoder, ComputePass, QuerySet, QuerySetDescriptor, QueryType};

use super::device::Device;
use crate::backend::Result;

/// Timestamps of a plan: before its first dispatch and after each.
pub(crate) struct Timestamps {
    sets: Vec<QuerySet>,
    resolved: wgpu::Buffer,
    count: usize,
    nanoseconds: f64,
    times: Vec<u64>,
}

impl Timestamps {
    /// For `dispatches` dispatches; none where the device takes no times.
    pub(crate) fn new(device: &Device, dispatches: usize) -> Option<Timestamps> {
        if !device.caps.timestamps {
            return None;
        }
        let most = wgpu::QUERY_SET_MAX_QUERIES as usize;
        let count = dispatches + 1;
        let sets = (0..count.div_ceil(most)).map(|i| {
            device.device.create_query_set(&QuerySetDescriptor {
                label: None,
                ty: QueryType::Timestamp,
                count: (count - i * most).min(most) as u32,
            })
        });
        let sets = sets.collect();
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved = device.buffer(count * 8, usage, "times").ok()?;
        let nanoseconds = f64::from(device.queue.get_timestamp_period());
        Some(Timestamps { sets, resolved, count, nanoseconds, times: Vec::new() })
    }

    pub(crate) fn write(&self, pass: &mut ComputePass, at: usize) {
        let most = wgpu::QUERY_SET_MAX_QUERIES as usize;
        if let Some(set) = self.sets.get(at / most) {
            pass.write_timestamp(set, (at % most) as u32);
        }
    }

    pub(crate) fn resolve(&self, encoder: &mut CommandEncoder) {
        let most = wgpu::QUERY_SET_MAX_QUERIES as usize;
        for (i, set) in self.sets.iter().enumerate() {
            let count = (self.count - i * most).min(most) as u32;
            encoder.resolve_query_set(set, 0..count, &self.resolved, (i * most * 8) as u64);
        }
    }

    pub(crate) fn read(&mut self, device: &Device) -> Result<()> {
        self.times.resize(self.count, 0);
        device.read(&self.resolved, 0, bytemuck::cast_slice_mut(&mut self.times))
    }

    /// What dispatch `i` took.
    pub(crate) fn time(&self, i: usize) -> Option<Duration> {
        let ticks = self.times.get(i + 1)?.saturating_sub(*self.times.get(i)?);
        Some(Duration::from_nanos((ticks as f64 * self.nanoseconds) as u64))
    }
}
