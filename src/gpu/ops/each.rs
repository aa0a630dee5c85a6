//! Ops that compute every value, or every row, by itself.

use super::{Dispatch, Planner, Query, Result, WG, kernel};
use crate::gpu::shader::{Immediates, KernelKey};
use crate::graph::{Activation, Op};

/// Rows in which `top_k` compares every value with every other.
const MOST_COMPARED: usize = 4096;

fn at() -> Immediates {
    Immediates::default()
}

/// A thread a value.
fn values(key: KernelKey, immediates: Immediates, len: usize) -> Vec<Dispatch> {
    vec![Dispatch::new(key, immediates, len.div_ceil(WG))]
}

pub(super) fn glu(p: &Planner, act: Activation) -> Result<Vec<Dispatch>> {
    let len = p.node().shape.len();
    let lib = match act {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_tanh",
    };
    Ok(values(kernel("glu").lib(lib), at().u(p.src(0)?).u(p.src(1)?).u(p.dst()?).u(len), len))
}

/// Softmax, or plain division by the sum: a workgroup a row.
pub(super) fn to_one(p: &Planner) -> Result<Vec<Dispatch>> {
    let shape = p.node().shape;
    let op = if p.node().op == Op::Softmax { "softmax" } else { "sum_to_one" };
    let at = at().u(p.src(0)?).u(p.dst()?).u(shape.rows()).u(shape.row());
    Ok(vec![Dispatch::new(kernel(op), at, shape.rows())])
}

pub(super) fn weighted_sum(p: &Planner) -> Result<Vec<Dispatch>> {
    let shape = p.node().shape;
    let slots = p.shape(1)?.row();
    let at = at().u(p.src(0)?).u(p.src(1)?).u(p.dst()?);
    Ok(values(kernel("weighted_sum"), at.u(shape.len()).u(shape.row()).u(slots), shape.len()))
}

pub(super) fn supports_top_k(q: &Query) -> Result<()> {
    let row = q.input(0)?.shape.row();
    if row > MOST_COMPARED {
        return Err(format!("the largest of {row} values, and no kernel takes more than {MOST_COMPARED}"));
    }
    Ok(())
}

pub(super) fn top_k(p: &Planner, k: usize) -> Result<Vec<Dispatch>> {
    let shape = p.shape(0)?;
    let at = at().u(p.src(0)?).u(p.dst()?).u(shape.len()).u(shape.row()).u(k);
    Ok(values(kernel("top_k"), at, shape.len()))
}

pub(super) fn gather(p: &Planner) -> Result<Vec<Dispatch>> {
    let (from, shape) = (p.shape(0)?, p.node().shape);
    let (ids, lib) = p.ids(1)?;
    let at = at().u(p.src(0)?).u(ids).u(p.dst()?).u(shape.len()).u(from.row()).u(shape.row());
    Ok(values(kernel("gather").lib(lib), at, shape.len()))
}

/// Rows of a computed matrix; those of a weight are another op file's.
pub(super) fn computed_rows(p: &Planner) -> Result<Vec<Dispatch>> {
    let (from, shape) = (p.shape(0)?, p.node().shape);
    let (ids, lib) = p.ids(1)?;
    let at = at().u(p.src(0)?).u(ids).u(p.dst()?).u(shape.len()).u(shape.row()).u(from.rows());
    Ok(values(kernel("get_computed_rows").lib(lib), at, shape.len()))
}

/// The most values of a block that the threads of a workgroup share.
const MOST_SHARED: usize = 4096;

pub(super) fn supports_hadamard(q: &Query) -> Result<()> {
    let dim = q.node().shape.row();
    match crate::graph::hadamard_block(dim) {
        Some(len) if len <= MOST_SHARED => Ok(()),
        _ => Err(format!("no kernel transforms rows of {dim}")),
    }
}

pub(super) fn hadamard(p: &Planner) -> Result<Vec<Dispatch>> {
    let shape = p.node().shape;
    let len = crate::graph::hadamard_block(shape.row()).ok_or("rows without a block length")?;
    let blocks = shape.len() / len;
    let key = kernel("hadamard").with("LEN", len);
    Ok(vec![Dispatch::new(key, at().u(p.src(0)?).u(p.dst()?).u(blocks), blocks)])
}
