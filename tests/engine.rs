//! The engine's promises: what a token's logits are does not depend on what shares the batch or the cache with it, on how
//! a prompt is cut, or on what happened before; and an error leaves the cache as it was. To the last bit that holds for
//! engines that are asked for it; the others have faster kernels for many tokens at once, which round differently.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use chaski::engine::{BatchToken, Engine, EngineError, Interrupted, Session};
use chaski::kv::CellsError;
use chaski::measure::perplexity;
use chaski::model::{ARCHS, Model};
use chaski_gguf::Format;
use common::tiny::{Tiny, VOCAB, decode, ids, options, sequence};

/// One model for each kind of matrix kernel: floats, blocks of 32, blocks of 256, and experts.
fn models() -> Vec<(String, Arc<Model>)> {
    let forms = [
        ("llama", false, Format::F32),
        ("qwen2", false, Format::Q8_0),
        ("qwen3", false, Format::Q4_K),
        ("llama", true, Format::Q4_0),
    ];
    forms
        .into_iter()
        .map(|(arch, experts, format)| {
            assert!(ARCHS.iter().any(|a| a.name() == arch));
            let tiny = Tiny::new(arch, experts, format, false).unwrap();
            (format!("{arch} {format} experts: {experts}"), tiny.model().unwrap())
        })
        .collect()
}

fn engine(model: &Arc<Model>, n_ctx: usize, n_ubatch: usize) -> Engine {
    let mut options = options(2, n_ctx, n_ubatch);
    options.cpu.invariant = true;
    Engine::new(model.clone(), options).unwrap()
}

fn fast_engine(model: &Arc<Model>, threads: usize, n_ubatch: usize) -> Engine {
    Engine::new(model.clone(), options(threads, 128, n_ubatch)).unwrap()
}

fn rows(logits: &[f32], at: impl IntoIterator<Item = usize>) -> Vec<f32> {
    at.into_iter().flat_map(|i| logits[i * VOCAB..(i + 1) * VOCAB].to_vec()).collect()
}

#[test]
fn a_prompt_gives_the_same_bits_however_it_is_cut() {
    for (name, model) in models() {
        let prompt = sequence(0, 0, &ids(70, 3));
        let whole = decode(&mut engine(&model, 128, 128), &prompt);
        for n_ubatch in [1, 7, 64] {
            let cut = decode(&mut engine(&model, 128, n_ubatch), &prompt);
            assert!(cut == whole, "{name}: micro-batches of {n_ubatch}");
        }
    }
}

#[test]
fn many_tokens_at_once_give_the_same_bits_for_any_number_of_threads_and_nearly_those_of_one_by_one() {
    for (name, model) in models() {
        let prompt = sequence(0, 0, &ids(70, 3));
        let whole = decode(&mut fast_engine(&model, 2, 128), &prompt);
        for threads in [1, 3] {
            assert!(
                decode(&mut fast_engine(&model, threads, 128), &prompt) == whole,
                "{name}: {threads} threads"
            );
        }
        // Parts that are all of many tokens. How many tokens choose an expert depends on the cut.
        if !name.ends_with("experts: true") {
            for n_ubatch in [24, 35] {
                let cut = decode(&mut fast_engine(&model, 2, n_ubatch), &prompt);
                assert!(cut == whole, "{name}: micro-batches of {n_ubatch}");
            }
        }
        let one_by_one = decode(&mut engine(&model, 128, 1), &prompt);
        let square = |x: &f32| f64::from(*x) * f64::from(*x);
        let error: f64 = whole.iter().zip(&one_by_one).map(|(a, b)| square(&(a - b))).sum();
        let error = error / one_by_one.iter().map(square).sum::<f64>();
        // A last bit may turn the rounding of an activation to 8 bits.
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn sequences_side_by_side_give_the_bits_of_each_alone() {
    for (name, model) in models() {
        let texts: Vec<Vec<u32>> = (0..3).map(|s| ids(9 + 5 * s, s)).collect();
        let alone: Vec<Vec<f32>> =
            texts.iter().map(|t| decode(&mut engine(&model, 128, 64), &sequence(0, 0, t))).collect();
        // One after the other in one batch, and turn by turn.
        let parts: Vec<Vec<BatchToken>> =
            texts.iter().enumerate().map(|(s, t)| sequence(s as u32, 0, t)).collect();
        let joined = parts.concat();
        let mut mixed = joined.clone();
        mixed.sort_by_key(|t| (t.position, t.sequence));
        for batch in [joined, mixed] {
            for n_ubatch in [64, 5] {
                let all = decode(&mut engine(&model, 128, n_ubatch), &batch);
                for (s, want) in alone.iter().enumerate() {
                    let mine =
                        batch.iter().enumerate().filter(|(_, t)| t.sequence == s as u32).map(|(i, _)| i);
                    assert!(rows(&all, mine) == *want, "{name}: sequence {s}, micro-batches of {n_ubatch}");
                }
            }
        }
    }
}

#[test]
fn a_copied_prefix_is_as_good_as_a_second_reading() {
    for (name, model) in models() {
        let (prefix, a, b) = (ids(20, 1), ids(6, 2), ids(8, 5));
        let continued = |tail: &[u32]| {
            let mut one = engine(&model, 64, 64);
            decode(&mut one, &sequence(0, 0, &prefix));
            decode(&mut one, &sequence(0, prefix.len(), tail))
        };
        let mut shared = engine(&model, 64, 64);
        decode(&mut shared, &sequence(0, 0, &prefix));
        shared.cells().copy(0, 1, 0..prefix.len() as u32).unwrap();
        let free = shared.cells().free();
        assert_eq!(free, 64 - prefix.len(), "a copy takes no cells");
        assert!(decode(&mut shared, &sequence(0, prefix.len(), &a)) == continued(&a), "{name}: first");
        assert!(decode(&mut shared, &sequence(1, prefix.len(), &b)) == continued(&b), "{name}: second");
    }
}

#[test]
fn a_sequence_that_is_cut_goes_on_as_if_the_rest_had_never_been() {
    for (name, model) in models() {
        let (kept, dropped, new) = (ids(15, 1), ids(10, 2), ids(10, 7));
        let want = decode(&mut engine(&model, 64, 64), &sequence(0, 0, &[&kept[..], &new].concat()));
        let mut engine = engine(&model, 64, 64);
        decode(&mut engine, &sequence(0, 0, &[&kept[..], &dropped].concat()));
        engine.cells().truncate(0, kept.len() as u32).unwrap();
        let got = decode(&mut engine, &sequence(0, kept.len(), &new));
        assert!(got == rows(&want, 15..25), "{name}");
    }
}

#[test]
fn logits_come_for_the_rows_that_want_them_none_some_or_all() {
    for (name, model) in models() {
        let prompt = sequence(0, 0, &ids(12, 4));
        let all = decode(&mut engine(&model, 32, 32), &prompt);
        let choices: [&dyn Fn(usize) -> bool; 5] =
            [&|_| false, &|i| i == 11, &|i| i == 0, &|i| i % 3 == 1, &|_| true];
        for (number, wanted) in choices.into_iter().enumerate() {
            for n_ubatch in [32, 5, 1] {
                let mut batch = prompt.clone();
                batch.iter_mut().enumerate().for_each(|(i, t)| t.logits = wanted(i));
                let mut engine = engine(&model, 32, n_ubatch);
                let got = decode(&mut engine, &batch);
                assert!(
                    got == rows(&all, (0..12).filter(|i| wanted(*i))),
                    "{name}: choice {number}, {n_ubatch}"
                );
                // The cache is filled all the same.
                let next = decode(&mut engine, &sequence(0, 12, &[5]));
                let mut whole = self::engine(&model, 32, 32);
                decode(&mut whole, &prompt);
                assert!(
                    next == decode(&mut whole, &sequence(0, 12, &[5])),
                    "{name}: choice {number}, {n_ubatch}"
                );
            }
        }
    }
}

#[test]
fn a_full_cache_is_an_error_that_changes_nothing() {
    let (_, model) = models().remove(0);
    let (text, more) = (ids(14, 1), ids(4, 9));
    let mut full = engine(&model, 16, 64);
    decode(&mut full, &sequence(0, 0, &text));
    let mut out = vec![7.0];
    let error = full.decode(&sequence(0, 14, &more), &mut out).unwrap_err();
    assert!(
        matches!(error, EngineError::Cells(CellsError::Full { needed: 4, free: 2, capacity: 16 })),
        "{error}"
    );
    assert_eq!(out, [7.0], "no logits of a batch that failed");
    assert_eq!(full.cells().next_pos(0), 14);
    // What fits still does, with the same bits as ever.
    let want = decode(&mut engine(&model, 64, 64), &sequence(0, 0, &[&text[..], &more[..2]].concat()));
    assert!(decode(&mut full, &sequence(0, 14, &more[..2])) == rows(&want, 14..16));
    // And once there is room again, so does the rest.
    full.cells().truncate(0, 10).unwrap();
    assert!(decode(&mut full, &sequence(0, 10, &text[10..])) == rows(&want, 10..14));
}

#[test]
fn tokens_sequences_and_positions_that_do_not_exist_are_refused_and_change_nothing() {
    let (_, model) = models().remove(0);
    let mut engine = engine(&model, 32, 8);
    decode(&mut engine, &sequence(0, 0, &ids(5, 1)));
    let mut bad = sequence(0, 5, &ids(12, 2));
    bad[10].id = VOCAB as u32;
    let mut out = Vec::new();
    let error = engine.decode(&bad, &mut out).unwrap_err();
    assert!(matches!(error, EngineError::Token { id: 96, index: 10, n_vocab: 96 }), "{error}");
    for bad in [sequence(9, 0, &[1]), sequence(0, 3, &[1]), sequence(0, u32::MAX as usize, &[1])] {
        assert!(matches!(engine.decode(&bad, &mut out), Err(EngineError::Cells(_))));
    }
    assert!(out.is_empty());
    assert_eq!((engine.cells().next_pos(0), engine.cells().free()), (5, 27));
    assert!(decode(&mut engine, &[]).is_empty());
}

#[test]
fn logits_that_are_not_finite_are_an_error_and_what_was_read_is_forgotten() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let row = 7 * 256 * 4;
    tiny.tensor("token_embd.weight").bytes[row..row + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut engine = engine(&tiny.model().unwrap(), 32, 4);
    let mut out = Vec::new();
    let error = engine.decode(&sequence(0, 0, &[1, 2, 3, 4, 5, 7]), &mut out).unwrap_err();
    assert!(matches!(error, EngineError::NotFinite { index: 5, .. }), "{error}");
    assert_eq!(engine.cells().next_pos(0), 4, "the micro-batch before the one that failed stays");
    assert_eq!(decode(&mut engine, &sequence(0, 4, &[5, 6])).len(), 2 * VOCAB);
}

#[test]
fn with_checks_the_first_node_that_is_not_finite_is_named() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    tiny.tensor("blk.1.ffn_up.weight").bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut options = options(2, 32, 8);
    options.cpu.check = true;
    let mut engine = Engine::new(tiny.model().unwrap(), options).unwrap();
    let error = engine.decode(&sequence(0, 0, &[1, 2, 3]), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("node ffn_up-1: ") && error.contains("element 0 of row 0"), "{error}");
}

/// Reads `tokens` and gives the logits and how many tokens were evaluated.
fn read(session: &mut Session, tokens: &[u32]) -> (Vec<f32>, usize) {
    let mut evaluated = 0;
    let result = session.set_tokens(tokens, &mut |_, all| {
        evaluated = all;
        ControlFlow::Continue(())
    });
    assert_eq!(result.unwrap(), Interrupted(false));
    assert_eq!(session.tokens(), tokens);
    (session.logits().to_vec(), evaluated)
}

#[test]
fn a_session_evaluates_only_what_is_new() {
    let (_, model) = models().remove(1);
    let fresh = |tokens: &[u32]| read(&mut Session::new(engine(&model, 64, 8)), tokens);
    let mut session = Session::new(engine(&model, 64, 8));
    let text = ids(30, 1);
    assert_eq!(read(&mut session, &text[..20]), fresh(&text[..20]));
    // More of the same: the rest alone.
    assert_eq!(read(&mut session, &text), (fresh(&text).0, 10));
    // The same again: nothing at all.
    assert_eq!(read(&mut session, &text), (fresh(&text).0, 0));
    // Less of it: the last token, for its logits.
    assert_eq!(read(&mut session, &text[..12]), (fresh(&text[..12]).0, 1));
    // Another end: from where they part.
    let other = [&text[..9], &ids(8, 6)].concat();
    let parted = session.common_prefix(&other);
    assert!(parted >= 9);
    assert_eq!(read(&mut session, &other), (fresh(&other).0, other.len() - parted));
    // A token pushed counts as read.
    let pushed = session.push(11).unwrap().to_vec();
    let longer = [&other[..], &[11]].concat();
    assert_eq!(read(&mut session, &longer), (pushed, 0));
    // After a cut there are no logits, so the last token is read again.
    session.truncate(5).unwrap();
    assert!(session.logits().is_empty());
    assert_eq!(read(&mut session, &longer[..5]), (fresh(&longer[..5]).0, 1));
    assert_eq!(read(&mut session, &[]), (Vec::new(), 0));
}

#[test]
fn a_reading_that_is_interrupted_keeps_what_was_read_and_goes_on_from_there() {
    let (_, model) = models().remove(1);
    let text = ids(30, 1);
    let mut session = Session::new(engine(&model, 64, 8));
    let mut seen = Vec::new();
    let result = session.set_tokens(&text, &mut |done, all| {
        seen.push((done, all));
        if done >= 16 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(result.unwrap(), Interrupted(true));
    assert_eq!(seen, [(0, 30), (8, 30), (16, 30)]);
    assert_eq!(session.tokens(), &text[..16]);
    assert!(session.logits().is_empty(), "there are none for a prompt that was not read to its end");
    let (logits, evaluated) = read(&mut session, &text);
    assert_eq!(evaluated, 14);
    assert_eq!(logits, read(&mut Session::new(engine(&model, 64, 8)), &text).0);
}

#[test]
fn a_session_that_fills_its_cache_says_so_and_stays_usable() {
    let (_, model) = models().remove(1);
    let mut session = Session::new(engine(&model, 16, 8));
    let error = session.set_tokens(&ids(20, 1), &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, EngineError::Cells(CellsError::Full { .. })), "{error}");
    assert_eq!(session.tokens(), &ids(20, 1)[..16], "what was read before the error stays");
    assert_eq!(read(&mut session, &ids(20, 1)[..10]).1, 1);
}

#[test]
fn a_token_beyond_the_vocabulary_is_refused_before_a_text_is_scored() {
    let model = Tiny::new("llama", false, Format::F32, true).unwrap().model().unwrap();
    let mut engine = engine(&model, 8, 4);
    let go_on = &mut |_| ControlFlow::Continue(());
    let mut text = ids(16, 1);
    assert_eq!(perplexity(&mut engine, &text, None, 8, None, go_on).unwrap().unwrap().tokens, 6);
    // The first token of a micro-batch is scored by the last of the one before.
    text[12] = VOCAB as u32;
    let error = perplexity(&mut engine, &text, None, 8, None, go_on).unwrap_err();
    assert!(matches!(error, EngineError::Token { index: 12, .. }), "{error}");
    for ctx in 0..3 {
        assert!(perplexity(&mut engine, &ids(16, 1), None, ctx, None, go_on).unwrap().is_none(), "{ctx}");
    }
}
