//! What `chaski bench` counts: the bytes and the arithmetic of a test, and the times of the nodes.

mod common;

use std::ops::ControlFlow;
use std::time::Duration;

use chaski::engine::Engine;
use chaski::kv::KvFormat;
use chaski::measure::bench::{Kind, Test, run, work};
use chaski::model::{KvChoice, Model};
use chaski_gguf::Format;
use common::tiny::{LAYERS, Tiny, decode, ids, options, sequence};

const KV: (KvFormat, KvFormat) = (KvFormat::F16, KvFormat::Q8_0);

fn test(kind: Kind, count: usize, depth: usize) -> Test {
    Test { kind, count, depth }
}

fn all_bytes(model: &Model) -> u64 {
    model.weights().list().iter().map(|w| w.bytes).sum()
}

/// Elements of the matrices that every token is multiplied with.
fn elements(model: &Model) -> f64 {
    let matrices =
        model.weights().list().iter().filter(|w| w.shape.rows() > 1 && w.name != "token_embd.weight");
    matrices.map(|w| w.shape.len() as f64).sum()
}

#[test]
fn a_generated_token_reads_every_weight_once_and_a_row_of_the_embedding() {
    for tied in [false, true] {
        let model = Tiny::new("llama", false, Format::Q8_0, tied).unwrap().model().unwrap();
        let work = work(&model, &test(Kind::Generate, 9, 100), KvChoice::new(KV.0, KV.1), 512).unwrap();
        let (_, embedding) = model.weights().get("token_embd.weight").unwrap();
        let row = embedding.bytes / embedding.shape.rows() as u64;
        let want = if tied { all_bytes(&model) } else { all_bytes(&model) - embedding.bytes + row };
        assert_eq!(work.weight_bytes, want, "tied: {tied}");
        // Tokens at 100 to 108 see 101 to 109 cells: 105 on the average, of 2 heads of 64 values in each layer.
        let cell = u64::from(LAYERS) * 2 * (KV.0.row_bytes(64) + KV.1.row_bytes(64)) as u64;
        assert_eq!(work.kv_bytes, 105.0 * cell as f64);
        let output = if tied { embedding.shape.len() as f64 } else { 0.0 };
        assert_eq!(work.ops, 2.0 * (elements(&model) + output));
    }
}

#[test]
fn a_prompt_needs_less_than_all_products_since_its_last_layer_serves_one_row() {
    let model = Tiny::new("llama", false, Format::Q8_0, false).unwrap().model().unwrap();
    let kv = KvChoice::new(KV.0, KV.1);
    let full = 2.0 * elements(&model);
    let ops = |count, n_ubatch| work(&model, &test(Kind::Prompt, count, 0), kv, n_ubatch).unwrap().ops;
    assert!(ops(64, 64) < full && ops(64, 64) > full / 2.0 / f64::from(LAYERS), "{} of {full}", ops(64, 64));
    assert_eq!(ops(1, 64), full, "a single token");
    // One of four micro-batches has a wanted row.
    assert_eq!(ops(64, 16), ops(64, 64));
}

#[test]
fn experts_count_as_often_as_they_are_used() {
    let model = Tiny::new("llama", true, Format::Q8_0, false).unwrap().model().unwrap();
    let kv = KvChoice::new(KV.0, KV.1);
    let of_experts: u64 =
        model.weights().list().iter().filter(|w| w.name.contains("_exps")).map(|w| w.bytes).sum();
    let (_, embedding) = model.weights().get("token_embd.weight").unwrap();
    let row = embedding.bytes / embedding.shape.rows() as u64;
    let work = work(&model, &test(Kind::Generate, 1, 0), kv, 512).unwrap();
    // Two of four.
    assert_eq!(work.weight_bytes, all_bytes(&model) - embedding.bytes + row - of_experts / 2);
}

#[test]
fn every_repetition_and_every_token_has_its_time() {
    let model = Tiny::new("llama", false, Format::Q8_0, false).unwrap().model().unwrap();
    let mut engine = Engine::new(model, options(2, 64, 16)).unwrap();
    let go_on = &mut |_| ControlFlow::Continue(());
    let generated = run(&mut engine, &test(Kind::Generate, 8, 20), 3, go_on).unwrap();
    assert_eq!((generated.repetitions.len(), generated.tokens.len()), (3, 24));
    assert!(generated.tokens.iter().sum::<Duration>() <= generated.repetitions.iter().sum());
    let read = run(&mut engine, &test(Kind::Prompt, 40, 24), 2, go_on).unwrap();
    assert_eq!((read.repetitions.len(), read.tokens.len()), (2, 0));
}

#[test]
fn a_watcher_ends_a_test_between_repetitions() {
    let model = Tiny::new("llama", false, Format::Q8_0, false).unwrap().model().unwrap();
    let mut engine = Engine::new(model, options(1, 64, 16)).unwrap();
    let watch = &mut |done| if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let times = run(&mut engine, &test(Kind::Generate, 4, 0), 5, watch).unwrap();
    assert_eq!(times.repetitions.len(), 2);
}

#[test]
fn a_profile_accounts_for_every_product_and_its_weights() {
    let model = Tiny::new("llama", false, Format::Q8_0, false).unwrap().model().unwrap();
    let matrices: Vec<u64> = model
        .weights()
        .list()
        .iter()
        .filter(|w| w.shape.rows() > 1 && w.name != "token_embd.weight")
        .map(|w| w.bytes)
        .collect();
    for threads in [1, 2] {
        let mut engine = Engine::new(model.clone(), options(threads, 64, 16)).unwrap();
        decode(&mut engine, &sequence(0, 0, &ids(3, 0)));
        assert!(engine.profile(true).is_none(), "nothing was asked for");
        decode(&mut engine, &sequence(0, 3, &ids(1, 0)));
        decode(&mut engine, &sequence(0, 4, &ids(1, 0)));
        let profile = engine.profile(false).expect("a profile");
        let rows = profile.rows();
        let products = rows.iter().find(|r| r.op == "matmul" && r.how.contains("Q8_0")).expect("a row");
        assert_eq!(products.calls, 2 * matrices.len() as u64);
        assert_eq!(products.weight_bytes, 2 * matrices.iter().sum::<u64>());
        assert!(products.time > Duration::ZERO);
        assert_eq!(
            rows.iter().filter(|r| r.op == "attention").map(|r| r.calls).sum::<u64>(),
            2 * u64::from(LAYERS)
        );
        assert!(rows.iter().map(|r| r.time).sum::<Duration>() <= profile.total() + Duration::from_micros(1));
    }
}
