//! The contract with scripts: which stream carries what, and which exit code says what.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{arg, chaski, finished, run, run_with_stdin, test_data, tiny_llama};

/// Every file command; each takes a model and, here, whatever else it cannot do without.
const FILE_COMMANDS: &[&[&str]] = &[
    &["inspect"],
    &["inspect", "--json"],
    &["verify"],
    &["tokenize", "some text"],
    &["template", "--messages", "/dev/null"],
    &["logits", "--tokens", "1", "--out", "/dev/null"],
];

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
    let mut cases = vec![&["run"][..], &["run", "-p", "x"], &["inspect"], &["verify"], &["tokenize"]];
    if cfg!(not(feature = "demo")) {
        cases.extend([&[][..], &["chat"], &["--temp", "0"], &["-q"], &["demo"], &["inspect", "-m", "demo"]]);
    }
    for args in cases {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(run.stdout.is_empty(), "{args:?}: {run:?}");
        assert!(
            run.stderr.starts_with("chaski: error: ") && run.stderr.lines().count() <= 3,
            "{args:?}: {run:?}"
        );
        let says = if cfg!(feature = "demo") { "or `demo`" } else { "no embedded model" };
        assert!(run.stderr.contains(says), "{args:?}: {run:?}");
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
        (&["bench", model, "-p", "0", "-n", "0"], "nothing to measure"),
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
        (&["run", model, "-fa", "-p", "x"], "no flag -fa"),
        (&["run", model, "-no-cnv", "-p", "x"], "chaski run"),
        (&["run", model, "-q", "-p", "x", "--logit-bias", "9999+1"], "9999"),
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
    let tensors = |args: &[&str]| {
        let run = run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()["tensors"].take()
    };
    let wanted = tensors(&["inspect", arg(&model), "--json"]);
    assert_eq!(wanted.as_array().unwrap().len(), 21);
    for args in [&["inspect", "-m", arg(&model), "--json"], &["inspect", "--json", "--model", arg(&model)]] {
        assert!(tensors(args) == wanted, "{args:?}");
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

#[test]
fn verify_lists_what_it_checked() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let text = run(&["verify", arg(&model)]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""), "{text:?}");
    let checks: Vec<&str> = text.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(checks, ["structure", "tokenizer", "template", "model", "values"]);
    let json = run(&["verify", arg(&model), "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &value["ok"], &value["error"]), (Some(0), &true.into(), &serde_json::Value::Null));
    assert_eq!(value["passed"].as_array().unwrap().len(), checks.len());
}

#[test]
fn verify_ends_at_the_first_bad_field_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("nan", tiny_llama().tensor("extra", &[4], &[0.0, 1.0, f32::NAN, 0.0]), "tensor extra"),
        ("infinite", tiny_llama().tensor("extra", &[1], &[f32::NEG_INFINITY]), "-inf"),
        ("template", tiny_llama().str("tokenizer.chat_template", "{% if %}"), "tokenizer.chat_template"),
        ("shape", tiny_llama().u32("llama.attention.key_length", 16), "attn_q"),
        ("hparam", tiny_llama().u32("llama.expert_count", 4), "llama.expert_used_count"),
        ("token", tiny_llama().u32("tokenizer.ggml.eot_token_id", 9999), "9999"),
        ("imatrix", tiny_llama().str("general.type", "imatrix"), "importance matrix"),
        ("adapter", tiny_llama().str("general.type", "adapter"), "LoRA"),
    ];
    for (name, file, says) in cases {
        let path = file.write(folder.path(), &format!("{name}.gguf"));
        let text = run(&["verify", arg(&path)]);
        assert_eq!(text.code, Some(3), "{name}: {text:?}");
        assert!(text.stderr.starts_with("chaski: error: ") && text.stderr.contains(says), "{name}: {text:?}");
        let json = run(&["verify", arg(&path), "--json"]);
        let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((json.code, &value["ok"]), (Some(3), &false.into()), "{name}");
        assert!(value["error"].as_str().unwrap().contains(says), "{name}: {value}");
    }
}

#[test]
fn an_architecture_that_cannot_be_run_can_still_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tiny_llama().bytes();
    let at = bytes.windows(5).position(|w| w == b"llama").unwrap();
    let mut strange = bytes;
    strange[at..at + 5].copy_from_slice(b"ozymd");
    let path = folder.path().join("strange.gguf");
    fs::write(&path, strange).unwrap();
    for (args, code) in [
        (["inspect", arg(&path), "--json"], 0),
        (["tokenize", arg(&path), "a"], 0),
        (["verify", arg(&path), "--json"], 3),
    ] {
        let run = run(&args);
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
    }
    let value: serde_json::Value =
        serde_json::from_str(&run(&["inspect", arg(&path), "--json"]).stdout).unwrap();
    assert!(
        value["memory"]["kv"].is_null() && value["memory"]["why"].as_str().unwrap().contains("ozymd"),
        "{value}"
    );
}

#[test]
fn inspect_plans_the_memory_for_the_context_and_the_cache_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let memory = |flags: &[&str]| -> serde_json::Value {
        let run = run(&[&["inspect", arg(&model), "--json"], flags].concat());
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()["memory"].take()
    };
    // 2 layers of 2 heads of 8 values, K and V, 2 bytes each: 128 bytes a token.
    let plan = memory(&[]);
    assert_eq!((&plan["n_ctx"], &plan["kv"]), (&128.into(), &(128 * 128).into()));
    assert_eq!(memory(&["-c", "64"])["kv"], 64 * 128);
    assert_eq!(memory(&["-c", "64", "-ctk", "f32", "-ctv", "f32"])["kv"], 64 * 256);
    assert!(plan["compute"].as_u64().unwrap() > 0 && plan["weights"].as_u64().unwrap() > 100_000);
}

#[test]
fn tokenize_prints_ids_separated_by_single_spaces() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let file = folder.path().join("text");
    fs::write(&file, "ab").unwrap();
    let ids = |args: &[&str]| run(&[&["tokenize"], args, &["--ids"]].concat());
    for args in [&[arg(&model), "ab"][..], &["-m", arg(&model), "ab"], &[arg(&model), "--file", arg(&file)]] {
        let run = ids(args);
        assert_eq!(
            (run.code, run.stdout.as_str(), run.stderr.as_str()),
            (Some(0), "1 265\n", ""),
            "{args:?}"
        );
    }
    let piped = run_with_stdin(&["tokenize", arg(&model), "--ids"], b"ab");
    assert_eq!((piped.code, piped.stdout.as_str()), (Some(0), "1 265\n"));
    assert_eq!(ids(&[arg(&model), "ab", "--no-bos"]).stdout, "265\n");
    assert_eq!(ids(&[arg(&model), "", "--no-bos"]).stdout, "");
    assert_eq!(ids(&[arg(&model), "</s>", "--no-bos"]).stdout, "2\n");
    assert!(ids(&[arg(&model), "</s>", "--no-bos", "--no-special"]).stdout.split(' ').count() > 1);
    let table = run(&["tokenize", arg(&model), "ab"]).stdout;
    assert_eq!(table, "     1 -> \"<s>\"\n   265 -> \" ab\"\n");
}

#[test]
fn detokenize_gives_back_the_text_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    for text in ["hello ab", "a\nb \u{e9}\u{1f600}", "  two  spaces ", "a</s>", ""] {
        let ids = run_with_stdin(&["tokenize", arg(&model), "--ids"], text.as_bytes()).stdout;
        let back = run_with_stdin(&["tokenize", arg(&model), "--detokenize"], ids.as_bytes());
        assert_eq!((back.code, back.stdout.as_str()), (Some(0), text), "{ids}");
    }
    let ids = run_with_stdin(&["tokenize", arg(&model), "--detokenize"], b"[1, 265]");
    assert_eq!(ids.stdout, "ab");
    for bad in ["ab", "-1", "1 99999", "4294967296"] {
        let run = run_with_stdin(&["tokenize", arg(&model), "--detokenize"], bad.as_bytes());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{bad}");
    }
}

#[test]
fn template_prints_the_rendered_text_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}\
                  {% if add_generation_prompt %}[assistant]{% endif %}";
    let jinja = file("chat.jinja", source);
    let model = tiny_llama().str("tokenizer.chat_template", source).write(folder.path(), "chat.gguf");
    let messages = file("messages.json", r#"[{"role": "user", "content": "hi"}]"#);
    let messages = arg(&messages);
    let render = |template: &str, flags: &[&str]| {
        run(&[&["template", template, "--messages", messages], flags].concat())
    };
    let cases: &[(&str, &[&str], &str)] = &[
        (arg(&jinja), &[], "[user]hi[assistant]"),
        (arg(&jinja), &["--bos", "<s>"], "<s>[user]hi[assistant]"),
        (arg(&jinja), &["--no-generation-prompt"], "[user]hi"),
        (arg(&model), &[], "<s>[user]hi[assistant]"),
        (arg(&model), &["--bos", "-"], "-[user]hi[assistant]"),
    ];
    for (template, flags, wanted) in cases {
        let run = render(template, flags);
        assert_eq!(
            (run.code, run.stdout.as_str(), run.stderr.as_str()),
            (Some(0), *wanted, ""),
            "{template} {flags:?}"
        );
    }
    let without = tiny_llama().write(folder.path(), "without.gguf");
    let refusing = file("refusing.jinja", "{{ raise_exception('no tools here') }}");
    let broken = file("broken.jinja", "{% for %}");
    for (template, code, says) in
        [(&without, 3, "tokenizer.chat_template"), (&refusing, 1, "no tools here"), (&broken, 1, "line 1")]
    {
        let run = render(arg(template), &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{template:?}: {run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
    }
    let object = file("object.json", "{}");
    let garbage = file("garbage.json", "[");
    for bad in [arg(&object), arg(&garbage), "/nonexistent"] {
        assert_eq!(run(&["template", arg(&jinja), "--messages", bad]).code, Some(3), "{bad}");
    }
    assert_eq!(render(arg(&jinja), &["--now", "yesterday"]).code, Some(2));
}

#[test]
fn logits_are_written_for_every_position_and_nothing_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let out = folder.path().join("logits");
    let logits = |flags: &[&str]| -> Vec<f32> {
        let run =
            run(&[&["logits", arg(&model), "--tokens", "1,265, 260,2", "--out", arg(&out)], flags].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{flags:?}: {run:?}");
        fs::read(&out).unwrap().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let whole = logits(&[]);
    assert_eq!(whole.len(), 4 * 271);
    assert!(whole.iter().all(|v| v.is_finite()) && whole.iter().any(|v| *v != whole[0]));
    for flags in [
        &["-ub", "1"][..],
        &["-b", "3", "-ub", "2"],
        &["-t", "2"],
        &["-c", "0"],
        &["-ctk", "f32"],
        &["--no-mmap"],
    ] {
        let error: f32 = logits(flags).iter().zip(&whole).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!(error / whole.iter().map(|v| v * v).sum::<f32>() < 1e-4, "{flags:?}: {error}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left beside the model and the logits"
    );
}

#[test]
fn logits_that_cannot_be_had_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let nan = tiny_llama().tensor("rope_freqs.weight", &[4], &[f32::NAN; 4]).write(folder.path(), "nan.gguf");
    let out = folder.path().join("logits");
    let nowhere = folder.path().join("no/such/folder");
    let cases: &[(&[&str], i32, &str)] = &[
        (&[arg(&model), "--tokens", "1,9999", "--out", arg(&out)], 2, "9999"),
        (&[arg(&model), "--tokens", "1,-2", "--out", arg(&out)], 2, "--tokens"),
        (&[arg(&model), "--tokens", "", "--out", arg(&out)], 2, "--tokens"),
        (&[arg(&model), "--tokens", "1,2,3", "-c", "2", "--out", arg(&out)], 2, "3 tokens"),
        (&[arg(&model), "--tokens", "1", "-ctk", "q9", "--out", arg(&out)], 2, "q9"),
        (&[arg(&model), "--tokens", "1", "--isa", "sse9", "--out", arg(&out)], 2, "sse9"),
        (&[arg(&model), "--tokens", "1", "-c", "4000000000", "--out", arg(&out)], 4, "does not fit"),
        (&[arg(&model), "--tokens", "1", "--out", arg(&nowhere)], 1, "no/such/folder"),
        (&[arg(&nan), "--tokens", "1,2", "--out", arg(&out)], 3, "not finite"),
    ];
    for (args, code, says) in cases {
        let run = run(&[&["logits"], *args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(*code), ""), "{args:?}: {run:?}");
        assert!(run.stderr.contains(says), "{args:?}: {run:?}");
        assert!(!out.exists(), "{args:?}");
    }
}

#[test]
fn what_does_not_fit_is_said_with_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let out = folder.path().join("logits");
    let run = run(&["logits", arg(&model), "--tokens", "1", "-c", "4000000000", "--out", arg(&out)]);
    assert!(
        run.stderr.contains("477 GiB")
            && run.stderr.contains("available")
            && run.stderr.contains("would fit"),
        "{run:?}"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_exit_code_130() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let mut child = chaski(&["-v", "tokenize", arg(&model)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says that it waits for its input, and then waits as long as the pipe is open.
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("reading the text"), "{said}");
    // Waiting closes a pipe that the child still has: the end of its input could come before the signal.
    let _open = child.stdin.take();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn overrides_stand_above_the_file_and_strange_ones_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let run = run(&[
        "inspect",
        arg(&model),
        "--json",
        "--override-kv",
        "general.name=str:other",
        "--override-kv",
        "a.b=int:1",
    ]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&value["metadata"]["general.name"], &value["metadata"]["a.b"]), (&"other".into(), &1.into()));
    assert!(run.stderr.contains("a.b") && !run.stderr.contains("general.name"), "{}", run.stderr);
}

#[test]
fn real_files_verify_and_tokenize() {
    let Some(data) = test_data("real_files_verify_and_tokenize") else { return };
    for name in [
        "models/stories260K.gguf",
        "models/stories260K-gguf-v1.gguf",
        "models/wiki-7m-q4_k_m.gguf",
        "conformance/qwen3-q4_k_m.gguf",
    ] {
        let run = run(&["verify", arg(&data.join(name))]);
        assert_eq!(run.code, Some(0), "{name}: {run:?}");
    }
    let vocab = data.join("vocab/llama-spm.gguf");
    let texts = fs::read_to_string(data.join("vocab/llama-spm.gguf.inp")).unwrap();
    let wanted = fs::read_to_string(data.join("vocab/llama-spm.gguf.out")).unwrap();
    for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(wanted.lines()) {
        let run =
            run_with_stdin(&["tokenize", arg(&vocab), "--ids", "--no-bos", "--no-special"], text.as_bytes());
        assert_eq!(run.stdout.trim(), ids.trim(), "{text:?}");
    }
}

#[test]
fn bench_prints_the_array_of_the_contract_or_a_line_a_test() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let few =
        ["bench", arg(&model), "-p", "5,7", "-n", "3", "--depth", "4", "-r", "2", "-t", "2", "-tb", "1"];
    let json = run(&[&few[..], &["--no-probe", "--json", "-q"]].concat());
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""), "{json:?}");
    let found: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON value");
    let entries = found.as_array().expect("an array");
    let told: Vec<_> = entries
        .iter()
        .map(|e| (e["test"].as_str(), e["n_prompt"].as_u64(), e["n_gen"].as_u64(), e["threads"].as_u64()))
        .collect();
    let want = |name, n_prompt, n_gen, threads| (Some(name), Some(n_prompt), Some(n_gen), Some(threads));
    assert_eq!(told, [want("pp5", 5, 0, 1), want("pp7", 7, 0, 1), want("tg3", 0, 3, 2)]);
    for entry in entries {
        let mut names: Vec<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let all = [
            "backend",
            "depth",
            "format",
            "gpu_layers",
            "isa",
            "model",
            "n_gen",
            "n_prompt",
            "size_bytes",
            "test",
            "threads",
            "tokens_per_second",
        ];
        assert_eq!(names, all);
        let speed = &entry["tokens_per_second"];
        let samples: Vec<f64> =
            speed["samples"].as_array().unwrap().iter().filter_map(serde_json::Value::as_f64).collect();
        assert!(samples.len() == 2 && samples.iter().all(|v| *v > 0.0), "{entry}");
        assert!((speed["mean"].as_f64().unwrap() - samples[0].midpoint(samples[1])).abs() < 1e-6, "{entry}");
        assert!(speed["stddev"].as_f64().is_some_and(|v| v >= 0.0), "{entry}");
        assert_eq!((entry["depth"].as_u64(), entry["format"].as_str()), (Some(4), Some("F32")));
        assert_eq!(entry["size_bytes"].as_u64(), Some(fs::metadata(&model).unwrap().len()));
    }
    let text = run(&[&few[..], &["--profile", "--no-probe"]].concat());
    assert_eq!(text.code, Some(0), "{text:?}");
    for says in ["pp5 @ d4", "tg3 @ d4", "tokens/s", "GB/s", "GOP/s", "profile of pp7", "matmul", "attention"]
    {
        assert!(text.stdout.contains(says), "{says}: {text:?}");
    }
}

#[test]
fn bench_holds_its_rates_against_what_the_machine_gives() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let run = run(&["bench", arg(&model), "-p", "4", "-n", "0", "-r", "1", "-t", "1", "--json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    // `pp4: 0 GOP/s, 0% of the 1958 GOP/s probed (...)`
    let said = run.stderr.lines().find(|line| line.contains("pp4: ")).expect("a line on the test");
    assert!(
        said.contains(" GOP/s, ") && said.contains("% of the ") && said.contains("GOP/s probed ("),
        "{said}"
    );
}

#[test]
fn a_bench_that_does_not_fit_its_context_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_llama().write(folder.path(), "tiny.gguf");
    let run = run(&["bench", arg(&model), "-p", "20", "-n", "0", "-c", "8"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("take a context of 20 tokens, not 8"), "{run:?}");
}
