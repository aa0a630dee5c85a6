//! Models as Hugging Face's libraries save them, a folder of safetensors, JSON and a tokenizer, read as if they were a GGUF file.
//!
//! [`Folder::open`] reads and checks everything but the weights: which class of model (`models`), hyper-parameters
//! (`config`), tensors (`safetensors`, `matrix`), tokenizer and chat template (`vocab`). Then the folder is a
//! [`Source`]: weights are read from the mapped files a piece at a time, however large they are, and turned on the way:
//!
//! - rows of Q and K are interleaved for the llama architecture, whose rotary embedding turns neighbours;
//! - the matrices of all experts become one tensor;
//! - 8-bit floats are multiplied by their scales (`float8`), and the integers of AWQ and GPTQ become blocks (`packed`).
//!
//! Names, keys and values are those that llama.cpp's `convert_hf_to_gguf.py` writes.

mod config;
mod float8;
mod json;
mod matrix;
mod models;
mod packed;
mod pretokenizer;
mod safetensors;
mod sentencepiece;
mod special;
mod vocab;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski_gguf::{Format, Gguf, Writer, keys};

use super::QuantError;
use super::source::{Piece, Source};
use crate::model::{Model, RopeOptions};
use config::Config;
use matrix::Stack;
use safetensors::Checkpoint;

/// Why a folder cannot be read as a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Something is wrong with a file.
    #[error("{path}: {what}: {why}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// The field or tensor.
        what: String,
        /// What is wrong, with the figures.
        why: String,
    },
    /// A tensor is in none of the files.
    #[error("tensor {name}: is in none of the safetensors files")]
    Missing {
        /// The tensor, by its name in the checkpoint.
        name: String,
    },
    /// The tokenizer, put together, is none that works.
    #[error("the tokenizer: {0}")]
    Tokenizer(#[from] crate::tokenizer::Error),
    /// The model, put together, is none that runs.
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    /// What was put together is no GGUF.
    #[error(transparent)]
    Gguf(#[from] chaski_gguf::Error),
}

impl ImportError {
    fn bad(path: &Path, what: impl Into<String>, why: impl Into<String>) -> ImportError {
        ImportError::Bad { path: path.to_owned(), what: what.into(), why: why.into() }
    }
}

/// What is to be made of a folder, as far as it decides how tensors are read.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The format that most matrices are to get: packed integers are handed on as its blocks where they fit.
    pub base: Format,
    /// Integers of a quantized checkpoint may be rounded again to other formats.
    pub allow_requantize: bool,
    /// The name of the pre-tokenizer (`tokenizer.ggml.pre`), where the rules of `tokenizer.json` are not recognised.
    pub pre_tokenizer: Option<String>,
}

impl ImportOptions {
    /// For files whose matrices are mostly of this format.
    pub fn new(base: Format) -> ImportOptions {
        ImportOptions { base, allow_requantize: false, pre_tokenizer: None }
    }
}

/// A folder, read as a model.
pub struct Folder {
    head: Gguf,
    checkpoint: Checkpoint,
    tensors: HashMap<String, Data>,
}

/// Where the values of a tensor come from.
enum Data {
    Checkpoint(Stack),
    /// Made from the configuration.
    Made(Vec<u8>),
}

impl Folder {
    /// Read and check a folder: everything but the values of the weights.
    ///
    /// # Errors
    /// A file is missing or malformed, the model is of a class that cannot be imported, a tensor is missing or of another
    /// shape than `config.json` asks for, a tensor has no place in the model, or the tokenizer's rules are not recognised.
    pub fn open(folder: &Path, options: &ImportOptions) -> Result<Folder, ImportError> {
        let config = Config::read(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let matrices = config.n_layer.saturating_mul(config.experts.map_or(1, |(count, _)| 3 * count));
        if matrices > checkpoint.names().count() as u64 {
            let field = config.json.get("num_hidden_layers");
            return Err(
                field.bad(format!("asks for {matrices} matrices and more, which the files do not hold"))
            );
        }
        let mut used = Vec::new();
        let mut tensors: Vec<(String, Vec<u64>, Format, Data)> = Vec::new();
        if let Some(factors) = &config.rope_factors {
            let bytes = factors.iter().flat_map(|v| v.to_le_bytes()).collect();
            let shape = vec![factors.len() as u64];
            tensors.push(("rope_freqs.weight".into(), shape, Format::F32, Data::Made(bytes)));
        }
        for wanted in models::wanted(&config) {
            if config.tied == Some(true) && wanted.name == "output.weight" {
                // Some folders hold the embedding a second time.
                used.push("lm_head.weight".to_owned());
                continue;
            }
            let found = Stack::find(&checkpoint, &config.quantization, &wanted, options, &mut used)?;
            if let Some(stack) = found {
                tensors.push((wanted.name, wanted.shape, stack.format, Data::Checkpoint(stack)));
            }
        }
        let used: HashSet<String> = used.into_iter().collect();
        let left: Vec<&str> = checkpoint.names().filter(|name| !used.contains(*name)).collect();
        let stranger = left.iter().find(|name| !models::may_be_left(name));
        if let Some(tensor) = stranger.and_then(|name| checkpoint.get(name)) {
            return Err(checkpoint.bad(tensor, format!("has no place in a model of {}", config.class.arch)));
        }
        if let Some(first) = left.first() {
            tracing::info!(
                "left out: {} tensors that follow from the configuration or scale activations and caches ({first} ...)",
                left.len()
            );
        }
        let head = head(folder, &config, options, &tensors)?;
        let tensors = tensors.into_iter().map(|(name, _, _, data)| (name, data)).collect();
        let opened = Folder { head, checkpoint, tensors };
        // Whatever was mapped wrongly, or cannot run, shows here and not after hours.
        opened.as_model()?;
        Ok(opened)
    }

    /// That the metadata and the tensors are those of a model that runs, and that nothing is left over.
    fn as_model(&self) -> Result<(), ImportError> {
        let mut writer = Writer::new();
        writer.copy_metadata(&self.head, |key| !key.starts_with("tokenizer."))?;
        for t in self.head.tensors() {
            writer.tensor_with(&t.name, t.shape.get(..t.n_dims).unwrap_or(&t.shape), t.format, |_| Ok(()))?;
        }
        let head = Arc::new(Gguf::from_head(&writer.layout()?.head)?);
        let model = Model::new(head, &RopeOptions::default())?;
        match model.unused().next() {
            Some(name) => Err(crate::model::ModelError::Tensor {
                name: name.to_owned(),
                why: "is none that the architecture computes with".into(),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Tensors whose formats hold integers of the checkpoint as they are.
    pub fn packed(&self) -> impl Iterator<Item = &str> {
        let packed = |data: &Data| matches!(data, Data::Checkpoint(stack) if stack.packed);
        self.tensors.iter().filter(move |(_, data)| packed(data)).map(|(name, _)| name.as_str())
    }
}

/// The metadata, and the descriptions of the tensors.
fn head(
    folder: &Path,
    config: &Config,
    options: &ImportOptions,
    tensors: &[(String, Vec<u64>, Format, Data)],
) -> Result<Gguf, ImportError> {
    let mut writer = Writer::new();
    writer.set(keys::GENERAL_ARCHITECTURE, config.class.arch)?.set(keys::GENERAL_TYPE, "model")?;
    let name = std::fs::canonicalize(folder).ok();
    let name = name.as_deref().unwrap_or(folder).file_name().and_then(|name| name.to_str());
    if let Some(name) = name {
        writer.set(keys::GENERAL_NAME, name)?;
    }
    writer.set(keys::GENERAL_SIZE_LABEL, size_label(config, tensors))?;
    for (key, value) in &config.keys {
        writer.set(key, value.clone())?;
    }
    let vocabulary = vocab::read(folder, config.n_vocab, options.pre_tokenizer.as_deref())?;
    for (key, value) in special::complete(folder, &config.json, vocabulary)? {
        writer.set(&key, value)?;
    }
    for (name, shape, format, _) in tensors {
        writer.tensor_with(name, shape, *format, |_| Ok(()))?;
    }
    Ok(Gguf::from_head(&writer.layout()?.head)?)
}

/// The size class as llama.cpp writes it: two digits or more and a unit, experts apart (`8x7.2B`).
fn size_label(config: &Config, tensors: &[(String, Vec<u64>, Format, Data)]) -> String {
    let (mut shared, mut of_expert) = (0u64, 0u64);
    for (name, shape, ..) in tensors {
        let n: u64 = shape.iter().product();
        match config.experts {
            Some((count, _)) if name.contains("_exps.") => of_expert += n / count.max(1),
            _ => shared += n,
        }
    }
    let label = rounded(shared + of_expert);
    config.experts.map_or(label.clone(), |(count, _)| format!("{count}x{label}"))
}

fn rounded(n: u64) -> String {
    let (scale, unit) = match n {
        1_000_000_000_001.. => (1e12, "T"),
        1_000_000_001.. => (1e9, "B"),
        1_000_001.. => (1e6, "M"),
        _ => (1e3, "K"),
    };
    let scaled = n as f64 / scale;
    let digits = format!("{scaled:.0}").trim_start_matches('0').len();
    format!("{scaled:.*}{unit}", 2usize.saturating_sub(digits))
}

impl Source for Folder {
    fn head(&self) -> &Gguf {
        &self.head
    }

    fn read(&self, tensor: &str, range: Range<u64>) -> Result<Piece<'_>, QuantError> {
        let missing = || chaski_gguf::Error::MissingTensor { name: tensor.to_owned() };
        match self.tensors.get(tensor).ok_or_else(missing)? {
            Data::Made(bytes) => {
                let piece = bytes.get(range.start as usize..range.end as usize).ok_or_else(missing)?;
                Ok(Piece { bytes: piece.into(), lost: None })
            }
            Data::Checkpoint(stack) => {
                let start = range.start;
                let piece = stack.read(&self.checkpoint, range)?;
                let info = stack.format.info();
                piece.map_err(|bad| QuantError::NotFinite {
                    tensor: tensor.to_owned(),
                    index: start / info.block_bytes as u64 * info.block_len as u64 + bad.index,
                    value: bad.value,
                })
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.checkpoint.files()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_labels_have_two_digits_or_more() {
        let label = |n: u64| rounded(n);
        assert_eq!(label(1_235_814_400), "1.2B");
        assert_eq!(label(8_030_261_248), "8.0B");
        assert_eq!(label(46_702_792_704), "47B");
        assert_eq!(label(671_026_419_200), "671B");
        assert_eq!(label(292_800), "293K");
        assert_eq!(label(600), "0.6K");
    }
}
