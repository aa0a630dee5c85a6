//! The GPU backend against the CPU's: every op by itself on odd shapes, and whole models. A software adapter will do; where
//! there is none at all the tests say that they skip, unless `CHASKI_REQUIRE_GPU` is set.
#![cfg(feature = "gpu")]

mod common;

use std::sync::{Arc, OnceLock};

use chaski::backend::{Backend, Inputs, KvLayer, Region, Segment, Weight};
use chaski::cpu::isa::Isa;
use chaski::cpu::{CpuBackend, CpuOptions};
use chaski::gpu::{Gpu, GpuOptions};
use chaski::graph::{Activation, Builder, Graph, Input, Node, NodeId, Op, RopePairs, RopeParams, WeightId};
use chaski::kv::{KvFormat, Span, View, Visible};
use chaski::tensor::{DType, Format, Shape};
use chaski_gguf::{Gguf, Writer};
use common::tiny::{Random, nmse};

/// The adapter with all that it has, and again with what every GPU has.
fn gpus() -> Vec<(&'static str, Arc<Gpu>)> {
    static OPENED: OnceLock<Vec<(&'static str, Arc<Gpu>)>> = OnceLock::new();
    let open = |baseline| {
        let options = GpuOptions { software: true, checked: true, baseline, ..GpuOptions::default() };
        Gpu::open(&options).map(Arc::new)
    };
    let opened = OPENED.get_or_init(|| match (open(false), open(true)) {
        (Ok(gpu), Ok(baseline)) => vec![("all features", gpu), ("baseline", baseline)],
        (Err(error), _) | (_, Err(error)) => {
            assert!(std::env::var_os("CHASKI_REQUIRE_GPU").is_none(), "{error}");
            println!("skipped: {error}");
            Vec::new()
        }
    });
    opened.clone()
}

fn cpu() -> CpuBackend {
    let one = CpuOptions {
        threads: 1,
        threads_batch: 1,
        isa: Isa::Reference,
        exact: true,
        invariant: false,
        check: false,
    };
    CpuBackend::new(one).unwrap()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.float() * 2.0).collect()
}

/// One op with everything that it reads.
#[derive(Default)]
struct Case {
    graph: Graph,
    /// What lies in the arena before.
    values: Vec<(NodeId, Vec<u8>)>,
    weights: Vec<Vec<f32>>,
    inputs: Inputs,
    /// The ops to be run, in order; the result is the last one's, or the one named here.
    run: Vec<NodeId>,
    out: Option<NodeId>,
    /// The cache: formats, heads, cells, and the row lengths of K and V.
    kv: Option<(KvFormat, KvFormat, usize, usize, usize, usize)>,
}

impl Case {
    fn node(&mut self, op: Op, inputs: &[NodeId], dims: &[usize], dtype: DType) -> NodeId {
        let shape = Shape::new(dims);
        self.graph.push(Node { op, inputs: inputs.to_vec(), shape, dtype, name: "node".into(), layer: None })
    }
    /// A value that an earlier op has computed.
    fn value(&mut self, dims: &[usize], values: &[f32]) -> NodeId {
        let id = self.node(Op::Copy, &[], dims, DType::F32);
        self.values.push((id, f32s(values)));
        id
    }
    fn random(&mut self, random: &mut Random, dims: &[usize]) -> NodeId {
        let values = floats(random, dims.iter().product());
        self.value(dims, &values)
    }
    fn ids(&mut self, dims: &[usize], ids: &[i32]) -> NodeId {
        let id = self.node(Op::Copy, &[], dims, DType::I32);
        self.values.push((id, ids.iter().flat_map(|v| v.to_le_bytes()).collect()));
        id
    }
    fn vector(&mut self, values: Vec<f32>) -> NodeId {
        let op = Op::Weight(WeightId(self.weights.len() as u32));
        let id = self.node(op, &[], &[values.len()], DType::F32);
        self.weights.push(values);
        id
    }
    fn input(&mut self, input: Input, n: usize) -> NodeId {
        self.node(Op::Input(input), &[], &[n], DType::I32)
    }
    fn op(&mut self, op: Op, inputs: &[NodeId], dims: &[usize]) -> NodeId {
        let id = self.node(op, inputs, dims, DType::F32);
        self.run.push(id);
        id
    }

    /// The bytes of the result on a backend.
    fn on(&self, backend: &dyn Backend) -> Vec<u8> {
        for id in &self.run {
            let answer = backend.supports(&self.graph, *id);
            assert_eq!(answer, Ok(()), "{}", self.graph.node(*id).op.name());
        }
        let mut regions = Vec::new();
        let mut end = 0;
        for (_, node) in self.graph.iter() {
            let bytes = node.bytes().next_multiple_of(64);
            let has = !node.op.is_free() && bytes > 0;
            regions.push(has.then_some(Region { offset: end, bytes }));
            // A gap behind each value: what is written beyond the end shows nowhere else.
            end += if has { bytes + 64 } else { 0 };
        }
        let arena = backend.alloc(end, "arena").unwrap();
        let place = |id: NodeId| regions[id.index()].unwrap();
        for (id, bytes) in &self.values {
            backend.write(&arena, place(*id).offset, bytes).unwrap();
        }
        let bytes: Vec<Vec<u8>> = self.weights.iter().map(|values| f32s(values)).collect();
        let mut writer = Writer::new();
        writer.set("general.architecture", "test").unwrap();
        for (i, (values, bytes)) in self.weights.iter().zip(&bytes).enumerate() {
            writer.tensor(&format!("w{i}"), &[values.len() as u64], Format::F32, bytes).unwrap();
        }
        let mut file = Vec::new();
        writer.write_to(&mut file).unwrap();
        let file = Arc::new(Gguf::from_bytes(&file).unwrap());
        let load = |i| Some(backend.load_weight(&file, i).unwrap());
        let weights: Vec<Option<Arc<dyn Weight>>> = (0..self.weights.len()).map(load).collect();
        let kv: Vec<Option<KvLayer>> = self
            .kv
            .map(|(k, v, heads, capacity, d_k, d_v)| KvLayer {
                k: backend.alloc(heads * capacity * k.row_bytes(d_k), "k").unwrap(),
                v: backend.alloc(heads * capacity * v.row_bytes(d_v), "v").unwrap(),
                formats: (k, v),
                capacity,
            })
            .into_iter()
            .map(Some)
            .collect();
        let fused = backend.fuse(&self.graph, &self.run);
        let nodes: Vec<NodeId> = self
            .run
            .iter()
            .copied()
            .filter(|id| fused.iter().all(|f| !f.nodes.contains(id) || f.nodes.last() == Some(id)))
            .collect();
        let segment = Segment {
            graph: &self.graph,
            nodes: &nodes,
            fused: &fused,
            regions: &regions,
            arena: &arena,
            weights: &weights,
            kv: &kv,
        };
        let mut plan = backend.plan(&segment).unwrap();
        // Twice: a plan serves many batches.
        for _ in 0..2 {
            plan.submit(&self.inputs).unwrap();
            plan.wait().unwrap();
        }
        let out = self.out.unwrap_or(*self.run.last().unwrap());
        let mut bytes = vec![0; self.graph.node(out).bytes()];
        backend.read(&arena, place(out).offset, &mut bytes).unwrap();
        bytes
    }

    /// The result of every GPU is the CPU's up to rounding.
    fn agrees(&self, what: &str, limit: f64) {
        self.agrees_on(&gpus(), what, limit);
    }
    /// The same of some GPUs.
    fn agrees_on(&self, gpus: &[(&str, Arc<Gpu>)], what: &str, limit: f64) {
        let as_floats = |bytes: Vec<u8>| -> Vec<f32> {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let want = as_floats(self.on(&cpu()));
        assert!(want.iter().any(|v| *v != 0.0), "{what}: nothing to compare");
        for (name, gpu) in gpus {
            let got = as_floats(self.on(&**gpu));
            let error = nmse(&got, &want);
            assert!(error <= limit, "{what} ({name}): NMSE {error:.2e}");
        }
    }
    /// The result of every GPU is the CPU's to the bit.
    fn is_the_same(&self, what: &str) {
        let want = self.on(&cpu());
        for (name, gpu) in gpus() {
            assert_eq!(self.on(&*gpu), want, "{what} ({name})");
        }
    }
}

/// As good as floats summed in another order can be.
const CLOSE: f64 = 1e-11;

#[test]
fn values_are_added_and_rows_biased() {
    for (row, rows) in [(1, 1), (7, 3), (64, 5), (300, 9)] {
        let mut random = Random(3);
        let mut case = Case::default();
        let (a, b) = (case.random(&mut random, &[row, rows]), case.random(&mut random, &[row, rows]));
        case.op(Op::Add, &[a, b], &[row, rows]);
        case.is_the_same(&format!("{row} x {rows}"));

        let mut case = Case::default();
        let a = case.random(&mut random, &[row, rows]);
        case.vector(vec![9.0; 5]);
        let bias = case.vector(floats(&mut random, row));
        case.op(Op::Add, &[a, bias], &[row, rows]);
        case.is_the_same(&format!("bias, {row} x {rows}"));
    }
}

#[test]
fn rows_are_normalised() {
    for (row, rows) in [(1, 1), (7, 3), (64, 5), (1000, 4)] {
        let mut random = Random(4);
        let mut case = Case::default();
        let x = case.random(&mut random, &[row, rows]);
        let weight = case.vector(floats(&mut random, row));
        case.op(Op::RmsNorm { eps: 1e-2 }, &[x, weight], &[row, rows]);
        case.agrees(&format!("{row} x {rows}"), CLOSE);
    }
}

#[test]
fn angles_are_the_hosts_and_heads_are_turned_by_them() {
    let params = RopeParams {
        n_rot: 20,
        freq_base: 10_000.0,
        freq_scale: 0.25,
        ext_factor: 1.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        n_ctx_orig: 4096,
    };
    let positions = vec![0, 1, 5, 100_000, 77];
    for factors in [false, true] {
        let mut case = Case::default();
        let mut inputs = vec![case.input(Input::Positions, 5)];
        if factors {
            inputs.push(case.vector((0..10).map(|i| 1.0 + i as f32).collect()));
        }
        case.inputs.positions.clone_from(&positions);
        case.op(Op::RopeTable(params), &inputs, &[20, 5]);
        case.is_the_same("table");
    }
    for pairs in [RopePairs::Adjacent, RopePairs::Halves] {
        for d in [20, 33] {
            let mut random = Random(5);
            let mut case = Case::default();
            let at = case.input(Input::Positions, 5);
            case.inputs.positions.clone_from(&positions);
            let x = case.random(&mut random, &[d, 3, 5]);
            let table = case.op(Op::RopeTable(params), &[at], &[20, 5]);
            case.op(Op::Rope(pairs), &[x, table], &[d, 3, 5]);
            case.agrees(&format!("{pairs:?} of {d}"), CLOSE);
        }
    }
}

#[test]
fn gates_are_activated() {
    for act in [Activation::Silu, Activation::GeluTanh] {
        let mut random = Random(6);
        let mut case = Case::default();
        let wide: Vec<f32> = (0..33 * 3).map(|_| random.float() * 40.0).collect();
        let gate = case.value(&[33, 3], &wide);
        let up = case.random(&mut random, &[33, 3]);
        case.op(Op::Glu(act), &[gate, up], &[33, 3]);
        case.agrees(&format!("{act:?}"), CLOSE);
    }
}

#[test]
fn experts_are_chosen_weighed_and_summed() {
    let mut random = Random(7);
    for (e, k, n) in [(4, 2, 1), (60, 4, 3), (300, 8, 5)] {
        for op in [Op::Softmax, Op::SumToOne] {
            let mut case = Case::default();
            let positive: Vec<f32> = floats(&mut random, e * n).iter().map(|v| v.abs() * 20.0).collect();
            let x = case.value(&[e, n], &positive);
            case.op(op.clone(), &[x], &[e, n]);
            case.agrees(op.name(), 1e-10);
        }
        let mut case = Case::default();
        let mut values: Vec<f32> = floats(&mut random, e * n).iter().map(|v| (v * 8.0).round()).collect();
        // Ties go to the lower index; zeros are ordered by their sign.
        values[0] = -0.0;
        let x = case.value(&[e, n], &values);
        let ids = case.node(Op::TopK { k }, &[x], &[k, n], DType::I32);
        case.run.push(ids);
        case.is_the_same("top_k");
        case.op(Op::Gather, &[x, ids], &[k, n]);
        case.is_the_same("gather");

        let mut case = Case::default();
        let (x, weights) = (case.random(&mut random, &[37, k, n]), case.random(&mut random, &[k, n]));
        case.op(Op::WeightedSum, &[x, weights], &[37, n]);
        case.agrees("weighted_sum", CLOSE);
    }
}

#[test]
fn rows_of_a_computed_matrix_are_taken_by_number() {
    let mut random = Random(8);
    let mut case = Case::default();
    let x = case.random(&mut random, &[37, 6]);
    let of_batch = case.input(Input::OutRows, 3);
    case.inputs.out_rows = vec![5, 0, 3];
    let rows = case.op(Op::GetRows, &[x, of_batch], &[37, 3]);
    case.is_the_same("by the batch's numbers");
    let computed = case.ids(&[2], &[2, 1]);
    case.op(Op::GetRows, &[rows, computed], &[37, 2]);
    case.is_the_same("by computed numbers");
}

#[test]
fn rows_are_transformed() {
    for (dim, rows) in [(16, 1), (64, 3), (80, 5), (96, 7), (1024, 2)] {
        let mut random = Random(9);
        let mut case = Case::default();
        let x = case.random(&mut random, &[dim, rows]);
        case.op(Op::Hadamard, &[x], &[dim, rows]);
        case.agrees(&format!("{dim} x {rows}"), CLOSE);
    }
}

/// Rows of `n` tokens written to scattered cells, then attention over what each token sees.
fn attention(
    k: KvFormat,
    v: KvFormat,
    heads: (usize, usize),
    dims: (usize, usize),
    softcap: Option<f32>,
) -> Case {
    let (n_head, n_head_kv) = heads;
    let (d_k, d_v) = dims;
    let (written, asked, capacity) = (200, 3, 230);
    let mut random = Random(10);
    let mut case = Case { kv: Some((k, v, n_head_kv, capacity, d_k, d_v)), ..Case::default() };
    let q = case.random(&mut random, &[d_k, n_head, asked]);
    let rows_k = case.random(&mut random, &[d_k, n_head_kv, written]);
    let rows_v = case.random(&mut random, &[d_v, n_head_kv, written]);
    let leaf = Op::Kv { layer: 0, k, v, n_head_kv, d_k, d_v };
    let leaf = case.node(leaf, &[], &[0], DType::I32);
    let cells = case.input(Input::Cells, written);
    let tokens = case.input(Input::Tokens, asked);
    assert_eq!(case.graph.node(tokens).shape.len(), asked);
    // Positions 0 to 89 lie from cell 115 on, 90 to 199 from cell 0 on; the rest of the cells hold nothing.
    let cell = |position: i32| if position < 90 { 115 + position } else { position - 90 };
    case.inputs.cells = (0..written as i32).map(cell).collect();
    let spans = vec![
        Span { start: 7, len: 20, pos: 3 },
        Span { start: 115, len: 90, pos: 0 },
        Span { start: 0, len: 100, pos: 90 },
        Span { start: 100, len: 10, pos: 190 },
    ];
    let view = |list, from, to| View { list, from, to };
    let visible = Visible {
        spans,
        lists: vec![0, 1, 4],
        tokens: vec![view(1, 0, 199), view(1, 70, 93), view(0, 5, 6)],
    };
    case.inputs.visible = vec![(None, visible)];
    let write = case.node(Op::KvWrite, &[rows_k, rows_v, leaf, cells], &[0], DType::I32);
    case.run.push(write);
    let visible = case.input(Input::Visible { window: None }, 0);
    let op = Op::Attention { n_head, scale: 1.0 / (d_k as f32).sqrt(), softcap };
    case.op(op, &[q, write, visible], &[d_v * n_head, asked]);
    case
}

/// Head sizes that models have.
const HEAD_SIZES: [usize; 8] = [32, 64, 80, 96, 112, 128, 192, 256];

/// Write rows of a pair of formats and attend to them, at a head size.
fn pair_agrees(k: KvFormat, v: KvFormat, d: usize) {
    // The reference meets quantized K rows with a query of 16-bit integers, and rounding to a format ends on either side of
    // a tie.
    let limit = if k == KvFormat::F32 && v == KvFormat::F32 { 1e-10 } else { 1e-6 };
    // What reads and writes a cache by itself is the same kernel whatever the device has.
    let first = gpus().into_iter().take(1).collect::<Vec<_>>();
    attention(k, v, (4, 2), (d, d), None).agrees_on(&first, &format!("{k}, {v}, heads of {d}"), limit);
}

/// The format of V for a format of K: by `shift` further in the list.
fn partner(k: usize, shift: usize) -> KvFormat {
    KvFormat::ALL[(k + shift) % KvFormat::ALL.len()]
}

#[test]
fn attention_reads_every_format_as_k_and_as_v_and_every_head_size() {
    let mut sizes = HEAD_SIZES.iter().cycle();
    for shift in [0, 3] {
        for (i, k) in KvFormat::ALL.iter().enumerate() {
            pair_agrees(*k, partner(i, shift), *sizes.next().unwrap());
        }
    }
}

#[test]
#[ignore = "100 kernels to compile, 93 s on the software adapter; run with: cargo test --release --test gpu -- --ignored; passed on 2026-11-21"]
fn attention_reads_every_pair_of_formats_and_every_format_at_every_head_size() {
    // K and V are read by functions of their own, each of a format and a head size: all of these run here, and all pairs at
    // one of the head sizes.
    let sizes = HEAD_SIZES.iter().enumerate().chain([(8, &64), (9, &128)]);
    let mut pairs = std::collections::BTreeSet::new();
    for (shift, d) in sizes {
        for (i, k) in KvFormat::ALL.iter().enumerate() {
            let v = partner(i, shift);
            pairs.insert((k.name(), v.name()));
            pair_agrees(*k, v, *d);
        }
    }
    assert_eq!(pairs.len(), KvFormat::ALL.len().pow(2), "every pair");
}

#[test]
fn attention_takes_every_shape_of_heads() {
    for (heads, dims) in [
        ((1, 1), (8, 8)),
        ((2, 2), (80, 80)),
        ((6, 3), (64, 32)),
        ((3, 1), (40, 72)),
        ((7, 1), (128, 128)),
        ((14, 2), (64, 64)),
        ((8, 1), (256, 256)),
    ] {
        for (format, limit) in [(KvFormat::F32, 1e-10), (KvFormat::Q8_0, 1e-6), (KvFormat::Q4_0, 1e-6)] {
            attention(format, format, heads, dims, None)
                .agrees(&format!("{heads:?} of {dims:?}, {format}"), limit);
        }
    }
    attention(KvFormat::F32, KvFormat::F32, (4, 2), (64, 64), Some(0.5)).agrees("soft-cap", 1e-10);
}

#[test]
fn what_has_no_kernel_is_declined_with_a_reason() {
    let Some((_, gpu)) = gpus().into_iter().next() else { return };
    let decline = |case: &Case, at: usize| gpu.supports(&case.graph, case.run[at]).unwrap_err().0;
    let odd = attention(KvFormat::F16, KvFormat::F16, (4, 2), (66, 64), None);
    assert_eq!(decline(&odd, 0), "no kernel for heads of 66 values");
    assert_eq!(decline(&odd, 1), "no kernel for heads of 66 values");
    let long = attention(KvFormat::F16, KvFormat::F16, (1, 1), (64, 576), None);
    assert_eq!(decline(&long, 1), "no kernel for heads of 576 values");
    let mut b = Builder::new(1, 1);
    let table = b.weight(WeightId(0), "w", Shape::new(&[4, 3]), Format::I32);
    let tokens = b.input(Input::Tokens);
    let rows = b.get_rows("rows", table, tokens).unwrap();
    let why = gpu.supports(&b.finish(rows), rows).unwrap_err().0;
    assert_eq!(why, "no kernel for rows of 4 I32");
}
