//! The GPU flags through the built command, on Mesa's software adapter, which computes what a GPU would: layers, budgets,
//! reports and exit codes. Where there is none the tests say so; `CHASKI_REQUIRE_GPU=1` makes that a failure.

#![cfg(feature = "gpu")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use common::tiny::nmse;
use common::{GgufBytes, Run, arg, chaski, finished, tiny_llama, tiny_llama_with_heads_of};
use serde_json::Value;

/// The name that finds the adapter.
const SOFTWARE: &str = "llvmpipe";
/// Layers of the model here, and the output.
const MOST: usize = 3;

/// The command as a user runs it: GPUs in sight.
fn seeing(args: &[&str]) -> Command {
    let mut command = chaski(args);
    // Mesa's layer that chooses among devices looks for a display, and complains on standard error where there is none.
    command.env("NODEVICE_SELECT", "1");
    for name in common::GPU_DRIVERS {
        command.env_remove(name);
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn run(args: &[&str]) -> Run {
    finished(&seeing(args).output().expect("the command starts"))
}

fn gpus() -> &'static [Value] {
    static GPUS: OnceLock<Vec<Value>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let run = run(&["devices", "--json"]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        found["gpu"].as_array().unwrap().clone()
    })
}

/// Whether the software adapter is there; says aloud that the test is skipped where it is not.
fn has_gpu(test: &str) -> bool {
    let found = gpus().iter().any(|gpu| gpu["name"].as_str().unwrap().contains(SOFTWARE));
    if !found {
        let required = std::env::var_os("CHASKI_REQUIRE_GPU").is_some_and(|v| v == "1");
        assert!(!required, "CHASKI_REQUIRE_GPU=1, but there is no {SOFTWARE}: {:?}", gpus());
        eprintln!("SKIPPED {test}: there is no adapter called {SOFTWARE}");
    }
    found
}

/// A folder with a model in it.
struct Place {
    folder: tempfile::TempDir,
    model: String,
}

impl Place {
    fn new() -> Place {
        Place::with(&tiny_llama())
    }
    fn with(model: &GgufBytes) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let model = arg(&model.write(folder.path(), "tiny.gguf")).to_owned();
        Place { folder, model }
    }
    fn path(&self, name: &str) -> String {
        arg(&self.folder.path().join(name)).to_owned()
    }
    fn inspect(&self, flags: &[&str]) -> Run {
        run(&[&["inspect", &self.model, "--json", "--placement"], flags].concat())
    }
    /// Logits of a few tokens, and what was said.
    fn logits(&self, flags: &[&str]) -> (Vec<f32>, Run) {
        let out = self.path("logits");
        let args = ["logits", &self.model, "--tokens", "1,5,9,40,7,200,13", "--out", &out];
        let run = run(&[&args[..], flags].concat());
        let bytes = fs::read(Path::new(&out)).unwrap_or_default();
        let _ = fs::remove_file(&out);
        let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (floats, run)
    }
}

/// The number in `-ngl N would`.
fn offered(said: &str) -> usize {
    let rest = said.split("-ngl ").nth(1).unwrap_or_else(|| panic!("no number is offered: {said}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn devices_lists_what_there_is_and_what_it_can_do() {
    if !has_gpu("devices_lists_what_there_is_and_what_it_can_do") {
        return;
    }
    let gpu = gpus().iter().find(|gpu| gpu["name"].as_str().unwrap().contains(SOFTWARE)).unwrap();
    assert_eq!((gpu["kind"].as_str(), gpu["software"].as_bool()), (Some("software"), Some(true)));
    assert_eq!(gpu["backend"].as_str(), Some("vulkan"));
    assert!(gpu["tiers"].is_array() && gpu["declined"].is_null(), "{gpu}");
    let text = run(&["devices"]).stdout;
    for says in ["GPU ", SOFTWARE, "software, vulkan", "used only where -ngl or --device asks for it"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(run(&["--version"]).stdout.contains(SOFTWARE));
}

#[test]
fn every_number_of_layers_gives_the_logits_of_the_cpu_and_is_reported() {
    if !has_gpu("every_number_of_layers_gives_the_logits_of_the_cpu_and_is_reported") {
        return;
    }
    let place = Place::new();
    let exact = ["--cpu-exact", "--gpu-exact"];
    let (want, cpu) = place.logits(&["-ngl", "0", "--cpu-exact"]);
    assert!(!cpu.stderr.contains("GPU"), "{cpu:?}");
    let told = [
        ("1", "1 of 3 layers: the output"),
        ("2", "2 of 3 layers: the output and the last 1 of 2"),
        ("3", "3 of 3 layers: the whole model, its embedding too"),
        ("all", "3 of 3 layers: the whole model, its embedding too"),
        ("99", "3 of 3 layers: the whole model, its embedding too"),
    ];
    for (layers, says) in told {
        let (got, said) = place.logits(&[&["-ngl", layers, "--strict-gpu"], &exact[..]].concat());
        assert_eq!(said.code, Some(0), "-ngl {layers}: {said:?}");
        let error = nmse(&got, &want);
        assert!(error < 1e-5, "-ngl {layers}: {error:e}");
        assert!(said.stdout.is_empty() && said.stderr.contains(says), "-ngl {layers}: {said:?}");
        let lines: Vec<&str> = said.stderr.lines().collect();
        assert!(lines.len() <= 24, "one screen: {said:?}");
        for side in ["chaski:   GPU ", "chaski:   CPU "] {
            let line = lines.iter().find(|line| line.starts_with(side)).expect("a line a side");
            for part in ["weights ", "KV cache ", "scratch "] {
                assert!(line.contains(part), "{line}");
            }
        }
    }
}

#[test]
fn auto_never_takes_a_software_adapter_unless_it_is_named() {
    if !has_gpu("auto_never_takes_a_software_adapter_unless_it_is_named") {
        return;
    }
    let place = Place::new();
    let named = place.logits(&["--device", SOFTWARE]).1;
    assert!(named.stderr.contains("3 of 3 layers"), "{named:?}");
    if gpus().iter().all(|gpu| gpu["software"].as_bool() == Some(true)) {
        let auto = place.logits(&["-ngl", "auto"]).1;
        assert!(auto.code == Some(0) && !auto.stderr.contains("GPU"), "{auto:?}");
    }
    let none = place.logits(&["--device", "none"]).1;
    assert!(none.code == Some(0) && !none.stderr.contains("GPU"), "{none:?}");
}

#[test]
fn a_small_budget_degrades_step_by_step_and_a_number_beyond_it_is_exit_code_4() {
    if !has_gpu("a_small_budget_degrades_step_by_step_and_a_number_beyond_it_is_exit_code_4") {
        return;
    }
    let place = Place::new();
    let plan = |flags: &[&str]| -> Value {
        let run = place.inspect(&[&["--device", SOFTWARE], flags].concat());
        assert_eq!(run.code, Some(0), "{flags:?}: {run:?}");
        let value: Value = serde_json::from_str(&run.stdout).unwrap();
        value["gpu"].clone()
    };
    let total = |plan: &Value| -> u64 {
        ["weights", "kv", "compute"].iter().map(|part| plan["on_gpu"][part].as_u64().unwrap()).sum()
    };
    let whole = total(&plan(&[]));
    let mut seen = Vec::new();
    for step in 0..=8 {
        let budget = (whole * step / 8).to_string();
        let auto = plan(&["--gpu-memory", &budget]);
        let layers = auto["layers"].as_u64().unwrap() as usize;
        assert!(total(&auto) <= whole * step / 8 && seen.last().is_none_or(|last| *last <= layers));
        seen.push(layers);
        let (got, said) = place.logits(&["--device", SOFTWARE, "--gpu-memory", &budget]);
        assert!(said.code == Some(0) && !got.is_empty(), "{said:?}");
        if layers < MOST {
            let refused = place.inspect(&["-ngl", "all", "--gpu-memory", &budget]);
            assert_eq!(refused.code, Some(4), "{refused:?}");
            assert!(refused.stdout.is_empty() && refused.stderr.contains("--gpu-layers all does not fit"));
            assert_eq!(offered(&refused.stderr), layers, "{refused:?}");
            let layers = layers.to_string();
            let offered = place.inspect(&["-ngl", &layers, "--gpu-memory", &budget]);
            assert_eq!(offered.code, Some(0), "{offered:?}");
        }
    }
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&MOST)), "{seen:?}");
}

#[test]
fn inspect_says_where_every_tensor_would_go() {
    if !has_gpu("inspect_says_where_every_tensor_would_go") {
        return;
    }
    let place = Place::new();
    let run = place.inspect(&["-ngl", "2"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    let device = |name: &str| value["placement"][name].as_str().unwrap();
    for (name, want) in [
        ("token_embd.weight", "cpu"),
        ("blk.0.ffn_up.weight", "cpu"),
        ("blk.1.ffn_up.weight", "gpu"),
        ("output.weight", "gpu"),
    ] {
        assert_eq!(device(name), want, "{name}");
    }
    let gpu = &value["gpu"];
    assert_eq!((gpu["layers"].as_u64(), gpu["of"].as_u64()), (Some(2), Some(3)));
    assert_eq!(gpu["left_behind"].as_array().map(Vec::len), Some(0));

    let run = place.inspect(&["-ngl", "all", "--place", "blk.*.ffn_*=cpu"]);
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(value["placement"]["blk.1.ffn_up.weight"].as_str(), Some("cpu"));
    assert_eq!(value["placement"]["blk.1.attn_q.weight"].as_str(), Some("gpu"));
    let text = finished(&seeing(&["inspect", &place.model, "-ngl", "all", "-nkvo"]).output().unwrap());
    let says =
        "on the CPU though its layer is on the GPU: attention, 2 layers (0-1): its cache is kept in RAM";
    assert!(text.stdout.contains(says), "{text:?}");

    let wrong = place.inspect(&["-ngl", "all", "--place", "blk.*.nothing=cpu"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("no weight of the model matches"), "{wrong:?}");
}

#[test]
fn what_the_gpu_has_no_kernel_for_is_named_and_refused_under_strict_gpu() {
    if !has_gpu("what_the_gpu_has_no_kernel_for_is_named_and_refused_under_strict_gpu") {
        return;
    }
    let formats = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "f8_e4m3"];
    let place = Place::new();
    let neighbours = formats.into_iter().zip(formats.into_iter().cycle().skip(1));
    for (k, v) in neighbours {
        let run = place.inspect(&["-ngl", "all", "-ctk", k, "-ctv", v, "--strict-gpu"]);
        assert_eq!(run.code, Some(0), "{k}, {v}: {run:?}");
        let value: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(value["gpu"]["left_behind"].as_array().map(Vec::len), Some(0), "{k}, {v}");
        assert_ne!(value["gpu"]["on_gpu"]["kv"].as_u64(), Some(0), "{k}, {v}");
    }
    // Heads that no kernel takes.
    let place = Place::with(&tiny_llama_with_heads_of(66));
    for (k, v) in [("f16", "f16"), ("q8_0", "q4_1")] {
        let flags = ["-ngl", "all", "-ctk", k, "-ctv", v];
        let run = place.inspect(&flags);
        let value: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(value["gpu"]["on_gpu"]["kv"].as_u64(), Some(0), "{k}, {v}");
        let behind = value["gpu"]["left_behind"].as_array().unwrap();
        let strict = place.inspect(&[&flags[..], &["--strict-gpu"]].concat());
        assert!(strict.code == Some(4) && strict.stdout.is_empty(), "{k}, {v}: {strict:?}");
        assert!(
            strict.stderr.contains("--strict-gpu: on the CPU though its layer is on the GPU: "),
            "{strict:?}"
        );
        for op in ["attention", "kv_write"] {
            assert!(behind.iter().any(|b| b["op"] == op), "{k}, {v}: {behind:?}");
            let says = format!("{op}, 2 layers (0-1): no kernel for heads of 66 values");
            assert!(strict.stderr.contains(&says), "{says}: {strict:?}");
        }
    }
}

#[test]
fn every_command_takes_the_flags() {
    if !has_gpu("every_command_takes_the_flags") {
        return;
    }
    let place = Place::new();
    let text = place.path("text");
    fs::write(&text, "hello ab abc bc hello a b c ".repeat(40)).unwrap();
    let out = place.path("imatrix.gguf");
    let model = place.model.as_str();
    let on = ["-ngl", "all", "--strict-gpu"];
    let commands: [&[&str]; 4] = [
        &["run", model, "-p", "hello", "-n", "8", "--temp", "0", "--ignore-eos"],
        &["perplexity", model, "-f", &text, "-c", "64", "--chunks", "2"],
        &["imatrix", model, "-f", &text, "-c", "64", "--chunks", "1", "-o", &out],
        &["bench", model, "-p", "8", "-n", "2", "-r", "1", "--json"],
    ];
    for command in commands {
        let got = run(&[command, &on[..]].concat());
        assert_eq!(got.code, Some(0), "{command:?}: {got:?}");
        assert!(got.stderr.contains("3 of 3 layers"), "{command:?}: {got:?}");
        match command[0] {
            "run" => {
                let cpu = run(&[command, &["-ngl", "0"]].concat());
                assert_eq!(got.stdout, cpu.stdout, "the same text");
            }
            "bench" => {
                let entries: Value = serde_json::from_str(&got.stdout).unwrap();
                for entry in entries.as_array().unwrap() {
                    assert_eq!(entry["gpu_layers"].as_u64(), Some(3));
                    assert!(entry["backend"].as_str().unwrap().contains(SOFTWARE), "{entry}");
                }
            }
            _ => {}
        }
    }
    let chat = common::run_with_stdin(&["chat", model, "--help"], b"");
    assert!(chat.stdout.contains("--gpu-layers"), "{chat:?}");
}

#[test]
fn a_gpu_that_is_not_there_is_exit_code_4_and_those_that_are_are_named() {
    if !has_gpu("a_gpu_that_is_not_there_is_exit_code_4_and_those_that_are_are_named") {
        return;
    }
    let place = Place::new();
    let wrong = place.inspect(&["--device", "no such card"]);
    assert_eq!(wrong.code, Some(4), "{wrong:?}");
    assert!(wrong.stderr.contains("no such card") && wrong.stderr.contains(SOFTWARE), "{wrong:?}");
}
