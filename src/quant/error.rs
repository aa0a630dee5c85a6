//! What can be wrong with a wish to quantize, or happen on the way.

use std::path::PathBuf;

use chaski_gguf::Format;

/// Why a file was not quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The source, or the metadata of the file to be.
    #[error(transparent)]
    Gguf(#[from] chaski_gguf::Error),
    /// The source is a folder that cannot be read as a model.
    #[error(transparent)]
    Import(#[from] super::ImportError),
    /// The source is no model.
    #[error("{what}, not a model with weights")]
    NoModel {
        /// What it is.
        what: String,
    },
    /// A tensor is quantized already.
    #[error(
        "tensor {tensor} is {from} already: rounding it again to {to} adds a second error to the first; --allow-requantize does \
         it all the same"
    )]
    Requantize {
        /// The first such tensor.
        tensor: String,
        /// Its format.
        from: Format,
        /// The format it was to get.
        to: Format,
    },
    /// Substitutes are refused, but needed.
    #[error("--no-fallback: {}", .0.join("; "))]
    Fallback(
        /// One line a tensor.
        Vec<String>,
    ),
    /// An override of the user's has no effect.
    #[error("--tensor-type {pattern}: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why it has no effect.
        why: String,
    },
    /// The importance matrix cannot be used.
    #[error("the importance matrix: {why}")]
    Imatrix {
        /// Why.
        why: String,
    },
    /// Calibration cannot be done.
    #[error("calibration: {why}")]
    Calibration {
        /// Why.
        why: String,
    },
    /// Calibration takes more memory than it may.
    #[error(
        "--calibrate-memory: the statistics of the largest layer take {} bytes and rounding by them {}; {allowed} are too little",
        .memory.statistics, .memory.rounding
    )]
    Memory {
        /// What it takes.
        memory: super::calibrated::Memory,
        /// What it may.
        allowed: u64,
    },
    /// What meets a matrix does not tell its columns apart.
    #[error(
        "tensor {tensor}: {why} are singular however they are damped; a longer text or more --damping may help"
    )]
    Singular {
        /// The tensor.
        tensor: String,
        /// What is singular.
        why: String,
    },
    /// The size asked for cannot be had.
    #[error("--size, --bpw: {why}")]
    Size {
        /// Why.
        why: String,
    },
    /// The model could not be run over the calibration text.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The name of an expert's matrix does not say its layer.
    #[error("tensor {tensor}: its name does not say which of the {n_layer} layers it belongs to")]
    Layer {
        /// The tensor.
        tensor: String,
        /// Layers of the model.
        n_layer: u32,
    },
    /// Two files that are to be held against each other are not of one model.
    #[error("tensor {tensor}: {why}; it is of another model")]
    OtherModel {
        /// The first such tensor.
        tensor: String,
        /// What differs.
        why: String,
    },
    /// The system refuses threads.
    #[error("cannot start threads")]
    Threads {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value of the source is not finite.
    #[error("tensor {tensor}: value {index} is {value}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The place of the value in the tensor.
        index: u64,
        /// The value.
        value: f32,
    },
    /// The output would replace its own source.
    #[error("{path}: is the source itself; the output needs another name")]
    OverSource {
        /// The output.
        path: PathBuf,
    },
    /// The output cannot be a file.
    #[error("{path}: {why}")]
    Target {
        /// The output.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// The disk is too small.
    #[error("{path}: the file will have {needed} bytes, but there are only {free} free on its disk")]
    NoSpace {
        /// The output.
        path: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Someone else writes the same file.
    #[error("{path}: another process is writing it")]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// The system refused while writing. What was written stays for the next run.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
