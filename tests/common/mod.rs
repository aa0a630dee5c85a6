//! What the integration tests share: running the built command, and small GGUF files written byte by byte (not through
//! this project's own writer, so that a mistake there cannot hide one in the reader).

#![allow(dead_code)]

pub mod cases;
pub mod hf;
pub mod place;
pub mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where Vulkan's loader looks for drivers, by its newer and its older name.
pub const GPU_DRIVERS: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// The built command with these arguments, its environment cleared of what changes the output: a GPU, too.
pub fn chaski(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaski"));
    command.args(args).env_remove("NO_COLOR").stdin(Stdio::null());
    for name in GPU_DRIVERS {
        command.env(name, "/dev/null");
    }
    command
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Run the command to its end.
pub fn run(args: &[&str]) -> Run {
    finished(&chaski(args).output().expect("the command starts"))
}

/// Run the command with this standard input.
pub fn run_with_stdin(args: &[&str], input: &[u8]) -> Run {
    use std::io::Write;
    let mut child = chaski(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    finished(&child.wait_with_output().expect("the command ends"))
}

/// The output as text.
pub fn finished(output: &Output) -> Run {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The folder of shared test data; says aloud that the test is skipped where there is none.
pub fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CHASKI_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED {test}: CHASKI_TEST_DATA is not set");
    }
    folder
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8 paths in tests")
}

/// A GGUF file, version 3, little-endian, put together byte by byte.
#[derive(Default, Clone)]
pub struct GgufBytes {
    keys: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl GgufBytes {
    fn key(mut self, key: &str, ty: u32, value: &[u8]) -> Self {
        self.keys.push([&string(key)[..], &ty.to_le_bytes(), value].concat());
        self
    }
    /// A u32 value.
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }
    /// An f32 value.
    pub fn f32(self, key: &str, value: f32) -> Self {
        self.key(key, 6, &value.to_le_bytes())
    }
    /// A bool value.
    pub fn bool(self, key: &str, value: bool) -> Self {
        self.key(key, 7, &[value.into()])
    }
    /// A string value.
    pub fn str(self, key: &str, value: &str) -> Self {
        self.key(key, 8, &string(value))
    }
    /// An array of strings.
    pub fn strs<S: AsRef<str>>(self, key: &str, values: &[S]) -> Self {
        let mut bytes = [&8u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        for v in values {
            bytes.extend(string(v.as_ref()));
        }
        self.key(key, 9, &bytes)
    }
    /// An array of f32.
    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let mut bytes = [&6u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        for v in values {
            bytes.extend(v.to_le_bytes());
        }
        self.key(key, 9, &bytes)
    }
    /// An array of i32.
    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let mut bytes = [&5u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        for v in values {
            bytes.extend(v.to_le_bytes());
        }
        self.key(key, 9, &bytes)
    }
    /// A tensor of f32 values, the row length first.
    pub fn tensor(mut self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64, "{name}");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push((name.into(), shape.to_vec(), 0, bytes));
        self
    }
    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        const ALIGN: usize = 32;
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for k in &self.keys {
            out.extend(k);
        }
        let mut offset = 0usize;
        for (name, shape, format, data) in &self.tensors {
            out.extend(string(name));
            out.extend((shape.len() as u32).to_le_bytes());
            for d in shape {
                out.extend(d.to_le_bytes());
            }
            out.extend(format.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + data.len()).next_multiple_of(ALIGN);
        }
        for (_, _, _, data) in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGN), 0);
            out.extend(data);
        }
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out
    }
    /// The file, written into `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.bytes()).expect("a file in a temporary folder");
        path
    }
}

/// A llama of two layers with random f32 weights and a SentencePiece tokenizer: 3 special tokens, 256 byte tokens and a few
/// pieces.
pub fn tiny_llama() -> GgufBytes {
    tiny_llama_with_heads_of(8)
}

/// The same with heads of `d` values.
pub fn tiny_llama_with_heads_of(d: u64) -> GgufBytes {
    const EMBD: u64 = 32;
    const FF: u64 = 64;
    let pieces = [
        "\u{2581}",
        "a",
        "b",
        "c",
        "\u{2581}a",
        "ab",
        "\u{2581}ab",
        "bc",
        "he",
        "llo",
        "\u{2581}he",
        "\u{2581}hello",
    ];
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(pieces.map(String::from));
    let vocab = tokens.len() as u64;
    let types: Vec<i32> = (0..tokens.len())
        .map(|id| match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        })
        .collect();
    let scores: Vec<f32> =
        (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { -((id - 259) as f32) }).collect();
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = |n: u64| -> Vec<f32> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2
        };
        (0..n).map(|_| next()).collect()
    };
    let mut file = GgufBytes::default()
        .str("general.architecture", "llama")
        .str("general.name", "tiny")
        .u32("llama.context_length", 128)
        .u32("llama.embedding_length", EMBD as u32)
        .u32("llama.block_count", 2)
        .u32("llama.feed_forward_length", FF as u32)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.rope.dimension_count", d as u32)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .tensor("token_embd.weight", &[EMBD, vocab], &random(EMBD * vocab));
    if d != EMBD / 4 {
        file = file.u32("llama.attention.key_length", d as u32).u32("llama.attention.value_length", d as u32);
    }
    for layer in 0..2 {
        let ones = vec![1.0; EMBD as usize];
        for (name, rows, columns) in [
            ("attn_q", EMBD, 4 * d),
            ("attn_k", EMBD, 2 * d),
            ("attn_v", EMBD, 2 * d),
            ("attn_output", 4 * d, EMBD),
            ("ffn_gate", EMBD, FF),
            ("ffn_up", EMBD, FF),
            ("ffn_down", FF, EMBD),
        ] {
            file =
                file.tensor(&format!("blk.{layer}.{name}.weight"), &[rows, columns], &random(rows * columns));
        }
        for name in ["attn_norm", "ffn_norm"] {
            file = file.tensor(&format!("blk.{layer}.{name}.weight"), &[EMBD], &ones);
        }
    }
    file.tensor("output_norm.weight", &[EMBD], &vec![1.0; EMBD as usize]).tensor(
        "output.weight",
        &[EMBD, vocab],
        &random(EMBD * vocab),
    )
}
