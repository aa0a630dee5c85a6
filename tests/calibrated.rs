//! What calibrated rounding promises: less lost where it counts, the same function before rounding, the same bytes after a
//! break, and the size that was asked for.

mod common;

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use chaski::engine::Engine;
use chaski::kv::KvFormat;
use chaski::model::{KvChoice, Model, RopeOptions};
use chaski::quant::calibrated::{self, Calibrated, Effort, Memory, Settings, Text};
use chaski::quant::{self, FileType, Job, Outcome, Plan, PlanOptions, QuantError, size};
use chaski_gguf::{Format, Gguf};
use common::tiny::{Tiny, decode, ids, nmse, options, sequence};
use common::{arg, run};
use rayon::{ThreadPool, ThreadPoolBuilder};

const PLAIN: Settings = Settings {
    compensate: true,
    activation_aware: false,
    smooth: None,
    sequential: false,
    effort: Effort { damping: 0.01, sweeps: 1, neighbours: 1 },
    budget: 1 << 30,
};

fn text(windows: usize) -> Text {
    Text { tokens: ids(32 * windows, 9), bos: None, ctx: 32, most: None }
}

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn job<'a>(source: &'a Gguf, plan: &'a Plan, path: &'a Path) -> Job<'a> {
    Job { source, plan, path, metadata: Vec::new(), imatrix: None, threads: 2, measure: true }
}

/// An engine that does not round activations, so that only weights are compared.
fn engine(file: &Arc<Gguf>) -> Result<Engine, QuantError> {
    let mut options = options(2, 64, 32);
    options.cpu.exact = true;
    // Nor what the cache holds: values of heads are scaled too.
    options.kv = KvChoice::new(KvFormat::F32, KvFormat::F32);
    let model = Model::new(file.clone(), &RopeOptions::default()).unwrap();
    Ok(Engine::new(Arc::new(model), options)?)
}

fn logits(file: Gguf, seed: usize) -> Vec<f32> {
    decode(&mut engine(&Arc::new(file)).unwrap(), &sequence(0, 0, &ids(32, seed)))
}

fn plan(source: &Gguf, file_type: FileType) -> Plan {
    let mut plan = Plan::new(source, &PlanOptions::new(file_type)).unwrap();
    plan.sort_by_layer();
    plan
}

/// Carry a plan out with these settings; `stop` is told of every step and may end the run.
fn carry_out(
    source: &Arc<Gguf>,
    plan: &Plan,
    settings: &Settings,
    path: &Path,
    stop: &mut dyn FnMut(&str) -> bool,
) -> Outcome {
    let pool = pool();
    let mut make = || engine(source);
    let tensors = plan.tensors.clone();
    let mut calibrated =
        Calibrated::new(source, settings.clone(), text(12), tensors, &mut make, &pool, true).unwrap();
    let watch = &mut |at: quant::Progress<'_>| {
        if stop(at.tensor) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    quant::run_calibrated(&job(source, plan, path), &mut calibrated, watch).unwrap()
}

/// The file that these settings give.
fn rounded(source: &Arc<Gguf>, file_type: FileType, settings: &Settings) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let outcome = carry_out(source, &plan(source, file_type), settings, &path, &mut |_| false);
    assert!(matches!(outcome, Outcome::Done(_)));
    let bytes = fs::read(path).unwrap();
    Gguf::from_bytes(&bytes).unwrap()
}

fn plainly(source: &Arc<Gguf>, file_type: FileType) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let plan = plan(source, file_type);
    quant::run(&job(source, &plan, &path), &mut |_| ControlFlow::Continue(())).unwrap();
    let bytes = fs::read(path).unwrap();
    Gguf::from_bytes(&bytes).unwrap()
}

#[test]
fn compensated_rounding_changes_the_predictions_less() {
    let source = Arc::new(Tiny::new("llama", false, Format::F16, false).unwrap().file());
    // Of the calibration text: what meets the matrices there is what was looked at.
    let loss = |file: Gguf| nmse(&logits(file, 9), &logits(Gguf::from_bytes(&bytes_of(&source)).unwrap(), 9));
    for file_type in [FileType::Q2_K_S, FileType::Q3_K_S] {
        let plain = loss(plainly(&source, file_type));
        let compensated = loss(rounded(&source, file_type, &PLAIN));
        let sequential = loss(rounded(&source, file_type, &Settings { sequential: true, ..PLAIN }));
        assert!(compensated < 0.8 * plain, "{file_type}: {compensated} of {plain}");
        assert!(sequential < 0.8 * plain, "{file_type}: {sequential} of {plain}");
    }
}

/// The bytes of a file in memory, written again.
fn bytes_of(file: &Gguf) -> Vec<u8> {
    let mut bytes = Vec::new();
    chaski_gguf::Writer::copy_of(file).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn folded_scales_leave_the_function_as_it_was() {
    // qwen2 has biases, qwen3 norms of its own on heads; both share key-value heads.
    for (arch, experts) in [("llama", false), ("qwen2", false), ("qwen3", false), ("llama", true)] {
        let source = Arc::new(Tiny::new(arch, experts, Format::F32, false).unwrap().file());
        let settings = Settings { compensate: false, activation_aware: true, smooth: Some(0.6), ..PLAIN };
        let folded = rounded(&source, FileType::F32, &settings);
        let before = source.require_tensor("blk.0.attn_norm.weight").unwrap().bytes;
        assert!(folded.require_tensor("blk.0.attn_norm.weight").unwrap().bytes != before, "{arch}");
        let expected = logits(Gguf::from_bytes(&bytes_of(&source)).unwrap(), 3);
        let got = logits(folded, 3);
        let largest = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
        for (a, b) in got.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * largest, "{arch}: {a} {b}");
        }
    }
}

#[test]
fn a_broken_off_calibration_is_taken_up_and_gives_the_same_bytes() {
    let source = Arc::new(Tiny::new("qwen3", false, Format::F16, false).unwrap().file());
    let plan = plan(&source, FileType::Q3_K_M);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { sequential: true, activation_aware: true, smooth: Some(0.5), ..PLAIN };
    let (whole, cut) = (folder.path().join("whole.gguf"), folder.path().join("cut.gguf"));
    carry_out(&source, &plan, &settings, &whole, &mut |_| false);
    let mut runs = 0;
    let resumed = loop {
        // So that each run gets some tensors further, in the middle of layers too.
        let (mut done, mut seen) = (0, HashSet::new());
        let outcome = carry_out(&source, &plan, &settings, &cut, &mut |what| {
            let is_tensor = plan.tensors.iter().any(|t| t.name == what);
            done += usize::from(is_tensor && !seen.insert(what.to_owned()));
            done > 5
        });
        match outcome {
            Outcome::Done(written) => break written.resumed,
            Outcome::Stopped { .. } => runs += 1,
        }
        assert!(runs < 50, "every run gets further");
    };
    assert!(runs >= 2 && resumed > 0, "{runs} {resumed}");
    assert!(fs::read(&cut).unwrap() == fs::read(&whole).unwrap(), "other bytes");
}

#[test]
fn every_expert_is_rounded_by_what_met_it() {
    let source = Arc::new(Tiny::new("qwen3moe", true, Format::F16, false).unwrap().file());
    let file = rounded(&source, FileType::Q4_K_S, &Settings { sequential: true, ..PLAIN });
    file.check_payload(|_, _| ()).unwrap();
    let expected = logits(Gguf::from_bytes(&bytes_of(&source)).unwrap(), 9);
    let got = nmse(&logits(file, 9), &expected);
    let plain = nmse(&logits(plainly(&source, FileType::Q4_K_S), 9), &expected);
    assert!(got < plain, "{got} {plain}");
}

#[test]
fn a_size_is_met_within_one_percent_from_below() {
    let source = Arc::new(Tiny::new("llama", false, Format::F16, false).unwrap().file());
    let whole = plan(&source, FileType::Q4_K_M);
    let mut engine = engine(&source).unwrap();
    let text = text(2);
    let wanted = quant::Calibration {
        tokens: &text.tokens,
        bos: None,
        ctx: 32,
        most: None,
        output: true,
        dataset: String::new(),
    };
    let imatrix = quant::calibrate(&mut engine, &wanted, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let go_on = &mut |_: &str, _, _| ControlFlow::Continue(());
    let found = size::sensitivities(
        &source,
        &mut engine,
        &whole,
        &Text { most: Some(1), ..text.clone() },
        &imatrix,
        &pool(),
        go_on,
    )
    .unwrap()
    .unwrap();
    // All matrices, the embedding and the output among them; probing has left the model as it was.
    assert_eq!(found.len(), 2 * 7 + 2);
    assert!(found.iter().all(|s| s.probed > 0.0), "{found:?}");
    // Sixteen equal matrices: with more bits a single step is more than a percent.
    let (few, many) = (source_values(&whole) * 3 / 8, source_values(&whole) * 6 / 8);
    for bytes in (few..many).step_by(usize::try_from((many - few) / 7).unwrap()) {
        let mut fitted = whole.clone();
        size::fit(&mut fitted, &found, bytes).unwrap();
        let got = fitted.bytes().1;
        assert!(got <= bytes && got > bytes - bytes / 100, "{got} of {bytes}");
    }
    let mut fitted = whole.clone();
    for bytes in [1000, source_values(&whole) * 3] {
        assert!(matches!(size::fit(&mut fitted, &found, bytes), Err(QuantError::Size { .. })));
    }
}

fn source_values(plan: &Plan) -> u64 {
    plan.tensors.iter().map(quant::Planned::n_values).sum()
}

#[test]
fn less_memory_gives_the_same_bytes_by_way_of_the_disk() {
    // A first layer after which there is more than one: what is rounded of it serves those behind it.
    let source = Arc::new(Tiny::new("llama", false, Format::F16, false).unwrap().file());
    let plan = plan(&source, FileType::Q3_K_S);
    let settings = Settings { sequential: true, ..PLAIN };
    let (plenty, tight) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of =
        |budget: u64| Memory::new(&source, &Settings { budget, ..settings.clone() }, &plan.tensors, 32, true);
    let memory = of(settings.budget);
    let layer = |t: &quant::Planned| t.name.starts_with("blk.0.") && t.from != t.to;
    let head = |t: &quant::Planned| t.name == "output.weight";
    let expected: u64 = plan.tensors.iter().filter(|t| layer(t) || head(t)).map(|t| t.bytes.0).sum();
    assert_eq!((memory.rounded, memory.kept, memory.scratch()), (expected, expected, 0));
    // Room for some of the rounded tensors.
    let budget = memory.least() + expected / 2;
    let whole = plenty.path().join("out.gguf");
    carry_out(&source, &plan, &settings, &whole, &mut |_| false);
    let memory = of(budget);
    assert_eq!((memory.total(), memory.kept + memory.scratch()), (budget, expected));
    let out = tight.path().join(format!("{budget}.gguf"));
    carry_out(&source, &plan, &Settings { budget, ..settings.clone() }, &out, &mut |_| false);
    assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap(), "{budget}");
    let left: Vec<_> = fs::read_dir(tight.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|e| e == "gguf")), "{left:?}");
    // What is not enough is told with what would be.
    let too_little = Settings { budget: memory.least() - 1, ..settings };
    let told = calibrated::check(&source, "llama", &too_little, &text(2), &plan.tensors, true).unwrap_err();
    assert!(matches!(told, QuantError::Memory { memory: needs, .. } if needs.least() == memory.least()));
}

#[test]
fn what_calibration_takes_is_told_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let source = common::tiny_llama().write(folder.path(), "source.gguf");
    let (out, words) = (folder.path().join("out.gguf"), folder.path().join("words.txt"));
    fs::write(&words, "hello abc ab hello ".repeat(40)).unwrap();
    let fixed = ["quantize", arg(&source), arg(&out), "Q4_0", "--method", "gptq", "--calibrate", arg(&words)];
    let with = |more: &[&str]| run(&[&fixed[..], &["--calibrate-ctx", "32", "--dry-run"], more].concat());
    let sequential = with(&[]);
    assert_eq!(sequential.code, Some(0), "{sequential:?}");
    for words in ["calibrating by gptq on", "statistics of a layer", "rounded layers", "two engines"] {
        assert!(sequential.stderr.contains(words), "{words}: {sequential:?}");
    }
    let one = with(&["--sequential", "off"]);
    assert!(one.code == Some(0) && one.stderr.contains("one engine"), "{one:?}");
    assert!(!one.stderr.contains("rounded layers"), "{one:?}");
    // Enough for the moments of a layer (64 columns at most) and the values of the largest matrix, the output.
    let disk = with(&["--calibrate-memory", "200KiB"]);
    assert!(disk.code == Some(0) && disk.stderr.contains("lie in scratch files"), "{disk:?}");
    let refused = with(&["--calibrate-memory", "1KiB"]);
    assert!(refused.code == Some(4) && refused.stderr.contains("--calibrate-memory"), "{refused:?}");
    assert!(!out.exists());
}

#[test]
fn what_cannot_be_calibrated_is_told() {
    let source = Arc::new(Tiny::new("llama", false, Format::F16, false).unwrap().file());
    let plan = plan(&source, FileType::Q4_K_M);
    let pool = pool();
    let mut make = || engine(&source);
    let mut new = |text: Text| {
        Calibrated::new(&source, PLAIN, text, plan.tensors.clone(), &mut make, &pool, false).map(|_| ())
    };
    let short = new(Text { tokens: ids(31, 1), bos: None, ctx: 32, most: None });
    assert!(matches!(short, Err(QuantError::Calibration { .. })));

    // Weights that overflow: what meets the matrices behind them is not finite.
    let mut loud = Tiny::new("llama", false, Format::F32, false).unwrap();
    for value in loud.tensor("blk.0.ffn_up.weight").bytes.as_chunks_mut::<4>().0 {
        *value = 3e38f32.to_le_bytes();
    }
    let loud = Arc::new(loud.file());
    let tensors = Plan::new(&loud, &PlanOptions::new(FileType::Q4_K_M)).map(|mut plan| {
        plan.sort_by_layer();
        plan
    });
    let plan = tensors.unwrap();
    let mut make = || engine(&loud);
    let mut calibrated =
        Calibrated::new(&loud, PLAIN, text(1), plan.tensors.clone(), &mut make, &pool, false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let error =
        quant::run_calibrated(&job(&loud, &plan, &path), &mut calibrated, &mut |_| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("not finite"));
    assert!(!path.exists());
}

#[test]
fn flags_that_mean_nothing_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = common::tiny_llama().write(folder.path(), "source.gguf");
    let (out, words) = (folder.path().join("out.gguf"), folder.path().join("words.txt"));
    fs::write(&words, "a b c d e f g h ".repeat(200)).unwrap();
    for (flags, says) in [
        (vec!["Q8_0", "--method", "gptq"], "need --calibrate"),
        (vec!["Q8_0", "--calibrate", arg(&words)], "has no effect"),
        (
            vec!["Q8_0", "--calibrate", arg(&words), "--method", "gptq", "--smooth-alpha", "0.3"],
            "--smooth-alpha",
        ),
        (vec!["Q8_0", "--calibrate", arg(&words), "--method", "nearest,gptq"], "nearest"),
        (vec!["--calibrate", arg(&words), "--size", "five"], "--size five"),
        (vec!["--calibrate", arg(&words), "--size", "10"], "--size"),
        (vec!["--calibrate", arg(&words), "--bpw", "90", "--calibrate-ctx", "32"], "bytes at most (16."),
        (
            vec!["--calibrate", arg(&words), "--bpw", "5", "--calibrate-chunks", "2", "--probe-chunks", "3"],
            "--calibrate-chunks leaves only 2",
        ),
        (
            vec!["F16", "--calibrate", arg(&words), "--method", "gptq", "--calibrate-ctx", "32"],
            "has no effect",
        ),
        (vec!["Q8_0", "--calibrate", arg(&source), "--method", "gptq"], "is no text"),
        (vec!["--calibrate", arg(&words), "--bpw", "5", "--calibrate-memory", "1GiB"], "--calibrate-memory"),
        (vec!["--size", "100000"], "--calibrate"),
        (vec!["Q8_0", "--calibrate", arg(&words), "--method", "gptq", "--damping=-1"], "--damping"),
    ] {
        let done = run(&[&["quantize", arg(&source), arg(&out)], &flags[..]].concat());
        assert!(done.code != Some(0) && done.stderr.contains(says), "{flags:?}: {done:?}");
        assert!(!out.exists());
    }
}
