//! A GPU for the tests of kernels, without the rest of the backend: matrices of random blocks, kernels one after the other.
//!
//! Where there is no adapter at all there is no GPU here, which is said aloud, unless `CHASKI_REQUIRE_GPU` is set: then that is an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use chaski_gguf::Format;
use wgpu::util::DeviceExt;
use wgpu::{BufferUsages, Features};

use super::device::Caps;
use super::layout::Layout;
use super::matrix::{self, Kernel, Part, Product, Rows};
use super::shader::{self, Bindings};

/// A device and what of it the kernels use.
pub(crate) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pub(crate) caps: Caps,
    /// By their text: compiling is most of the time that these tests take.
    pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
}

pub(crate) struct Pipeline {
    compiled: wgpu::ComputePipeline,
    group: wgpu::BindGroupLayout,
    bindings: Bindings,
}

/// The adapter with what it has, and again as if it had nothing but what every GPU has.
pub(crate) fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(open_gpus)
}

fn open_gpus() -> Vec<Gpu> {
    let mut with = wgpu::InstanceDescriptor::new_without_display_handle();
    with.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(with);
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()));
    let Ok(adapter) = adapter else {
        assert!(std::env::var_os("CHASKI_REQUIRE_GPU").is_none(), "no GPU adapter");
        println!("skipped: no GPU adapter");
        return Vec::new();
    };
    let open = |wanted: Features| {
        let features = adapter.features() & (wanted | Features::IMMEDIATES);
        let asked = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&asked)).unwrap();
        let caps = Caps {
            subgroups: features.contains(Features::SUBGROUP),
            f16: features.contains(Features::SHADER_F16),
            lanes: if features.contains(Features::SUBGROUP) {
                adapter.get_info().subgroup_max_size.max(32)
            } else {
                32
            },
            ..Caps::default()
        };
        Gpu { device, queue, caps, pipelines: Mutex::default() }
    };
    vec![open(Features::SUBGROUP | Features::SHADER_F16), open(Features::empty())]
}

/// Scrambled numbers between -1 and 1.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

/// A matrix as a file has it, what it decodes to, and as the device has it, shard by shard.
pub(crate) struct Matrix {
    pub(crate) format: Format,
    pub(crate) k: usize,
    pub(crate) rows: usize,
    pub(crate) values: Vec<f32>,
    pub(crate) shards: Vec<(Rows, Vec<u8>)>,
}

impl Matrix {
    pub(crate) fn new(format: Format, k: usize, rows: usize, seed: u64) -> Matrix {
        Matrix::sharded(format, k, rows, 1, seed, usize::MAX)
    }

    pub(crate) fn sharded(
        format: Format,
        k: usize,
        rows: usize,
        unit: usize,
        seed: u64,
        most: usize,
    ) -> Matrix {
        let mut random = Random(seed);
        // Sub-blocks of different sizes.
        let raw: Vec<f32> = random
            .values(k * rows)
            .iter()
            .enumerate()
            .map(|(i, v)| v * (1 + i / 16 % 7) as f32 / 8.0)
            .collect();
        let mut bytes = vec![0; format.bytes_of(raw.len() as u64).unwrap() as usize];
        (format.info().encode.unwrap())(&raw, &mut bytes);
        let mut values = vec![0.0; raw.len()];
        (format.info().decode)(&bytes, &mut values);
        let layout = Layout::of(format, k).unwrap();
        let row = layout.file_row_bytes();
        let shards = layout.shards(rows, unit, most).unwrap().into_iter().map(|range| {
            let mut packed = Vec::new();
            let done: Result<(), ()> =
                layout.upload(&bytes[range.start * row..range.end * row], 4096, |at, piece| {
                    assert_eq!(at, packed.len());
                    packed.extend_from_slice(piece);
                    Ok(())
                });
            done.unwrap();
            assert_eq!(Some(packed.len()), layout.bytes(range.len()));
            (Rows { format, k, first: range.start, rows: range.len() }, packed)
        });
        let shards = shards.collect();
        Matrix { format, k, rows, values, shards }
    }

    /// Row `row` times `x`.
    pub(crate) fn times(&self, row: usize, x: &[f32]) -> f64 {
        let row = &self.values[row * self.k..(row + 1) * self.k];
        row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
    }
}

impl Gpu {
    fn pipeline(&self, kernel: &Kernel) -> Arc<Pipeline> {
        let (text, bindings) = shader::assemble(&kernel.key, self.caps).unwrap();
        if let Some(known) = self.pipelines.lock().unwrap().get(&text) {
            return known.clone();
        }
        let entry = |binding| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !Bindings::is_written(binding) },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = bindings.numbers().map(entry).collect();
        let group_layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&group_layout)],
            immediate_size: 128,
        });
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.key.op),
            source: wgpu::ShaderSource::Wgsl(text.clone().into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.key.op),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let made = Arc::new(Pipeline { compiled: pipeline, group: group_layout, bindings });
        self.pipelines.lock().unwrap().insert(text, made.clone());
        made
    }

    /// Run kernels one after the other, each with its matrices; gives the arena as it is then.
    pub(crate) fn run(
        &self,
        kernels: &[(Kernel, Vec<&[u8]>)],
        arena: &[f32],
        vectors: &[f32],
        inputs: &[u32],
    ) -> Vec<f32> {
        let buffer = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(16).max(16), 0);
            self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: None,
                contents: &bytes,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
            })
        };
        let arena_buffer = buffer(bytemuck::cast_slice(arena));
        let scratch = buffer(&vec![0xff; kernels.iter().map(|(k, _)| k.scratch).max().unwrap_or(0)]);
        let (vectors, inputs) = (buffer(bytemuck::cast_slice(vectors)), buffer(bytemuck::cast_slice(inputs)));
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (kernel, matrices) in kernels {
            let Pipeline { compiled: pipeline, group, bindings } = &*self.pipeline(kernel);
            let matrices: Vec<_> = matrices.iter().map(|m| buffer(m)).collect();
            let bound = |number: u32| match number {
                0 | 1 => &arena_buffer,
                2 => &inputs,
                3 | 4 => &matrices[0],
                5 => &vectors,
                9 | 10 => &matrices[1],
                11 | 12 => &matrices[2],
                8 => &scratch,
                _ => panic!("binding {number}"),
            };
            let entries: Vec<_> = bindings
                .numbers()
                .map(|binding| wgpu::BindGroupEntry { binding, resource: bound(binding).as_entire_binding() })
                .collect();
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: group,
                entries: &entries,
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let mut immediates = kernel.immediates.bytes().to_vec();
            immediates.resize(128, 0);
            pass.set_immediates(0, &immediates);
            // Folded over two dimensions, with some workgroups too many, as a large dispatch is.
            pass.dispatch_workgroups(kernel.groups.div_ceil(3) as u32, 3, 1);
        }
        let size = arena_buffer.size();
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&arena_buffer, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let bytes = staging.get_mapped_range(..).unwrap().to_vec();
        bytemuck::pod_collect_to_vec(&bytes)[..arena.len()].to_vec()
    }

    /// Run a product, shard by shard where its (single) matrix has several.
    pub(crate) fn product(
        &self,
        p: &Product,
        of: &[&Matrix],
        arena: &[f32],
        vectors: &[f32],
        inputs: &[u32],
    ) -> Vec<f32> {
        let mut kernels = Vec::new();
        for shard in 0..of[0].shards.len() {
            let parts: Vec<Part> =
                p.parts.iter().zip(of).map(|(part, m)| Part { rows: m.shards[shard].0, ..*part }).collect();
            let matrices: Vec<&[u8]> = of.iter().map(|m| &*m.shards[shard].1).collect();
            let found = matrix::product(&Product { parts: &parts, ..p.clone() }, self.caps).unwrap();
            for kernel in found {
                let own = matrices[kernel.parts.clone()].to_vec();
                kernels.push((kernel, own));
            }
        }
        self.run(&kernels, arena, vectors, inputs)
    }
}
