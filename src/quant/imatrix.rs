//! Importance matrices: for every column of a matrix, how strong the activations are that meet it.
//!
//! A linear layer computes `y_r = sum_c W_rc x_c`. Rounding moves `W_rc` by `e_rc`, so the mean square of the error of `y_r`
//! over a calibration text is `E[(sum_c e_rc x_c)^2]`, which is `sum_c e_rc^2 E[x_c^2]` where activations of different
//! columns do not go together. So the importance of a column is `E[x_c^2]`, the mean square of its activations, and the
//! encoders weigh squared errors by it.
//!
//! Files are GGUF as llama.cpp writes them: for each matrix `NAME.in_sum2`, the sums of squares of each column (for each
//! expert a row), and `NAME.counts`, how many activations were summed up. Its older files (`imatrix.dat`) are read too, and
//! never written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use chaski_gguf::{FileKind, Format, Gguf, Writer, keys};

use super::{QuantError, imatrix_dat};

/// Whether blocks of a format are chosen by the importance of columns, where it is known.
pub fn weighs(format: Format) -> bool {
    let info = format.info();
    if info.block_len == 1 {
        return false;
    }
    // The encoder is asked: a row where importances must tell, with and without them.
    let n = 2 * info.block_len;
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let importance: Vec<f32> = (0..n).map(|i| if i % 7 == 0 { 1e4 } else { 1e-4 }).collect();
    let (mut with, mut without) = (vec![0; 2 * info.block_bytes], vec![0; 2 * info.block_bytes]);
    (info.quantize)(&values, Some(&importance), &mut with);
    (info.quantize)(&values, None, &mut without);
    with != without
}

/// The statistics of one matrix, or of the matrices of all experts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Statistics {
    /// `sum x_c^2` for each column, expert after expert.
    pub sums: Vec<f32>,
    /// How many activations were summed up, for each expert; or one number for all of them, as older files have it.
    pub counts: Vec<f32>,
}

/// An importance matrix.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imatrix {
    /// By the name of the matrix (`blk.0.ffn_down.weight`).
    pub entries: BTreeMap<String, Statistics>,
    /// The texts that it was made from.
    pub datasets: Vec<String>,
    /// Windows of those texts.
    pub chunks: u32,
    /// Tokens of a window.
    pub chunk_size: u32,
}

impl Statistics {
    /// The importance of each column, expert after expert: mean squares. An expert that no activation met has no say: 1
    /// throughout.
    pub fn importance(&self) -> Vec<f32> {
        let columns = self.sums.len() / self.counts.len().max(1);
        let mut out = Vec::with_capacity(self.sums.len());
        for (sums, count) in self.sums.chunks(columns.max(1)).zip(&self.counts) {
            // Nothing but zeros would leave the encoders without any preference.
            let silent = *count <= 0.0 || sums.iter().all(|s| *s == 0.0);
            out.extend(sums.iter().map(|sum| if silent { 1.0 } else { sum / count }));
        }
        out
    }
}

impl Imatrix {
    /// Read llama.cpp's file, in its present form or the older one.
    ///
    /// # Errors
    /// The file cannot be read, is no importance matrix, lacks sums or counts, or holds what is not finite or negative.
    pub fn open(path: &Path) -> Result<Imatrix, QuantError> {
        let mut head = Vec::new();
        let file = File::open(path);
        // What cannot be read is told by the reader of GGUF files.
        if let Ok(file) = file
            && file.take(16).read_to_end(&mut head).is_ok()
            && imatrix_dat::looks_like_one(&head)
        {
            let bytes = std::fs::read(path)
                .map_err(|source| QuantError::Imatrix { why: format!("cannot be read: {source}") })?;
            return imatrix_dat::read(&bytes);
        }
        Self::read(&Gguf::open(path)?)
    }

    fn read(file: &Gguf) -> Result<Imatrix, QuantError> {
        if file.kind() != FileKind::Imatrix {
            return Err(QuantError::Imatrix {
                why: format!("the file is {}, not an importance matrix", file.kind()),
            });
        }
        let mut entries = BTreeMap::new();
        for info in file.tensors() {
            let Some(name) = info.name.strip_suffix(SUMS) else { continue };
            let sums = floats(file, &info.name)?;
            let counts = floats(file, &format!("{name}{COUNTS}"))?;
            if counts.is_empty() || sums.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                let why = format!("{} sums for {} counts", sums.len(), counts.len());
                return Err(QuantError::Imatrix { why: format!("tensor {}: {why}", info.name) });
            }
            entries.insert(name.to_owned(), Statistics { sums, counts });
        }
        if entries.is_empty() {
            return Err(QuantError::Imatrix { why: format!("there is no tensor NAME{SUMS}") });
        }
        let datasets = match file.string_array(keys::IMATRIX_DATASETS)? {
            Some(texts) => texts.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            None => Vec::new(),
        };
        Ok(Imatrix {
            entries,
            datasets,
            chunks: file.u32(keys::IMATRIX_CHUNK_COUNT)?.unwrap_or(0),
            chunk_size: file.u32(keys::IMATRIX_CHUNK_SIZE)?.unwrap_or(0),
        })
    }

    /// Write llama.cpp's file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), QuantError> {
        self.writer()?.save(path)?;
        Ok(())
    }

    /// As [`Imatrix::save`], into anything.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<(), QuantError> {
        self.writer()?.write_to(out)?;
        Ok(())
    }

    fn writer(&self) -> Result<Writer<'_>, QuantError> {
        let mut writer = Writer::new();
        writer
            .set(keys::GENERAL_TYPE, "imatrix")?
            .set(keys::IMATRIX_DATASETS, self.datasets.clone())?
            .set(keys::IMATRIX_CHUNK_COUNT, self.chunks)?
            .set(keys::IMATRIX_CHUNK_SIZE, self.chunk_size)?;
        for (name, s) in &self.entries {
            let experts = s.counts.len() as u64;
            let columns = s.sums.len() as u64 / experts.max(1);
            let (sums, counts) = (bytemuck::cast_slice(&s.sums), bytemuck::cast_slice(&s.counts));
            writer.tensor(&format!("{name}{SUMS}"), &[columns, experts], Format::F32, sums)?;
            writer.tensor(&format!("{name}{COUNTS}"), &[1, experts], Format::F32, counts)?;
        }
        Ok(writer)
    }

    /// The importances of a tensor of this shape; none where there are none for it.
    ///
    /// # Errors
    /// There are some, but for another shape: they are of another model.
    pub fn importance(&self, name: &str, shape: &[u64]) -> Result<Option<Vec<f32>>, QuantError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let columns = shape.first().copied().unwrap_or(1);
        let experts: u64 = shape.get(2..).unwrap_or_default().iter().product();
        if entry.sums.len() as u64 == columns.saturating_mul(experts) {
            match *entry.counts {
                ref counts if counts.len() as u64 == experts => return Ok(Some(entry.importance())),
                // As many as there are sums at most.
                [count] => {
                    let (sums, counts) = (entry.sums.clone(), vec![count; experts as usize]);
                    return Ok(Some(Statistics { sums, counts }.importance()));
                }
                _ => {}
            }
        }
        let (sums, counts) = (entry.sums.len(), entry.counts.len());
        let why = format!(
            "tensor {name}: {sums} importances for {counts} matrices, but the tensor has {columns} columns in {experts}; it \
             is of another model"
        );
        Err(QuantError::Imatrix { why })
    }
}

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// The values of a tensor, none of them negative or not finite.
fn floats(file: &Gguf, name: &str) -> Result<Vec<f32>, QuantError> {
    let tensor = file.require_tensor(name)?;
    if tensor.info.format != Format::F32 {
        return Err(QuantError::Imatrix { why: format!("tensor {name} is {}, not F32", tensor.info.format) });
    }
    let values: Vec<f32> = tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().position(|v| !v.is_finite() || *v < 0.0) {
        Some(at) => Err(QuantError::Imatrix { why: format!("tensor {name}: value {at} is {}", values[at]) }),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_that_have_no_choice() {
        for format in [Format::Q2_K, Format::Q3_K, Format::Q4_K, Format::Q6_K, Format::Q4_0, Format::IQ4_NL] {
            assert!(weighs(format), "{format}");
        }
        for format in [Format::F32, Format::BF16, Format::Q8_0] {
            assert!(!weighs(format), "{format}");
        }
    }
}
