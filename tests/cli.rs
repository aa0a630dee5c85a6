//! The contract with scripts: which stream carries what, and which exit code says what.

mod common;

use std::fs;
use std::process::Stdio;

use common::{arg, chaski, finished, run, tiny_llama};

/// Every file command; each takes a model and, here, whatever else it cannot do without.
const FILE_COMMANDS: &[&[&str]] = &[&["inspect"]];

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["run", "--help"],
        &["help", "inspect"],
        &["--version"],
        &["-V"],
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        assert!(!run.stdout.is_empty() && run.stderr.is_empty(), "{args:?}: {run:?}");
    }
}

#[test]
fn help_groups_the_flags_and_shows_defaults() {
    let help = run(&["run", "--help"]).stdout;
    for heading in
        ["Conversation:", "Generation:", "Sampling:", "Context and cache:", "CPU and memory:", "Output:"]
    {
        assert!(help.contains(heading), "{heading}");
    }
    let sampling = help.split("Sampling:").nth(1).expect("a part for sampling");
    assert!(sampling.contains("[default: 0.8]") && sampling.contains("[default: 40]"));
}

#[test]
fn without_a_model_a_short_text_says_how_to_name_one() {
    for args in [&[][..], &["chat"], &["run"], &["inspect"], &["--temp", "0"], &["-q"], &["demo"]] {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(run.stdout.is_empty(), "{args:?}: {run:?}");
        assert!(
            run.stderr.starts_with("chaski: error: ") && run.stderr.lines().count() <= 3,
            "{args:?}: {run:?}"
        );
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let model = arg(&model);
    let cases: &[(&[&str], &str)] = &[
        (&["inspekt", model], "inspect"),
        (&["nonsense"], "nonsense"),
        (&["bench", model], "not built yet"),
        (&["inspect", model, "--frobnicate"], "--frobnicate"),
        (&["inspect", model, "--temp", "0"], "a flag of `chat`, `run`"),
        (&["run", model, "-t", "0"], "--threads 0"),
        (&["run", model, "-t", "many"], "many"),
        (&["run", model, "-c", "-5"], "-5"),
        (&["run", model, "-b", "0"], "--batch-size"),
        (&["run", model, "-n", "-2"], "--predict"),
        (&["run", model, "--temp", "nan"], "--temp"),
        (&["run", model, "-p", "a", "-f", "b"], "cannot be used with"),
        (&["run", model, "-m", model], "cannot be used with"),
        (&["run", model, "--raw", "-sys", "x"], "cannot be used with"),
        (&["run", model, "-v", "-q"], "cannot be used with"),
        (&["run", model, "-ngl", "some"], "--gpu-layers some"),
        (&["run", model, "-ngl", "1", "--device", "none"], "contradict"),
        (&["run", model, "--override-kv", "a=b"], "--override-kv"),
        (&["run", model, "extra"], "extra"),
        (&["completions", "cobol"], "cobol"),
        (&["man", "nonsense"], "nonsense"),
    ];
    for (args, says) in cases {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(run.stdout.is_empty() && run.stderr.starts_with("chaski: error: "), "{args:?}: {run:?}");
        assert!(run.stderr.contains(says), "{args:?}: {run:?}");
    }
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_is_exit_code_4() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    for flags in
        [&["-ngl", "1"][..], &["-ngl", "all"], &["-ngl=2"], &["--device", "x"], &["--place", "blk.*=gpu"]]
    {
        let run = run(&[&["inspect", arg(&model)], flags].concat());
        assert_eq!(run.code, Some(4), "{flags:?}: {run:?}");
        assert!(run.stdout.is_empty() && run.stderr.contains("no GPU"), "{flags:?}: {run:?}");
    }
    for flags in [&["-ngl", "0"][..], &["-ngl", "auto"], &["--device", "none"]] {
        let run = run(&[&["inspect", arg(&model)], flags].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{flags:?}");
    }
}

#[test]
fn flags_without_effect_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let flags: &[&[&str]] = &[
        &["--strict-gpu"],
        &["-nkvo"],
        &["--gpu-exact"],
        &["--gpu-memory", "1GiB"],
        &["--place", "blk.*=cpu"],
    ];
    for flags in flags {
        let run = run(&[&["inspect", arg(&model)], *flags].concat());
        assert_eq!(run.code, Some(0), "{flags:?}: {run:?}");
        assert!(
            run.stderr.starts_with("chaski: warning: --") && run.stderr.contains("no effect"),
            "{flags:?}: {run:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_used_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tiny_llama().bytes();
    let mut swapped = whole.clone();
    swapped[4..8].reverse();
    let files: &[(&str, &[u8])] = &[
        ("empty.gguf", b""),
        ("page.gguf", b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
        ("short.gguf", &whole[..20]),
        ("cut.gguf", &whole[..whole.len() / 2]),
        ("swapped.gguf", &swapped),
    ];
    let mut paths = vec![folder.path().to_owned(), folder.path().join("missing.gguf")];
    for (name, bytes) in files {
        paths.push(folder.path().join(name));
        fs::write(paths.last().unwrap(), bytes).unwrap();
    }
    for command in FILE_COMMANDS {
        for path in &paths {
            let run = run(&[&command[..1], &[arg(path)], &command[1..]].concat());
            assert_eq!(run.code, Some(3), "{command:?} {path:?}: {run:?}");
            assert!(
                run.stdout.is_empty() && run.stderr.starts_with("chaski: error: "),
                "{command:?} {path:?}: {run:?}"
            );
            assert!(!run.stderr.contains("internal error"), "{command:?} {path:?}: {run:?}");
        }
    }
}

#[test]
fn the_model_may_be_named_by_position_or_by_flag() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let wanted = run(&["inspect", arg(&model), "--json"]);
    assert_eq!(wanted.code, Some(0), "{wanted:?}");
    for args in [&["inspect", "-m", arg(&model), "--json"], &["inspect", "--json", "--model", arg(&model)]] {
        assert_eq!(run(args).stdout, wanted.stdout, "{args:?}");
    }
}

#[test]
fn a_broken_pipe_is_a_quiet_end() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    for args in [&["inspect", arg(&model), "--json"][..], &["--help"], &["completions", "bash"], &["man"]] {
        let mut child = chaski(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = finished(&child.wait_with_output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_not_a_quiet_end() {
    for args in [&["devices"][..], &["--help"], &["completions", "bash"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = finished(&chaski(args).stdout(full).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(run.code, Some(1), "{args:?}: {run:?}");
        assert!(run.stderr.starts_with("chaski: error: "), "{args:?}: {run:?}");
    }
}

#[test]
fn json_is_one_value_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    for args in [&["inspect", arg(&model), "--json"][..], &["devices", "--json"]] {
        let run = run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert!(value.is_object(), "{args:?}");
    }
}

#[test]
fn inspect_json_has_the_fields_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let value: serde_json::Value =
        serde_json::from_str(&run(&["inspect", arg(&model), "--json"]).stdout).unwrap();
    assert_eq!(value["arch"], "llama");
    assert_eq!(value["version"], 3);
    assert_eq!(value["metadata"]["llama.block_count"], 2);
    assert_eq!(value["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 271);
    assert_eq!(value["bits_per_weight"], 32.0);
    let tensor = &value["tensors"][0];
    assert_eq!((&tensor["name"], &tensor["format"]), (&"token_embd.weight".into(), &"F32".into()));
    assert_eq!(tensor["shape"], serde_json::json!([32, 271]));
    assert_eq!((&tensor["offset"], &tensor["bytes"]), (&0.into(), &(32 * 271 * 4).into()));
}

#[test]
fn the_log_file_has_what_the_terminal_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let log = folder.path().join("log");
    let run = run(&["-q", "--log-file", arg(&log), "inspect", arg(&model), "--strict-gpu"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(fs::read_to_string(log).unwrap().contains("--strict-gpu has no effect"));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let run = run(args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        for command in ["chat", "run", "inspect", "verify", "tokenize", "template", "logits", "devices"] {
            assert!(run.stdout.contains(command), "{args:?} does not know {command}");
        }
    }
    let page = run(&["man", "run"]);
    assert_eq!(page.code, Some(0), "{page:?}");
    assert!(page.stdout.contains("gpu\\-layers"), "{}", page.stdout);
}
