//! What `imatrix` promises: sums of squares of exactly what meets each matrix, however the text is cut into micro-batches.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use chaski::engine::{Engine, Observed};
use chaski::model::RopeOptions;
use chaski::quant::{Calibration, Imatrix, calibrate};
use chaski_gguf::Format;
use common::tiny::{EMBD, Tiny, decode, ids, options, sequence};
use common::{arg, run, tiny_llama};

fn gather(tiny: &Tiny, tokens: &[u32], ctx: usize, n_ubatch: usize) -> Imatrix {
    let mut engine = Engine::open(tiny.file(), &RopeOptions::default(), options(2, ctx, n_ubatch)).unwrap();
    let wanted = Calibration { tokens, bos: None, ctx, most: None, output: true, dataset: "a text".into() };
    calibrate(&mut engine, &wanted, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn floats(tiny: &mut Tiny, name: &str) -> Vec<f32> {
    tiny.tensor(name).bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn the_first_matrices_meet_the_normed_embeddings() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let (tokens, row) = (ids(24, 3), EMBD as usize);
    let (embeddings, norm) =
        (floats(&mut tiny, "token_embd.weight"), floats(&mut tiny, "blk.0.attn_norm.weight"));
    let mut expected = vec![0f64; row];
    for id in &tokens {
        let x = &embeddings[*id as usize * row..][..row];
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row as f64;
        for ((sum, x), w) in expected.iter_mut().zip(x).zip(&norm) {
            *sum += (f64::from(*x) * f64::from(*w)).powi(2) / (mean + 1e-5);
        }
    }
    let found = gather(&tiny, &tokens, 24, 24);
    for name in ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"] {
        let entry = &found.entries[name];
        assert_eq!(entry.counts, [24.0]);
        for (c, (sum, expected)) in entry.sums.iter().zip(&expected).enumerate() {
            assert!((f64::from(*sum) / expected - 1.0).abs() < 1e-4, "{name} column {c}: {sum} {expected}");
        }
    }
    // Every token reaches every matrix of every layer, the last one's too.
    assert!(found.entries.values().all(|e| e.counts == [24.0]));
    assert_eq!(found.entries.len(), 2 * 7 + 1);
    assert_eq!((found.chunks, found.chunk_size), (1, 24));
}

#[test]
fn cutting_into_micro_batches_changes_nothing() {
    for experts in [false, true] {
        let tiny = Tiny::new("llama", experts, Format::F32, false).unwrap();
        let tokens = ids(64, 5);
        let (whole, cut) = (gather(&tiny, &tokens, 32, 32), gather(&tiny, &tokens, 32, 5));
        assert_eq!(whole.entries.keys().collect::<Vec<_>>(), cut.entries.keys().collect::<Vec<_>>());
        for (name, entry) in &whole.entries {
            assert_eq!(entry.counts, cut.entries[name].counts, "{name}");
            let total: f32 = entry.sums.iter().sum();
            for (a, b) in entry.sums.iter().zip(&cut.entries[name].sums) {
                assert!((a - b).abs() <= 1e-5 * total, "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn every_expert_counts_the_tokens_that_chose_it() {
    let tiny = Tiny::new("llama", true, Format::F32, false).unwrap();
    let found = gather(&tiny, &ids(64, 7), 64, 64);
    for layer in 0..2 {
        let of = |part: &str| &found.entries[&format!("blk.{layer}.{part}_exps.weight")];
        // Two of four experts a token.
        assert_eq!(of("ffn_up").counts.iter().sum::<f32>(), 128.0);
        assert_eq!(of("ffn_up").counts.len(), 4);
        assert_eq!(of("ffn_up"), of("ffn_gate"));
        assert_eq!(of("ffn_down").counts, of("ffn_up").counts);
        assert_eq!(of("ffn_up").sums.len(), 4 * EMBD as usize);
    }
}

#[test]
fn the_command_writes_what_quantize_reads() {
    let folder = tempfile::tempdir().unwrap();
    let source = tiny_llama().write(folder.path(), "source.gguf");
    let (text, matrix, out) =
        (folder.path().join("text.txt"), folder.path().join("imatrix.gguf"), folder.path().join("out.gguf"));
    fs::write(&text, "hello abc ab hello ".repeat(40)).unwrap();
    let gather = |flags: &[&str]| {
        run(&[&["imatrix", arg(&source), "-f", arg(&text), "-o", arg(&matrix), "-c", "32"], flags].concat())
    };
    let done = gather(&["--chunks", "2"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    let found = Imatrix::open(&matrix).unwrap();
    assert_eq!((found.chunks, found.chunk_size, found.entries.len()), (2, 32, 14));
    assert!(!found.entries.contains_key("output.weight"), "only on request");
    assert_eq!(gather(&["--process-output"]).code, Some(0));
    assert_eq!(Imatrix::open(&matrix).unwrap().entries.len(), 15);
    let done = run(&["quantize", arg(&source), arg(&out), "Q4_0", "--imatrix", arg(&matrix)]);
    assert_eq!(done.code, Some(0), "{done:?}");

    // What cannot be written is refused before the text is run.
    let over = run(&["imatrix", arg(&source), "-f", arg(&text), "-o", arg(&text), "-c", "32"]);
    assert!(over.code == Some(2) && over.stderr.contains("is an input of this command"), "{over:?}");
    let place = run(&["imatrix", arg(&source), "-f", arg(&text), "-o", arg(folder.path()), "-c", "32"]);
    assert!(place.code == Some(2) && place.stderr.contains("is a folder"), "{place:?}");

    fs::write(&text, "hello").unwrap();
    let short = gather(&[]);
    assert!(short.code == Some(3) && short.stderr.contains("do not fill a window"), "{short:?}");
    let model = run(&["run", arg(&matrix), "-p", "x"]);
    assert!(model.code == Some(3) && model.stderr.contains("imatrix"), "{model:?}");
}

#[test]
fn a_part_of_the_model_sees_what_it_sees_in_the_whole() {
    for experts in [false, true] {
        let tiny = Tiny::new("llama", experts, Format::F32, false).unwrap();
        let mut engine = Engine::open(tiny.file(), &RopeOptions::default(), options(2, 64, 16)).unwrap();
        let batch = sequence(0, 0, &ids(40, 2));
        let mut whole: Vec<(String, Vec<f32>)> = Vec::new();
        let seen = &mut |seen: &Observed<'_>| whole.push((seen.weight.to_owned(), seen.x.to_vec()));
        engine.observe(&batch, &mut Vec::new(), seen).unwrap();
        for layer in ["blk.0.", "blk.1."] {
            engine.cells().clear();
            let mut part: Vec<(String, Vec<f32>)> = Vec::new();
            let wanted = |name: &str| name.starts_with(layer);
            engine
                .observe_some(&batch, &wanted, &mut |seen| {
                    part.push((seen.weight.to_owned(), seen.x.to_vec()));
                })
                .unwrap();
            whole.iter().filter(|(name, _)| wanted(name)).zip(&part).for_each(|(a, b)| assert_eq!(a, b));
            assert_eq!(part.len(), whole.iter().filter(|(name, _)| wanted(name)).count());
        }
        // Ordinary evaluation afterwards is what it was.
        engine.cells().clear();
        let after = decode(&mut engine, &batch);
        let mut fresh = Engine::open(tiny.file(), &RopeOptions::default(), options(2, 64, 16)).unwrap();
        assert_eq!(after, decode(&mut fresh, &batch));
    }
}

#[test]
fn a_weight_that_takes_the_place_of_another_is_used_and_one_that_does_not_fit_is_refused() {
    let tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let mut other = tiny.clone();
    other.tensor("blk.1.ffn_up.weight").bytes.reverse();
    for value in other.tensor("blk.1.ffn_up.weight").bytes.as_chunks_mut::<4>().0 {
        *value = 0.01f32.to_le_bytes();
    }
    let batch = sequence(0, 0, &ids(16, 2));
    let expected =
        decode(&mut Engine::open(other.file(), &RopeOptions::default(), options(2, 64, 16)).unwrap(), &batch);
    let mut engine = Engine::open(tiny.file(), &RopeOptions::default(), options(2, 64, 16)).unwrap();
    assert!(decode(&mut engine, &batch) != expected);
    let mut one = other.clone();
    one.tensors.retain(|t| t.name == "blk.1.ffn_up.weight");
    engine.cells().clear();
    engine.replace(&Arc::new(one.file())).unwrap();
    assert_eq!(decode(&mut engine, &batch), expected);
    one.tensors[0].shape.swap(0, 1);
    one.tensors[0].shape[0] /= 2;
    one.tensors[0].shape[1] *= 2;
    assert!(engine.replace(&Arc::new(one.file())).is_err());
    one.tensors[0].name = "nothing.weight".into();
    assert!(engine.replace(&Arc::new(one.file())).is_err());
}
