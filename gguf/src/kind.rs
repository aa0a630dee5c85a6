//! What a GGUF file is for, by its metadata: models share the container with adapters and statistics.

use crate::{Gguf, keys};

/// What a GGUF file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A model with its weights.
    Model,
    /// A model's metadata and vocabulary, without weights.
    Vocab,
    /// A LoRA adapter (or another adapter) for a model.
    Adapter,
    /// A vector that is added to a model's layers.
    ControlVector,
    /// The encoder and projector of a multimodal model.
    Projector,
    /// Statistics for quantization (an importance matrix).
    Imatrix,
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "a model",
            Self::Vocab => "a vocabulary without weights",
            Self::Adapter => "a LoRA adapter",
            Self::ControlVector => "a control vector",
            Self::Projector => "a multimodal projector (mmproj)",
            Self::Imatrix => "an importance matrix (imatrix)",
        })
    }
}

impl Gguf {
    /// What the file is for. What its metadata says counts first, then the keys that only one kind has;
    /// a file of which nothing else can be said is a model, or a vocabulary if it has no tensors.
    pub fn kind(&self) -> FileKind {
        let text = |key| self.get(key).and_then(|v| v.as_str());
        let has = |key| self.get(key).is_some();
        match text(keys::GENERAL_TYPE) {
            Some("adapter") => return FileKind::Adapter,
            Some("imatrix") => return FileKind::Imatrix,
            Some("mmproj") => return FileKind::Projector,
            _ => {}
        }
        match text(keys::GENERAL_ARCHITECTURE) {
            Some("clip") => return FileKind::Projector,
            Some("controlvector") => return FileKind::ControlVector,
            _ => {}
        }
        if has(keys::ADAPTER_TYPE) {
            FileKind::Adapter
        } else if has(keys::IMATRIX_CHUNK_COUNT) || has(keys::IMATRIX_DATASETS) {
            FileKind::Imatrix
        } else if self.tensors().is_empty() {
            FileKind::Vocab
        } else {
            FileKind::Model
        }
    }
}
