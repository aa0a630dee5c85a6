//! Model architectures: what a file's metadata means, which weights it must hold, and the graph.
//!
//! An architecture knows no device. Adding one is a file here and a line in [`ARCHS`].

mod hparams;
mod llama;
mod parts;
mod qwen2;
mod qwen3;
mod weights;

use std::sync::Arc;

use chaski_gguf::Gguf;

pub use hparams::{Experts, HParams, RopeOptions, RopeScaling};
pub use parts::{BatchShape, Cx, KvChoice};
pub use weights::{Declare, WantedWeight, WeightDecl, Weights};

use crate::graph::{Graph, GraphError, NodeId};

/// Every architecture that runs.
pub static ARCHS: &[&dyn Arch] =
    &[&llama::Llama, &qwen2::Qwen2, &qwen3::Qwen3 { experts: false }, &qwen3::Qwen3 { experts: true }];

/// A model architecture.
pub trait Arch: Sync {
    /// Its name in `general.architecture`, which also prefixes its keys.
    fn name(&self) -> &'static str;
    /// Read the hyper-parameters from the metadata.
    ///
    /// # Errors
    /// A key is missing, of another type or out of range.
    fn hparams(&self, keys: &hparams::Keys) -> Result<HParams>;
    /// Declare every weight by name and shape.
    ///
    /// # Errors
    /// The file does not hold it, or holds it in another shape.
    fn weights(&self, hp: &HParams, declare: &mut Declare) -> Result<()>;
    /// Build the graph of a batch; the node of the logits, `[n_vocab, n_out]`.
    ///
    /// # Errors
    /// A shape rule is broken.
    fn build(&self, cx: &mut Cx) -> Result<NodeId>;
}

/// What is wrong with a file as a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] chaski_gguf::Error),
    /// A metadata key.
    #[error("metadata key {key}: {why}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong, with the figures.
        why: String,
    },
    /// A tensor.
    #[error("tensor {name}: {why}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong, with the figures.
        why: String,
    },
    /// No architecture of this name runs here.
    #[error("architecture {name:?} cannot be run (these can: {known})")]
    Architecture {
        /// What the file says.
        name: String,
        /// What would do.
        known: String,
    },
    /// A shape rule of the graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl ModelError {
    /// The error with the place in the file of the key or tensor that it speaks of.
    fn located(mut self, file: &Gguf) -> ModelError {
        let (offset, why) = match &mut self {
            ModelError::Key { key, why } => (file.key_offset(key), why),
            ModelError::Tensor { name, why } => (file.tensor_info(name).map(|t| file.file_offset(t)), why),
            _ => return self,
        };
        if let Some(offset) = offset {
            *why = format!("{why} (byte offset {offset})");
        }
        self
    }
}

/// The result of reading a model.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// A file understood as a model: every hyper-parameter and every weight's shape is checked.
pub struct Model {
    file: Arc<Gguf>,
    arch: &'static dyn Arch,
    hp: HParams,
    weights: Weights,
}

/// The architecture of a file and its hyper-parameters.
fn read(file: &Gguf) -> Result<(&'static dyn Arch, HParams)> {
    let keys = hparams::Keys::new(file)?;
    let arch = ARCHS.iter().find(|a| a.name() == keys.arch()).ok_or_else(|| ModelError::Architecture {
        name: keys.arch().into(),
        known: ARCHS.iter().map(|a| a.name()).collect::<Vec<_>>().join(", "),
    })?;
    Ok((*arch, arch.hparams(&keys)?))
}

impl Model {
    /// Check that the file is a model that can be run.
    ///
    /// # Errors
    /// The architecture is unknown, or a key or a tensor is missing or does not fit the others.
    pub fn new(file: Arc<Gguf>, rope: &RopeOptions) -> Result<Model> {
        let checked = || {
            let (arch, mut hp) = read(&file)?;
            hp.rope.apply(rope)?;
            let mut declare = Declare::new(&file);
            arch.weights(&hp, &mut declare)?;
            Ok((arch, hp, declare.finish()))
        };
        let (arch, hp, weights) = checked().map_err(|error: ModelError| error.located(&file))?;
        Ok(Model { file, arch, hp, weights })
    }
    /// Every weight that the file's architecture asks for with the file's hyper-parameters, whether the file holds it or
    /// not.
    ///
    /// # Errors
    /// The architecture is unknown, or a key is missing or does not fit the others.
    pub fn wanted(file: &Gguf) -> Result<Vec<WantedWeight>> {
        let (arch, hp) = read(file)?;
        let mut declare = Declare::listing(file);
        arch.weights(&hp, &mut declare)?;
        Ok(declare.into_wanted())
    }
    /// The file.
    pub fn file(&self) -> &Arc<Gguf> {
        &self.file
    }
    /// The architecture's name.
    pub fn arch(&self) -> &'static str {
        self.arch.name()
    }
    /// The hyper-parameters.
    pub fn hparams(&self) -> &HParams {
        &self.hp
    }
    /// Every weight that the graph may use.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
    /// Tensors of the file that the graph never uses. There should be none: what they are for is not computed.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let names = self.file.tensors().iter().map(|t| t.name.as_str());
        names.filter(|name| self.weights.get(name).is_none())
    }
    /// The graph of a batch of this shape, with caches of these formats.
    ///
    /// # Errors
    /// A shape rule is broken, which the checks of `new` should have ruled out.
    pub fn graph(&self, shape: BatchShape, kv: KvChoice) -> Result<Graph> {
        let mut cx = Cx::new(self, shape, kv);
        let output = self.arch.build(&mut cx)?;
        Ok(cx.g.finish(output))
    }
}
