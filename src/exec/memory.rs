//! Memory of the intermediates: one arena a device, in which values share bytes when their
//! lifetimes do not meet.

use super::lower::Lowered;
use super::steps::{schedule, source};
use crate::backend::Region;
use crate::graph::{NodeId, Op};

/// Regions start at multiples of this, so that rows can be read as any type and by whole vectors.
const ALIGN: usize = 64;

/// Where every intermediate lies, and how large each device's arena must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// For every node: its place in the arena of its device; none for leaves and nodes without data.
    pub regions: Vec<Option<Region>>,
    /// For every device: bytes of its arena.
    pub arena: Vec<usize>,
}

/// Lay out the intermediates of a lowered graph for `devices` devices: each value takes the first
/// gap that is free from the moment it is made until its last reader has run.
pub fn layout(low: &Lowered, devices: usize) -> Layout {
    let graph = &low.graph;
    let n = graph.nodes().len();
    let steps = schedule(low);
    let mut last_use: Vec<usize> = (0..n).collect();
    for (id, node) in graph.iter() {
        for input in &node.inputs {
            last_use[source(graph, *input).index()] = id.index();
        }
    }
    for step in &steps {
        for id in step.nodes().iter().flat_map(|id| &graph.node(*id).inputs) {
            let last = &mut last_use[source(graph, *id).index()];
            *last = step.at.index().max(*last);
        }
        for id in step.stores() {
            let last = &mut last_use[id.index()];
            *last = step.at.index().max(*last);
        }
    }
    for wanted in graph.output().iter().chain(graph.kept()) {
        last_use[source(graph, *wanted).index()] = n;
    }

    let mut regions: Vec<Option<Region>> = vec![None; n];
    let mut arena = vec![0; devices];
    let mut live: Vec<Vec<(NodeId, Region)>> = vec![Vec::new(); devices];
    for step in &steps {
        for &id in step.stores() {
            let node = graph.node(id);
            let bytes = node.bytes().next_multiple_of(ALIGN);
            if bytes == 0 {
                continue;
            }
            let device = low.device[id.index()];
            let live = &mut live[device];
            live.retain(|(of, _)| last_use[of.index()] >= step.at.index());
            let mut offset = 0;
            let mut at = live.len();
            for (i, (_, taken)) in live.iter().enumerate() {
                if offset + bytes <= taken.offset {
                    at = i;
                    break;
                }
                offset = taken.offset + taken.bytes;
            }
            let region = Region { offset, bytes };
            live.insert(at, (id, region));
            arena[device] = arena[device].max(offset + bytes);
            regions[id.index()] = Some(region);
        }
    }
    for (id, _) in graph.iter().filter(|(_, node)| matches!(node.op, Op::View)) {
        regions[id.index()] = regions[source(graph, id).index()];
    }
    Layout { regions, arena }
}
