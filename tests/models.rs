//! Every architecture of the table runs with every weight format, and a file whose parts do not fit together is refused
//! with the name of the key or tensor at fault.

mod common;

use std::sync::Arc;

use chaski::engine::Engine;
use chaski::model::{ARCHS, Model, ModelError, RopeOptions};
use chaski_gguf::{Format, OwnedValue};
use common::tiny::{EMBD, Tensor, Tiny, VOCAB, decode, ids, nmse, options, sequence};

/// Every architecture in every form it has: name, with experts, tied.
fn forms() -> Vec<(&'static str, bool, bool)> {
    let all = ARCHS
        .iter()
        .flat_map(|a| [(false, false), (true, false), (false, true)].map(|(e, t)| (a.name(), e, t)));
    all.filter(|(arch, experts, tied)| Tiny::new(arch, *experts, Format::F32, *tied).is_some()).collect()
}

fn float_or_block(format: Format) -> bool {
    !matches!(format, Format::I8 | Format::I16 | Format::I32 | Format::I64)
}

fn logits(tiny: &Tiny, threads: usize, exact: bool) -> Vec<f32> {
    let mut options = options(threads, 32, 8);
    options.cpu.exact = exact;
    let mut engine = Engine::new(tiny.model().unwrap(), options).unwrap();
    decode(&mut engine, &sequence(0, 0, &ids(11, 1)))
}

#[test]
fn every_architecture_runs_with_every_weight_format() {
    let forms = forms();
    assert!(ARCHS.iter().all(|a| forms.iter().any(|(arch, ..)| *arch == a.name())));
    for (arch, experts, tied) in forms {
        for &format in Format::ALL.iter().filter(|f| float_or_block(**f)) {
            let what = format!("{arch}, {format}, experts: {experts}, tied: {tied}");
            let tiny = Tiny::new(arch, experts, format, tied).unwrap();
            let matrices = tiny.tensors.iter().filter(|t| t.shape.len() > 1 && t.format == format).count();
            assert!(matrices >= 8, "{what}: {matrices} matrices in this format");
            let one = logits(&tiny, 1, false);
            assert!(one.len() == 11 * VOCAB && one.iter().all(|v| v.is_finite()), "{what}");
            let spread =
                one.iter().copied().fold(f32::MIN, f32::max) - one.iter().copied().fold(f32::MAX, f32::min);
            assert!(spread > 0.1, "{what}: logits say nothing");
            assert!(one == logits(&tiny, 3, false), "{what}: 3 threads differ");
            let error = nmse(&one, &logits(&tiny, 2, true));
            // Which experts are chosen may tip over.
            let limit = if experts { 5e-2 } else { 2e-3 };
            assert!(error <= limit, "{what}: rounded activations are off by {error:.1e}");
        }
    }
}

/// What must be refused, and the name that the message must hold.
type Damage = (&'static str, fn(&mut Tiny), &'static str);

const KEYS: &[Damage] = &[
    ("no heads", |t| t.set("attention.head_count", 0u32), "attention.head_count"),
    ("no K heads", |t| t.set("attention.head_count_kv", 0u32), "attention.head_count_kv"),
    ("uneven K heads", |t| t.set("attention.head_count_kv", 3u32), "attention.head_count_kv"),
    ("more K heads than heads", |t| t.set("attention.head_count_kv", 8u32), "attention.head_count_kv"),
    ("heads that do not divide", |t| t.set("attention.head_count", 6u32), "attention."),
    ("an odd rotation", |t| t.set("rope.dimension_count", 63u32), "rope.dimension_count"),
    ("a rotation beyond the head", |t| t.set("rope.dimension_count", 66u32), "rope.dimension_count"),
    ("no layers", |t| t.set("block_count", 0u32), "block_count"),
    ("absurdly many layers", |t| t.set("block_count", u32::MAX), "block_count"),
    ("layers as 64 bits", |t| t.set("block_count", u64::MAX), "block_count"),
    ("negative layers", |t| t.set("block_count", -1i32), "block_count"),
    ("layers as text", |t| t.set("block_count", "2"), "block_count"),
    ("absurdly wide", |t| t.set("embedding_length", u32::MAX), "embedding_length"),
    ("absurd feed-forward", |t| t.set("feed_forward_length", u32::MAX), "feed_forward_length"),
    ("an absurd context", |t| t.set("context_length", u32::MAX), "context_length"),
    ("no context", |t| t.unset("context_length"), "context_length"),
    ("no width", |t| t.unset("embedding_length"), "embedding_length"),
    ("no layer count", |t| t.unset("block_count"), "block_count"),
    ("no head count", |t| t.unset("attention.head_count"), "attention.head_count"),
    ("an absurd head", |t| t.set("attention.key_length", u32::MAX), "attention.key_length"),
    ("epsilon NaN", |t| t.set("attention.layer_norm_rms_epsilon", f32::NAN), "layer_norm_rms_epsilon"),
    ("epsilon negative", |t| t.set("attention.layer_norm_rms_epsilon", -1.0f32), "layer_norm_rms_epsilon"),
    ("base NaN", |t| t.set("rope.freq_base", f32::NAN), "rope.freq_base"),
    ("base infinite", |t| t.set("rope.freq_base", f32::INFINITY), "rope.freq_base"),
    ("base negative", |t| t.set("rope.freq_base", -1.0f32), "rope.freq_base"),
    ("factor NaN", |t| t.set("rope.scaling.factor", f32::NAN), "rope.scaling.factor"),
    ("factor negative", |t| t.set("rope.scaling.factor", -2.0f32), "rope"),
    ("factor too small", |t| t.set("rope.scaling.factor", 1e-40f32), "rope.scaling.factor"),
    ("unknown scaling", |t| t.set("rope.scaling.type", "wavy"), "rope.scaling.type"),
    ("scaling of another type", |t| t.set("rope.scaling.type", 3u32), "rope.scaling.type"),
    ("magnitude NaN", |t| t.set("rope.scaling.attn_factor", f32::NAN), "rope.scaling.attn_factor"),
    ("beta NaN", |t| t.set("rope.scaling.yarn_beta_fast", f32::NAN), "rope.scaling.yarn_beta_fast"),
    ("an unknown architecture", |t| t.set("general.architecture", "mamba9"), "mamba9"),
];

const EXPERT_KEYS: &[Damage] = &[
    ("more experts used than there are", |t| t.set("expert_used_count", 5u32), "expert_used_count"),
    ("no experts used", |t| t.set("expert_used_count", 0u32), "expert_used_count"),
    ("absurdly many experts", |t| t.set("expert_count", u32::MAX), "expert_count"),
    ("use not said", |t| t.unset("expert_used_count"), "expert_used_count"),
    ("an absurd expert", |t| t.set("expert_feed_forward_length", u32::MAX), "expert_feed_forward_length"),
];

fn refused(what: &str, tiny: &Tiny, named: &str) {
    let Err(error) = tiny.model() else { panic!("{}, {what}: taken for a model", tiny.arch) };
    let message = error.to_string();
    assert!(message.contains(named), "{}, {what}: {message:?} does not name {named}", tiny.arch);
    let of_model =
        matches!(error, ModelError::Key { .. } | ModelError::Tensor { .. } | ModelError::Architecture { .. });
    assert!(of_model, "{}, {what}: {error:?}", tiny.arch);
    assert!(message.len() < 400, "{}, {what}: {message}", tiny.arch);
}

#[test]
fn keys_that_cannot_be_true_are_refused_by_name() {
    for (arch, experts, _) in forms().into_iter().filter(|(_, _, tied)| !tied) {
        let good = Tiny::new(arch, experts, Format::F32, false).unwrap();
        good.model().unwrap();
        for (what, damage, named) in KEYS.iter().chain(if experts { EXPERT_KEYS } else { &[] }) {
            let mut bad = good.clone();
            damage(&mut bad);
            refused(what, &bad, named);
        }
    }
}

#[test]
fn every_tensor_that_is_missing_misshapen_or_of_integers_is_refused_by_name() {
    for (arch, experts, _) in forms().into_iter().filter(|(_, _, tied)| !tied) {
        let good = Tiny::new(arch, experts, Format::F32, false).unwrap();
        let wanted = Model::wanted(&good.file()).unwrap();
        for want in wanted {
            let at = good.tensors.iter().position(|t| t.name == want.name).unwrap();
            let mut bad = good.clone();
            bad.tensors.remove(at);
            if want.required {
                refused("a tensor is missing", &bad, &want.name);
            } else {
                bad.model().unwrap();
            }

            let mut bad = good.clone();
            let t = &mut bad.tensors[at];
            *t.shape.last_mut().unwrap() += 1;
            t.bytes.resize(4 * t.shape.iter().product::<u64>() as usize, 0);
            if want.name == "token_embd.weight" {
                // The vocabulary is as long as its embedding: the output no longer fits it.
                refused("a tensor is too long", &bad, "output.");
            } else {
                refused("a tensor is too long", &bad, &want.name);
            }

            let mut bad = good.clone();
            bad.tensors[at].format = Format::I32;
            refused("a tensor holds integers", &bad, &want.name);
        }
    }
}

#[test]
fn no_number_of_the_metadata_alone_reserves_memory() {
    // With every width at its limit the only tensors are small ones: the file is refused by their shapes.
    let mut tiny = Tiny::new("llama", true, Format::F32, false).unwrap();
    for key in ["embedding_length", "feed_forward_length", "expert_feed_forward_length"] {
        tiny.set(key, 1u32 << 24);
    }
    tiny.set("expert_count", 1u32 << 16);
    tiny.set("expert_used_count", 1u32 << 16);
    tiny.set("attention.head_count", 1u32 << 16);
    tiny.set("attention.head_count_kv", 1u32 << 16);
    tiny.set("attention.key_length", 1u32 << 14);
    tiny.set("attention.value_length", 1u32 << 14);
    refused("everything is as large as it may be", &tiny, "token_embd.weight");
}

#[test]
fn tensors_that_an_architecture_has_no_use_for_are_named() {
    let mut tiny = Tiny::new("llama", false, Format::F32, true).unwrap();
    assert_eq!(tiny.model().unwrap().unused().count(), 0);
    let extra = Tensor { name: "blk.1.attn_q.scale".into(), ..tiny.tensor("blk.1.attn_norm.weight").clone() };
    tiny.tensors.push(extra);
    assert_eq!(tiny.model().unwrap().unused().collect::<Vec<_>>(), ["blk.1.attn_q.scale"]);
}

#[test]
fn a_rope_scale_is_refused_where_the_file_scales_nothing() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    tiny.set("rope.scaling.type", "none");
    let read =
        |rope| Model::new(Arc::new(tiny.file()), &rope).map(|model| model.hparams().rope.params.freq_scale);
    let scale = RopeOptions { scale: Some(2.0), ..RopeOptions::default() };
    let said = read(scale.clone()).unwrap_err().to_string();
    assert!(said.contains("rope.scaling.type"), "{said}");
    assert_eq!(read(RopeOptions { scaling: Some("linear".into()), ..scale }).unwrap(), 0.5);
    assert_eq!(read(RopeOptions::default()).unwrap(), 1.0);
}

#[test]
fn counts_may_come_as_arrays_where_all_layers_agree() {
    let mut tiny = Tiny::new("llama", false, Format::F32, false).unwrap();
    let want = logits(&tiny, 1, false);
    tiny.set("attention.head_count_kv", OwnedValue::from(vec![2u32, 2]));
    assert!(want == logits(&tiny, 1, false));
    tiny.set("attention.head_count_kv", OwnedValue::from(vec![2u32, 1]));
    refused("layers differ", &tiny, "attention.head_count_kv");
    assert_eq!(EMBD, 256);
}
