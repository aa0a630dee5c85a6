//! chaski: run language models from a single GGUF file on ordinary machines.

pub mod backend;
pub mod chat;
pub mod cli;
pub mod cpu;
pub mod demo;
pub mod engine;
pub mod exec;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod graph;
pub mod kv;
pub mod machine;
pub mod measure;
pub mod model;
pub mod quant;
pub mod sample;
pub mod tensor;
pub mod tokenizer;
