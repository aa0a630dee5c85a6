//! Checkpoints that AWQ and GPTQ made: integers packed into words of 32 bits, with a scale and a zero point for each group of
//! columns.
//!
//! `value = scale * (q - z)`. Both methods keep matrices transposed, `[columns, rows]` in the terms of GGUF:
//!
//! | | AWQ (`gemm`) | GPTQ |
//! |---|---|---|
//! | `qweight` | `[columns, rows / 8]`: eight rows to a word | `[columns / 8, rows]`: eight columns to a word |
//! | order in a word | nibble `i` is row `[0 2 4 6 1 3 5 7][i]` | nibble `i` is column `i` |
//! | `qzeros` | `[groups, rows / 8]`, in the same order | `[groups, rows / 8]`, nibble `i` is row `i` |
//! | zero point | as stored | one more than stored (`gptq_v2`: as stored) |
//! | `scales` | `[groups, rows]` | `[groups, rows]` |
//! | `g_idx` | – | the group of each column, for act-order |
//!
//! (8 bits, of GPTQ only: four to a word.) Sources: the packing functions of AutoAWQ and AutoGPTQ.
//!
//! # Without rounding anew
//!
//! A block of Q4_1 is `d * q + m` for 32 columns: the integers stay as they are, `d = scale`, and `m = -scale * z` is rounded
//! to binary16, which is all that is lost (and the rounding of scales that were not binary16). Where every zero point is 8,
//! a block of Q4_0 is `d * (q - 8)`, and nothing is lost; with 8 bits and zero points of 128, a block of Q8_0 likewise.

use chaski_gguf::Format;
use chaski_gguf::block::f16::F16Le;

use super::super::convert::NotFinite;
use super::super::measures::Sums;
use super::ImportError;
use super::config::{Method, Quantization};
use super::safetensors::{Checkpoint, Dtype, Tensor};

/// Columns of a block of the formats that integers go to.
const BLOCK: usize = 32;
/// The nibble of a word that holds each of eight rows, in AWQ's order.
const AWQ_NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix of packed integers.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    awq: bool,
    bits: u32,
    rows: u64,
    columns: u64,
    groups: u64,
    /// Columns of a group.
    group: u64,
    /// What is added to a stored zero point.
    zero_offset: i32,
    qweight: Tensor,
    qzeros: Tensor,
    scales: Tensor,
    scale_format: Format,
    /// The group of each column, where that is not its place divided by the group's size.
    g_idx: Option<Tensor>,
    /// Every zero point is in the middle.
    pub symmetric: bool,
}

/// Its bytes at hand.
pub(super) struct View<'a> {
    packed: &'a Packed,
    qweight: &'a [u8],
    qzeros: &'a [u8],
    scales: &'a [u8],
    g_idx: Option<&'a [u8]>,
}

/// Word `i`; 0 beyond the end, which checked shapes rule out.
fn word(bytes: &[u8], i: u64) -> u32 {
    let at = i as usize * 4;
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Packed {
    /// The matrix of the module `prefix`; none if it has no `qweight`.
    pub(super) fn find(
        checkpoint: &Checkpoint,
        quantization: &Quantization,
        prefix: &str,
    ) -> Result<Option<Packed>, ImportError> {
        let Some(qweight) = checkpoint.get(&format!("{prefix}.qweight")) else { return Ok(None) };
        let wrong = |tensor: &Tensor, why: String| Err(checkpoint.bad(tensor, why));
        let Some(method @ (Method::Awq | Method::Gptq { .. })) = quantization.method() else {
            return wrong(qweight, "is packed, but quantization_config names neither awq nor gptq".into());
        };
        let awq = matches!(method, Method::Awq);
        let bits = quantization.bits();
        let in_word = u64::from(32 / bits.max(1));
        let part = |name: &str| -> Result<&Tensor, ImportError> {
            let name = format!("{prefix}.{name}");
            checkpoint.get(&name).ok_or_else(|| checkpoint.bad(qweight, format!("lies there without {name}")))
        };
        let (qzeros, scales) = (part("qzeros")?, part("scales")?);
        for tensor in [qweight, qzeros] {
            if tensor.dtype != Dtype::Plain(Format::I32) {
                return wrong(tensor, format!("holds {}, not I32", tensor.dtype));
            }
        }
        let Some(scale_format) = scales.dtype.float() else {
            return wrong(scales, format!("holds {}, no floats", scales.dtype));
        };
        let ([groups, rows], [down, across]) = (&scales.shape[..], &qweight.shape[..]) else {
            return wrong(
                qweight,
                format!("or its scales are no matrix: {:?}, {:?}", qweight.shape, scales.shape),
            );
        };
        let (groups, rows) = (*groups, *rows);
        let columns = if awq { *down } else { down.saturating_mul(in_word) };
        let wanted = if awq { rows / in_word } else { rows };
        if *across != wanted || !rows.is_multiple_of(in_word) {
            return wrong(
                qweight,
                format!("has shape {:?}, its scales are {:?}", qweight.shape, scales.shape),
            );
        }
        if qzeros.shape != [groups, rows / in_word] {
            return wrong(
                qzeros,
                format!("has shape {:?}, not {:?}", qzeros.shape, [groups, rows / in_word]),
            );
        }
        let group = quantization.group_size().unwrap_or(columns.max(1));
        if columns.div_ceil(group) != groups {
            let why = format!("has {groups} rows: {columns} columns in groups of {group} are another number");
            return wrong(scales, why);
        }
        let zero_offset = i32::from(matches!(method, Method::Gptq { stored_less_one: true }));
        let mut packed = Packed {
            awq,
            bits,
            rows,
            columns,
            groups,
            group,
            zero_offset,
            qweight: qweight.clone(),
            qzeros: qzeros.clone(),
            scales: scales.clone(),
            scale_format,
            g_idx: None,
            symmetric: false,
        };
        if let Some(g_idx) = checkpoint.get(&format!("{prefix}.g_idx")) {
            packed.read_order(checkpoint, g_idx)?;
        }
        let view = packed.view(checkpoint)?;
        let middle = 1 << (bits - 1);
        let symmetric = (0..groups).all(|g| (0..rows).all(|row| view.zero(g, row) == middle));
        packed.symmetric = symmetric;
        Ok(Some(packed))
    }

    /// Check the groups of the columns, and keep them if they are not in order.
    fn read_order(&mut self, checkpoint: &Checkpoint, g_idx: &Tensor) -> Result<(), ImportError> {
        if g_idx.dtype != Dtype::Plain(Format::I32) || g_idx.shape != [self.columns] {
            let why = format!("is {} of shape {:?}, not I32 of [{}]", g_idx.dtype, g_idx.shape, self.columns);
            return Err(checkpoint.bad(g_idx, why));
        }
        let bytes = checkpoint.bytes(g_idx)?;
        let mut in_order = true;
        for k in 0..self.columns {
            let group = word(bytes, k);
            if u64::from(group) >= self.groups {
                let why = format!("puts column {k} into group {} of {}", group.cast_signed(), self.groups);
                return Err(checkpoint.bad(g_idx, why));
            }
            in_order &= u64::from(group) == k / self.group;
        }
        self.g_idx = (!in_order).then(|| g_idx.clone());
        Ok(())
    }

    /// Its tensors.
    pub(super) fn tensors(&self) -> [&Tensor; 3] {
        [&self.qweight, &self.qzeros, &self.scales]
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> [u64; 2] {
        [self.rows, self.columns]
    }

    /// The format of the table that holds these integers as they are: the one of `wanted` where there are two.
    pub(super) fn blocks(&self, wanted: Format) -> Option<Format> {
        let fits = self.g_idx.is_none() && self.group.is_multiple_of(BLOCK as u64);
        if !fits || !self.columns.is_multiple_of(BLOCK as u64) {
            return None;
        }
        match (self.bits, self.symmetric) {
            (4, true) if wanted != Format::Q4_1 => Some(Format::Q4_0),
            (4, _) => Some(Format::Q4_1),
            (_, symmetric) => symmetric.then_some(Format::Q8_0),
        }
    }

    /// Why no format of the table holds these integers.
    pub(super) fn why_no_blocks(&self) -> String {
        if self.g_idx.is_some() {
            "its groups of columns are in the order of activations (act-order, desc_act: g_idx), so that no 32 neighbours \
             share a scale"
                .to_owned()
        } else if self.bits == 8 {
            "its 8-bit integers have zero points other than 128".to_owned()
        } else {
            format!(
                "blocks of {BLOCK} do not divide its groups of {} and {} columns",
                self.group, self.columns
            )
        }
    }

    /// The tensor that stands for it in messages.
    pub(super) fn tensor(&self) -> &Tensor {
        &self.qweight
    }

    pub(super) fn view<'a>(&'a self, checkpoint: &'a Checkpoint) -> Result<View<'a>, ImportError> {
        Ok(View {
            packed: self,
            qweight: checkpoint.bytes(&self.qweight)?,
            qzeros: checkpoint.bytes(&self.qzeros)?,
            scales: checkpoint.bytes(&self.scales)?,
            g_idx: self.g_idx.as_ref().map(|t| checkpoint.bytes(t)).transpose()?,
        })
    }
}

impl View<'_> {
    /// The zero point of a group and row.
    fn zero(&self, group: u64, row: u64) -> i32 {
        let p = self.packed;
        let in_word = u64::from(32 / p.bits);
        let word = word(self.qzeros, group * (p.rows / in_word) + row / in_word);
        let i = (row % in_word) as usize;
        let place = if p.awq { AWQ_NIBBLE.get(i).copied().unwrap_or(0) } else { i as u32 };
        (word >> (place * p.bits) & ((1 << p.bits) - 1)) as i32 + p.zero_offset
    }

    /// The scale of a group and row.
    fn scale(&self, group: u64, row: u64) -> f32 {
        let info = self.packed.scale_format.info();
        let at = (group * self.packed.rows + row) as usize * info.block_bytes;
        let mut value = [f32::NAN];
        (info.decode)(self.scales.get(at..at + info.block_bytes).unwrap_or_default(), &mut value);
        value[0]
    }

    /// The integer of a row and column.
    fn quant(&self, row: u64, column: u64) -> u8 {
        let p = self.packed;
        let in_word = u64::from(32 / p.bits);
        let (at, place) = if p.awq {
            let i = (row % in_word) as usize;
            (column * (p.rows / in_word) + row / in_word, AWQ_NIBBLE.get(i).copied().unwrap_or(0))
        } else {
            (column / in_word * p.rows + row, (column % in_word) as u32)
        };
        (word(self.qweight, at) >> (place * p.bits) & ((1 << p.bits) - 1)) as u8
    }

    fn group(&self, column: u64) -> u64 {
        self.g_idx.map_or(column / self.packed.group, |g| u64::from(word(g, column)))
    }

    /// The values of a row, each exact: a scale of binary16 times an integer of 9 bits fits into binary32.
    pub(super) fn row(&self, row: u64, out: &mut [f32]) {
        let mut last = (u64::MAX, 0.0, 0);
        for (column, out) in (0..).zip(out) {
            let group = self.group(column);
            if group != last.0 {
                last = (group, self.scale(group, row), self.zero(group, row));
            }
            *out = last.1 * (i32::from(self.quant(row, column)) - last.2) as f32;
        }
    }

    /// The integers of a row as blocks of `format`, one of [`Packed::blocks`]. `lost` takes in what that lost; `values`
    /// is room to work in.
    pub(super) fn blocks(
        &self,
        row: u64,
        format: Format,
        out: &mut [u8],
        values: &mut Vec<f32>,
        lost: &mut Option<Sums>,
    ) -> Result<(), NotFinite> {
        let columns = self.packed.columns as usize;
        values.resize(2 * columns, 0.0);
        for (i, block) in out.chunks_exact_mut(format.info().block_bytes).enumerate() {
            let first = (i * BLOCK) as u64;
            let group = self.group(first);
            let (scale, zero) = (self.scale(group, row), self.zero(group, row));
            let (d, m) = (F16Le::from_f32(scale), F16Le::from_f32(-scale * zero as f32));
            for (number, rounded) in [(scale, d), (-scale * zero as f32, m)] {
                if !rounded.to_f32().is_finite() {
                    return Err(NotFinite { index: row * self.packed.columns + first, value: number });
                }
            }
            let mut quants = [0u8; BLOCK];
            for (j, q) in quants.iter_mut().enumerate() {
                *q = self.quant(row, first + j as u64);
            }
            let (head, body) = block.split_at_mut(if format == Format::Q4_1 { 4 } else { 2 });
            head[..2].copy_from_slice(&d.0);
            if format == Format::Q4_1 {
                head[2..].copy_from_slice(&m.0);
            }
            if format == Format::Q8_0 {
                body.iter_mut().zip(quants).for_each(|(b, q)| *b = q.wrapping_sub(128));
            } else {
                // Value j in the lower half of byte j, value 16 + j in the upper.
                let (low, high) = quants.split_at(BLOCK / 2);
                body.iter_mut().zip(low.iter().zip(high)).for_each(|(b, (l, h))| *b = l | h << 4);
            }
        }
        let (exact, decoded) = values.split_at_mut(columns);
        self.row(row, exact);
        (format.info().decode)(out, decoded);
        lost.get_or_insert_with(|| Sums::new(columns)).add_rows(exact, decoded, format);
        Ok(())
    }
}
