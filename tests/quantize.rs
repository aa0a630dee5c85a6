//! What `quantize` promises: the formats and the bytes of llama.cpp, nothing silent, and no damaged file whatever happens.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use chaski::quant::imatrix::{Imatrix, Statistics};
use chaski::quant::{self, FileType, Glob, Job, Outcome, Plan, PlanOptions, QuantError};
use chaski_gguf::{Format, Gguf, Writer, keys};
use common::tiny::{Tiny, decode, ids, nmse, options, sequence};
use common::{arg, run, test_data};

/// A random model of 256 columns in a folder of its own.
fn model(format: Format) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.gguf");
    fs::write(&path, Tiny::new("llama", false, format, false).unwrap().bytes()).unwrap();
    (folder, path)
}

/// The formats of a file's tensors, by name.
fn formats(path: &Path) -> Vec<(String, Format)> {
    let file = Gguf::open(path).unwrap();
    file.tensors().iter().map(|t| (t.name.clone(), t.format)).collect()
}

/// What lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_file_type_gives_a_sound_model_that_says_what_it_is() {
    let (folder, source) = model(Format::F32);
    for file_type in FileType::ALL {
        let out = folder.path().join(format!("{file_type}.gguf"));
        let done = run(&["quantize", arg(&source), arg(&out), &file_type.name().to_lowercase(), "-q"]);
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(0), "", ""), "{file_type}");
        let file = Gguf::open(&out).unwrap();
        assert_eq!(file.u32(keys::GENERAL_FILE_TYPE).unwrap(), file_type.id(), "{file_type}");
        assert_eq!(file.require_u32(keys::GENERAL_QUANTIZATION_VERSION).unwrap(), 2);
        assert_eq!(file.require_str(keys::CHASKI_QUANTIZE_FILE_TYPE).unwrap(), file_type.name());
        file.check_payload(|_, _| ()).unwrap();
        let base = file.tensors().iter().filter(|t| t.format == file_type.base()).count();
        assert!(base > 0 || *file_type == FileType::MXFP4_MOE, "{file_type}");
    }
}

#[test]
fn a_quantized_model_answers_nearly_as_its_source_does() {
    let (folder, source) = model(Format::F32);
    let logits = |path: &Path| {
        let file = Gguf::open(path).unwrap();
        let mut engine =
            chaski::engine::Engine::open(file, &chaski::model::RopeOptions::default(), options(2, 64, 32))
                .unwrap();
        decode(&mut engine, &sequence(0, 0, &ids(16, 1)))
    };
    let expected = logits(&source);
    // The order of the formats must show. (Random weights are harder to round than trained ones.)
    let mut last = 0.0;
    for (file_type, limit) in
        [("Q8_0", 3e-3), ("Q6_K", 2e-2), ("Q5_K_S", 6e-2), ("Q4_K_S", 0.2), ("Q3_K_S", 0.8), ("Q2_K_S", 1.6)]
    {
        let out = folder.path().join("out.gguf");
        assert_eq!(run(&["quantize", arg(&source), arg(&out), file_type]).code, Some(0));
        let loss = nmse(&logits(&out), &expected);
        assert!(last < loss && loss < limit, "{file_type}: {loss}");
        last = loss;
    }
}

#[test]
fn mixtures_give_more_bits_where_llama_cpp_does() {
    // 16 layers; what a name does not decide, its place among its like does.
    let zeros = vec![0u8; 256 * 4 * 4];
    let mut writer = Writer::new();
    writer.set(keys::GENERAL_ARCHITECTURE, "llama").unwrap();
    for (key, value) in [("block_count", 16u32), ("attention.head_count", 8), ("attention.head_count_kv", 2)]
    {
        writer.set(&format!("llama.{key}"), value).unwrap();
    }
    // In the order of numbers as text, which is not the order that counts.
    let mut layers: Vec<u32> = (0..16).collect();
    layers.sort_by_key(ToString::to_string);
    for layer in layers {
        for part in ["attn_v", "ffn_down", "attn_output", "ffn_up"] {
            writer.tensor(&format!("blk.{layer}.{part}.weight"), &[256, 4], Format::F32, &zeros).unwrap();
        }
        writer.tensor(&format!("blk.{layer}.attn_norm.weight"), &[256], Format::F32, &zeros[..1024]).unwrap();
    }
    writer.tensor("token_embd.weight", &[256, 4], Format::F32, &zeros).unwrap();
    writer.tensor("output.weight", &[256, 4], Format::F32, &zeros).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    let source = Gguf::from_bytes(&bytes).unwrap();
    let layers = |file_type: FileType, part: &str, format: Format| -> Vec<u32> {
        let plan = Plan::new(&source, &PlanOptions::new(file_type)).unwrap();
        let has = |layer: &u32| {
            let name = format!("blk.{layer}.{part}.weight");
            plan.tensors.iter().any(|t| t.name == name && t.to == format)
        };
        (0..16).filter(has).collect()
    };
    let all: Vec<u32> = (0..16).collect();
    let both_ends_and_every_third = [0, 1, 4, 7, 10, 13, 14, 15];
    assert_eq!(layers(FileType::Q4_K_M, "attn_v", Format::Q6_K), both_ends_and_every_third);
    assert_eq!(layers(FileType::Q4_K_M, "ffn_down", Format::Q6_K), both_ends_and_every_third);
    assert_eq!(layers(FileType::Q5_K_M, "ffn_down", Format::Q6_K), both_ends_and_every_third);
    assert_eq!(layers(FileType::Q4_K_M, "ffn_up", Format::Q4_K), all);
    assert_eq!(layers(FileType::Q4_K_S, "attn_v", Format::Q5_K), [0, 1, 2, 3]);
    assert_eq!(layers(FileType::Q4_K_S, "ffn_down", Format::Q5_K), [0, 1]);
    assert_eq!(layers(FileType::Q3_K_M, "attn_v", Format::Q5_K), [0, 1]);
    assert_eq!(layers(FileType::Q3_K_M, "ffn_down", Format::Q5_K), [0]);
    assert_eq!(layers(FileType::Q3_K_M, "attn_output", Format::Q4_K), all);
    assert_eq!(layers(FileType::Q2_K, "attn_v", Format::Q4_K), all);
    assert_eq!(layers(FileType::Q2_K, "ffn_down", Format::Q3_K), all);
    assert_eq!(layers(FileType::IQ4_XS, "ffn_down", Format::Q5_K), [0, 1]);
    assert_eq!(layers(FileType::Q4_K_M, "attn_norm", Format::F32), all);
    let plan = Plan::new(&source, &PlanOptions::new(FileType::Q2_K)).unwrap();
    let to = |name: &str| plan.tensors.iter().find(|t| t.name == name).unwrap().to;
    assert_eq!((to("output.weight"), to("token_embd.weight")), (Format::Q6_K, Format::Q2_K));
}

#[test]
fn files_are_those_of_llama_cpp_byte_for_byte() {
    let Some(data) = test_data("files_are_those_of_llama_cpp_byte_for_byte") else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = data.join("models");
    for file_type in ["q2_k", "q3_k_m", "q4_k_m", "q8_0"] {
        let out = folder.path().join("out.gguf");
        assert_eq!(
            run(&["quantize", arg(&models.join("wiki-7m-f16.gguf")), arg(&out), file_type]).code,
            Some(0)
        );
        let (ours, theirs) = (
            Gguf::open(&out).unwrap(),
            Gguf::open(models.join(format!("wiki-7m-{file_type}.gguf"))).unwrap(),
        );
        assert_eq!(ours.tensors().len(), theirs.tensors().len());
        for info in theirs.tensors() {
            let (a, b) =
                (ours.require_tensor(&info.name).unwrap(), theirs.require_tensor(&info.name).unwrap());
            assert_eq!(a.info.format, b.info.format, "{file_type} {}", info.name);
            assert!(a.bytes == b.bytes, "{file_type} {}: other bytes", info.name);
        }
    }
}

#[test]
fn a_format_that_does_not_fit_is_replaced_by_name_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    // Rows of 32 and 64 values, where K formats want 256.
    let source = common::tiny_llama().write(folder.path(), "source.gguf");
    let out = folder.path().join("out.gguf");
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_K_M"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains(
        "blk.0.ffn_up.weight: Q5_0 instead of Q4_K, whose blocks of 256 do not divide its rows of 32"
    ));
    let got = formats(&out);
    let of = |name: &str| got.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((of("output.weight"), of("blk.0.ffn_up.weight")), (Format::Q8_0, Format::Q5_0));
    assert_eq!(of("blk.0.attn_norm.weight"), Format::F32);

    let refused = folder.path().join("refused.gguf");
    let done = run(&["quantize", arg(&source), arg(&refused), "Q4_K_M", "--no-fallback"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.contains("blk.1.ffn_down.weight") && !refused.exists());
    assert_eq!(run(&["quantize", arg(&source), arg(&refused), "Q8_0", "--no-fallback"]).code, Some(0));
}

#[test]
fn what_is_quantized_already_is_quantized_again_only_on_request() {
    let (folder, source) = model(Format::Q8_0);
    let out = folder.path().join("out.gguf");
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_0"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("is Q8_0 already") && done.stderr.contains("--allow-requantize"));
    assert_eq!(names(folder.path()), ["source.gguf"]);
    assert_eq!(run(&["quantize", arg(&source), arg(&out), "Q4_0", "--allow-requantize"]).code, Some(0));
    // Where every tensor stays what it is, nothing is rounded twice.
    assert_eq!(run(&["quantize", arg(&source), arg(&out), "Q8_0", "--pure"]).code, Some(0));
}

#[test]
fn formats_can_be_chosen_by_name_and_a_pattern_without_effect_is_an_error() {
    let (folder, source) = model(Format::F32);
    let out = folder.path().join("out.gguf");
    let quantize = |flags: &[&str]| run(&[&["quantize", arg(&source), arg(&out), "Q4_K_S"], flags].concat());
    let done = quantize(&[
        "--tensor-type",
        "blk.0.*=q8_0",
        "--tensor-type",
        "*.ffn_down.*=Q3_K",
        "--token-embedding-type",
        "F16",
    ]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let got = formats(&out);
    let of = |name: &str| got.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((of("blk.0.ffn_down.weight"), of("blk.0.attn_q.weight")), (Format::Q8_0, Format::Q8_0));
    assert_eq!((of("blk.1.ffn_down.weight"), of("blk.0.attn_norm.weight")), (Format::Q3_K, Format::F32));
    assert_eq!((of("token_embd.weight"), of("output.weight")), (Format::F16, Format::Q6_K));
    let file = Gguf::open(&out).unwrap();
    assert_eq!(file.require_string_array(keys::CHASKI_QUANTIZE_TENSOR_TYPES).unwrap().len, 2);
    for (pattern, says) in [
        ("ffn_down=Q8_0", "'*ffn_down*'"),
        ("*nowhere*=Q8_0", "no tensor matches"),
        ("*_norm.weight=Q8_0", "always stay"),
        ("*=Q9_9", "no format of weights"),
        ("Q8_0", "GLOB=FORMAT"),
        ("*=I32", "no format of weights"),
    ] {
        let done = quantize(&["--tensor-type", pattern]);
        assert!(done.code == Some(2) && done.stderr.contains(says), "{pattern}: {done:?}");
    }
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_K_XXL"]);
    assert!(done.code == Some(2) && done.stderr.contains("Q4_K_M"), "{done:?}");
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let (folder, source) = model(Format::F16);
    let out = folder.path().join("out.gguf");
    let table = run(&["quantize", arg(&source), arg(&out), "Q4_K_M", "--dry-run"]);
    assert_eq!((table.code, table.stderr.as_str()), (Some(0), ""));
    assert!(
        table.stdout.contains("blk.1.ffn_down.weight") && table.stdout.contains("F16 -> Q6_K"),
        "{}",
        table.stdout
    );
    let plan = run(&["quantize", arg(&source), arg(&out), "Q4_K_M", "--dry-run", "--json"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(names(folder.path()), ["source.gguf"]);
    assert_eq!(run(&["quantize", arg(&source), arg(&out), "Q4_K_M"]).code, Some(0));
    let file = Gguf::open(&out).unwrap();
    let bytes: u64 = file.tensors().iter().map(|t| t.bytes).sum();
    assert_eq!(plan["bytes_to"].as_u64(), Some(bytes));
    for (info, planned) in file.tensors().iter().zip(plan["tensors"].as_array().unwrap()) {
        assert_eq!(planned["to"].as_str(), Some(info.format.info().name));
    }
}

/// What a run needs besides its plan.
fn job<'a>(source: &'a Gguf, plan: &'a Plan, path: &'a Path) -> Job<'a> {
    Job { source, plan, path, metadata: Vec::new(), imatrix: None, threads: 2, measure: true }
}

#[test]
fn a_run_that_was_cut_off_is_taken_up_and_gives_the_same_bytes() {
    let (folder, source) = model(Format::F32);
    let source = Gguf::open(source).unwrap();
    let plan = Plan::new(&source, &PlanOptions::new(FileType::Q4_K_M)).unwrap();
    let (whole, cut) = (folder.path().join("whole.gguf"), folder.path().join("cut.gguf"));
    let go_on = &mut |_: quant::Progress<'_>| ControlFlow::Continue(());
    let Outcome::Done(expected) = quant::run(&job(&source, &plan, &whole), go_on).unwrap() else { panic!() };
    // Cut off again and again, each time some tensors later.
    let mut runs = 0;
    let written = loop {
        let mut seen = std::collections::HashSet::new();
        let outcome = quant::run(&job(&source, &plan, &cut), &mut |at| {
            seen.insert(at.tensor.to_owned());
            if seen.len() > 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match outcome.unwrap() {
            Outcome::Done(written) => break written,
            Outcome::Stopped { tensors } => {
                runs += 1;
                assert_eq!(tensors, runs * 4);
                assert!(!cut.exists(), "the name is for whole files");
            }
        }
    };
    assert!(runs >= 3 && written.resumed == runs * 4, "{runs} {written:?}");
    assert_eq!(fs::read(&cut).unwrap(), fs::read(&whole).unwrap());
    let shown = |measures: &[Option<quant::Measures>]| -> Vec<Option<String>> {
        // The journal keeps all but the last digit.
        measures
            .iter()
            .map(|m| m.as_ref().map(|m| format!("{:.9e} {:?}", m.mse, m.worst_columns[0].0)))
            .collect()
    };
    assert_eq!(shown(&written.measures), shown(&expected.measures));
    assert_eq!(names(folder.path()), ["cut.gguf", "source.gguf", "whole.gguf"]);
}

#[test]
fn what_an_other_plan_left_is_not_taken_up() {
    let (folder, source) = model(Format::F32);
    let source = Gguf::open(source).unwrap();
    let out = folder.path().join("out.gguf");
    let mut left = 0;
    for (file_type, stop) in [(FileType::Q4_K_M, true), (FileType::Q5_K_M, false)] {
        let plan = Plan::new(&source, &PlanOptions::new(file_type)).unwrap();
        let mut calls = 0;
        let outcome = quant::run(&job(&source, &plan, &out), &mut |_| {
            calls += 1;
            if stop && calls > 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match outcome.unwrap() {
            Outcome::Stopped { tensors } => left = tensors,
            Outcome::Done(written) => assert_eq!(written.resumed, 0),
        }
    }
    assert!(left > 0);
    assert_eq!(formats(&out).iter().filter(|(_, f)| *f == Format::Q4_K).count(), 0);
}

#[test]
fn a_partial_file_that_was_cut_short_is_not_trusted() {
    let (folder, source) = model(Format::F32);
    let source = Gguf::open(source).unwrap();
    let plan = Plan::new(&source, &PlanOptions::new(FileType::Q8_0)).unwrap();
    let out = folder.path().join("out.gguf");
    let mut calls = 0;
    let stop = &mut |_: quant::Progress<'_>| {
        calls += 1;
        if calls > 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    quant::run(&job(&source, &plan, &out), stop).unwrap();
    fs::File::options()
        .write(true)
        .open(folder.path().join("out.gguf.partial"))
        .unwrap()
        .set_len(100)
        .unwrap();
    let Outcome::Done(written) =
        quant::run(&job(&source, &plan, &out), &mut |_| ControlFlow::Continue(())).unwrap()
    else {
        panic!()
    };
    assert_eq!(written.resumed, 0);
    Gguf::open(&out).unwrap();
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    tiny.tensor("blk.1.ffn_up.weight").bytes[4 * 1000..4 * 1001]
        .copy_from_slice(&f32::INFINITY.to_le_bytes());
    let source = folder.path().join("source.gguf");
    fs::write(&source, tiny.bytes()).unwrap();
    let out = folder.path().join("out.gguf");
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_K_M"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("blk.1.ffn_up.weight: value 1000 is inf"), "{done:?}");
    assert!(!out.exists());
}

#[test]
fn an_output_that_cannot_be_is_refused_before_the_first_byte() {
    let (folder, source) = model(Format::F32);
    let before = fs::read(&source).unwrap();
    let nowhere = folder.path().join("no/such/folder/out.gguf");
    for (out, says) in
        [(&source, "the source itself"), (&folder.path().to_owned(), "is a folder"), (&nowhere, "not there")]
    {
        let done = run(&["quantize", arg(&source), arg(out), "Q8_0"]);
        assert!(done.code == Some(2) && done.stderr.contains(says), "{done:?}");
    }
    assert_eq!(fs::read(&source).unwrap(), before);
    assert_eq!(names(folder.path()), ["source.gguf"]);
    let missing = run(&["quantize", "nowhere.gguf", arg(&source), "Q8_0"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
}

#[test]
fn what_is_typed_wrongly_is_told_with_what_may_be_meant() {
    let (folder, source) = model(Format::F32);
    let (source, out) = (arg(&source), folder.path().join("out.gguf"));
    let out = arg(&out);
    fs::write(folder.path().join("imatrix.dat"), "x").unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&[source, out], 2, "which file type?"),
        (&[source, "Q4_K_M"], 2, "which file is to be written?"),
        (&[source, "Q4_K_M", out], 2, "the file to write is named before the file type"),
        (&[source, out, "Q4KM"], 2, "(is Q4_K_M meant?)"),
        (&[source, out, "Q4_K_M", "--imatrix", "nowhere.gguf"], 3, "nowhere.gguf: "),
        (&[arg(folder.path()), out, "Q8_0"], 3, "without config.json"),
        (&[arg(folder.path()), out, "Q8_0"], 3, "the GGUF file in it is"),
    ];
    for (words, code, says) in cases {
        let done = run(&[&["quantize"], *words].concat());
        assert!(done.code == Some(*code) && done.stderr.contains(says), "{words:?}: {done:?}");
    }
    assert_eq!(names(folder.path()), ["imatrix.dat", "source.gguf"]);
    let same = run(&["quantize", source, out, "F32"]);
    assert!(same.code == Some(0) && same.stderr.contains("no tensor changes its format"), "{same:?}");
}

#[test]
fn a_split_set_becomes_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let half = tiny.tensors.len() / 2;
    for (no, tensors) in [&tiny.tensors[..half], &tiny.tensors[half..]].iter().enumerate() {
        let mut writer = Writer::new();
        if no == 0 {
            for (key, value) in &tiny.keys {
                writer.set(key, value.clone()).unwrap();
            }
        }
        writer.set(keys::SPLIT_NO, no as u16).unwrap().set(keys::SPLIT_COUNT, 2u16).unwrap();
        writer.set(keys::SPLIT_TENSORS_COUNT, tiny.tensors.len() as i32).unwrap();
        for t in *tensors {
            writer.tensor(&t.name, &t.shape, t.format, &t.bytes).unwrap();
        }
        writer.save(folder.path().join(format!("m-0000{}-of-00002.gguf", no + 1))).unwrap();
    }
    let out = folder.path().join("out.gguf");
    let second = folder.path().join("m-00002-of-00002.gguf");
    let done = run(&["quantize", arg(&second), arg(&out), "Q8_0"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let file = Gguf::open(&out).unwrap();
    assert_eq!((file.n_shards(), file.tensors().len()), (1, tiny.tensors.len()));
    assert!(file.get(keys::SPLIT_COUNT).is_none());
}

#[test]
fn experts_matrices_are_counted_by_their_layer() {
    let source = Tiny::new("llama", true, Format::F32, false).unwrap().file();
    let plan = Plan::new(&source, &PlanOptions::new(FileType::MXFP4_MOE)).unwrap();
    for t in &plan.tensors {
        let expected = match t.name.as_str() {
            name if name.contains("_exps") => Format::MXFP4,
            _ if t.shape.len() == 1 => Format::F32,
            name if name.contains("gate_inp") => Format::F32,
            _ => Format::Q8_0,
        };
        assert_eq!(t.to, expected, "{}", t.name);
    }
    let mut options = PlanOptions::new(FileType::Q4_K_M);
    options.overrides.push((Glob::new("*"), Format::Q5_K));
    let plan = Plan::new(&source, &options).unwrap();
    assert!(plan.tensors.iter().all(|t| t.to == Format::Q5_K || t.to == Format::F32));
    options.overrides = vec![(Glob::new("*ffn_gate_inp*"), Format::Q5_K)];
    assert!(matches!(Plan::new(&source, &options), Err(QuantError::Pattern { .. })));
}

#[test]
fn what_was_lost_is_told_tensor_by_tensor() {
    let (folder, source) = model(Format::F32);
    let out = folder.path().join("out.gguf");
    let mut last = f64::INFINITY;
    for file_type in ["Q8_0", "Q6_K", "Q4_K_S", "Q3_K_S"] {
        let done = run(&["quantize", arg(&source), arg(&out), file_type, "--measure", "--json"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let tensors = value["tensors"].as_array().unwrap();
        let of = |name: &str| &tensors.iter().find(|t| t["name"] == name).unwrap()["measures"];
        assert!(of("blk.0.attn_norm.weight").is_null());
        let snr = of("blk.0.ffn_up.weight")["snr_db"].as_f64().unwrap();
        assert!(snr < last && snr > 5.0, "{file_type}: {snr} dB after {last} dB");
        last = snr;
        assert_eq!(value["file_bytes"].as_u64(), Some(fs::metadata(&out).unwrap().len()));
    }
    let table = run(&["quantize", arg(&source), arg(&out), "Q4_K_S", "--measure"]).stdout;
    assert!(table.lines().count() > 10 && table.contains("SNR dB"), "{table}");
}

/// Statistics of the feed-forward matrices of the tiny model: a few loud columns.
fn imatrix(columns: usize) -> Imatrix {
    let mut imatrix =
        Imatrix { datasets: vec!["some.txt".into()], chunks: 3, chunk_size: 512, ..Imatrix::default() };
    for layer in 0..2 {
        for part in ["ffn_up", "ffn_gate", "ffn_down"] {
            let sums = (0..columns).map(|c| if c % 16 == 0 { 2000.0 } else { 10.0 }).collect();
            let name = format!("blk.{layer}.{part}.weight");
            imatrix.entries.insert(name, Statistics { sums, counts: vec![10.0] });
        }
    }
    imatrix
}

#[test]
fn importances_are_read_used_and_told_in_the_file() {
    let (folder, source) = model(Format::F32);
    let (path, plain, weighted) = (
        folder.path().join("imatrix.gguf"),
        folder.path().join("plain.gguf"),
        folder.path().join("weighted.gguf"),
    );
    imatrix(256).save(&path).unwrap();
    assert_eq!(Imatrix::open(&path).unwrap(), imatrix(256));
    // Where there is no choice to be made, importances have no say, and that is told.
    let unused = run(&["quantize", arg(&source), arg(&weighted), "Q8_0", "--imatrix", arg(&path)]);
    assert!(unused.code == Some(2) && unused.stderr.contains("--imatrix has no effect"), "{unused:?}");
    assert_eq!(run(&["quantize", arg(&source), arg(&plain), "Q4_K_S"]).code, Some(0));
    let done = run(&["quantize", arg(&source), arg(&weighted), "Q4_K_S", "--imatrix", arg(&path)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("without importances") && done.stderr.contains("blk.0.attn_q.weight"),
        "{done:?}"
    );

    let (source, plain, weighted) =
        (Gguf::open(source).unwrap(), Gguf::open(plain).unwrap(), Gguf::open(weighted).unwrap());
    assert_eq!(weighted.require_str(keys::QUANTIZE_IMATRIX_DATASET).unwrap(), "some.txt");
    assert_eq!(weighted.require_u32(keys::QUANTIZE_IMATRIX_CHUNKS).unwrap(), 3);
    let values = |file: &Gguf, name: &str| {
        let tensor = file.require_tensor(name).unwrap();
        let mut out = vec![0.0; tensor.info.n_values() as usize];
        (tensor.info.format.info().decode)(tensor.bytes, &mut out);
        out
    };
    // What the loud columns lose, and what the others do.
    let loss = |file: &Gguf, name: &str, loud: bool| -> f64 {
        let pairs = values(file, name).into_iter().zip(values(&source, name)).enumerate();
        pairs.filter(|(i, _)| (i % 16 == 0) == loud).map(|(_, (a, b))| f64::from(a - b).powi(2)).sum()
    };
    for name in ["blk.0.ffn_up.weight", "blk.1.ffn_down.weight"] {
        assert!(loss(&weighted, name, true) < 0.8 * loss(&plain, name, true), "{name}");
        assert!(loss(&weighted, name, false) > loss(&plain, name, false), "{name}");
    }
    assert_eq!(values(&weighted, "blk.0.attn_q.weight"), values(&plain, "blk.0.attn_q.weight"));
}

#[test]
fn an_imatrix_of_another_model_or_with_bad_numbers_is_refused() {
    let (folder, source) = model(Format::F32);
    let (path, out) = (folder.path().join("imatrix.gguf"), folder.path().join("out.gguf"));
    let mut cases =
        vec![(imatrix(128), "weight: 128 importances for 1 matrices, but the tensor has 256 columns")];
    let mut other = Imatrix::default();
    other.entries.insert("blk.77.x.weight".into(), Statistics { sums: vec![1.0; 4], counts: vec![1.0] });
    cases.push((other, "says nothing of any tensor"));
    for (value, says) in [(f32::NAN, "NaN"), (-1.0, "-1")] {
        let mut bad = imatrix(256);
        bad.entries.get_mut("blk.1.ffn_up.weight").unwrap().sums[7] = value;
        cases.push((bad, says));
    }
    cases.push((Imatrix::default(), "no tensor"));
    for (imatrix, says) in cases {
        imatrix.save(&path).unwrap();
        let done = run(&["quantize", arg(&source), arg(&out), "Q4_K_S", "--imatrix", arg(&path)]);
        assert!(done.code == Some(3) && done.stderr.contains(says), "{says}: {done:?}");
        assert!(!out.exists());
    }
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_K_S", "--imatrix", arg(&source)]);
    assert!(done.code == Some(3) && done.stderr.contains("not an importance matrix"), "{done:?}");
}

#[test]
fn a_column_that_nothing_met_has_no_say() {
    let silent = Statistics { sums: vec![0.0, 0.0, 4.0, 8.0], counts: vec![0.0, 2.0] };
    assert_eq!(silent.importance(), [1.0, 1.0, 2.0, 4.0]);
}
