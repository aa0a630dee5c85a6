//! The times of a plan's steps, taken by what is put around each of them while somebody wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ops::{Planner, Scratch, Step};
use crate::backend::{Inputs, NodeTime};
use crate::graph::Op;

/// What a step is, and the clock that is put around it when its time is first wanted.
pub(super) struct Timer {
    op: &'static str,
    how: String,
    weight_bytes: u64,
    clock: Option<Arc<Clock>>,
}

/// The time that threads have spent in a step.
#[derive(Default)]
struct Clock {
    runs: AtomicBool,
    /// Nanoseconds, of all threads together.
    spent: AtomicU64,
}

impl Timer {
    pub(super) fn new(p: &Planner, step: &dyn Step) -> Timer {
        Timer { op: p.node().op.name(), how: step.how(), weight_bytes: weight_bytes(p), clock: None }
    }

    /// `step` with a clock around it that runs from now on, or stands; what was spent before is forgotten.
    pub(super) fn set(&mut self, step: Box<dyn Step>, on: bool) -> Box<dyn Step> {
        let (clock, step) = match &self.clock {
            Some(clock) => (clock.clone(), step),
            None if on => {
                let clock = self.clock.insert(Arc::default()).clone();
                (clock.clone(), Box::new(Timed { inner: step, clock }) as Box<dyn Step>)
            }
            None => return step,
        };
        clock.spent.store(0, Ordering::Relaxed);
        clock.runs.store(on, Ordering::Relaxed);
        step
    }

    /// What the step took of the time of `threads` threads.
    pub(super) fn time(&self, threads: usize) -> NodeTime<'_> {
        let spent = self.clock.as_ref().map_or(0, |clock| clock.spent.load(Ordering::Relaxed));
        let time = Duration::from_nanos(spent / (threads as u64).max(1));
        NodeTime { op: self.op, how: &self.how, weight_bytes: self.weight_bytes, time }
    }
}

/// Bytes of weights that a node reads for one batch: of a table its rows, of experts those of a single token.
fn weight_bytes(p: &Planner) -> u64 {
    let graph = p.segment.graph;
    let node = p.node();
    let Some(w) = node.inputs.iter().map(|i| graph.node(*i)).find(|n| matches!(n.op, Op::Weight(_))) else {
        return 0;
    };
    let bytes = w.bytes() as u64;
    match (&node.op, node.inputs.get(2)) {
        (Op::GetRows, _) => bytes / (w.shape.rows() as u64).max(1) * node.shape.rows() as u64,
        (Op::MatMulExperts, Some(ids)) => {
            bytes / (w.shape.0[2] as u64).max(1) * graph.node(*ids).shape.row() as u64
        }
        _ => bytes,
    }
}

/// A step with a clock around it.
struct Timed {
    inner: Box<dyn Step>,
    clock: Arc<Clock>,
}

impl Step for Timed {
    fn chunks(&mut self, inputs: &Inputs) -> usize {
        self.inner.chunks(inputs)
    }
    fn run(&self, chunk: usize, inputs: &Inputs, scratch: &mut Scratch) {
        if !self.clock.runs.load(Ordering::Relaxed) {
            return self.inner.run(chunk, inputs, scratch);
        }
        let begin = Instant::now();
        self.inner.run(chunk, inputs, scratch);
        self.clock.spent.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
    fn how(&self) -> String {
        self.inner.how()
    }
}
