//! The executor's promises, on random graphs and on those of every architecture: values that are alive at once never
//! share memory, activations are rounded once for all that read them, and values are copied where they cross devices,
//! once, and nowhere else.

mod common;

use std::collections::HashSet;

use chaski::backend::Backend;
use chaski::cpu::CpuBackend;
use chaski::exec::{Homes, Lowered, layout, lower, place};
use chaski::graph::{Graph, Input, Node, NodeId, Op};
use chaski::kv::KvFormat;
use chaski::model::{ARCHS, BatchShape, KvChoice, Model};
use chaski::tensor::{DType, Format, Shape};
use common::tiny::{LAYERS, Random, Tiny, options};

/// The node whose bytes a node shows.
fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while graph.node(id).op == Op::View {
        id = graph.node(id).inputs[0];
    }
    id
}

/// Check a layout against lifetimes worked out anew; gives the bytes of all values together.
fn check_layout(low: &Lowered, devices: usize, what: &str) -> usize {
    let graph = &low.graph;
    let layout = layout(low, devices);
    let n = graph.nodes().len();
    // From the moment a value is made until its last reader, directly or through views, has run.
    let mut until: Vec<usize> = (0..n).collect();
    for (reader, node) in graph.iter() {
        for input in &node.inputs {
            until[source(graph, *input).index()] = reader.index();
        }
    }
    if let Some(output) = graph.output() {
        until[source(graph, output).index()] = usize::MAX;
    }
    let mut values = Vec::new();
    for (id, node) in graph.iter() {
        let region = layout.regions[id.index()];
        let of = source(graph, id);
        if of != id {
            assert_eq!(region, layout.regions[of.index()], "{what}: a view lies elsewhere than its source");
        } else if node.op.is_free() || node.bytes() == 0 {
            assert_eq!(region, None, "{what}: memory for a node without values");
        } else {
            let region = region.unwrap_or_else(|| panic!("{what}: no memory for {}", node.label()));
            assert!(region.bytes >= node.bytes() && region.offset.is_multiple_of(64), "{what}: {region:?}");
            assert!(region.offset + region.bytes <= layout.arena[low.device[id.index()]], "{what}");
            values.push((id.index(), until[id.index()], low.device[id.index()], region));
        }
    }
    for (i, a) in values.iter().enumerate() {
        for b in &values[i + 1..] {
            let alive_at_once = a.2 == b.2 && a.0 <= b.1 && b.0 <= a.1;
            let apart = a.3.offset + a.3.bytes <= b.3.offset || b.3.offset + b.3.bytes <= a.3.offset;
            assert!(!alive_at_once || apart, "{what}: nodes {} and {} overlap", a.0, b.0);
        }
    }
    values.iter().map(|v| v.3.bytes).sum()
}

fn node(op: Op, inputs: Vec<NodeId>, shape: Shape) -> Node {
    Node { op, inputs, shape, dtype: DType::F32, name: "x".into(), layer: None }
}

/// A graph of views, copies and ops with up to three inputs on up to three devices; some values are empty, some never read.
fn random_graph(random: &mut Random, devices: usize) -> Lowered {
    let mut low = Lowered { graph: Graph::default(), device: vec![0], fused: Vec::new() };
    low.graph.push(node(Op::Input(Input::Tokens), Vec::new(), Shape::new(&[4])));
    for _ in 0..random.below(60) + 2 {
        let n = low.graph.nodes().len();
        let recent = |random: &mut Random| NodeId((n - 1 - random.below(n.min(12))) as u32);
        let first = recent(random);
        let device = low.device[first.index()];
        let shape = Shape::new(&[random.below(200) + 1, random.below(5)]);
        let (new, device) = match random.below(6) {
            0 => (node(Op::View, vec![first], low.graph.node(first).shape), device),
            1 => (node(Op::Copy, vec![first], low.graph.node(first).shape), random.below(devices)),
            _ => {
                let others = (0..random.below(3)).map(|_| recent(random));
                let inputs = others.filter(|i| low.device[i.index()] == device).chain([first]).collect();
                (node(Op::Hadamard, inputs, shape), device)
            }
        };
        low.graph.push(new);
        low.device.push(device);
    }
    let n = low.graph.nodes().len();
    low.graph.set_output(NodeId((n / 2 + random.below(n - n / 2)) as u32));
    low
}

#[test]
fn no_two_values_of_a_random_graph_that_are_alive_at_once_overlap() {
    let mut random = Random(0xA11CE);
    let mut shared = 0;
    for round in 0..2000 {
        let devices = round % 3 + 1;
        let low = random_graph(&mut random, devices);
        let all = check_layout(&low, devices, &format!("graph {round}"));
        shared += usize::from(layout(&low, devices).arena.iter().sum::<usize>() < all);
    }
    assert!(shared > 1000, "memory is hardly ever shared: in {shared} graphs");
}

#[test]
fn a_chain_of_values_takes_the_memory_of_two() {
    let mut low = Lowered { graph: Graph::default(), device: vec![0; 50], fused: Vec::new() };
    let shape = Shape::new(&[1024]);
    let mut last = low.graph.push(node(Op::Input(Input::Tokens), Vec::new(), shape));
    for _ in 1..50 {
        last = low.graph.push(node(Op::Hadamard, vec![last], shape));
    }
    low.graph.set_output(last);
    assert_eq!(layout(&low, 1).arena, [2 * 4096]);
}

/// Every architecture, dense and with experts, in one format.
fn models(format: Format) -> Vec<(String, Tiny)> {
    let forms = ARCHS.iter().flat_map(|a| [false, true].map(|experts| (a.name(), experts)));
    forms
        .filter_map(|(arch, experts)| {
            Some((format!("{arch}, experts: {experts}"), Tiny::new(arch, experts, format, false)?))
        })
        .collect()
}

fn lowered(
    model: &Model,
    shape: BatchShape,
    backends: &[&dyn Backend],
    home: &dyn Fn(Option<usize>) -> usize,
) -> Lowered {
    let graph = model.graph(shape, KvChoice::new(KvFormat::F16, KvFormat::F16)).unwrap();
    let weights: Vec<usize> = model.weights().list().iter().map(|w| home(w.layer)).collect();
    let kv: Vec<usize> = (0..model.hparams().n_layer).map(|l| home(Some(l))).collect();
    let placement = place(&graph, &Homes { weights: &weights, kv: &kv }, backends);
    assert!(placement.declined.is_empty());
    lower(&graph, &placement, backends)
}

fn count(low: &Lowered, what: impl Fn(&Op) -> bool) -> usize {
    low.graph.nodes().iter().filter(|n| what(&n.op)).count()
}

const SHAPES: [BatchShape; 4] = [
    BatchShape { n_tokens: 1, n_out: 1 },
    BatchShape { n_tokens: 7, n_out: 1 },
    BatchShape { n_tokens: 5, n_out: 0 },
    BatchShape { n_tokens: 4, n_out: 4 },
];

#[test]
fn values_of_real_graphs_that_are_alive_at_once_never_overlap() {
    let cpu = CpuBackend::new(options(1, 16, 8).cpu).unwrap();
    for (name, tiny) in models(Format::Q8_0) {
        let model = tiny.model().unwrap();
        for shape in SHAPES {
            for devices in [1, 2] {
                let backends: Vec<&dyn Backend> = vec![&cpu; devices];
                let low = lowered(&model, shape, &backends, &|layer| layer.unwrap_or(0) % devices);
                let all = check_layout(&low, devices, &name);
                let arena: usize = layout(&low, devices).arena.iter().sum();
                assert!(arena < all / 2, "{name} {shape:?}: {arena} bytes for values of {all}");
            }
        }
    }
}

#[test]
fn activations_are_rounded_once_for_all_matrices_that_read_them() {
    let cpu = CpuBackend::new(options(1, 16, 8).cpu).unwrap();
    let is_quantize = |op: &Op| matches!(op, Op::Quantize(_));
    for format in [Format::Q4_0, Format::Q4_K] {
        for (name, mut tiny) in models(format) {
            // A router in the same format reads what the experts read.
            for layer in 0..LAYERS {
                let router = format!("blk.{layer}.ffn_gate_inp.weight");
                if tiny.tensors.iter().any(|t| t.name == router) {
                    let router = tiny.tensor(&router);
                    let values = vec![0.01; router.shape.iter().product::<u64>() as usize];
                    let info = format.info();
                    router.format = format;
                    router.bytes = vec![0; values.len() / info.block_len * info.block_bytes];
                    info.encode.unwrap()(&values, &mut router.bytes);
                }
            }
            let low = lowered(&tiny.model().unwrap(), SHAPES[1], &[&cpu], &|_| 0);
            // A layer: what q, k and v read, the attention's result, what gate and up (and the router) read, and what
            // the down matrix reads. Then what the output matrix reads.
            assert_eq!(count(&low, is_quantize), 4 * LAYERS as usize + 1, "{name} {format}\n{}", low.graph);
        }
    }
    for (name, tiny) in models(Format::F32) {
        let low = lowered(&tiny.model().unwrap(), SHAPES[1], &[&cpu], &|_| 0);
        assert_eq!(count(&low, is_quantize), 0, "{name}: f32 matrices read f32");
    }
}

#[test]
fn values_are_copied_where_they_cross_devices_and_nowhere_else() {
    let cpu = CpuBackend::new(options(1, 16, 8).cpu).unwrap();
    let mut random = Random(0xC0B1);
    for (name, tiny) in models(Format::Q8_0) {
        let model = tiny.model().unwrap();
        let alone = lowered(&model, SHAPES[1], &[&cpu], &|_| 0);
        assert_eq!(count(&alone, |op| *op == Op::Copy), 0, "{name}");
        for _ in 0..20 {
            let backends: [&dyn Backend; 3] = [&cpu, &cpu, &cpu];
            let homes: Vec<usize> = (0..=LAYERS as usize).map(|_| random.below(3)).collect();
            let low = lowered(&model, SHAPES[1], &backends, &|layer| homes[layer.map_or(0, |l| l + 1)]);
            let mut copied = HashSet::new();
            for (id, node) in low.graph.iter() {
                let device = low.device[id.index()];
                for input in &node.inputs {
                    let from = low.device[input.index()];
                    let leaf = &low.graph.node(*input).op;
                    let leaf = matches!(leaf, Op::Input(_) | Op::Weight(_));
                    if node.op == Op::Copy {
                        assert_ne!(from, device, "{name}: a copy within a device");
                        assert!(copied.insert((*input, device)), "{name}: {} is copied twice", node.label());
                    } else {
                        assert!(leaf || from == device, "{name}: {} reads another device", node.label());
                    }
                }
            }
        }
    }
}

#[test]
fn a_residual_is_added_where_its_layer_runs() {
    let cpu = CpuBackend::new(options(1, 16, 8).cpu).unwrap();
    for (name, tiny) in models(Format::Q8_0) {
        // The first layer on device 0, the second on device 1, the output on device 0 again.
        let low = lowered(&tiny.model().unwrap(), SHAPES[1], &[&cpu, &cpu], &|layer| layer.unwrap_or(0));
        for (id, node) in low.graph.iter().filter(|(_, n)| n.layer.is_some() && n.op != Op::Copy) {
            assert_eq!(Some(low.device[id.index()]), node.layer, "{name}: {}", node.label());
        }
        // The hidden state goes there and comes back; the angles go there.
        assert_eq!(count(&low, |op| *op == Op::Copy), 3, "{name}\n{}", low.graph);
    }
}
