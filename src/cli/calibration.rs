//! The part of `chaski quantize` that runs a calibration text through the model: methods and sizes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use chaski_gguf::{Gguf, OwnedValue, keys};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::args::{CalibrationArgs, Method, Switch};
use super::exit::{Exit, Failure};
use super::output::Terminal;
use super::source::ModelSource;
use super::{file, interrupt, progress, show};
use crate::cpu::CpuOptions;
use crate::cpu::isa::Isa;
use crate::engine::{Engine, EngineOptions, plan_memory};
use crate::kv::KvFormat;
use crate::machine;
use crate::model::{KvChoice, Model, RopeOptions};
use crate::quant::calibrated::{self, Calibrated, Effort, Memory, Settings, Text};
use crate::quant::{self, FileType, Imatrix, Plan, QuantError, size};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Windows of the text where `--calibrate-chunks` does not say.
const WINDOWS: u32 = 128;
/// Tokens of a window where `--calibrate-ctx` does not say.
const WINDOW: usize = 512;
/// Windows that tensors are probed on.
const PROBES: u32 = 4;
/// Memory for rounding, and what it rounds by, where `--calibrate-memory` does not say and less will do.
const MEMORY: u64 = 2 << 30;
/// Tokens that are evaluated at once: what meets the matrices is kept for so many.
const UBATCH: usize = 512;

/// How large the file is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    /// Bytes of the file.
    Bytes(u64),
    /// Bits for each value of the tensors.
    Bits(f64),
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    text: std::path::PathBuf,
    /// But for the memory that they may take.
    settings: Settings,
    /// That memory, where it was said.
    memory: Option<u64>,
    /// Whether a file type was named, too.
    named: bool,
    /// Whether the methods need to see activations while rounding.
    rounds: bool,
    size: Option<Size>,
    windows: Option<u32>,
    ctx: Option<u32>,
    probes: u32,
}

/// The methods by the names that files and reports give them, in the order in which they are applied.
pub(super) const METHODS: [(Method, &str); 3] =
    [(Method::Smooth, "smooth"), (Method::Awq, "awq"), (Method::Gptq, "gptq")];

impl Wanted {
    /// What the flags mean; none where no calibration is asked for.
    pub(super) fn new(args: &CalibrationArgs, named: bool) -> Result<Option<Wanted>, Failure> {
        let has = |method| args.method.contains(&method);
        let rounds = has(Method::Gptq) || has(Method::Awq) || has(Method::Smooth);
        if has(Method::Nearest) && rounds {
            return Err(Failure::usage("--method: nearest is what the others replace; name only those"));
        }
        let typed = &args.text;
        let Some(text) = &typed.calibrate else {
            if rounds {
                return Err(Failure::usage("--method: gptq, awq and smooth need --calibrate TEXT"));
            }
            return Ok(None);
        };
        let size = match (&args.size, args.bpw) {
            (Some(size), _) => Some(Size::Bytes(bytes("--size", size)?)),
            (None, Some(bits)) if bits.is_finite() && bits > 0.0 => Some(Size::Bits(bits)),
            (None, Some(bits)) => return Err(Failure::usage(format!("--bpw {bits}: not a number of bits"))),
            (None, None) => None,
        };
        if !rounds && size.is_none() {
            return Err(Failure::usage(
                "--calibrate has no effect without --method gptq, awq or smooth, or --size or --bpw (`chaski imatrix` makes \
                 what --imatrix reads)",
            ));
        }
        let only = |flag: &str, given: bool, method: Method, name: &str| {
            if given && !has(method) {
                return Err(Failure::usage(format!("{flag} has no effect without --method {name}")));
            }
            Ok(())
        };
        only("--damping", typed.damping.is_some(), Method::Gptq, "gptq")?;
        only("--sweeps", typed.sweeps.is_some(), Method::Gptq, "gptq")?;
        only("--smooth-alpha", typed.smooth_alpha.is_some(), Method::Smooth, "smooth")?;
        if !rounds && typed.sequential.is_some() {
            return Err(Failure::usage("--sequential has no effect without --method gptq, awq or smooth"));
        }
        if size.is_none() && args.probe_chunks.is_some() {
            return Err(Failure::usage("--probe-chunks has no effect without --size or --bpw"));
        }
        let windows = typed.calibrate_chunks;
        if let (Some(probes), Some(windows)) = (args.probe_chunks, windows)
            && probes > windows
        {
            return Err(Failure::usage(format!(
                "--probe-chunks {probes}: --calibrate-chunks leaves only {windows}"
            )));
        }
        let default = Effort::default();
        let damping = typed.damping.unwrap_or(default.damping);
        if !damping.is_finite() || damping < 0.0 {
            return Err(Failure::usage(format!("--damping {damping}: not a share")));
        }
        let alpha = typed.smooth_alpha.unwrap_or(0.5);
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Failure::usage(format!("--smooth-alpha {alpha}: not between 0 and 1")));
        }
        let settings = Settings {
            compensate: has(Method::Gptq),
            activation_aware: has(Method::Awq),
            smooth: has(Method::Smooth).then_some(alpha),
            sequential: typed.sequential.map_or(has(Method::Gptq), |switch| switch == Switch::On),
            effort: Effort {
                damping,
                sweeps: typed.sweeps.map_or(default.sweeps, |n| n as usize),
                ..default
            },
            budget: 0,
        };
        let memory = typed.calibrate_memory.as_deref();
        let memory = memory.map(|typed| bytes("--calibrate-memory", typed)).transpose()?;
        if !rounds && memory.is_some() {
            return Err(Failure::usage(
                "--calibrate-memory has no effect without --method gptq, awq or smooth",
            ));
        }
        Ok(Some(Wanted {
            text: text.clone(),
            settings,
            memory,
            named,
            rounds,
            size,
            windows,
            ctx: typed.calibrate_ctx,
            probes: args.probe_chunks.unwrap_or(PROBES),
        }))
    }
}

/// A size as people write it: `5.5GiB`, `800MB`, `3310944`.
fn bytes(flag: &str, typed: &str) -> Result<u64, Failure> {
    let refused = || Failure::usage(format!("{flag} {typed}: no size such as 5.5GiB, 800MB or 3310944"));
    let at = typed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(typed.len());
    let (number, unit) = typed.split_at(at);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(refused()),
    };
    let bytes = number.parse::<f64>().map_err(|_| refused())? * factor;
    if bytes.is_finite() && (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(refused()) }
}

/// The mixture of which a plan's bits remind: a file has to name one.
fn nearest_type(plan: &Plan) -> FileType {
    let bits = plan.bits().1;
    let distance = |t: &&FileType| (t.base().info().bits() - bits).abs();
    FileType::ALL.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).copied().unwrap_or(plan.file_type)
}

/// A pool of so many threads.
pub(super) fn pool(threads: usize) -> anyhow::Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(threads.max(1)).build()?)
}

/// What rounding by calibration takes.
struct Takes {
    settings: Settings,
    memory: Memory,
    /// Caches and intermediates of so many engines.
    engines: (u64, usize),
}

impl Takes {
    /// All of it. The source is mapped, and so are scratch files: the system may drop and re-read them.
    fn total(&self) -> u64 {
        self.memory.total().saturating_add(self.memory.activations).saturating_add(self.engines.0)
    }

    /// What is in it.
    fn parts(&self) -> String {
        let m = &self.memory;
        let rounded = match (m.rounded, m.scratch()) {
            (0, _) => String::new(),
            (all, 0) => format!(", rounded layers {}", show::size(all)),
            (all, scratch) => format!(
                ", rounded layers {} of {} (the other {} lie in scratch files beside the output)",
                show::size(m.kept),
                show::size(all),
                show::size(scratch)
            ),
        };
        format!(
            "statistics of a layer {}, rounding by them {}{rounded}; activations {}, caches and intermediates of {} {}",
            show::size(m.statistics),
            show::size(m.rounding),
            show::size(m.activations),
            if self.engines.1 == 1 { "one engine" } else { "two engines" },
            show::size(self.engines.0)
        )
    }
}

/// A calibration text ready to be run through a model.
pub(super) struct Calibration {
    wanted: Wanted,
    text: Text,
    model: Arc<Model>,
    threads: usize,
}

impl Calibration {
    /// Read the text with the tokenizer of the source.
    pub(super) fn new(
        wanted: Wanted,
        from: &ModelSource,
        source: Arc<Gguf>,
        threads: usize,
    ) -> anyhow::Result<Calibration> {
        let tokenizer = Tokenizer::from_gguf(&source).map_err(|e| from.named(e))?;
        let model = Model::new(source, &RopeOptions::default()).map_err(|e| from.named(e))?;
        let hp = model.hparams();
        if tokenizer.vocab_size() > hp.n_vocab {
            let (tokens, rows) = (tokenizer.vocab_size(), hp.n_vocab);
            let why =
                format!("tokenizer.ggml.tokens has {tokens} tokens, token_embd.weight only {rows} rows");
            return Err(Failure::input(format!("{from}: {why}")).into());
        }
        let ctx = wanted.ctx.map_or(WINDOW.min(hp.n_ctx_train.max(8)), |n| n as usize);
        if ctx > hp.n_ctx_train {
            let trained = hp.n_ctx_train;
            tracing::warn!("--calibrate-ctx {ctx} is more than the {trained} that the model was trained for");
        }
        let words = file::read_text(&wanted.text)?;
        let tokens = tokenizer.encode(&words, EncodeOptions { add_special: true, parse_special: false });
        let text = Text {
            bos: tokenizer.special().bos.filter(|_| tokenizer.adds_bos()),
            ctx,
            most: Some(wanted.windows.unwrap_or(WINDOWS) as usize),
            tokens,
        };
        if text.windows() == 0 {
            let (name, n) = (wanted.text.display(), text.tokens.len());
            let why = format!(
                "{name}: {n} tokens do not fill a window of {ctx} (--calibrate-ctx makes it smaller)"
            );
            return Err(Failure::input(why).into());
        }
        if wanted.windows.is_some_and(|n| n as usize > text.windows()) {
            let name = wanted.text.display();
            tracing::warn!("{name} gives only {} windows of {ctx} tokens", text.windows());
        }
        Ok(Calibration { wanted, text, model: Arc::new(model), threads })
    }

    /// The text: its file, windows, and tokens of a window.
    pub(super) fn text(&self) -> (&Path, usize, usize) {
        (&self.wanted.text, self.text.windows(), self.text.ctx)
    }

    fn engine_options(&self) -> EngineOptions {
        let cpu = CpuOptions {
            threads: self.threads,
            threads_batch: self.threads,
            isa: Isa::detect(),
            exact: true,
            invariant: false,
            check: false,
        };
        EngineOptions {
            cpu,
            n_ctx: self.text.ctx,
            n_sequences: 1,
            n_ubatch: UBATCH.min(self.text.ctx),
            n_outputs: 1,
            kv: KvChoice::new(KvFormat::F16, KvFormat::F16),
        }
    }

    fn engine(&self) -> Result<Engine, QuantError> {
        Ok(Engine::new(self.model.clone(), self.engine_options())?)
    }

    /// Every check that needs no model to be run.
    ///
    /// # Errors
    /// The source is quantized already or of an architecture that cannot be scaled, the plan leaves nothing to the methods, the
    /// size cannot be had, or it does not fit in memory.
    pub(super) fn check(
        &self,
        plan: &Plan,
        measure: bool,
        file_bytes: &dyn Fn(&Plan) -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        if let Some(size) = self.size(plan) {
            size::check(plan, self.room(plan, size, file_bytes)?)?;
        } else if self.wanted.settings.smooth.is_none()
            && plan.tensors.iter().all(|t| t.from == t.to || t.to.info().block_len == 1)
        {
            let (method, name) = (self.method(), plan.file_type);
            let why = format!("--method {method} has no effect: {name} rounds nothing to blocks");
            return Err(Failure::usage(why).into());
        }
        self.takes(plan, measure)?;
        Ok(())
    }

    /// What the rounding itself needs beside the output.
    pub(super) fn scratch(&self, plan: &Plan, measure: bool) -> anyhow::Result<u64> {
        Ok(self.takes(plan, measure)?.map_or(0, |takes| takes.memory.scratch()))
    }

    /// Bytes for the tensors where the plan's size is `size`.
    fn room(
        &self,
        plan: &Plan,
        size: u64,
        file_bytes: &dyn Fn(&Plan) -> anyhow::Result<u64>,
    ) -> anyhow::Result<u64> {
        Ok(match self.wanted.size {
            Some(Size::Bytes(_)) => size.saturating_sub(file_bytes(plan)?.saturating_sub(plan.bytes().1)),
            _ => size,
        })
    }

    /// What rounding takes, held against the memory there is; none where the methods do not look at activations.
    fn takes(&self, plan: &Plan, measure: bool) -> anyhow::Result<Option<Takes>> {
        if !self.wanted.rounds {
            return Ok(None);
        }
        let file = self.model.file();
        let mut settings = self.wanted.settings.clone();
        let n_engines = if settings.sequential { 2 } else { 1 };
        let of_one = plan_memory(&self.model, &self.engine_options())?;
        let engines = of_one.kv.saturating_add(of_one.compute).saturating_mul(n_engines as u64);
        let machine = machine::memory();
        settings.budget = if let Some(memory) = self.wanted.memory {
            memory
        } else {
            let least = Memory::new(file, &settings, &plan.tensors, self.text.ctx, measure);
            let beside = engines.saturating_add(least.activations);
            let left = machine.as_ref().map_or(MEMORY, |m| m.available.saturating_sub(beside));
            MEMORY.min(left).max(least.least())
        };
        let memory =
            calibrated::check(file, self.model.arch(), &settings, &self.text, &plan.tensors, measure)?;
        let takes = Takes { settings, memory, engines: (engines, n_engines) };
        match machine {
            Some(machine) if takes.total() > machine.available => Err(Failure::does_not_fit(format!(
                "does not fit: calibration takes {} ({}), {} are available, set by {}",
                show::size(takes.total()),
                takes.parts(),
                show::size(machine.available),
                machine.bound_by
            ))
            .into()),
            _ => Ok(Some(takes)),
        }
    }

    /// The size that the tensors of a plan, or its file, should have: bytes of tensors, or of the file.
    pub(super) fn size(&self, plan: &Plan) -> Option<u64> {
        match self.wanted.size? {
            Size::Bytes(bytes) => Some(bytes),
            Size::Bits(bits) => {
                let values: u64 = plan.tensors.iter().map(quant::Planned::n_values).sum();
                Some((bits * values as f64 / 8.0) as u64)
            }
        }
    }

    /// Choose the formats of a plan by what each tensor costs, so that the file has the size.
    pub(super) fn choose_formats(
        &self,
        plan: &mut Plan,
        size: u64,
        imatrix: Option<&Imatrix>,
        file_bytes: &dyn Fn(&Plan) -> anyhow::Result<u64>,
        terminal: Terminal,
    ) -> anyhow::Result<()> {
        let mut engine = self.engine()?;
        interrupt::cooperative(true);
        let go_on =
            || if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let interrupted = || Failure::new(Exit::Interrupted, "interrupted; nothing was written");
        let own = if imatrix.is_some() {
            None
        } else {
            let bar = progress::windows(terminal, "gathering", self.text.windows() as u64);
            let wanted = quant::Calibration {
                tokens: &self.text.tokens,
                bos: self.text.bos,
                ctx: self.text.ctx,
                most: self.text.most,
                output: true,
                dataset: String::new(),
            };
            let found = quant::calibrate(&mut engine, &wanted, &mut |done, _| {
                bar.set_position(done as u64);
                go_on()
            })?;
            bar.finish_and_clear();
            Some(found)
        };
        let Some(imatrix) = imatrix.or(own.as_ref()).filter(|_| !interrupt::requested()) else {
            return Err(interrupted().into());
        };
        let bar = progress::windows(terminal, "probing", 1);
        let probed = Text {
            most: Some(self.wanted.probes.min(self.wanted.windows.unwrap_or(WINDOWS)) as usize),
            ..self.text.clone()
        };
        let pool = pool(self.threads)?;
        let source = self.model.file().clone();
        let watch = &mut |name: &str, done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(name.to_owned());
            go_on()
        };
        let found = size::sensitivities(&source, &mut engine, plan, &probed, imatrix, &pool, watch)?;
        bar.finish_and_clear();
        let Some(found) = found else { return Err(interrupted().into()) };
        let name = |plan: &mut Plan| {
            if !self.wanted.named {
                plan.file_type = nearest_type(plan);
            }
        };
        for s in &found {
            tracing::debug!("{}: alone in the probe format it costs {:.3e} nats", s.tensor, s.probed);
        }
        if matches!(self.wanted.size, Some(Size::Bits(_))) {
            size::fit(plan, &found, size)?;
            name(plan);
            return Ok(());
        }
        // What the file has besides its tensors depends a little on where they end.
        let mut room = self.room(plan, size, file_bytes)?;
        for _ in 0..8 {
            let mut fitted = plan.clone();
            size::fit(&mut fitted, &found, room)?;
            name(&mut fitted);
            let bytes = file_bytes(&fitted)?;
            if bytes <= size {
                *plan = fitted;
                tracing::info!("{} chosen of {} asked for", show::size(bytes), show::size(size));
                return Ok(());
            }
            room = room.saturating_sub(bytes - size);
        }
        Err(Failure::failed(format!("no choice of formats comes to {size} bytes")).into())
    }

    /// The methods as the file names them: `gptq`, `awq+gptq`.
    pub(super) fn method(&self) -> String {
        let s = &self.wanted.settings;
        let on = |method| match method {
            Method::Nearest => false,
            Method::Smooth => s.smooth.is_some(),
            Method::Awq => s.activation_aware,
            Method::Gptq => s.compensate,
        };
        let names = METHODS.iter().filter(|(method, _)| on(*method)).map(|(_, name)| *name);
        let names: Vec<&str> = names.collect();
        if names.is_empty() { "nearest".to_owned() } else { names.join("+") }
    }

    /// What else the file says of it.
    pub(super) fn metadata(&self) -> Vec<(String, OwnedValue)> {
        let mut metadata: Vec<(String, OwnedValue)> = vec![
            (keys::CHASKI_QUANTIZE_CALIBRATION.to_owned(), self.wanted.text.display().to_string().into()),
            (
                keys::CHASKI_QUANTIZE_CALIBRATION_TOKENS.to_owned(),
                ((self.text.windows() * self.text.ctx) as u64).into(),
            ),
        ];
        if let Some(Size::Bytes(bytes)) = self.wanted.size {
            metadata.push((keys::CHASKI_QUANTIZE_SIZE.to_owned(), bytes.into()));
        }
        metadata
    }

    /// Say what rounding takes.
    ///
    /// # Errors
    /// It does not fit.
    pub(super) fn say(&self, plan: &Plan, measure: bool) -> anyhow::Result<()> {
        self.takes(plan, measure)?.iter().for_each(|takes| self.say_takes(takes));
        Ok(())
    }

    fn say_takes(&self, takes: &Takes) {
        tracing::info!(
            "calibrating by {} on {} windows of {} tokens; memory {}: {}",
            self.method(),
            self.text.windows(),
            self.text.ctx,
            show::size(takes.total()),
            takes.parts()
        );
    }

    /// Make ready to round; none where the methods do not look at activations.
    pub(super) fn begin<'a>(
        &'a self,
        plan: &Plan,
        pool: &'a ThreadPool,
        measure: bool,
    ) -> anyhow::Result<Option<Calibrated<'a>>> {
        let Some(takes) = self.takes(plan, measure)? else { return Ok(None) };
        self.say_takes(&takes);
        let (text, tensors) = (self.text.clone(), plan.tensors.clone());
        let mut engine = || self.engine();
        let file = self.model.file();
        let calibrated = Calibrated::new(file, takes.settings, text, tensors, &mut engine, pool, measure)?;
        Ok(Some(calibrated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (typed, expected) in
            [("3310944", 3_310_944), ("5.5GiB", 5_905_580_032), ("800MB", 800_000_000), ("1k", 1000)]
        {
            assert_eq!(bytes("--size", typed).ok(), Some(expected), "{typed}");
        }
        for typed in ["", "GiB", "1.2.3", "-5", "5 parsecs", "0", "1e99"] {
            assert!(bytes("--size", typed).is_err(), "{typed}");
        }
    }
}
