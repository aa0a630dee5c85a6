//! Every operation, what it reads, and the shape rule that is checked while a graph is built.
//!
//! Shapes are written `[row, rows, ..]`; `n` is the number of tokens of the batch.

use super::{Node, WeightId};
use crate::kv::KvFormat;
use crate::tensor::{Act, DType, Shape};

/// What a batch brings from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Token ids, `[n]`.
    Tokens,
    /// Positions in their sequences, `[n]`.
    Positions,
    /// The cache cell that each token is written to, `[n]`.
    Cells,
    /// The rows of the batch whose logits are wanted, `[n_out]`.
    OutRows,
    /// Which cells each token sees; `window` limits how far back, in positions.
    Visible {
        /// Sliding window: a token at `p` sees positions above `p - window`.
        window: Option<u32>,
    },
}

/// Which two values a rotary embedding turns as a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// Neighbours `(2i, 2i + 1)`: files of architecture llama (ggml: NORM).
    Adjacent,
    /// Halves `(i, i + n_rot / 2)`: qwen, gemma, phi ... (ggml: NEOX).
    Halves,
}

/// Frequencies of a rotary embedding (RoPE, arXiv 2104.09864) with context extension
/// (linear scaling; YaRN, arXiv 2309.00071), by ggml's definitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParams {
    /// Values of a head that are turned; even, at most the head size.
    pub n_rot: usize,
    /// theta_i = base ^ (-2 i / n_rot).
    pub freq_base: f32,
    /// Positions are multiplied by this: 1 / (linear or YaRN scaling factor).
    pub freq_scale: f32,
    /// YaRN: share of extrapolation mixed in by the ramp; 0 switches YaRN off.
    pub ext_factor: f32,
    /// Factor on the turned values' magnitude, before YaRN's own.
    pub attn_factor: f32,
    /// YaRN: rotations over the original context above which a frequency is left as it is.
    pub beta_fast: f32,
    /// YaRN: rotations below which a frequency is fully interpolated.
    pub beta_slow: f32,
    /// The context length that the model was trained with before extension.
    pub n_ctx_orig: u32,
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + exp(-x)).
    Silu,
    /// x * Phi(x) in the tanh approximation.
    GeluTanh,
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A leaf: what a batch brings.
    Input(Input),
    /// A leaf: a weight of the model, in its own format.
    Weight(WeightId),
    /// A leaf: the K and V rows of one layer's cache.
    Kv {
        /// The index of the cache layer.
        layer: usize,
        /// Format of the K rows.
        k: KvFormat,
        /// Format of the V rows.
        v: KvFormat,
        /// K and V heads.
        n_head_kv: usize,
        /// Values of a K row of one head.
        d_k: usize,
        /// Values of a V row of one head.
        d_v: usize,
    },
    /// Rows by number: `table [k, m]`, `ids i32 [n]` -> `f32 [k, n]`.
    GetRows,
    /// `w [k, m]`, `x [k, n ..]` -> `[m, n ..]`: every row of `x` times every row of `w`.
    MatMul,
    /// `w [k, m, e]`, `x [k, 1 or u, n]`, `ids i32 [u, n]` -> `[m, u, n]`: for slot `s` of token `t`,
    /// the matrix of expert `ids[s, t]` (x has one row per token, or one per slot).
    MatMulExperts,
    /// The `k` largest of each row, largest first, ties to the lower index: `x [e, n]` -> `i32 [k, n]`.
    TopK {
        /// How many.
        k: usize,
    },
    /// Values at indices: `x [e, n]`, `ids i32 [u, n]` -> `[u, n]`.
    Gather,
    /// exp(x - max) / sum over each row.
    Softmax,
    /// x / sum over each row.
    SumToOne,
    /// `x [m, u, n]`, `weights [u, n]` -> `[m, n]`: the weighted sum over slots.
    WeightedSum,
    /// `x [row ..]`, `weight [row]` -> x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467).
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
    },
    /// `positions i32 [n]`, optional `factors f32 [n_rot / 2]` -> `[n_rot, n]`: cosine and sine of
    /// every pair's angle, interleaved; made once and read by all layers.
    RopeTable(RopeParams),
    /// `x [d, heads, n]`, `table [n_rot, n]` -> x with its first n_rot values turned.
    Rope(RopePairs),
    /// `a`, `b` of the same shape, or `b [row]` for every row of `a`.
    Add,
    /// `gate`, `up` of the same shape -> act(gate) * up.
    Glu(Activation),
    /// A normalised Walsh-Hadamard transform of each row.
    Hadamard,
    /// The same bytes with another shape.
    View,
    /// `k [d_k, heads, n]`, `v [d_v, heads, n]`, a cache leaf, `cells i32 [n]`: rounds the rows and
    /// writes them. Gives nothing; what reads the cache takes it as an input to come after it.
    KvWrite,
    /// `q [d_k, n_head, n]`, a cache leaf or the write before it, `visible` -> `[d_v * n_head, n]`:
    /// softmax(scale * q k) v over the cells that each token sees, one softmax a head.
    Attention {
        /// Query heads; K and V heads serve `n_head / n_head_kv` of them each.
        n_head: usize,
        /// Factor on the scores.
        scale: f32,
        /// Scores become cap * tanh(score / cap).
        softcap: Option<f32>,
    },
    /// Only `lower` makes this: rounds `x` for the matrix products that want it.
    Quantize(Act),
    /// Only `lower` makes this: the value of a node of another device.
    Copy,
}

impl Op {
    /// A short name for dumps, reports and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Weight(_) => "weight",
            Op::Kv { .. } => "kv",
            Op::GetRows => "get_rows",
            Op::MatMul => "matmul",
            Op::MatMulExperts => "matmul_experts",
            Op::TopK { .. } => "top_k",
            Op::Gather => "gather",
            Op::Softmax => "softmax",
            Op::SumToOne => "sum_to_one",
            Op::WeightedSum => "weighted_sum",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RopeTable(_) => "rope_table",
            Op::Rope(_) => "rope",
            Op::Add => "add",
            Op::Glu(_) => "glu",
            Op::Hadamard => "hadamard",
            Op::View => "view",
            Op::KvWrite => "kv_write",
            Op::Attention { .. } => "attention",
            Op::Quantize(_) => "quantize",
            Op::Copy => "copy",
        }
    }

    /// Whether the node computes nothing: a leaf or another view of its input.
    pub fn is_free(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Weight(_) | Op::Kv { .. } | Op::View)
    }

    /// The shape and type of the result of this op on `inputs`, or the rule that they break.
    /// Leaves and views are given their shape by the builder.
    pub(super) fn infer(&self, inputs: &[&Node]) -> Result<(Shape, DType), String> {
        let f32_of = |shape: Shape| Ok((shape, DType::F32));
        match (self, inputs) {
            (Op::GetRows, [table, ids]) => {
                is_numbers(table)?;
                is_i32(ids)?;
                f32_of(Shape::new(&[table.shape.row(), ids.shape.len()]))
            }
            (Op::MatMul, [w, x]) => {
                is_numbers(w)?;
                is_f32(x)?;
                same("row length", w.shape.row(), x.shape.row())?;
                same("dimensions of the weight beyond two", w.shape.0[2] * w.shape.0[3], 1)?;
                let mut shape = x.shape;
                shape.0[0] = w.shape.0[1];
                f32_of(shape)
            }
            (Op::MatMulExperts, [w, x, ids]) => {
                is_numbers(w)?;
                is_f32(x)?;
                is_i32(ids)?;
                same("row length", w.shape.row(), x.shape.row())?;
                let [used, n, ..] = ids.shape.0;
                same("tokens", x.shape.0[2], n)?;
                if x.shape.0[1] != 1 && x.shape.0[1] != used {
                    return Err(format!("x {} has neither one row a token nor one a slot", x.shape));
                }
                f32_of(Shape::new(&[w.shape.0[1], used, n]))
            }
            (Op::TopK { k }, [x]) => {
                is_f32(x)?;
                if *k > x.shape.row() {
                    return Err(format!("the {k} largest of {}", x.shape.row()));
                }
                Ok((Shape::new(&[*k, x.shape.rows()]), DType::I32))
            }
            (Op::Gather, [x, ids]) => {
                is_f32(x)?;
                is_i32(ids)?;
                same("rows", x.shape.rows(), ids.shape.rows())?;
                f32_of(ids.shape)
            }
            (Op::Softmax | Op::SumToOne | Op::Hadamard, [x]) => {
                is_f32(x)?;
                f32_of(x.shape)
            }
            (Op::WeightedSum, [x, weights]) => {
                is_f32(x)?;
                is_f32(weights)?;
                same("slots", x.shape.0[1], weights.shape.row())?;
                same("tokens", x.shape.0[2], weights.shape.rows())?;
                f32_of(Shape::new(&[x.shape.row(), x.shape.0[2]]))
            }
            (Op::RmsNorm { .. }, [x, weight]) => {
                is_f32(x)?;
                is_numbers(weight)?;
                same("weight length", weight.shape.len(), x.shape.row())?;
                f32_of(x.shape)
            }
            (Op::RopeTable(p), [positions, factors @ ..]) => {
                is_i32(positions)?;
                if p.n_rot % 2 != 0 {
                    return Err(format!("{} values cannot be turned in pairs", p.n_rot));
                }
                match factors {
                    [] => {}
                    [f] => {
                        is_numbers(f)?;
                        same("factors", f.shape.len(), p.n_rot / 2)?;
                    }
                    _ => return Err("too many inputs".into()),
                }
                f32_of(Shape::new(&[p.n_rot, positions.shape.len()]))
            }
            (Op::Rope(_), [x, table]) => {
                is_f32(x)?;
                is_f32(table)?;
                if table.shape.row() > x.shape.row() {
                    return Err(format!("turns {} values of a head of {}", table.shape.row(), x.shape.row()));
                }
                same("tokens", table.shape.rows(), x.shape.0[2])?;
                f32_of(x.shape)
            }
            (Op::Add, [a, b]) => {
                is_f32(a)?;
                is_numbers(b)?;
                if a.shape != b.shape && b.shape.len() != a.shape.row() {
                    return Err(format!("{} and {} do not match", a.shape, b.shape));
                }
                f32_of(a.shape)
            }
            (Op::Glu(_), [gate, up]) => {
                is_f32(gate)?;
                is_f32(up)?;
                if gate.shape != up.shape {
                    return Err(format!("gate {} and up {} differ", gate.shape, up.shape));
                }
                f32_of(gate.shape)
            }
            (Op::KvWrite, [k, v, leaf, cells]) => {
                is_i32(cells)?;
                let Op::Kv { n_head_kv, d_k, d_v, .. } = leaf.op else {
                    return Err("the third input is no cache".into());
                };
                let n = cells.shape.len();
                for (what, x, d) in [("k", k, d_k), ("v", v, d_v)] {
                    is_f32(x)?;
                    let want = Shape::new(&[d, n_head_kv, n]);
                    if x.shape != want {
                        return Err(format!("{what} is {}, the cache takes {want}", x.shape));
                    }
                }
                Ok((Shape([0, 1, 1, 1]), DType::I32))
            }
            (Op::Attention { n_head, .. }, [q, kv, visible]) => {
                is_f32(q)?;
                if !matches!(visible.op, Op::Input(Input::Visible { .. })) {
                    return Err("the third input does not say what is visible".into());
                }
                let Op::Kv { n_head_kv, d_k, d_v, .. } = kv.op else {
                    return Err("the second input is no cache".into());
                };
                same("head size", q.shape.row(), d_k)?;
                same("heads", q.shape.0[1], *n_head)?;
                if n_head_kv == 0 || n_head % n_head_kv != 0 {
                    return Err(format!("{n_head} heads do not share {n_head_kv} K and V heads evenly"));
                }
                f32_of(Shape::new(&[d_v * n_head, q.shape.0[2]]))
            }
            (Op::Quantize(act), [x]) => {
                is_f32(x)?;
                if x.shape.row() % act.block_len() != 0 {
                    return Err(format!(
                        "rows of {} are no whole blocks of {}",
                        x.shape.row(),
                        act.block_len()
                    ));
                }
                Ok((x.shape, DType::Act(*act)))
            }
            (Op::Copy, [x]) => Ok((x.shape, x.dtype)),
            _ => Err(format!("{} does not take {} inputs", self.name(), inputs.len())),
        }
    }
}

fn same(what: &str, a: usize, b: usize) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what}: {a} and {b} differ")) }
}

fn is_f32(node: &Node) -> Result<(), String> {
    if node.dtype == DType::F32 { Ok(()) } else { Err(format!("{} is {}, not f32", node.name, node.dtype)) }
}

/// A weight of any format, or an f32 intermediate.
fn is_numbers(node: &Node) -> Result<(), String> {
    if matches!(node.dtype, DType::Block(_)) {
        Ok(())
    } else {
        Err(format!("{} is {}", node.name, node.dtype))
    }
}

fn is_i32(node: &Node) -> Result<(), String> {
    if node.dtype == DType::I32 { Ok(()) } else { Err(format!("{} is not of integers", node.name)) }
}
