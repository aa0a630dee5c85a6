//! A tensor of GGUF as the checkpoint holds it: found, checked, and read row by row.

use chaski_gguf::Format;
use rayon::prelude::*;

use super::super::convert::NotFinite;
use super::super::measures::Sums;
use super::super::source::Piece;
use super::config::Quantization;
use super::float8::{self, Float8};
use super::models::Wanted;
use super::packed::{self, Packed};
use super::safetensors::{Checkpoint, Dtype, Tensor};
use super::{ImportError, ImportOptions};

/// Rows that a thread reads at a time: packed matrices lie transposed, and this many rows share lines of memory.
const STRIP: usize = 128;

/// A matrix (or a vector) of the checkpoint.
enum Matrix {
    Plain(Tensor, Format),
    Float8(Float8),
    Packed(Packed),
}

/// Its bytes at hand.
enum View<'a> {
    Plain(&'a [u8], Format),
    Float8(float8::View<'a>),
    Packed(packed::View<'a>),
}

/// A tensor of GGUF.
pub(super) struct Stack {
    /// One, or one for each expert.
    parts: Vec<Matrix>,
    /// Values of a head whose rows are interleaved.
    heads_of: Option<u64>,
    /// Its columns, and the rows of one part.
    columns: u64,
    rows: u64,
    /// The format in which it is handed on.
    pub format: Format,
    /// That format holds integers of the checkpoint as they are.
    pub packed: bool,
}

impl Matrix {
    /// The matrix or vector of a module; none if the checkpoint has none.
    fn find(
        checkpoint: &Checkpoint,
        quantization: &Quantization,
        module: &str,
        part: &str,
    ) -> Result<Option<Matrix>, ImportError> {
        let Some(tensor) = checkpoint.get(&format!("{module}.{part}")) else {
            if part != "weight" {
                return Ok(None);
            }
            return Ok(Packed::find(checkpoint, quantization, module)?.map(Matrix::Packed));
        };
        match tensor.dtype {
            Dtype::F8E4M3 | Dtype::F8E5M2 => {
                Float8::new(checkpoint, quantization, tensor).map(|m| Some(Matrix::Float8(m)))
            }
            dtype => {
                let format = dtype.float().ok_or_else(|| {
                    checkpoint.bad(tensor, format!("holds {dtype}: no weights that can be read"))
                })?;
                Ok(Some(Matrix::Plain(tensor.clone(), format)))
            }
        }
    }

    /// Its dimensions, the row length last, and the tensor to name in messages.
    fn shape(&self) -> (Vec<u64>, &Tensor) {
        match self {
            Matrix::Plain(tensor, _) => (tensor.shape.clone(), tensor),
            Matrix::Float8(m) => (m.codes().shape.clone(), m.codes()),
            Matrix::Packed(m) => (m.shape().to_vec(), m.tensor()),
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Matrix::Plain(tensor, _) => vec![tensor],
            Matrix::Float8(m) => m.tensors().collect(),
            Matrix::Packed(m) => m.tensors().to_vec(),
        }
    }

    fn view<'a>(&'a self, checkpoint: &'a Checkpoint) -> Result<View<'a>, ImportError> {
        Ok(match self {
            Matrix::Plain(tensor, format) => View::Plain(checkpoint.bytes(tensor)?, *format),
            Matrix::Float8(m) => View::Float8(m.view(checkpoint)?),
            Matrix::Packed(m) => View::Packed(m.view(checkpoint)?),
        })
    }
}

impl View<'_> {
    /// Write a row in the format in which it is handed on. `lost` takes in what was lost; `values` is room
    /// to work in.
    fn row(
        &self,
        row: u64,
        format: Format,
        out: &mut [u8],
        values: &mut Vec<f32>,
        lost: &mut Option<Sums>,
    ) -> Result<(), NotFinite> {
        let info = format.info();
        let columns = out.len() / info.block_bytes * info.block_len;
        if let View::Plain(bytes, own) = self
            && *own == format
        {
            let start = row as usize * out.len();
            out.copy_from_slice(bytes.get(start..start + out.len()).unwrap_or_default());
            return Ok(());
        }
        if let View::Packed(view) = self
            && info.block_len > 1
        {
            return view.blocks(row, format, out, values, lost);
        }
        values.resize(columns, 0.0);
        match self {
            View::Plain(bytes, own) => {
                let size = own.info().block_bytes * columns;
                let start = row as usize * size;
                (own.info().decode)(bytes.get(start..start + size).unwrap_or_default(), values);
            }
            View::Float8(view) => view.row(row, values),
            View::Packed(view) => view.row(row, values),
        }
        for (out, v) in out.chunks_exact_mut(4).zip(values.iter()) {
            out.copy_from_slice(&v.to_le_bytes());
        }
        Ok(())
    }
}

impl Stack {
    /// Find and check what `wanted` is made of; none if the checkpoint has none of it. `used` learns the names.
    pub(super) fn find(
        checkpoint: &Checkpoint,
        quantization: &Quantization,
        wanted: &Wanted,
        options: &ImportOptions,
        used: &mut Vec<String>,
    ) -> Result<Option<Stack>, ImportError> {
        let mut parts = Vec::new();
        for module in &wanted.modules {
            match Matrix::find(checkpoint, quantization, module, wanted.part)? {
                Some(part) => parts.push(part),
                None if !wanted.required && parts.is_empty() => return Ok(None),
                None => return Err(ImportError::Missing { name: format!("{module}.{}", wanted.part) }),
            }
        }
        let columns = wanted.shape.first().copied().unwrap_or(1);
        let is_matrix = wanted.shape.len() > 1;
        let rows = if is_matrix { wanted.shape.get(1).copied().unwrap_or(1) } else { 1 };
        let expected = if is_matrix { vec![rows, columns] } else { vec![columns] };
        for part in &parts {
            let (shape, tensor) = part.shape();
            if shape != expected {
                let why = format!("has shape {shape:?}, config.json asks for {expected:?}");
                return Err(checkpoint.bad(tensor, why));
            }
            used.extend(part.tensors().into_iter().map(|t| t.name.clone()));
        }
        // The order of groups is no tensor of its own where it says nothing.
        used.extend(wanted.modules.iter().map(|module| format!("{module}.g_idx")));
        let format = if wanted.whole { Format::F32 } else { handed_on(checkpoint, &parts, options)? };
        let packed = format.info().block_len > 1;
        // A vector has no rows that could be turned, but its values are: they are rows of one.
        let (columns, rows) =
            if !is_matrix && wanted.heads_of.is_some() { (1, columns) } else { (columns, rows) };
        Ok(Some(Stack { parts, heads_of: wanted.heads_of, columns, rows, format, packed }))
    }

    /// The row of the checkpoint that becomes row `row`.
    fn source_row(&self, row: u64) -> u64 {
        let Some(d) = self.heads_of else { return row };
        let (head, i) = (row / d, row % d);
        head * d + (i % 2) * (d / 2) + i / 2
    }

    /// The bytes `range` in the format that is handed on: whole rows of one part.
    pub(super) fn read<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        range: std::ops::Range<u64>,
    ) -> Result<Result<Piece<'a>, NotFinite>, ImportError> {
        let row_bytes = self.format.bytes_of(self.columns).unwrap_or(0).max(1);
        let (first, last) = (range.start / row_bytes, range.end / row_bytes);
        let (part, first_row) = (first / self.rows.max(1), first % self.rows.max(1));
        let Some(part) = self.parts.get(part as usize) else {
            return Ok(Ok(Piece { bytes: Vec::new().into(), lost: None }));
        };
        let view = part.view(checkpoint)?;
        if let View::Plain(bytes, format) = view
            && format == self.format
            && self.heads_of.is_none()
        {
            let start = first_row * row_bytes;
            let end = start + (range.end - range.start);
            let bytes = bytes.get(start as usize..end as usize).unwrap_or_default();
            return Ok(Ok(Piece { bytes: bytes.into(), lost: None }));
        }
        let n = last - first;
        let mut bytes = vec![0; (n * row_bytes) as usize];
        let strips = bytes.par_chunks_mut(STRIP * row_bytes as usize).enumerate();
        let found: Vec<Result<Option<Sums>, NotFinite>> = strips
            .map_init(Vec::new, |values, (i, strip)| {
                let mut lost: Option<Sums> = None;
                for (j, out) in strip.chunks_exact_mut(row_bytes as usize).enumerate() {
                    let at = (i * STRIP + j) as u64;
                    let row = self.source_row(first_row + at);
                    view.row(row, self.format, out, values, &mut lost).map_err(|bad| NotFinite {
                        // The place in the piece, not in the checkpoint.
                        index: at * self.columns + bad.index % self.columns.max(1),
                        ..bad
                    })?;
                }
                Ok(lost)
            })
            .collect();
        let mut lost: Option<Sums> = None;
        for strip in found {
            match (strip, &mut lost) {
                (Err(bad), _) => return Ok(Err(bad)),
                (Ok(Some(sums)), Some(lost)) => lost.add(&sums),
                (Ok(sums @ Some(_)), lost) => *lost = sums,
                (Ok(None), _) => {}
            }
        }
        Ok(Ok(Piece { bytes: bytes.into(), lost }))
    }
}

/// The format in which a matrix is handed on: floats as they are, packed integers as blocks where that loses nothing and is
/// asked for.
fn handed_on(
    checkpoint: &Checkpoint,
    parts: &[Matrix],
    options: &ImportOptions,
) -> Result<Format, ImportError> {
    let mut format: Option<Format> = None;
    let wanted = options.base;
    let symmetric = parts.iter().all(|p| !matches!(p, Matrix::Packed(p) if !p.symmetric));
    for part in parts {
        let own = match part {
            Matrix::Plain(_, Format::F64) | Matrix::Float8(_) => Format::F32,
            Matrix::Plain(_, format) => *format,
            Matrix::Packed(_) if wanted.info().block_len == 1 => Format::F32,
            Matrix::Packed(packed) => {
                // Experts are one tensor: Q4_0 only where it does for all of them.
                let ask = if symmetric { wanted } else { Format::Q4_1 };
                match packed.blocks(ask) {
                    Some(blocks) if blocks == wanted => blocks,
                    _ if options.allow_requantize => Format::F32,
                    blocks => {
                        let as_it_is = match blocks {
                            Some(blocks) => format!("{blocks} takes its integers as they are"),
                            None => format!(
                                "no block format takes its integers as they are: {}",
                                packed.why_no_blocks()
                            ),
                        };
                        let why = format!(
                            "is quantized already; {as_it_is}, F32, F16 and BF16 take its values, and --allow-requantize \
                             rounds it again to {wanted}"
                        );
                        return Err(checkpoint.bad(packed.tensor(), why));
                    }
                }
            }
        };
        // What differs from expert to expert meets in binary32.
        format = match format {
            None => Some(own),
            Some(other) if other == own => Some(own),
            Some(_) => Some(Format::F32),
        };
    }
    Ok(format.unwrap_or(Format::F32))
}
