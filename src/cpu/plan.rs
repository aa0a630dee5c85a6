//! A segment made ready for the team of threads.

use std::ops::Range;
use std::sync::Arc;

use super::CpuBackend;
use super::memory::Src;
use super::ops::{self, Planner, Step, Touched};
use super::pool::{Progress, Stage, Team};
use super::profile::Timer;
use crate::backend::{BackendError, Buffer, Inputs, KvLayer, NodeTime, Plan, Result, Segment, Weight};
use crate::graph::{Input, Op};
use crate::tensor::DType;

struct CpuPlan {
    steps: Vec<Box<dyn Step>>,
    /// Neighbouring steps that need nothing of each other.
    groups: Vec<Range<usize>>,
    chunks: Vec<usize>,
    stages: Vec<Stage>,
    progress: Vec<Progress>,
    team: Arc<Team>,
    threads: usize,
    checks: Option<Vec<Check>>,
    timers: Vec<Timer>,
    _holds: Holds,
}

/// What the steps' windows point into.
struct Holds {
    _arena: Arc<dyn Buffer>,
    _weights: Vec<Arc<dyn Weight>>,
    _kv: Vec<KvLayer>,
}

/// A step's values, to be looked at for `--check`.
struct Check {
    label: String,
    row: usize,
    values: Option<Src>,
}

pub(super) fn make(backend: &CpuBackend, segment: &Segment) -> Result<Box<dyn Plan>> {
    let graph = segment.graph;
    let mut steps = Vec::new();
    let mut checks = Vec::new();
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut of_group: Vec<Touched> = Vec::new();
    let mut timers = Vec::new();
    for &id in segment.nodes {
        let node = graph.node(id);
        if node.shape.rows() == 0 {
            continue;
        }
        let planner = Planner { backend, segment, id };
        let step = ops::step(&planner).map_err(|why| BackendError::Node {
            device: "cpu".into(),
            node: node.label(),
            why,
        })?;
        let touched = planner.touched();
        match groups.last_mut() {
            Some(group) if of_group.iter().all(|other| touched.is_apart_from(other)) => group.end += 1,
            _ => {
                groups.push(steps.len()..steps.len() + 1);
                of_group.clear();
            }
        }
        of_group.push(touched);
        timers.push(Timer::new(&planner, &*step));
        steps.push(step);
        checks.push(Check {
            label: node.label(),
            row: node.shape.row(),
            values: (node.dtype == DType::F32).then(|| planner.dst().ok().map(|d| d.as_src())).flatten(),
        });
    }
    let options = backend.options;
    // Single tokens are bound by memory, prompts by arithmetic: each has its number of threads.
    let of_tokens = graph.nodes().iter().find(|n| n.op == Op::Input(Input::Tokens));
    let threads =
        if of_tokens.is_none_or(|n| n.shape.len() > 1) { options.threads_batch } else { options.threads };
    Ok(Box::new(CpuPlan {
        groups,
        chunks: vec![0; steps.len()],
        stages: Vec::with_capacity(steps.len()),
        progress: (0..steps.len()).map(|_| Progress::default()).collect(),
        steps,
        team: backend.team.clone(),
        threads,
        checks: options.check.then_some(checks),
        timers,
        _holds: Holds {
            _arena: segment.arena.clone(),
            _weights: segment.weights.iter().flatten().cloned().collect(),
            _kv: segment.kv.iter().flatten().cloned().collect(),
        },
    }))
}

impl Plan for CpuPlan {
    fn submit(&mut self, inputs: &Inputs) -> Result<()> {
        for (step, chunks) in self.steps.iter_mut().zip(&mut self.chunks) {
            *chunks = step.chunks(inputs);
        }
        let Some(checks) = &self.checks else {
            Stage::plan(&self.groups, &self.chunks, &mut self.stages);
            self.team.run(self.threads, &self.steps, &self.chunks, &self.stages, &self.progress, inputs);
            return Ok(());
        };
        for (i, check) in checks.iter().enumerate() {
            Stage::plan(std::slice::from_ref(&(i..i + 1)), &self.chunks, &mut self.stages);
            self.team.run(self.threads, &self.steps, &self.chunks, &self.stages, &self.progress, inputs);
            check.run()?;
        }
        Ok(())
    }
    fn wait(&mut self) -> Result<()> {
        // The team runs a plan to its end before `submit` returns.
        Ok(())
    }
    fn set_profiling(&mut self, on: bool) {
        let steps = std::mem::take(&mut self.steps).into_iter().zip(&mut self.timers);
        self.steps = steps.map(|(step, timer)| timer.set(step, on)).collect();
    }
    fn times(&self, each: &mut dyn FnMut(NodeTime)) {
        self.timers.iter().for_each(|timer| each(timer.time(self.threads)));
    }
}

impl Check {
    fn run(&self) -> Result<()> {
        let Some(values) = &self.values else { return Ok(()) };
        let values: &[f32] = values.slice();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(BackendError::NotFinite {
                node: self.label.clone(),
                value: values[at],
                row: at / self.row.max(1),
                index: at % self.row.max(1),
            }),
        }
    }
}
