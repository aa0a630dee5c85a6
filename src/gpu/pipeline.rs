//! Pipelines and their layouts: made when a plan first needs them, kept for the device.

use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};

use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType,
    ComputePipeline, ComputePipelineDescriptor, ErrorFilter, PipelineCompilationOptions, PipelineLayout,
    PipelineLayoutDescriptor, ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

use super::adapter::IMMEDIATE_BYTES;
use super::device::Device;
use super::shader::{self, Bindings, KernelKey};

/// How the buffers of a set of bindings are bound.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) group: BindGroupLayout,
    pipeline: PipelineLayout,
}

impl Layout {
    fn new(device: &wgpu::Device, bindings: Bindings) -> Layout {
        let entry = |binding| BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: BufferBindingType::Storage { read_only: !Bindings::is_written(binding) },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = bindings.numbers().map(entry).collect();
        let group =
            device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline = device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&group)],
            immediate_size: IMMEDIATE_BYTES,
        });
        Layout { group, pipeline }
    }
}

/// The pipeline of a kernel, and how its buffers are bound.
pub(crate) fn get(
    device: &Device,
    key: &KernelKey,
) -> Result<(Arc<ComputePipeline>, Bindings, Layout), String> {
    let (text, bindings) = shader::assemble(key, device.caps)?;
    let layout = {
        let mut layouts = device.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        layouts.entry(bindings).or_insert_with(|| Layout::new(&device.device, bindings)).clone()
    };
    let mut pipelines = device.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
    let pipeline = match pipelines.entry(key.clone()) {
        Entry::Occupied(entry) => entry.get().clone(),
        Entry::Vacant(entry) => {
            entry.insert(Arc::new(compile(&device.device, key, text, &layout, device.checked)?)).clone()
        }
    };
    Ok((pipeline, bindings, layout))
}

/// Compile a kernel. Without `checked`, accesses and loops are not guarded.
pub(crate) fn compile(
    device: &wgpu::Device,
    key: &KernelKey,
    text: String,
    layout: &Layout,
    checked: bool,
) -> Result<ComputePipeline, String> {
    let errors = [ErrorFilter::Validation, ErrorFilter::Internal, ErrorFilter::OutOfMemory]
        .map(|filter| device.push_error_scope(filter));
    let source = ShaderModuleDescriptor { label: Some(key.op), source: ShaderSource::Wgsl(text.into()) };
    let module = if checked {
        device.create_shader_module(source)
    } else {
        // SAFETY: the text is this crate's own; its kernels compare every index that does not follow from a shape with its
        // bound, and their loops end by counts that the host has computed. `tests/gpu.rs` runs them all with the checks on.
        unsafe { device.create_shader_module_trusted(source, ShaderRuntimeChecks::unchecked()) }
    };
    let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(key.op),
        layout: Some(&layout.pipeline),
        module: &module,
        entry_point: Some("main"),
        compilation_options: PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..PipelineCompilationOptions::default()
        },
        cache: None,
    });
    // Scopes are closed in the order opposite to that in which they were opened.
    let errors = errors.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    match errors.collect::<Vec<_>>().into_iter().flatten().next() {
        None => Ok(pipeline),
        Some(error) => Err(format!("kernel {}: {error}", key.op)),
    }
}

/// A layout for a device that is no [`Device`]: of tests without a GPU.
#[cfg(test)]
pub(crate) fn layout_for_tests(device: &wgpu::Device, bindings: Bindings) -> Layout {
    Layout::new(device, bindings)
}
