//! chaski: run language models from a single GGUF file on ordinary machines.

pub mod chat;
pub mod sample;
pub mod tokenizer;
