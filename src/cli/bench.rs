//! `chaski bench`: how fast a model reads prompts and generates, and how much of what the machine gives that is.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use chaski_gguf::Gguf;
use serde_json::json;

use super::args::BenchArgs;
use super::exit::{Exit, Failure};
use super::options::{Context, EngineOptions};
use super::output::{self, Terminal};
use super::source::ModelSource;
use super::{interrupt, load, progress, show};
use crate::cpu::probe::{self, IntegerRate, ReadProbe, ReadRate};
use crate::engine::{Engine, Profile};
use crate::machine;
use crate::measure::bench::{self, Kind, Test, Times, Work};
use crate::quant::FileType;

/// Bytes that the read probe reads where there is memory enough: many times the largest caches.
const PROBE_BYTES: u64 = 1 << 30;

pub(super) fn run(args: &BenchArgs, terminal: Terminal) -> anyhow::Result<()> {
    let source = args.model.source()?;
    let options = EngineOptions::new(&args.engine)?;
    let tests = tests(args)?;
    let needed = tests.iter().map(Test::n_ctx).max().unwrap_or(0);
    let n_ctx = match options.context {
        Context::Default => Some(needed),
        Context::Tokens(n) => Some(n as usize),
        Context::Model => None,
    };
    let mut engine = load::load(&source, &options, n_ctx, load::Wanted::Last)?;
    let n_ctx = engine.options().n_ctx;
    if needed > n_ctx {
        let why = format!("these tests take a context of {needed} tokens, not {n_ctx} (-c)");
        return Err(Failure::usage(why).into());
    }
    interrupt::cooperative(true);
    let about = About::new(&source, &engine);
    if !args.json {
        let size = show::size(about.size_bytes);
        let head = format!(
            "{}: {}, {size}; {}, {} kernels, {} threads ({} for prompts)\n",
            about.model,
            about.format,
            about.devices(),
            options.isa,
            options.threads,
            options.threads_batch
        );
        output::stdout(|out| writeln!(out, "{head}"))?;
    }
    // What the CPU's memory gives says nothing of layers that are not there.
    let probed = !args.no_probe && about.gpu_layers == 0;
    let mut machine = if probed { Probes::new(&options) } else { Probes::default() };
    let mut results = Vec::new();
    for test in &tests {
        let work = bench::work(engine.model(), test, options.kv, options.ubatch)?;
        let before = machine.measure(test.kind, &options);
        let times = timed(&mut engine, test, args.repetitions as usize, terminal)?;
        let rate = Rate::new(test, &work, &times, before.max(machine.measure(test.kind, &options)));
        if args.json {
            tracing::info!("{}{}: {}", test.name(), depth(test), rate.of_machine());
            results.push(as_json(test, &rate, &about, &options));
        } else {
            let line = format!("{:<16} {}", test.name() + &depth(test), rate.as_text(&times));
            output::stdout(|out| writeln!(out, "{line}"))?;
        }
        if args.profile {
            engine.profile(true);
            timed(&mut engine, test, 1, terminal)?;
            if let Some(profile) = engine.profile(false) {
                say_profile(test, &profile, args.json)?;
            }
        }
    }
    if args.json {
        let all = serde_json::Value::Array(results);
        output::stdout(|out| writeln!(out, "{all:#}"))?;
    }
    Ok(())
}

/// Every test, depth by depth, prompts first.
fn tests(args: &BenchArgs) -> Result<Vec<Test>, Failure> {
    let of_kind = |counts: &[u32], kind, depth: u32| -> Vec<Test> {
        let counts = counts.iter().filter(|n| **n > 0);
        counts.map(|n| Test { kind, count: *n as usize, depth: depth as usize }).collect()
    };
    let at_depth = |depth: &u32| {
        [of_kind(&args.n_prompt, Kind::Prompt, *depth), of_kind(&args.n_gen, Kind::Generate, *depth)].concat()
    };
    let tests: Vec<Test> = args.depth.iter().flat_map(at_depth).collect();
    if tests.is_empty() {
        return Err(Failure::usage("-p 0 and -n 0 leave nothing to measure"));
    }
    Ok(tests)
}

/// `@ d4096`, as llama-bench writes it; nothing for an empty cache.
fn depth(test: &Test) -> String {
    if test.depth == 0 { String::new() } else { format!(" @ d{}", test.depth) }
}

fn timed(engine: &mut Engine, test: &Test, repetitions: usize, terminal: Terminal) -> anyhow::Result<Times> {
    let bar = progress::repetitions(terminal, &test.name(), repetitions as u64);
    let watch = &mut |done: usize| {
        bar.set_position(done as u64);
        bar.tick();
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let times = bench::run(engine, test, repetitions, watch)?;
    bar.finish_and_clear();
    if interrupt::requested() {
        return Err(Failure::new(Exit::Interrupted, "interrupted").into());
    }
    Ok(times)
}

/// What is measured, as reports name it.
struct About {
    model: String,
    format: String,
    size_bytes: u64,
    /// Layers on the GPU, the output among them.
    gpu_layers: usize,
    /// The device of those layers; `cpu` where there are none.
    backend: String,
}

impl About {
    fn new(source: &ModelSource, engine: &Engine) -> About {
        let file = engine.model().file();
        let offloaded = engine.offloaded().filter(|plan| plan.is_offloaded());
        About {
            model: model_name(source, file),
            format: format_name(file),
            size_bytes: file.file_bytes(),
            gpu_layers: offloaded.map_or(0, |plan| plan.layers),
            backend: if offloaded.is_some() { engine.device_names().skip(1).collect() } else { "cpu".into() },
        }
    }

    /// `cpu`, or which device has how many layers.
    fn devices(&self) -> String {
        if self.backend == "cpu" {
            "cpu".into()
        } else {
            format!("{} layers on {}, cpu", self.gpu_layers, self.backend)
        }
    }
}

/// The name that the file gives its model; where it gives none, the file's own.
pub(super) fn model_name(source: &ModelSource, file: &Gguf) -> String {
    let name = file.get("general.name").and_then(|v| v.as_str()).filter(|name| !name.is_empty());
    let stem = || match source.path().and_then(Path::file_stem) {
        Some(stem) => stem.to_string_lossy().into_owned(),
        None => source.to_string(),
    };
    name.map_or_else(stem, |name| name.escape_debug().to_string())
}

/// The file type that the file says it has; where it says none, the format of most of its bytes.
pub(super) fn format_name(file: &Gguf) -> String {
    let id = file.get("general.file_type").and_then(|v| v.as_u64());
    let named = FileType::ALL.iter().find(|t| id.is_some() && t.id().map(u64::from) == id);
    if let Some(file_type) = named {
        return file_type.name().to_owned();
    }
    let bytes_in =
        |format| file.tensors().iter().filter(|t| t.format == format).map(|t| t.bytes).sum::<u64>();
    let most = file.tensors().iter().map(|t| t.format).max_by_key(|format| bytes_in(*format));
    most.map_or_else(String::new, |format| format.to_string())
}

/// The probes of what the machine gives, to be asked around every test.
#[derive(Default)]
struct Probes {
    read: Option<ReadProbe>,
    integer: bool,
}

/// What a probe found.
#[derive(Clone, Copy)]
enum Limit {
    Read(ReadRate),
    Integer(IntegerRate),
}

impl Limit {
    fn rate(self) -> f64 {
        match self {
            Limit::Read(rate) => rate.bytes_per_second,
            Limit::Integer(rate) => rate.ops_per_second,
        }
    }
}

/// A limit where one was measured.
#[derive(Clone, Copy, Default)]
struct Measured(Option<Limit>);

impl Measured {
    fn max(self, other: Measured) -> Measured {
        Measured(self.0.into_iter().chain(other.0).max_by(|a, b| a.rate().total_cmp(&b.rate())))
    }
}

impl Probes {
    fn new(options: &EngineOptions) -> Probes {
        let room = machine::memory().map_or(PROBE_BYTES, |m| m.available / 4);
        let bytes = PROBE_BYTES.min(room) as usize;
        let read = ReadProbe::new(options.isa, options.threads, bytes)
            .map_err(|error| tracing::warn!("no probe of reading: {error}"));
        Probes { read: read.ok(), integer: true }
    }

    /// What the machine gives of what a test of this kind needs most.
    fn measure(&mut self, kind: Kind, options: &EngineOptions) -> Measured {
        let limit = match kind {
            Kind::Generate => self.read.as_ref().map(|probe| {
                let found = probe.run();
                tracing::debug!(
                    "read probe: {} threads read {:.1} GB/s, dealt {}, prefetched {} ahead",
                    options.threads,
                    found.bytes_per_second / 1e9,
                    show::size(found.deal as u64),
                    show::size(found.ahead as u64)
                );
                Limit::Read(found)
            }),
            Kind::Prompt => self.integer.then(|| {
                let found = probe::integer_rate(options.isa, options.threads_batch);
                tracing::debug!(
                    "integer probe: {} threads do {:.0} GOP/s by {}",
                    options.threads_batch,
                    found.ops_per_second / 1e9,
                    found.by
                );
                Limit::Integer(found)
            }),
        };
        Measured(limit)
    }
}

/// What a test came to.
struct Rate {
    samples: Vec<f64>,
    mean: f64,
    stddev: f64,
    /// Bytes read a second, or arithmetic done.
    used: f64,
    kind: Kind,
    limit: Measured,
}

impl Rate {
    fn new(test: &Test, work: &Work, times: &Times, limit: Measured) -> Rate {
        let of_time = |time: &Duration| test.count as f64 / time.as_secs_f64().max(1e-9);
        let samples: Vec<f64> = times.repetitions.iter().map(of_time).collect();
        let (mean, stddev) = bench::mean_stddev(&samples);
        let used = match test.kind {
            Kind::Prompt => work.ops * mean,
            Kind::Generate => (work.weight_bytes as f64 + work.kv_bytes) * mean,
        };
        Rate { samples, mean, stddev, used, kind: test.kind, limit }
    }

    /// `38.2 GB/s, 61% of 62.5`: the rate, and its share of the probe's.
    fn of_machine(&self) -> String {
        let (unit, digits) = match self.kind {
            Kind::Prompt => ("GOP/s", 0),
            Kind::Generate => ("GB/s", 1),
        };
        let used = format!("{:.digits$} {unit}", self.used / 1e9);
        match self.limit.0 {
            None => used,
            Some(limit) => {
                let by = match limit {
                    Limit::Integer(rate) => format!(" ({})", rate.by),
                    Limit::Read(_) => String::new(),
                };
                let share = 100.0 * self.used / limit.rate();
                format!("{used}, {share:.0}% of the {:.digits$} {unit} probed{by}", limit.rate() / 1e9)
            }
        }
    }

    fn as_text(&self, times: &Times) -> String {
        let mut text = format!("{:>9.2} +/- {:<6.2} tokens/s  {}", self.mean, self.stddev, self.of_machine());
        if let (Some(median), Some(slowest)) = (bench::median(&times.tokens), times.tokens.iter().max()) {
            let ratio = slowest.as_secs_f64() / median.as_secs_f64().max(1e-9);
            let _ = write!(text, "; slowest token {ratio:.1} times the median");
        }
        text
    }
}

fn as_json(test: &Test, rate: &Rate, about: &About, options: &EngineOptions) -> serde_json::Value {
    let (n_prompt, n_gen, threads) = match test.kind {
        Kind::Prompt => (test.count, 0, options.threads_batch),
        Kind::Generate => (0, test.count, options.threads),
    };
    json!({
        "test": test.name(), "n_prompt": n_prompt, "n_gen": n_gen, "depth": test.depth,
        "tokens_per_second": { "mean": rate.mean, "stddev": rate.stddev, "samples": rate.samples },
        "model": about.model, "size_bytes": about.size_bytes, "format": about.format,
        "threads": threads, "gpu_layers": about.gpu_layers, "isa": options.isa.name(), "backend": about.backend,
    })
}

/// Where the time went: on standard output, beside a JSON answer on standard error.
fn say_profile(test: &Test, profile: &Profile, json: bool) -> anyhow::Result<()> {
    let total = profile.total().as_secs_f64();
    let mut lines = vec![format!(
        "profile of {}{} ({:.1} ms in all, warm-up included)",
        test.name(),
        depth(test),
        total * 1e3
    )];
    lines.push(format!("  {:<14} {:<34} {:>8} {:>11} {:>7} {:>8}", "op", "", "calls", "ms", "share", "GB/s"));
    for row in profile.rows() {
        let time = row.time.as_secs_f64();
        let rate = match row.weight_bytes {
            0 => String::new(),
            bytes => format!("{:.1}", bytes as f64 / time.max(1e-9) / 1e9),
        };
        lines.push(format!(
            "  {:<14} {:<34} {:>8} {:>11.3} {:>6.1}% {rate:>8}",
            row.op,
            row.how,
            row.calls,
            time * 1e3,
            100.0 * time / total.max(1e-9)
        ));
    }
    if json {
        for line in &lines {
            tracing::info!("{line}");
        }
        return Ok(());
    }
    lines.push(String::new());
    let text = lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n");
    Ok(output::stdout(|out| writeln!(out, "{text}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(kind: Kind, used: f64, limit: Option<Limit>) -> String {
        let (samples, mean, stddev) = (vec![2.0], 2.0, 0.0);
        Rate { samples, mean, stddev, used, kind, limit: Measured(limit) }.of_machine()
    }

    #[test]
    fn rates_are_shares_of_what_was_probed() {
        let read = |rate: f64| Limit::Read(ReadRate { bytes_per_second: rate, deal: 4096, ahead: 0 });
        assert_eq!(
            rate(Kind::Generate, 38.2e9, Some(read(62.5e9))),
            "38.2 GB/s, 61% of the 62.5 GB/s probed"
        );
        let integer = Limit::Integer(IntegerRate { ops_per_second: 1958e9, by: "vpdpbusd" });
        assert_eq!(
            rate(Kind::Prompt, 412.4e9, Some(integer)),
            "412 GOP/s, 21% of the 1958 GOP/s probed (vpdpbusd)"
        );
        assert_eq!(rate(Kind::Generate, 1e9, None), "1.0 GB/s");
        let best = Measured(Some(read(3.0))).max(Measured(None)).max(Measured(Some(read(4.0))));
        assert!(best.0.is_some_and(|limit| limit.rate() == 4.0));
    }
}
