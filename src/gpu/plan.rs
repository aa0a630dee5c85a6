//! A segment made ready: dispatches with their pipelines, buffers and immediates, in one compute pass.

use std::sync::Arc;
use std::time::Duration;

use wgpu::{BindGroup, BindGroupDescriptor, BindGroupEntry, ComputePassDescriptor, ComputePipeline};

use super::device::{Counters, Device};
use super::fuse;
use super::inputs::{Angles, InputsLayout};
use super::memory::{GpuBuffer, gpu_buffer};
use super::ops::{self, Planner};
use super::pipeline;
use super::profile::Timestamps;
use super::shader::{Bindings, Immediates, KernelKey};
use super::weight::{GpuWeight, gpu_weight};
use super::{Gpu, pipeline::Layout};
use crate::backend::{BackendError, Buffer, Inputs, KvLayer, NodeTime, Plan, Result, Segment, Weight};
use crate::graph::{Input, Op};

/// What grows with the batch that a plan runs for: gives the number of workgroups.
pub(crate) type Adapt = Box<dyn Fn(&Inputs, &mut Immediates) -> usize + Send>;

/// A kernel to be run, as an op describes it.
pub(crate) struct Dispatch {
    pub(crate) key: KernelKey,
    /// Matrices, each with the number of its shard; the first is binding 3 and 4.
    pub(crate) weights: Vec<(Arc<dyn Weight>, usize)>,
    pub(crate) vectors: Option<Arc<GpuBuffer>>,
    pub(crate) kv: Option<KvLayer>,
    /// Bytes of memory that it shares with other dispatches of its op.
    pub(crate) scratch: usize,
    pub(crate) immediates: Immediates,
    /// Workgroups; kernels fold their number over two dimensions and must let those beyond do nothing.
    pub(crate) groups: usize,
    /// Where the batch decides, instead.
    pub(crate) adapt: Option<Adapt>,
    /// With what it is computed, for profiles.
    pub(crate) how: String,
    /// Bytes of weights that it reads.
    pub(crate) weight_bytes: u64,
}

impl Dispatch {
    /// A dispatch of `groups` workgroups that touches nothing but the arena.
    pub(crate) fn new(key: KernelKey, immediates: Immediates, groups: usize) -> Dispatch {
        Dispatch {
            key,
            weights: Vec::new(),
            vectors: None,
            kv: None,
            scratch: 0,
            immediates,
            groups,
            adapt: None,
            how: String::new(),
            weight_bytes: 0,
        }
    }
}

/// A dispatch with its pipeline and its buffers.
struct Ready {
    dispatch: Dispatch,
    op: &'static str,
    pipeline: Arc<ComputePipeline>,
    bindings: Bindings,
    layout: Layout,
    group: BindGroup,
}

pub(crate) struct GpuPlan {
    device: Arc<Device>,
    ready: Vec<Ready>,
    layout: InputsLayout,
    words: Vec<u32>,
    inputs: GpuBuffer,
    arena: Arc<dyn Buffer>,
    scratch: Option<Arc<GpuBuffer>>,
    /// Where the graph's output lies in the arena, and its bytes, if it is computed here.
    output: Option<(usize, usize)>,
    timestamps: Option<Timestamps>,
}

pub(super) fn make(gpu: &Gpu, segment: &Segment) -> Result<Box<dyn Plan>> {
    let device = &gpu.device;
    let graph = segment.graph;
    let tokens = graph.nodes().iter().find(|n| n.op == Op::Input(Input::Tokens));
    let positions = graph.nodes().iter().find(|n| n.op == Op::Input(Input::Positions));
    let n = tokens.or(positions).map_or(0, |n| n.shape.len());
    let failed = |node, why| {
        let node = graph.node(node).label();
        BackendError::Node { device: device.name().into(), node, why }
    };
    let mut angles = Vec::new();
    for &id in segment.nodes {
        if let Op::RopeTable(params) = &graph.node(id).op {
            let factors = graph.node(id).inputs.get(1);
            let factors = factors.map(|f| ops::vector_of(segment, *f)).transpose();
            let factors = factors.map_err(|why| failed(id, why))?;
            angles.push(Angles::new(id, params, factors.as_ref().map(|f| &*f.values)));
        }
    }
    let layout = InputsLayout::new(graph, n, angles);
    let mut dispatches = Vec::new();
    for &id in segment.nodes {
        let node = graph.node(id);
        if node.shape.rows() == 0 && !matches!(node.op, Op::KvWrite) {
            continue;
        }
        let planner = Planner { device, segment, inputs: &layout, id };
        let of_node = match segment.fused.iter().find(|fused| fused.nodes.last() == Some(&id)) {
            Some(fused) => fuse::dispatches(&planner, fused),
            None => ops::dispatches(&planner),
        };
        let of_node = of_node.map_err(|why| failed(id, why))?;
        dispatches.extend(of_node.into_iter().map(|d| (id, d)));
    }
    let scratch = dispatches.iter().map(|(_, d)| d.scratch).max().unwrap_or(0);
    let scratch = if scratch > 0 { Some(gpu.scratch(scratch)?) } else { None };
    let inputs = GpuBuffer::new(device, (layout.spans() + 1024) * 4, "what a batch brings")?;
    let mut ready = Vec::new();
    for (id, dispatch) in dispatches {
        let (pipeline, bindings, of_kernel) =
            pipeline::get(device, &dispatch.key).map_err(|why| failed(id, why))?;
        let buffers = Buffers { arena: segment.arena, inputs: &inputs, scratch: scratch.as_deref() };
        let group = buffers.group(device, &dispatch, bindings, &of_kernel).map_err(|why| failed(id, why))?;
        let op = graph.node(id).op.name();
        ready.push(Ready { dispatch, op, pipeline, bindings, layout: of_kernel, group });
    }
    let output = graph.output().filter(|id| segment.nodes.contains(id)).and_then(|id| {
        let region = segment.regions.get(id.index()).copied().flatten()?;
        Some((region.offset, graph.node(id).bytes()))
    });
    let arena = segment.arena.clone();
    let device = device.clone();
    Ok(Box::new(GpuPlan {
        device,
        ready,
        layout,
        words: Vec::new(),
        inputs,
        arena,
        scratch,
        output,
        timestamps: None,
    }))
}

/// The buffers that all dispatches of a plan share.
struct Buffers<'a> {
    arena: &'a Arc<dyn Buffer>,
    inputs: &'a GpuBuffer,
    scratch: Option<&'a GpuBuffer>,
}

impl Buffers<'_> {
    fn group(
        &self,
        device: &Device,
        dispatch: &Dispatch,
        bindings: Bindings,
        layout: &Layout,
    ) -> Result<BindGroup, String> {
        let shard = |i: usize| -> Result<&GpuBuffer, String> {
            let (weight, shard) =
                dispatch.weights.get(i).ok_or("a kernel binds a matrix that it was not given")?;
            match gpu_weight(weight)? {
                GpuWeight::Matrix(m) => Ok(&m.shards.get(*shard).ok_or("no such shard")?.buffer),
                GpuWeight::Vector(_) => Err("a kernel for matrices was given a vector".into()),
            }
        };
        let kv = || dispatch.kv.as_ref().ok_or("a kernel binds a cache that it was not given");
        let buffer = |number: u32| -> Result<&GpuBuffer, String> {
            match number {
                0 | 1 => gpu_buffer(self.arena),
                2 => Ok(self.inputs),
                3 | 4 => shard(0),
                5 => Ok(dispatch.vectors.as_deref().ok_or("a kernel binds vectors that it was not given")?),
                6 => gpu_buffer(&kv()?.k),
                7 => gpu_buffer(&kv()?.v),
                8 => Ok(self.scratch.ok_or("a kernel binds memory that it has not asked for")?),
                9 | 10 => shard(1),
                11 | 12 => shard(2),
                _ => Err(format!("no buffer for binding {number}")),
            }
        };
        let mut entries = Vec::new();
        for binding in bindings.numbers() {
            let resource = buffer(binding)?.buffer.as_entire_binding();
            entries.push(BindGroupEntry { binding, resource });
        }
        Ok(device.device.create_bind_group(&BindGroupDescriptor {
            label: Some(dispatch.key.op),
            layout: &layout.group,
            entries: &entries,
        }))
    }
}

impl GpuPlan {
    /// Write what the batch brings; a longer list of spans than ever before takes a larger buffer.
    fn write_inputs(&mut self, inputs: &Inputs) -> Result<()> {
        self.layout.fill(inputs, &mut self.words);
        if self.words.len() * 4 > self.inputs.bytes() {
            let bytes = (self.words.len() * 4).next_power_of_two();
            self.inputs = GpuBuffer::new(&self.device, bytes, "what a batch brings")?;
            let buffers =
                Buffers { arena: &self.arena, inputs: &self.inputs, scratch: self.scratch.as_deref() };
            for ready in &mut self.ready {
                let group = buffers.group(&self.device, &ready.dispatch, ready.bindings, &ready.layout);
                ready.group = group.map_err(|why| self.device.error(why))?;
            }
        }
        self.device.write(&self.inputs.buffer, 0, bytemuck::cast_slice(&self.words))
    }
}

impl Plan for GpuPlan {
    fn submit(&mut self, inputs: &Inputs) -> Result<()> {
        self.write_inputs(inputs)?;
        let most = self.device.limits.max_compute_workgroups_per_dimension as usize;
        let mut encoder =
            self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        if let Some(timestamps) = &self.timestamps {
            timestamps.write(&mut pass, 0);
        }
        let mut ran = 0;
        for (i, ready) in self.ready.iter_mut().enumerate() {
            let dispatch = &mut ready.dispatch;
            if let Some(adapt) = &dispatch.adapt {
                dispatch.groups = adapt(inputs, &mut dispatch.immediates);
            }
            if dispatch.groups > 0 {
                ran += 1;
                let x = dispatch.groups.min(most);
                let y = dispatch.groups.div_ceil(x);
                if y > most {
                    return Err(self.device.error(format!("{}: {} workgroups", ready.op, dispatch.groups)));
                }
                pass.set_pipeline(&ready.pipeline);
                pass.set_bind_group(0, &ready.group, &[]);
                pass.set_immediates(0, dispatch.immediates.bytes());
                pass.dispatch_workgroups(x as u32, y as u32, 1);
            }
            if let Some(timestamps) = &self.timestamps {
                timestamps.write(&mut pass, i + 1);
            }
        }
        drop(pass);
        if let Some(timestamps) = &self.timestamps {
            timestamps.resolve(&mut encoder);
        }
        if let Some((offset, bytes)) = self.output {
            let arena = gpu_buffer(&self.arena).map_err(|why| self.device.error(why))?;
            self.device.expect_read(&mut encoder, &arena.buffer, offset, bytes)?;
        } else {
            self.device.expect_nothing();
        }
        self.device.queue.submit([encoder.finish()]);
        self.device.count(Counters { submissions: 1, dispatches: ran, ..Counters::default() });
        self.device.check()
    }

    /// The queue keeps the order: who reads the results waits for them then. Only times must be waited for here.
    fn wait(&mut self) -> Result<()> {
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.read(&self.device)?;
        }
        self.device.check()
    }

    fn set_profiling(&mut self, on: bool) {
        self.timestamps = if on { Timestamps::new(&self.device, self.ready.len()) } else { None };
    }

    fn times(&self, each: &mut dyn FnMut(NodeTime)) {
        let Some(timestamps) = &self.timestamps else { return };
        for (i, ready) in self.ready.iter().enumerate() {
            each(NodeTime {
                op: ready.op,
                how: &ready.dispatch.how,
                weight_bytes: ready.dispatch.weight_bytes,
                time: timestamps.time(i).unwrap_or(Duration::ZERO),
            });
        }
    }
}
