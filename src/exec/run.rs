//! Runs a lowered graph: segments in order, with copies only where a value crosses devices.

use std::sync::Arc;
use std::time::Instant;

use super::lower::Lowered;
use super::memory::Layout;
use super::profile::Profile;
use super::steps::schedule;
use crate::backend::{Backend, BackendError, Buffer, Inputs, KvLayer, Plan, Result, Segment, Weight};
use crate::graph::{NodeId, Op};

/// A backend with everything that lives on it.
pub struct Device {
    /// Runs the nodes.
    pub backend: Arc<dyn Backend>,
    /// Memory of the intermediates; every plan of this device uses it, one at a time.
    pub arena: Arc<dyn Buffer>,
    /// For every weight of the model: the weight, if it lives here.
    pub weights: Vec<Option<Arc<dyn Weight>>>,
    /// For every cache layer: its buffers, if they live here.
    pub kv: Vec<Option<KvLayer>>,
}

enum Step {
    Run { plan: Box<dyn Plan> },
    Copy { from: (usize, usize), to: (usize, usize), bytes: usize },
}

/// A graph made ready to run on its devices.
pub struct Prepared {
    steps: Vec<Step>,
    output: Option<(usize, usize, usize)>,
    host: Vec<u8>,
}

/// Make the plans of every segment.
///
/// # Errors
/// A backend cannot plan a node that it said it supports.
pub fn prepare(low: &Lowered, layout: &Layout, devices: &[Device]) -> Result<Prepared> {
    let graph = &low.graph;
    let mut steps = Vec::new();
    let mut segment: Vec<NodeId> = Vec::new();
    let mut current = 0;
    let flush = |segment: &mut Vec<NodeId>, at: usize, steps: &mut Vec<Step>| -> Result<()> {
        if segment.is_empty() {
            return Ok(());
        }
        let device = &devices[at];
        let plan = device.backend.plan(&Segment {
            graph,
            nodes: segment,
            fused: &low.fused,
            regions: &layout.regions,
            arena: &device.arena,
            weights: &device.weights,
            kv: &device.kv,
        })?;
        segment.clear();
        steps.push(Step::Run { plan });
        Ok(())
    };
    for id in schedule(low).iter().map(|step| step.at) {
        let node = graph.node(id);
        let device = low.device[id.index()];
        if let (Op::Copy, Some(&source)) = (&node.op, node.inputs.first()) {
            // As many rows as logits are wanted: there may be none.
            if node.bytes() == 0 {
                continue;
            }
            flush(&mut segment, current, &mut steps)?;
            let place = |id: NodeId| layout.regions[id.index()].map(|r| r.offset);
            let (Some(from), Some(to)) = (place(source), place(id)) else {
                let why = "a value without memory cannot be copied".into();
                let device = devices[device].backend.name().into();
                return Err(BackendError::Node { device, node: node.label(), why });
            };
            let from = (low.device[source.index()], from);
            steps.push(Step::Copy { from, to: (device, to), bytes: node.bytes() });
            continue;
        }
        if device != current {
            flush(&mut segment, current, &mut steps)?;
            current = device;
        }
        segment.push(id);
    }
    flush(&mut segment, current, &mut steps)?;
    let output = graph.output().and_then(|id| {
        let region = layout.regions[id.index()]?;
        Some((low.device[id.index()], region.offset, graph.node(id).bytes()))
    });
    Ok(Prepared { steps, output, host: Vec::new() })
}

impl Prepared {
    /// Run every segment for one batch, and add what the nodes took to `profile`.
    ///
    /// # Errors
    /// A device failed.
    pub fn run_profiled(&mut self, devices: &[Device], inputs: &Inputs, profile: &mut Profile) -> Result<()> {
        self.set_profiling(true);
        let begin = Instant::now();
        let result = self.run(devices, inputs);
        profile.begin_batch(begin.elapsed());
        for step in &self.steps {
            if let Step::Run { plan } = step {
                plan.times(&mut |node| profile.add(&node));
            }
        }
        self.set_profiling(false);
        result
    }

    fn set_profiling(&mut self, on: bool) {
        for step in &mut self.steps {
            if let Step::Run { plan } = step {
                plan.set_profiling(on);
            }
        }
    }

    /// Run every segment for one batch.
    ///
    /// # Errors
    /// A device failed.
    pub fn run(&mut self, devices: &[Device], inputs: &Inputs) -> Result<()> {
        for step in &mut self.steps {
            match step {
                Step::Run { plan } => {
                    plan.submit(inputs)?;
                    plan.wait()?;
                }
                Step::Copy { from, to, bytes } => {
                    self.host.resize(*bytes, 0);
                    let source = &devices[from.0];
                    source.backend.read(&source.arena, from.1, &mut self.host)?;
                    let target = &devices[to.0];
                    target.backend.write(&target.arena, to.1, &self.host)?;
                }
            }
        }
        Ok(())
    }

    /// Read the output's values, `f32`, row after row.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_output(&self, devices: &[Device], out: &mut Vec<f32>) -> Result<()> {
        let Some((device, offset, bytes)) = self.output else {
            out.clear();
            return Ok(());
        };
        out.resize(bytes / 4, 0.0);
        let device = &devices[device];
        device.backend.read(&device.arena, offset, bytemuck::cast_slice_mut(out))
    }

    /// How many plans are submitted for a batch, and how many copies lie between them.
    pub fn crossings(&self) -> (usize, usize) {
        let copies = self.steps.iter().filter(|s| matches!(s, Step::Copy { .. })).count();
        (self.steps.len() - copies, copies)
    }
}
