//! Products with matrices of the file, with what comes before and after where it is computed together; and rows of them.

use std::sync::Arc;

use super::{Dispatch, Planner, Result, matrix};
use crate::backend::Weight;
use crate::gpu::device::Device;
use crate::gpu::matrix::{self as kernels, Experts, Kernel, Norm, Part, Place, Rows};
use crate::gpu::weight::{Matrix, Vector, together};
use crate::graph::Activation;

/// A matrix of a product, and what becomes of its results.
pub(crate) struct Operand {
    pub(crate) weight: Arc<dyn Weight>,
    pub(crate) bias: Option<Vector>,
    /// Where the results go, in words of the arena.
    pub(crate) out: usize,
}

/// Matrices of one format and row length times the same vectors.
pub(crate) struct Product {
    /// One, or several that are not divided.
    pub(crate) operands: Vec<Operand>,
    /// Where the vectors lie, one after the other, and how many.
    pub(crate) x: usize,
    pub(crate) columns: usize,
    /// They are RMS-normalised first: the weights, and what is added to the mean square.
    pub(crate) norm: Option<(Vector, f32)>,
    /// The first operand is the gate of the second.
    pub(crate) glu: Option<Activation>,
    /// Where it lies what is added to the results.
    pub(crate) add: Option<usize>,
    pub(crate) experts: Option<Experts>,
}

impl Product {
    fn plain(weight: Arc<dyn Weight>, x: usize, columns: usize, out: usize) -> Product {
        let operands = vec![Operand { weight, bias: None, out }];
        Product { operands, x, columns, norm: None, glu: None, add: None, experts: None }
    }
}

/// The rows of a shard.
fn rows_of(matrix: &Matrix, shard: usize) -> Result<Rows> {
    let part = matrix.shards.get(shard).ok_or("a matrix without rows")?;
    Ok(Rows { format: matrix.format, k: matrix.shape.row(), first: part.first, rows: part.rows })
}

/// Bytes of a matrix that a product reads: of experts, those that are used.
fn bytes_read(matrix: &Matrix, columns: Option<usize>) -> u64 {
    let bytes: u64 = matrix.shards.iter().map(|s| s.buffer.buffer.size()).sum();
    let experts = matrix.shape.0[2].max(1) as u64;
    columns.map_or(bytes, |columns| bytes / experts * (columns as u64).min(experts))
}

/// The dispatches of a product.
pub(crate) fn dispatches(device: &Device, product: &Product) -> Result<Vec<Dispatch>> {
    let matrices = product.operands.iter().map(|o| matrix(&o.weight)).collect::<Result<Vec<_>>>()?;
    let first = *matrices.first().ok_or("a product of no matrix")?;
    if matrices.len() > 1 && matrices.iter().any(|m| m.shards.len() != 1) {
        return Err("several matrices, and not all in one buffer".into());
    }
    let biases = product.operands.iter().filter_map(|o| o.bias.as_ref());
    let vectors: Vec<&Vector> = product.norm.iter().map(|(norm, _)| norm).chain(biases).collect();
    let (buffer, places) = if vectors.is_empty() {
        (None, Vec::new())
    } else {
        let (buffer, places) = together(device, &vectors).map_err(|e| e.to_string())?;
        (Some(buffer), places)
    };
    let mut places = places.into_iter();
    let norm = product.norm.as_ref().map(|(_, eps)| Norm { at: places.next().unwrap_or(0), eps: *eps });
    let biases: Vec<Option<usize>> =
        product.operands.iter().map(|o| o.bias.as_ref().and_then(|_| places.next())).collect();
    let k = first.shape.row();
    // The results of an expert are as long as one of its matrices has rows.
    let stride = |m: &Matrix| if product.experts.is_some() { m.shape.0[1] } else { m.shape.rows() };
    let mut out = Vec::new();
    for shard in 0..first.shards.len() {
        let parts = matrices.iter().zip(&product.operands).zip(&biases).map(|((m, operand), bias)| {
            let out = Place { at: operand.out, stride: stride(m) };
            Ok(Part { rows: rows_of(m, shard)?, out, bias: *bias })
        });
        let parts = parts.collect::<Result<Vec<Part>>>()?;
        let kernels = kernels::product(
            &kernels::Product {
                parts: &parts,
                x: Place { at: product.x, stride: k },
                columns: product.columns,
                norm,
                glu: product.glu,
                add: product.add.map(|at| Place { at, stride: stride(first) }),
                experts: product.experts,
                bytes: false,
            },
            device.caps,
        )?;
        for Kernel { key, immediates, groups, parts, scratch } in kernels {
            let weights = &product.operands[parts.clone()];
            let columns = product.experts.map(|_| product.columns);
            let read = matrices[parts].iter().map(|m| bytes_read(m, columns) / m.shards.len() as u64);
            out.push(Dispatch {
                weights: weights.iter().map(|o| (o.weight.clone(), shard)).collect(),
                vectors: buffer.clone(),
                how: format!("{} ({})", first.format, key.op),
                weight_bytes: read.sum(),
                scratch,
                ..Dispatch::new(key, immediates, groups)
            });
        }
    }
    Ok(out)
}

/// A matrix times every vector.
pub(super) fn product(p: &Planner) -> Result<Vec<Dispatch>> {
    let columns = p.shape(1)?.rows();
    dispatches(p.device, &Product::plain(p.matrix(0)?.clone(), p.src(1)?, columns, p.dst()?))
}

/// For every slot of every token the matrix of its expert.
pub(super) fn experts(p: &Planner) -> Result<Vec<Dispatch>> {
    let [used, n, ..] = p.shape(2)?.0;
    let weight = p.matrix(0)?.clone();
    let [_, rows, count, _] = matrix(&weight)?.shape.0;
    let (at, lib) = p.ids(2)?;
    // With one slot a token the two ways to lay out the vectors are one.
    let x_per_slot = p.shape(1)?.0[1] == used;
    let plain = Product::plain(weight, p.src(1)?, used * n, p.dst()?);
    let experts = Some(Experts { ids: (lib, at), experts: count, rows, used, x_per_slot });
    dispatches(p.device, &Product { experts, ..plain })
}

/// Rows by number.
pub(super) fn rows(p: &Planner) -> Result<Vec<Dispatch>> {
    let weight = p.matrix(0)?;
    let table = matrix(weight)?;
    let n = p.node().shape.rows();
    let (at, lib) = p.ids(1)?;
    let of_shard = |shard: usize| -> Result<Dispatch> {
        let rows = rows_of(table, shard)?;
        let Kernel { key, immediates, groups, .. } = kernels::get_rows(&rows, (lib, at), n, p.dst()?)?;
        let how = table.format.to_string();
        let weights = vec![(weight.clone(), shard)];
        Ok(Dispatch { weights, how, ..Dispatch::new(key, immediates, groups) })
    };
    (0..table.shards.len()).map(of_shard).collect()
}
