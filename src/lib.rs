//! chaski: run language models from a single GGUF file on ordinary machines.

pub mod chat;
pub mod cli;
pub mod cpu;
pub mod kv;
pub mod machine;
pub mod sample;
pub mod tensor;
pub mod tokenizer;
