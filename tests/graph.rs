//! The shape rule of every op: what it gives for inputs that fit, and that inputs that do not fit are refused by the name of
//! the node.

use std::collections::BTreeSet;

use chaski::graph::{Activation, Builder, GraphError, Input, NodeId, Op, RopePairs, RopeParams, WeightId};
use chaski::kv::KvFormat;
use chaski::tensor::{Act, DType, Format, Shape};

/// An input of the op under test.
#[derive(Clone, Copy)]
enum In {
    /// f32 values of a shape.
    F(&'static [usize]),
    /// A quantized weight.
    Q(&'static [usize]),
    /// Integers.
    I(&'static [usize]),
    /// A cache of these K and V heads, d_k, d_v.
    Kv(usize, usize, usize),
    /// Which cells are seen.
    Visible,
}
use In::{F, I, Kv, Q, Visible};

fn infer(op: &Op, inputs: &[In]) -> Result<(Shape, DType), GraphError> {
    let mut b = Builder::new(4, 2);
    b.set_layer(Some(3));
    let ids: Vec<NodeId> = inputs
        .iter()
        .enumerate()
        .map(|(i, input)| {
            let id = WeightId(i as u32);
            let name = format!("input {i}");
            match *input {
                F(dims) => b.weight(id, &name, Shape::new(dims), Format::F32),
                Q(dims) => b.weight(id, &name, Shape::new(dims), Format::Q8_0),
                I(dims) => {
                    let from = b.weight(id, &name, Shape::new(dims), Format::F32);
                    b.add_op("ids", Op::TopK { k: dims[0] }, &[from]).unwrap()
                }
                Kv(heads, d_k, d_v) => b.kv(3, KvFormat::F16, KvFormat::F16, heads, d_k, d_v),
                Visible => b.input(Input::Visible { window: None }),
            }
        })
        .collect();
    let id = b.add_op("under_test", op.clone(), &ids)?;
    let graph = b.finish(id);
    Ok((graph.node(id).shape, graph.node(id).dtype))
}

fn rope(n_rot: usize) -> Op {
    Op::RopeTable(RopeParams {
        n_rot,
        freq_base: 1e4,
        freq_scale: 1.0,
        ext_factor: 0.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        n_ctx_orig: 64,
    })
}

const ATTENTION: Op = Op::Attention { n_head: 4, scale: 0.25, softcap: None };

/// An op, inputs that fit, the shape and type that follow, and inputs that do not fit.
struct Rule {
    op: Op,
    good: &'static [In],
    gives: (&'static [usize], DType),
    bad: &'static [&'static [In]],
}

fn rules() -> Vec<Rule> {
    let rule = |op, good, gives: &'static [usize], bad| Rule { op, good, gives: (gives, DType::F32), bad };
    let i32s = |op, good, gives: &'static [usize], bad| Rule { op, good, gives: (gives, DType::I32), bad };
    vec![
        rule(
            Op::GetRows,
            &[Q(&[64, 10]), I(&[4])],
            &[64, 4],
            &[&[Q(&[64, 10]), F(&[4])], &[I(&[64]), I(&[4])], &[Q(&[64, 10])]],
        ),
        rule(
            Op::MatMul,
            &[Q(&[64, 10]), F(&[64, 4])],
            &[10, 4],
            &[
                &[Q(&[64, 10]), F(&[32, 4])],
                &[Q(&[64, 10, 2]), F(&[64, 4])],
                &[Q(&[64, 10]), I(&[64, 4])],
                &[Q(&[64, 10]), Q(&[64, 4])],
                &[I(&[64, 10]), F(&[64, 4])],
                &[Q(&[64, 10])],
            ],
        ),
        rule(
            Op::MatMulExperts,
            &[Q(&[64, 10, 8]), F(&[64, 1, 4]), I(&[2, 4])],
            &[10, 2, 4],
            &[
                &[Q(&[64, 10, 8]), F(&[32, 1, 4]), I(&[2, 4])],
                &[Q(&[64, 10, 8]), F(&[64, 3, 4]), I(&[2, 4])],
                &[Q(&[64, 10, 8]), F(&[64, 1, 5]), I(&[2, 4])],
                &[Q(&[64, 10, 8]), F(&[64, 1, 4]), F(&[2, 4])],
                &[Q(&[64, 10, 8]), I(&[64, 4]), I(&[2, 4])],
            ],
        ),
        i32s(Op::TopK { k: 2 }, &[F(&[8, 4])], &[2, 4], &[&[F(&[1, 4])], &[I(&[8, 4])], &[]]),
        rule(
            Op::Gather,
            &[F(&[8, 4]), I(&[2, 4])],
            &[2, 4],
            &[&[F(&[8, 3]), I(&[2, 4])], &[F(&[8, 4]), F(&[2, 4])], &[I(&[8, 4]), I(&[2, 4])]],
        ),
        rule(Op::Softmax, &[F(&[8, 4])], &[8, 4], &[&[I(&[8, 4])], &[F(&[8]), F(&[8])]]),
        rule(Op::SumToOne, &[F(&[8, 4])], &[8, 4], &[&[I(&[8, 4])], &[]]),
        rule(Op::Hadamard, &[F(&[64, 2, 4])], &[64, 2, 4], &[&[I(&[64, 2])], &[]]),
        rule(
            Op::WeightedSum,
            &[F(&[16, 2, 4]), F(&[2, 4])],
            &[16, 4],
            &[&[F(&[16, 3, 4]), F(&[2, 4])], &[F(&[16, 2, 5]), F(&[2, 4])], &[F(&[16, 2, 4]), I(&[2, 4])]],
        ),
        rule(
            Op::RmsNorm { eps: 1e-5 },
            &[F(&[64, 4]), Q(&[64])],
            &[64, 4],
            &[&[F(&[64, 4]), F(&[32])], &[I(&[64, 4]), F(&[64])], &[F(&[64, 4]), I(&[64])], &[F(&[64, 4])]],
        ),
        rule(
            rope(32),
            &[I(&[4]), F(&[16])],
            &[32, 4],
            &[&[F(&[4])], &[I(&[4]), F(&[32])], &[I(&[4]), I(&[16])], &[I(&[4]), F(&[16]), F(&[16])], &[]],
        ),
        rule(
            Op::Rope(RopePairs::Halves),
            &[F(&[64, 2, 4]), F(&[32, 4])],
            &[64, 2, 4],
            &[
                &[F(&[16, 2, 4]), F(&[32, 4])],
                &[F(&[64, 2, 5]), F(&[32, 4])],
                &[I(&[64, 2]), F(&[32, 1])],
                &[F(&[64, 2, 4]), I(&[32, 4])],
            ],
        ),
        rule(
            Op::Add,
            &[F(&[8, 4]), Q(&[8])],
            &[8, 4],
            &[
                &[F(&[8, 4]), F(&[4])],
                &[F(&[8, 4]), F(&[4, 8])],
                &[F(&[8, 4]), I(&[8, 4])],
                &[I(&[8, 4]), F(&[8, 4])],
            ],
        ),
        rule(
            Op::Glu(Activation::Silu),
            &[F(&[8, 4]), F(&[8, 4])],
            &[8, 4],
            &[&[F(&[8, 4]), F(&[8, 3])], &[F(&[8, 4]), I(&[8, 4])]],
        ),
        i32s(
            Op::KvWrite,
            &[F(&[64, 2, 4]), F(&[32, 2, 4]), Kv(2, 64, 32), I(&[4])],
            &[0, 1],
            &[
                &[F(&[32, 2, 4]), F(&[32, 2, 4]), Kv(2, 64, 32), I(&[4])],
                &[F(&[64, 2, 4]), F(&[64, 2, 4]), Kv(2, 64, 32), I(&[4])],
                &[F(&[64, 2, 4]), F(&[32, 2, 4]), Kv(2, 64, 32), I(&[3])],
                &[F(&[64, 2, 4]), F(&[32, 2, 4]), Kv(2, 64, 32), F(&[4])],
                &[F(&[64, 2, 4]), F(&[32, 2, 4]), F(&[4]), I(&[4])],
            ],
        ),
        rule(
            ATTENTION,
            &[F(&[64, 4, 4]), Kv(2, 64, 32), Visible],
            &[128, 4],
            &[
                &[F(&[32, 4, 4]), Kv(2, 64, 32), Visible],
                &[F(&[64, 3, 4]), Kv(2, 64, 32), Visible],
                &[F(&[64, 4, 4]), Kv(3, 64, 32), Visible],
                &[F(&[64, 4, 4]), Kv(0, 64, 32), Visible],
                &[F(&[64, 4, 4]), F(&[64]), Visible],
                &[F(&[64, 4, 4]), Kv(2, 64, 32), I(&[4])],
                &[F(&[64, 4, 4]), Kv(2, 64, 32)],
            ],
        ),
        Rule {
            op: Op::Quantize(Act::Q8x32),
            good: &[F(&[64, 4])],
            gives: (&[64, 4], DType::Act(Act::Q8x32)),
            bad: &[&[F(&[48, 4])], &[I(&[64, 4])], &[]],
        },
        rule(Op::Copy, &[F(&[8, 4])], &[8, 4], &[&[], &[F(&[8]), F(&[8])]]),
    ]
}

#[test]
fn every_op_gives_the_shape_that_its_documentation_says() {
    for rule in rules() {
        let (shape, dtype) = infer(&rule.op, rule.good).unwrap();
        assert_eq!((shape, dtype), (Shape::new(rule.gives.0), rule.gives.1), "{}", rule.op.name());
    }
    let covered: BTreeSet<&str> = rules().iter().map(|r| r.op.name()).collect();
    assert_eq!(covered.len(), 18, "every op that has a rule: {covered:?}");
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_the_name_of_the_node() {
    for rule in rules() {
        for (i, inputs) in rule.bad.iter().enumerate() {
            let error =
                infer(&rule.op, inputs).err().unwrap_or_else(|| panic!("{} takes bad {i}", rule.op.name()));
            assert_eq!(error.node, "under_test-3", "{}", rule.op.name());
            assert!(!error.why.is_empty());
            assert!(error.to_string().starts_with("graph node under_test-3: "), "{error}");
        }
    }
    assert!(infer(&rope(31), &[I(&[4])]).is_err(), "an odd number of values cannot be turned");
    for leaf in [Op::Input(Input::Tokens), Op::View] {
        assert!(infer(&leaf, &[F(&[4])]).is_err(), "{} is not made this way", leaf.name());
    }
}

#[test]
fn attention_sees_the_cache_behind_its_write() {
    let mut b = Builder::new(4, 4);
    let x = b.weight(WeightId(0), "x", Shape::new(&[32, 2, 4]), Format::F32);
    let kv = b.kv(0, KvFormat::F16, KvFormat::F16, 2, 32, 32);
    let cells = b.input(Input::Cells);
    let written = b.add_op("write", Op::KvWrite, &[x, x, kv, cells]).unwrap();
    let visible = b.input(Input::Visible { window: None });
    let q = b.weight(WeightId(1), "q", Shape::new(&[32, 4, 4]), Format::F32);
    let y = b.add_op("attn", ATTENTION, &[q, written, visible]).unwrap();
    let graph = b.finish(y);
    assert_eq!((graph.kv_leaf(written), graph.kv_leaf(kv), graph.kv_leaf(q)), (Some(kv), Some(kv), None));
    assert_eq!(graph.node(y).shape, Shape::new(&[128, 4]));
}

#[test]
fn a_view_keeps_the_values_and_their_number() {
    let mut b = Builder::new(4, 4);
    b.set_layer(Some(1));
    let x = b.weight(WeightId(0), "x", Shape::new(&[8, 4]), Format::F32);
    let view = b.view("heads", x, &[4, 2, 4]).unwrap();
    assert_eq!(b.shape(view), Shape::new(&[4, 2, 4]));
    let error = b.view("heads", x, &[4, 2, 5]).unwrap_err();
    assert_eq!((error.node.as_str(), error.why.as_str()), ("heads-1", "[8, 4] cannot be seen as [4, 2, 5]"));
}

#[test]
fn inputs_and_weights_are_one_node_each_however_often_they_are_asked_for() {
    let mut b = Builder::new(4, 2);
    let (a, c) = (b.input(Input::Tokens), b.input(Input::Tokens));
    let w = |b: &mut Builder| b.weight(WeightId(0), "w", Shape::new(&[8, 8]), Format::F32);
    assert_eq!((a, w(&mut b)), (c, w(&mut b)));
    assert_ne!(b.input(Input::Visible { window: None }), b.input(Input::Visible { window: Some(8) }));
    let out = b.input(Input::OutRows);
    assert_eq!(b.shape(out), Shape::new(&[2]));
}
