//! Random models of a few hundred thousand weights, of every architecture: the weights are those that the architecture
//! itself asks for, so that a new one is tested without an edit here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use chaski::cpu::CpuOptions;
use chaski::cpu::isa::Isa;
use chaski::engine::{BatchToken, Engine, EngineOptions};
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model, ModelError, RopeOptions};
use chaski_gguf::{Format, Gguf, OwnedValue, Writer};

/// Long enough that rows hold a whole super-block.
pub const EMBD: u32 = 256;
/// Tokens of the vocabulary.
pub const VOCAB: usize = 96;
/// Layers.
pub const LAYERS: u32 = 2;

/// A tensor of a file to be written.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub format: Format,
    pub bytes: Vec<u8>,
}

/// A file to be written, open to damage.
#[derive(Clone)]
pub struct Tiny {
    pub arch: String,
    pub keys: Vec<(String, OwnedValue)>,
    pub tensors: Vec<Tensor>,
}

/// A generator whose numbers are the same everywhere (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    /// Between -1 and 1, a multiple of 2^-15.
    pub fn float(&mut self) -> f32 {
        ((self.next() >> 48) as f32 - 32768.0) / 32768.0
    }
}

/// Random weights of a format, rounded once for all tests: encoders search, and many models are made.
fn weights(format: Format, values: usize, from: usize) -> Vec<u8> {
    const POOL: usize = 1 << 15;
    static POOLS: OnceLock<Mutex<HashMap<Format, Arc<Vec<u8>>>>> = OnceLock::new();
    let mut pools = POOLS.get_or_init(Mutex::default).lock().unwrap();
    let info = format.info();
    let pool = pools.entry(format).or_insert_with(|| {
        let mut random = Random(0x5EED + format as u64);
        let values: Vec<f32> = (0..POOL).map(|_| random.float() * 0.15).collect();
        let mut bytes = vec![0; POOL / info.block_len * info.block_bytes];
        info.encode.unwrap()(&values, &mut bytes);
        Arc::new(bytes)
    });
    // Neighbouring tensors start at different blocks, so that no two are alike.
    let blocks = values / info.block_len;
    let start = from * 37 % (POOL / info.block_len) * info.block_bytes;
    pool.iter().cycle().skip(start).take(blocks * info.block_bytes).copied().collect()
}

impl Tiny {
    /// The keys that every transformer needs, and no weight yet but what the metadata is read with.
    fn frame(arch: &str, experts: bool) -> Tiny {
        let mut tiny = Tiny { arch: arch.into(), keys: Vec::new(), tensors: Vec::new() };
        tiny.keys.push(("general.architecture".into(), arch.into()));
        for (key, value) in [
            ("context_length", 256),
            ("embedding_length", EMBD),
            ("block_count", LAYERS),
            ("feed_forward_length", EMBD),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("rope.dimension_count", 64),
        ] {
            tiny.set(key, value);
        }
        tiny.set("attention.layer_norm_rms_epsilon", 1e-5f32);
        if experts {
            tiny.set("expert_count", 4u32);
            tiny.set("expert_used_count", 2u32);
        }
        let f32s = |name: &str, shape: &[u64]| Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            format: Format::F32,
            bytes: vec![0; 4 * shape.iter().product::<u64>() as usize],
        };
        tiny.tensors.push(f32s("token_embd.weight", &[u64::from(EMBD), VOCAB as u64]));
        tiny.tensors.extend((0..LAYERS).map(|i| f32s(&format!("filler.{i}"), &[1])));
        tiny
    }

    /// A model of this architecture with matrices of this format; none where the architecture has no such form. Optional
    /// weights are there, but for an output matrix where `tied`.
    pub fn new(arch: &str, experts: bool, format: Format, tied: bool) -> Option<Tiny> {
        Tiny::with_keys(arch, experts, format, tied, &[])
    }

    /// A dense model whose heads have `d` values.
    pub fn with_heads_of(d: usize, arch: &str, format: Format) -> Tiny {
        let keys = ["attention.key_length", "attention.value_length", "rope.dimension_count"];
        let keys = keys.map(|key| (key, d as u32));
        Tiny::with_keys(arch, false, format, false, &keys).expect("a dense form")
    }

    /// The same with further keys, or other values of those that it has.
    fn with_keys(
        arch: &str,
        experts: bool,
        format: Format,
        tied: bool,
        keys: &[(&str, u32)],
    ) -> Option<Tiny> {
        let mut tiny = Tiny::frame(arch, experts);
        for (key, value) in keys {
            tiny.set(key, *value);
        }
        let wanted = match Model::wanted(&tiny.file()) {
            Err(ModelError::Key { key, .. }) if !experts && key.ends_with(".expert_count") => return None,
            wanted => wanted.unwrap(),
        };
        tiny.tensors.clear();
        for (i, want) in wanted.into_iter().enumerate() {
            if tied && want.name == "output.weight" {
                continue;
            }
            let shape: Vec<u64> = want.shape.0.map(|d| d as u64).into();
            let dims = shape.iter().rposition(|d| *d != 1).map_or(1, |at| at + 1);
            let (n, row) = (want.shape.len(), want.shape.row());
            let is_matrix = dims > 1 && !want.name.contains("ffn_gate_inp");
            let format = if is_matrix && row % format.info().block_len == 0 { format } else { Format::F32 };
            let bytes = if dims == 1 {
                // Norms and frequency factors stay near one, biases near zero.
                let base = if want.name.contains("bias") { 0.0 } else { 1.0 };
                let mut random = Random(i as u64 + 1);
                (0..n).flat_map(|_| (base + random.float() * 0.1).to_le_bytes()).collect()
            } else {
                weights(format, n, i)
            };
            tiny.tensors.push(Tensor { name: want.name, shape: shape[..dims].to_vec(), format, bytes });
        }
        Some(tiny)
    }

    /// Set a key of the architecture (`block_count`), or one that is named in full.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) {
        let key = if key.starts_with("general.") { key.to_owned() } else { format!("{}.{key}", self.arch) };
        self.keys.retain(|(k, _)| *k != key);
        self.keys.push((key, value.into()));
    }
    /// Take a key of the architecture away.
    pub fn unset(&mut self, key: &str) {
        let key = format!("{}.{key}", self.arch);
        self.keys.retain(|(k, _)| *k != key);
    }
    /// A tensor, to be changed.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }
    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for (key, value) in &self.keys {
            writer.set(key, value.clone()).unwrap();
        }
        for t in &self.tensors {
            writer.tensor(&t.name, &t.shape, t.format, &t.bytes).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        bytes
    }
    /// The file, opened.
    pub fn file(&self) -> Gguf {
        Gguf::from_bytes(&self.bytes()).unwrap()
    }
    /// The file read as a model.
    pub fn model(&self) -> Result<Arc<Model>, ModelError> {
        Ok(Arc::new(Model::new(Arc::new(self.file()), &RopeOptions::default())?))
    }
}

/// Options of small engines.
pub fn options(threads: usize, n_ctx: usize, n_ubatch: usize) -> EngineOptions {
    EngineOptions {
        cpu: CpuOptions {
            threads,
            threads_batch: threads,
            isa: Isa::detect(),
            exact: false,
            invariant: false,
            check: false,
        },
        n_ctx,
        n_sequences: 4,
        n_ubatch,
        n_outputs: 1,
        kv: KvChoice::new(KvFormat::F16, KvFormat::F16),
    }
}

/// Tokens of one sequence from a position on; the logits of all are wanted.
pub fn sequence(sequence: u32, first: usize, ids: &[u32]) -> Vec<BatchToken> {
    let token =
        |(i, id): (usize, &u32)| BatchToken { id: *id, position: (first + i) as u32, sequence, logits: true };
    ids.iter().enumerate().map(token).collect()
}

/// Ids that repeat late.
pub fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 37 + seed * 11 + i * i) % VOCAB) as u32).collect()
}

/// The logits of a batch.
pub fn decode(engine: &mut Engine, batch: &[BatchToken]) -> Vec<f32> {
    let mut out = Vec::new();
    engine.decode(batch, &mut out).unwrap();
    out
}

/// `sum((a - b)^2) / sum(b^2)`.
pub fn nmse(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        got.iter().zip(want).map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum()
    };
    sum(&|a, b| (a - b) * (a - b)) / sum(&|_, b| b * b)
}
