//! The measurements, one after another.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chaski_gguf::{Gguf, OwnedValue, Writer, keys};
use tempfile::TempDir;

use super::facts::{
    Activations, CacheMemory, CacheQuality, CalibrationFacts, Entry, Facts, Machine, Speed, TextFacts,
    of_tensors,
};
use super::make::Maker;
use super::wanted::{Origin, Wanted};
use super::{interrupted, percent, size};
use crate::cli::args::CompareArgs;
use crate::cli::exit::Failure;
use crate::cli::options::EngineOptions;
use crate::cli::output::Terminal;
use crate::cli::source::ModelSource;
use crate::cli::text::{self, Measured};
use crate::cli::{bench as bench_command, interrupt, load, progress, talk};
use crate::engine::{Engine, kv_bytes};
use crate::kv::KvFormat;
use crate::measure::bench::{self, Kind, Test};
use crate::measure::{About, Base, BaseWriter, Divergence, Header, Perplexity, Window, kl};
use crate::model::{KvChoice, Model};
use crate::quant;

/// How often a speed is taken.
const REPETITIONS: usize = 3;
/// Tokens of the prompt that is read and tokens that are generated, where the context has room.
const PROMPT: usize = 256;
const GENERATED: usize = 32;

/// A comparison under way.
pub(super) struct Comparison<'a> {
    args: &'a CompareArgs,
    options: &'a EngineOptions,
    maker: Maker,
    terminal: Terminal,
    /// Where files lie for a while; goes with this value.
    scratch: TempDir,
    engine: Engine,
    text: Measured,
}

impl<'a> Comparison<'a> {
    /// Load the source, read the text, make the folder of files that are kept.
    ///
    /// # Errors
    /// The source cannot be run, the text does not fill a window, the folder cannot be made.
    pub(super) fn new(
        args: &'a CompareArgs,
        options: &'a EngineOptions,
        maker: Maker,
        scratch: TempDir,
        terminal: Terminal,
    ) -> anyhow::Result<Comparison<'a>> {
        let engine = load::load(&maker.source, options, text::window(options), load::Wanted::Every)?;
        let tokenizer = talk::tokenizer(&maker.source, &engine)?;
        let most = (args.chunks > 0).then_some(args.chunks as usize);
        let text = Measured::read(&args.file, &tokenizer, engine.options().n_ctx, most)?;
        if let Some(keep) = &args.keep {
            let cannot = || Failure::failed(format!("cannot make a folder in {}", keep.display()));
            std::fs::create_dir_all(keep).map_err(|error| cannot().because(error))?;
        }
        Ok(Comparison { args, options, maker, terminal, scratch, engine, text })
    }

    /// Measure everything. Where the user interrupts, that is an error.
    pub(super) fn run(
        mut self,
        wanted: &[Wanted],
        pairs: &[(KvFormat, KvFormat)],
        calibration: Option<CalibrationFacts>,
    ) -> anyhow::Result<Facts> {
        let kept: Vec<Option<PathBuf>> = wanted.iter().map(|w| self.kept(w)).collect::<Result<_, _>>()?;
        let model = self.engine.model().clone();
        let about = self.about(&model, &self.maker.source);
        let base = self.scratch.path().join("base");
        let mut source = entry("source", "source", model.file(), &self.maker.source);
        let (found, header) = self.save_base(&about, &base, "the source")?;
        source.set(&found, None);
        source.speed = self.speed()?;
        if self.args.activations {
            source.activations = Some(self.activations(&about)?);
        }
        say(&source, None);
        let cache_quality = self.cache_quality(&model, &base, pairs, &found)?;
        // What is not needed for now gives its memory back.
        let mut entries: Vec<Entry> = Vec::new();
        for (wanted, kept) in wanted.iter().zip(&kept) {
            let entry = self.of_file(wanted, kept.as_deref(), &about, &base, &source, &header)?;
            say(&entry, Some(&source));
            entries.push(entry);
        }
        let with = self.options;
        let text = self.text.text();
        let windows = text.windows();
        Ok(Facts {
            chaski: env!("CARGO_PKG_VERSION"),
            made: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
            model: about.model.clone(),
            machine: Machine {
                isa: with.isa.name().to_owned(),
                threads: with.threads,
                threads_batch: with.threads_batch,
                cpu_exact: with.cpu_exact,
            },
            text: TextFacts {
                name: about.text.clone(),
                hash: about.text_hash.clone(),
                ctx: text.ctx,
                windows,
                scored_tokens: windows * text.scored(),
            },
            calibration,
            cache: [with.kv.k.name().to_owned(), with.kv.v.name().to_owned()],
            kl_top: header.top,
            source,
            entries,
            cache_memory: KvFormat::ALL
                .iter()
                .map(|f| CacheMemory { format: f.name(), bytes_per_token: kv_bytes(&model, 1, *f, *f) })
                .collect(),
            n_ctx_train: model.hparams().n_ctx_train,
            cache_quality,
        })
    }

    fn about(&self, model: &Model, source: &ModelSource) -> About {
        let name = bench_command::model_name(source, model.file());
        About::new(model, &name, &self.text.name(), &self.text.bytes)
    }

    /// Where a file is to be kept; none where it is not.
    fn kept(&self, wanted: &Wanted) -> Result<Option<PathBuf>, Failure> {
        let (Some(folder), Origin::Made { .. }) = (&self.args.keep, &wanted.origin) else { return Ok(None) };
        let path = folder.join(format!("{}-{}.gguf", self.maker.stem, wanted.label));
        if path.exists() {
            return Err(Failure::usage(format!("--keep: {} is there already", path.display())));
        }
        Ok(Some(path))
    }

    /// One format: made, measured, removed or kept.
    fn of_file(
        &mut self,
        wanted: &Wanted,
        kept: Option<&Path>,
        about: &About,
        base: &Path,
        source: &Entry,
        header: &Header,
    ) -> anyhow::Result<Entry> {
        let scratch = self.scratch.path().join("model.gguf");
        let (path, seconds) = match &wanted.origin {
            Origin::File(path) => (path.clone(), None),
            Origin::Made { file_type, flags } => {
                tracing::info!("{}: being made", wanted.label);
                let begin = Instant::now();
                self.maker.make(*file_type, flags, &scratch)?;
                (scratch.clone(), Some(begin.elapsed().as_secs_f64()))
            }
        };
        let of_file = ModelSource::File(path);
        self.engine = load::load(&of_file, self.options, Some(self.text.text().ctx), load::Wanted::Every)?;
        let model = self.engine.model().clone();
        let own = self.about(&model, &of_file);
        header.check(&own, &self.text.text()).map_err(|error| of_file.named(error))?;
        let said = model.file().get(keys::CHASKI_QUANTIZE_METHOD).and_then(|v| v.as_str());
        let method = if seconds.is_some() { said.unwrap_or("nearest") } else { "file" };
        let mut entry = entry(&wanted.label, method, model.file(), &of_file);
        entry.quantize_seconds = seconds;
        let (found, divergence) = self.divergence(base, &wanted.label)?;
        entry.set(&found, Some(divergence));
        entry.speed = self.speed()?;
        if self.args.activations {
            entry.activations = Some(self.activations(about)?);
        }
        if !entry.is_scaled() {
            (entry.tensors, entry.layers) = self.tensors(&wanted.label, model.file(), &of_file)?;
        }
        if let Some(kept) = kept {
            keep(&of_file.open(true, &[])?, kept, &entry, source, &self.text)?;
        }
        if seconds.is_some() {
            // A mapped file may be removed; where the system refuses, the folder goes at the end.
            let _ = std::fs::remove_file(&scratch);
        }
        Ok(entry)
    }

    /// A bar over the windows of the text, and what watches a measurement over them.
    fn watched<T>(
        &mut self,
        label: &str,
        f: impl FnOnce(
            &mut Engine,
            &Measured,
            &mut dyn FnMut(Window) -> ControlFlow<()>,
        ) -> Result<T, kl::KlError>,
    ) -> anyhow::Result<T> {
        let total = self.text.text().windows() as u64;
        let bar = progress::windows(self.terminal, &format!("{label}: predicting"), total);
        let result = f(&mut self.engine, &self.text, &mut |w| {
            bar.set_position(w.done as u64);
            go_on()
        });
        bar.finish_and_clear();
        if interrupt::requested() {
            return Err(interrupted().into());
        }
        Ok(result?)
    }

    /// Write what the engine predicts.
    fn save_base(&mut self, about: &About, path: &Path, label: &str) -> anyhow::Result<(Perplexity, Header)> {
        let cannot = || Failure::failed(format!("cannot write {}", path.display()));
        let file = std::fs::File::create(path).map_err(|error| cannot().because(error))?;
        let header = Header::new(about.clone(), &self.text.text(), kl::TOP);
        let mut writer = BaseWriter::new(std::io::BufWriter::with_capacity(1 << 18, file), header.clone())?;
        let found = self.watched(label, |engine, text, watch| {
            let found = kl::save_base(engine, &text.text(), &mut writer, watch)?;
            writer.finish().map(|_| found)
        })?;
        Ok((found.ok_or_else(interrupted)?, header))
    }

    /// Hold what the engine predicts against a base.
    fn divergence(&mut self, base: &Path, label: &str) -> anyhow::Result<(Perplexity, Divergence)> {
        let mut base = Base::open(base)?;
        let found = self
            .watched(label, |engine, text, watch| kl::divergence(engine, &text.text(), &mut base, watch))?;
        Ok(found.ok_or_else(interrupted)?)
    }

    /// What rounding activations costs the file at hand.
    fn activations(&mut self, about: &About) -> anyhow::Result<Activations> {
        let path = self.scratch.path().join("exact");
        let (model, mut with) = (self.engine.model().clone(), self.engine.options().clone());
        with.cpu.exact = true;
        self.engine = Engine::new(model.clone(), with.clone())?;
        let (exact, _) = self.save_base(about, &path, "float activations")?;
        with.cpu.exact = false;
        self.engine = Engine::new(model, with)?;
        let (_, divergence) = self.divergence(&path, "8-bit activations")?;
        Ok(Activations { exact_perplexity: exact.perplexity, divergence })
    }

    /// What formats of the cache cost the source.
    fn cache_quality(
        &mut self,
        model: &Arc<Model>,
        base: &Path,
        pairs: &[(KvFormat, KvFormat)],
        own: &Perplexity,
    ) -> anyhow::Result<Vec<CacheQuality>> {
        let mut found = Vec::new();
        for (k, v) in pairs {
            let mut with = self.engine.options().clone();
            with.kv = KvChoice::new(*k, *v);
            self.engine = Engine::new(model.clone(), with)?;
            let label = if k == v { format!("cache {k}") } else { format!("cache K {k} V {v}") };
            let (p, divergence) = self.divergence(base, &label)?;
            let loss = percent(p.perplexity / own.perplexity - 1.0);
            tracing::info!(
                "{label}: perplexity {:.4} ({loss}), KL {:.6}",
                p.perplexity,
                divergence.kl.mean.value
            );
            found.push(CacheQuality {
                k: k.name(),
                v: v.name(),
                bytes_per_token: kv_bytes(model, 1, *k, *v),
                perplexity: p.perplexity,
                divergence,
            });
        }
        Ok(found)
    }

    /// How fast the engine is.
    fn speed(&mut self) -> anyhow::Result<Vec<Speed>> {
        if self.args.no_speed {
            return Ok(Vec::new());
        }
        let n_ctx = self.engine.options().n_ctx;
        let (prompt, generated) = (PROMPT.min(n_ctx), GENERATED.min(n_ctx / 2).max(1));
        let mut found = Vec::new();
        for (kind, count) in [(Kind::Prompt, prompt), (Kind::Generate, generated)] {
            let test = Test { kind, count, depth: 0 };
            let bar = progress::repetitions(self.terminal, &test.name(), REPETITIONS as u64);
            let times = bench::run(&mut self.engine, &test, REPETITIONS, &mut |done| {
                bar.set_position(done as u64);
                go_on()
            })?;
            bar.finish_and_clear();
            if interrupt::requested() {
                return Err(interrupted().into());
            }
            let rate = |time: &std::time::Duration| count as f64 / time.as_secs_f64().max(1e-9);
            let samples: Vec<f64> = times.repetitions.iter().map(rate).collect();
            let (mean, stddev) = bench::mean_stddev(&samples);
            found.push(Speed { test: test.name(), mean, stddev, samples });
        }
        Ok(found)
    }

    /// What became of the tensors.
    fn tensors(
        &self,
        label: &str,
        after: &Gguf,
        of_file: &ModelSource,
    ) -> anyhow::Result<(Vec<super::facts::TensorFacts>, Vec<super::facts::LayerFacts>)> {
        let before = self.maker.source.open(true, &[])?;
        let total: u64 = before.tensors().iter().map(chaski_gguf::TensorInfo::n_values).sum();
        let bar = progress::repetitions(self.terminal, &format!("{label}: weights"), total);
        let found = quant::differences(&before, after, self.options.threads_batch, &mut |done| {
            bar.set_position(done);
            go_on()
        });
        bar.finish_and_clear();
        let found = found.map_err(|error| of_file.named(error))?.ok_or_else(interrupted)?;
        Ok(of_tensors(&found))
    }
}

fn go_on() -> ControlFlow<()> {
    if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// What is known of a file without running it.
fn entry(label: &str, method: &str, file: &Gguf, source: &ModelSource) -> Entry {
    let (bytes, values) =
        file.tensors().iter().fold((0, 0), |sum: (u64, u64), t| (sum.0 + t.bytes, sum.1 + t.n_values()));
    let format = bench_command::format_name(file);
    let label = if method == "source" { format!("{format} (source)") } else { label.to_owned() };
    tracing::debug!("{label}: {source}");
    Entry {
        label,
        format,
        method: method.to_owned(),
        bytes: file.file_bytes(),
        bits_per_weight: bytes as f64 * 8.0 / values.max(1) as f64,
        quantize_seconds: None,
        perplexity: f64::NAN,
        stderr: f64::NAN,
        divergence: None,
        speed: Vec::new(),
        activations: None,
        tensors: Vec::new(),
        layers: Vec::new(),
    }
}

fn say(entry: &Entry, source: Option<&Entry>) {
    let (label, bytes, perplexity) = (&entry.label, size(entry.bytes), entry.perplexity);
    let loss = match (source, &entry.divergence) {
        (Some(source), Some(d)) => format!(" ({}), KL {:.5}", percent(entry.loss(source)), d.kl.mean.value),
        _ => String::new(),
    };
    tracing::info!("{label}: {bytes}, perplexity {perplexity:.4}{loss}");
}

/// Write a measured file under its name, with the figures among its metadata.
fn keep(file: &Gguf, path: &Path, entry: &Entry, source: &Entry, text: &Measured) -> anyhow::Result<()> {
    let mut writer = Writer::copy_of(file)?;
    let windows = text.text();
    let mut facts: Vec<(&str, OwnedValue)> = vec![
        (keys::CHASKI_QUANTIZE_TEXT, text.name().into()),
        (keys::CHASKI_QUANTIZE_TEXT_WINDOWS, (windows.windows() as u32).into()),
        (keys::CHASKI_QUANTIZE_TEXT_CTX, (windows.ctx as u32).into()),
        (keys::CHASKI_QUANTIZE_BITS_PER_WEIGHT, entry.bits_per_weight.into()),
        (keys::CHASKI_QUANTIZE_PERPLEXITY, entry.perplexity.into()),
        (keys::CHASKI_QUANTIZE_PERPLEXITY_STDERR, entry.stderr.into()),
        (keys::CHASKI_QUANTIZE_SOURCE_PERPLEXITY, source.perplexity.into()),
    ];
    if let Some(d) = &entry.divergence {
        facts.push((keys::CHASKI_QUANTIZE_KL_MEAN, d.kl.mean.value.into()));
        facts.push((keys::CHASKI_QUANTIZE_KL_P99, d.kl.p99.into()));
        facts.push((keys::CHASKI_QUANTIZE_TOP_AGREEMENT, d.top_agreement.value.into()));
    }
    for (key, value) in facts {
        writer.set(key, value)?;
    }
    let cannot = || Failure::failed(format!("cannot write {}", path.display()));
    writer.save(path).map_err(|error| cannot().because(error))?;
    tracing::info!("kept {}", path.display());
    Ok(())
}
