//! Matrices of 8-bit floats with scales beside them.
//!
//! `value = code * scale`, with one scale for the tensor, for each row, or for each tile (128 x 128 as a rule): the tensor
//! `NAME_scale_inv` or `NAME_scale`, which holds the factor in both cases, whatever its name says. The product of an 8-bit
//! float and a binary32 is rounded once, to binary32.
//!
//! Formats of "FP8 Formats for Deep Learning" (arXiv 2209.05433): E4M3 has no infinities and reaches 448; E5M2 is the upper
//! byte of binary16.

use chaski_gguf::Format;
use chaski_gguf::block::f16::F16Le;

use super::ImportError;
use super::config::Quantization;
use super::safetensors::{Checkpoint, Dtype, Tensor};
use crate::kv::f8e4m3;

/// Which values share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    Tensor,
    Row,
    /// Rows and columns of a tile, and tiles side by side.
    Block {
        rows: u64,
        columns: u64,
        across: u64,
    },
}

/// A matrix of 8-bit floats.
#[derive(Debug, Clone)]
pub(super) struct Float8 {
    codes: Tensor,
    /// The scales with their format; none where the values are as they are.
    scales: Option<(Tensor, Format, Tile)>,
}

/// Its bytes at hand.
pub(super) struct View<'a> {
    codes: &'a [u8],
    columns: usize,
    table: Box<[f32; 256]>,
    scales: Option<(&'a [u8], Format, Tile)>,
}

impl Float8 {
    /// The matrix whose codes are `codes`, with the scales that lie beside it.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        quantization: &Quantization,
        codes: &Tensor,
    ) -> Result<Float8, ImportError> {
        let [rows, columns] = codes.shape[..] else {
            return Err(
                checkpoint.bad(codes, format!("has shape {:?}; 8-bit floats are matrices", codes.shape))
            );
        };
        let names = [format!("{}_scale_inv", codes.name), format!("{}_scale", codes.name)];
        let Some(scale) = names.iter().find_map(|name| checkpoint.get(name)) else {
            if quantization.method().is_some() {
                let why = format!("has 8-bit floats, but there is neither {} nor {}", names[0], names[1]);
                return Err(checkpoint.bad(codes, why));
            }
            return Ok(Float8 { codes: codes.clone(), scales: None });
        };
        let wrong = |why: String| Err(checkpoint.bad(scale, why));
        let Some(format) = scale.dtype.float() else {
            return wrong(format!("holds {}, no floats", scale.dtype));
        };
        let (block_rows, block_columns) = quantization.float8_block();
        let down = rows.div_ceil(block_rows);
        let across = columns.div_ceil(block_columns);
        let tile = match scale.shape[..] {
            [] | [1] | [1, 1] => Tile::Tensor,
            [n] | [n, 1] if n == rows => Tile::Row,
            [d, a] if d == down && a == across => {
                Tile::Block { rows: block_rows, columns: block_columns, across }
            }
            _ => {
                return wrong(format!(
                    "has shape {:?}: no scale for the tensor, for each of {rows} rows, or for each of {down} x {across} \
                     tiles of {block_rows} x {block_columns}",
                    scale.shape
                ));
            }
        };
        Ok(Float8 { codes: codes.clone(), scales: Some((scale.clone(), format, tile)) })
    }

    /// The tensors that it is made of.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.codes).chain(self.scales.iter().map(|(t, ..)| t))
    }

    /// The codes.
    pub(super) fn codes(&self) -> &Tensor {
        &self.codes
    }

    pub(super) fn view<'a>(&self, checkpoint: &'a Checkpoint) -> Result<View<'a>, ImportError> {
        let scales = match &self.scales {
            Some((tensor, format, tile)) => Some((checkpoint.bytes(tensor)?, *format, *tile)),
            None => None,
        };
        let columns = self.codes.shape.last().copied().unwrap_or(0) as usize;
        let table = Box::new(match self.codes.dtype {
            Dtype::F8E5M2 => std::array::from_fn(|code| F16Le([0, code as u8]).to_f32()),
            _ => f8e4m3::DECODED,
        });
        Ok(View { codes: checkpoint.bytes(&self.codes)?, columns, table, scales })
    }
}

impl View<'_> {
    /// The values of a row.
    pub(super) fn row(&self, row: u64, out: &mut [f32]) {
        let start = row as usize * self.columns;
        let codes = self.codes.get(start..start + self.columns).unwrap_or_default();
        for (out, code) in out.iter_mut().zip(codes) {
            *out = self.table[usize::from(*code)];
        }
        let Some((bytes, format, tile)) = self.scales else { return };
        let size = format.info().block_bytes;
        let scale = |i: u64| {
            let mut value = [f32::NAN];
            let at = i as usize * size;
            (format.info().decode)(bytes.get(at..at + size).unwrap_or_default(), &mut value);
            value[0]
        };
        match tile {
            Tile::Tensor | Tile::Row => {
                let scale = scale(if tile == Tile::Row { row } else { 0 });
                for v in out {
                    *v *= scale;
                }
            }
            Tile::Block { rows, columns, across } => {
                for (i, values) in out.chunks_mut(columns as usize).enumerate() {
                    let scale = scale(row / rows * across + i as u64);
                    for v in values {
                        *v *= scale;
                    }
                }
            }
        }
    }
}
