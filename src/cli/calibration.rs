//! The part of `chaski quantize` that runs a calibration text through the model: methods and sizes.

use std::ops::ControlFlow;
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
use crate::engine::{Engine, EngineOptions};
use crate::kv::KvFormat;
use crate::model::{KvChoice, Model, RopeOptions};
use crate::quant::calibrated::{Calibrated, Effort, Settings, Text};
use crate::quant::{self, FileType, Imatrix, Plan, QuantError, size};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Windows of the text where `--calibrate-chunks` does not say.
const WINDOWS: u32 = 128;
/// Tokens of a window where `--calibrate-ctx` does not say.
const WINDOW: usize = 512;
/// Windows that tensors are probed on.
const PROBES: u32 = 4;
/// Memory for moments where `--calibrate-memory` does not say.
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
    settings: Settings,
    /// Whether a file type was named, too.
    named: bool,
    /// Whether the methods need to see activations while rounding.
    rounds: bool,
    size: Option<Size>,
    windows: u32,
    ctx: Option<u32>,
    probes: u32,
}

impl Wanted {
    /// What the flags mean; none where no calibration is asked for.
    pub(super) fn new(args: &CalibrationArgs, named: bool) -> Result<Option<Wanted>, Failure> {
        let has = |method| args.method.contains(&method);
        let rounds = has(Method::Gptq) || has(Method::Awq) || has(Method::Smooth);
        if has(Method::Nearest) && rounds {
            return Err(Failure::usage("--method: nearest is what the others replace; name only those"));
        }
        let Some(text) = &args.calibrate else {
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
        only("--damping", args.damping.is_some(), Method::Gptq, "gptq")?;
        only("--sweeps", args.sweeps.is_some(), Method::Gptq, "gptq")?;
        only("--smooth-alpha", args.smooth_alpha.is_some(), Method::Smooth, "smooth")?;
        if !rounds && args.sequential.is_some() {
            return Err(Failure::usage("--sequential has no effect without --method gptq, awq or smooth"));
        }
        if size.is_none() && args.probe_chunks.is_some() {
            return Err(Failure::usage("--probe-chunks has no effect without --size or --bpw"));
        }
        let default = Effort::default();
        let damping = args.damping.unwrap_or(default.damping);
        if !damping.is_finite() || damping < 0.0 {
            return Err(Failure::usage(format!("--damping {damping}: not a share")));
        }
        let alpha = args.smooth_alpha.unwrap_or(0.5);
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Failure::usage(format!("--smooth-alpha {alpha}: not between 0 and 1")));
        }
        let settings = Settings {
            compensate: has(Method::Gptq),
            activation_aware: has(Method::Awq),
            smooth: has(Method::Smooth).then_some(alpha),
            sequential: args.sequential.map_or(has(Method::Gptq), |switch| switch == Switch::On),
            effort: Effort { damping, sweeps: args.sweeps.map_or(default.sweeps, |n| n as usize), ..default },
            budget: match &args.calibrate_memory {
                Some(memory) => bytes("--calibrate-memory", memory)?,
                None => MEMORY,
            },
        };
        Ok(Some(Wanted {
            text: text.clone(),
            settings,
            named,
            rounds,
            size,
            windows: args.calibrate_chunks.unwrap_or(WINDOWS),
            ctx: args.calibrate_ctx,
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
        let words = file::read(&wanted.text)?;
        let tokens = tokenizer.encode(&words, EncodeOptions { add_special: true, parse_special: false });
        let text = Text {
            bos: tokenizer.special().bos.filter(|_| tokenizer.adds_bos()),
            ctx,
            most: Some(wanted.windows as usize),
            tokens,
        };
        if text.windows() == 0 {
            let (name, n) = (wanted.text.display(), text.tokens.len());
            let why = format!(
                "{name}: {n} tokens do not fill a window of {ctx} (--calibrate-ctx makes it smaller)"
            );
            return Err(Failure::input(why).into());
        }
        Ok(Calibration { wanted, text, model: Arc::new(model), threads })
    }

    fn engine(&self) -> Result<Engine, QuantError> {
        let cpu = CpuOptions {
            threads: self.threads,
            threads_batch: self.threads,
            isa: Isa::detect(),
            exact: true,
            invariant: false,
            check: false,
        };
        let options = EngineOptions {
            cpu,
            n_ctx: self.text.ctx,
            n_sequences: 1,
            n_ubatch: UBATCH.min(self.text.ctx),
            n_outputs: 1,
            kv: KvChoice::new(KvFormat::F16, KvFormat::F16),
        };
        Ok(Engine::new(self.model.clone(), options)?)
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
        let probed =
            Text { most: Some(self.wanted.probes.min(self.wanted.windows) as usize), ..self.text.clone() };
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
        let mut room = size.saturating_sub(file_bytes(plan)?.saturating_sub(plan.bytes().1));
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
        let names = [(s.smooth.is_some(), "smooth"), (s.activation_aware, "awq"), (s.compensate, "gptq")];
        let names: Vec<&str> = names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
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

    /// Make ready to round; none where the methods do not look at activations.
    pub(super) fn begin<'a>(
        &'a self,
        plan: &Plan,
        pool: &'a ThreadPool,
        measure: bool,
    ) -> anyhow::Result<Option<Calibrated<'a>>> {
        if !self.wanted.rounds {
            return Ok(None);
        }
        let settings = self.wanted.settings.clone();
        let text = self.text.clone();
        let mut engine = || self.engine();
        let calibrated = Calibrated::new(
            self.model.file(),
            settings,
            text,
            plan.tensors.clone(),
            &mut engine,
            pool,
            measure,
        )?;
        tracing::info!(
            "calibrating on {} windows of {} tokens; the statistics of a layer take {} at most, rounding up to four times that",
            self.text.windows(),
            self.text.ctx,
            show::size(calibrated.moment_bytes())
        );
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
