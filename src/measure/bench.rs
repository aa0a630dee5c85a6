//! How fast a model reads a prompt and generates, as llama.cpp's `llama-bench` measures it: tokens without meaning, evaluated
//! without sampling, so that figures can be held against each other.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::engine::{BatchToken, Engine, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::model::{BatchShape, KvChoice, Model};

/// The sequence that is evaluated.
const SEQUENCE: u32 = 0;
/// Tokens generated before the first time is taken.
const WARM_UP: usize = 4;

/// One thing to be measured: a prompt read at once, or tokens generated one by one, behind `depth` tokens in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// What is done.
    pub kind: Kind,
    /// Tokens read or generated.
    pub count: usize,
    /// Tokens that the cache holds before.
    pub depth: usize,
}

/// What a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads a prompt.
    Prompt,
    /// Generates tokens.
    Generate,
}

impl Test {
    /// llama-bench's name for it, without the depth: `pp512`, `tg128`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Prompt => "pp",
            Kind::Generate => "tg",
        };
        format!("{kind}{}", self.count)
    }
    /// Cells of the cache that it takes.
    pub fn n_ctx(&self) -> usize {
        self.depth.saturating_add(self.count.max(WARM_UP))
    }
}

/// What a test asks of the machine, per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Bytes of weights that are read for each batch.
    pub weight_bytes: u64,
    /// Bytes of the cache that are read for each token, on the average.
    pub kv_bytes: f64,
    /// Multiplications and additions in products with weights for each token, on the average.
    pub ops: f64,
}

/// Work out what `test` asks of the machine, from the graphs that it runs, in micro-batches of `n_ubatch` tokens.
///
/// # Errors
/// The graph of the model cannot be built.
pub fn work(model: &Model, test: &Test, kv: KvChoice, n_ubatch: usize) -> Result<Work> {
    let n_ubatch = match test.kind {
        Kind::Prompt => n_ubatch.clamp(1, test.count.max(1)),
        Kind::Generate => 1,
    };
    let mut work = Work { weight_bytes: 0, kv_bytes: 0.0, ops: 0.0 };
    let (mut first, mut ops, mut kv_bytes) = (test.depth, 0.0, 0.0);
    let end = test.depth + test.count;
    // Micro-batches of one shape do the same products; only the cache grows.
    let mut known: Vec<(BatchShape, f64)> = Vec::new();
    while first < end {
        let n_tokens = n_ubatch.min(end - first);
        let last = first + n_tokens == end;
        let shape = BatchShape { n_tokens, n_out: usize::from(last || test.kind == Kind::Generate) };
        if let Some((_, of_shape)) = known.iter().find(|(s, _)| *s == shape) {
            ops += of_shape;
        } else {
            let (bytes, of_shape) = products(&model.graph(shape, kv)?);
            work.weight_bytes = work.weight_bytes.max(bytes);
            known.push((shape, of_shape));
            ops += of_shape;
        }
        // The rows of all tokens up to the last of the batch pass by once a batch.
        kv_bytes += cell_bytes(model, kv) * (first + n_tokens) as f64;
        first += n_tokens;
    }
    let count = test.count.max(1) as f64;
    (work.ops, work.kv_bytes) = (ops / count, kv_bytes / count);
    Ok(work)
}

/// Bytes of the cache for one token.
fn cell_bytes(model: &Model, kv: KvChoice) -> f64 {
    crate::engine::kv_bytes(model, 1, kv.k, kv.v) as f64
}

/// Bytes of weights that a batch reads (of a table its rows, of experts those that are used, at most all; a matrix that is both
/// embedding and output only once), and the multiplications and additions of its products with weights.
fn products(graph: &Graph) -> (u64, f64) {
    let mut ops = 0.0;
    let mut read: HashMap<NodeId, u64> = HashMap::new();
    for node in graph.nodes() {
        for id in &node.inputs {
            let weight = graph.node(*id);
            if !matches!(weight.op, Op::Weight(_)) {
                continue;
            }
            let all = weight.bytes() as u64;
            let [k, m, n_expert, _] = weight.shape.0;
            let bytes = match &node.op {
                Op::GetRows => all / (weight.shape.rows() as u64).max(1) * node.shape.rows() as u64,
                Op::MatMulExperts => {
                    ops += 2.0 * k as f64 * node.shape.len() as f64;
                    let used = (node.shape.len() / m.max(1)).min(n_expert);
                    all / (n_expert as u64).max(1) * used as u64
                }
                Op::MatMul => {
                    ops += 2.0 * k as f64 * node.shape.len() as f64;
                    all
                }
                _ => all,
            };
            let before = read.entry(*id).or_default();
            *before = bytes.min(all).max(*before);
        }
    }
    (read.values().sum(), ops)
}

/// The times of a test.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// Of every repetition.
    pub repetitions: Vec<Duration>,
    /// Of every token that was generated, in all repetitions.
    pub tokens: Vec<Duration>,
}

/// Run a test: once or a little to warm up, then `repetitions` times. `watch` is called between micro-batches with the repetitions done, and
/// may end the test; what was timed to its end by then is the result.
///
/// # Errors
/// As [`Engine::decode`].
pub fn run(
    engine: &mut Engine,
    test: &Test,
    repetitions: usize,
    watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Times> {
    let mut times = Times::default();
    let mut runner = Runner::new(engine);
    runner.engine.cells().clear();
    if !runner.read(0, test.depth, &mut || watch(0))? {
        return Ok(times);
    }
    let mut scrap = Vec::new();
    let warm = match test.kind {
        Kind::Prompt => runner.read(test.depth, test.count, &mut || watch(0))?,
        Kind::Generate => runner.generate(test.depth, WARM_UP, &mut scrap, &mut || watch(0))?,
    };
    if !warm {
        return Ok(times);
    }
    for done in 0..repetitions {
        runner.engine.cells().truncate(SEQUENCE, test.depth as u32)?;
        let begin = Instant::now();
        let whole = match test.kind {
            Kind::Prompt => runner.read(test.depth, test.count, &mut || watch(done))?,
            Kind::Generate => {
                runner.generate(test.depth, test.count, &mut times.tokens, &mut || watch(done))?
            }
        };
        if !whole {
            break;
        }
        times.repetitions.push(begin.elapsed());
    }
    runner.engine.cells().clear();
    Ok(times)
}

struct Runner<'a> {
    engine: &'a mut Engine,
    logits: Vec<f32>,
    random: u64,
}

impl Runner<'_> {
    fn new(engine: &mut Engine) -> Runner<'_> {
        Runner { engine, logits: Vec::new(), random: 1 }
    }

    /// A token without meaning. Always the same ones: with experts the choice of token decides what is read.
    fn token(&mut self, position: usize, logits: bool) -> BatchToken {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n_vocab = self.engine.model().hparams().n_vocab as u64;
        let id = ((self.random >> 33) % n_vocab.max(1)) as u32;
        BatchToken { id, position: position as u32, sequence: SEQUENCE, logits }
    }

    /// Read `count` tokens from position `first` on; false where the watcher ended it.
    fn read(
        &mut self,
        first: usize,
        count: usize,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<bool> {
        let n_ubatch = self.engine.options().n_ubatch.max(1);
        let end = first + count;
        let mut at = first;
        while at < end {
            if go_on().is_break() {
                return Ok(false);
            }
            let to = end.min(at + n_ubatch);
            let batch: Vec<_> = (at..to).map(|position| self.token(position, position + 1 == end)).collect();
            self.logits.clear();
            self.engine.decode(&batch, &mut self.logits)?;
            at = to;
        }
        Ok(true)
    }

    /// Generate `count` tokens; false where the watcher ended it.
    fn generate(
        &mut self,
        first: usize,
        count: usize,
        times: &mut Vec<Duration>,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<bool> {
        for position in first..first + count {
            if go_on().is_break() {
                return Ok(false);
            }
            let begin = Instant::now();
            let token = self.token(position, true);
            self.logits.clear();
            self.engine.decode(&[token], &mut self.logits)?;
            times.push(begin.elapsed());
        }
        Ok(true)
    }
}

/// Mean and standard deviation (of a sample: divided by n - 1; 0 for a single value).
pub fn mean_stddev(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, if samples.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// The value in the middle; of an even number of values the upper of the two. None of no values.
pub fn median<T: PartialOrd + Copy>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_the_names_that_llama_bench_gives_them() {
        let test = |kind, count| Test { kind, count, depth: 0 };
        assert_eq!(test(Kind::Prompt, 512).name(), "pp512");
        assert_eq!(test(Kind::Generate, 64).name(), "tg64");
        assert_eq!(Test { kind: Kind::Generate, count: 1, depth: 100 }.n_ctx(), 104);
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let (mean, deviation) = mean_stddev(&[2.0, 4.0, 6.0]);
        assert_eq!((mean, deviation), (4.0, 2.0));
        assert_eq!(mean_stddev(&[3.0]), (3.0, 0.0));
        assert_eq!((median(&[3.0, 1.0, 2.0]), median::<f64>(&[])), (Some(2.0), None));
    }
}
