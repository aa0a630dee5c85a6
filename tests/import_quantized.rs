//! Checkpoints that are quantized already: the integers of AWQ and GPTQ become blocks without being rounded again, 8-bit
//! floats keep their values, and what was lost all the same is told.

mod common;

use std::fs;

use chaski_gguf::{Format, Gguf};
use common::hf::{Folder, Raw, importable, noise};
use common::tiny::{Random, nmse};
use common::{Run, arg, run};
use half::f16;
use serde_json::json;

fn import(folder: &Folder, format: &str, more: &[&str]) -> (Option<Gguf>, Run) {
    let at = tempfile::tempdir().unwrap();
    let (source, out) = (at.path().join("model"), at.path().join("out.gguf"));
    fs::create_dir(&source).unwrap();
    folder.write(&source);
    let done = run(&[&["quantize", arg(&source), arg(&out), format], more].concat());
    assert_eq!(done.code == Some(0), out.exists(), "{done:?}");
    (Gguf::open(&out).ok(), done)
}

fn imported(folder: &Folder, format: &str, more: &[&str]) -> (Gguf, String) {
    let (file, done) = import(folder, format, more);
    (file.unwrap_or_else(|| panic!("{done:?}")), done.stderr)
}

fn values(file: &Gguf, name: &str) -> Vec<f32> {
    let tensor = file.require_tensor(name).unwrap();
    let mut out = vec![0.0; tensor.info.n_values() as usize];
    (tensor.info.format.info().decode)(tensor.bytes, &mut out);
    out
}

/// The modules of a layer that such checkpoints quantize.
const MODULES: &[&str] = &[
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A matrix of integers with a scale and a zero point for each group, and the group of each column.
struct Grouped {
    rows: usize,
    columns: usize,
    bits: usize,
    /// By row and column.
    quants: Vec<u32>,
    /// By group and row.
    zeros: Vec<u32>,
    scales: Vec<f16>,
    group_of: Vec<usize>,
}

impl Grouped {
    fn random(rows: usize, columns: usize, bits: usize, group: usize, symmetric: bool, seed: u64) -> Grouped {
        let mut random = Random(seed);
        let max = 1 << bits;
        let groups = columns.div_ceil(group);
        let zero =
            |random: &mut Random| if symmetric { max as u32 / 2 } else { 1 + random.below(max - 1) as u32 };
        Grouped {
            rows,
            columns,
            bits,
            quants: (0..rows * columns).map(|_| random.below(max) as u32).collect(),
            zeros: (0..groups * rows).map(|_| zero(&mut random)).collect(),
            scales: (0..groups * rows)
                .map(|_| f16::from_f32((1.5 + random.float()) / (8 * max) as f32))
                .collect(),
            group_of: (0..columns).map(|k| k / group).collect(),
        }
    }
    /// `scale * (q - z)`, by row and column.
    fn values(&self) -> Vec<f32> {
        let value = |i: usize| {
            let (row, column) = (i / self.columns, i % self.columns);
            let at = self.group_of[column] * self.rows + row;
            self.scales[at].to_f32() * (self.quants[i] as f32 - self.zeros[at] as f32)
        };
        (0..self.rows * self.columns).map(value).collect()
    }
    fn scale_tensor(&self, module: &str) -> Raw {
        let groups = self.scales.len() / self.rows;
        let bytes = self.scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        Raw::new(&format!("{module}.scales"), "F16", &[groups as u64, self.rows as u64], bytes)
    }
    /// As AutoAWQ packs them: eight rows to a word, in its order.
    fn awq(&self, module: &str) -> Vec<Raw> {
        const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
        let pack = |lines: usize, of: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
            let words = (0..lines).flat_map(|line| (0..self.rows / 8).map(move |w| (line, w)));
            words.map(|(line, w)| (0..8).map(|i| of(line, 8 * w + ORDER[i]) << (4 * i)).sum()).collect()
        };
        let groups = self.scales.len() / self.rows;
        let across = self.rows as u64 / 8;
        vec![
            Raw::i32s(
                &format!("{module}.qweight"),
                &[self.columns as u64, across],
                &pack(self.columns, &|k, row| self.quants[row * self.columns + k]),
            ),
            Raw::i32s(
                &format!("{module}.qzeros"),
                &[groups as u64, across],
                &pack(groups, &|g, row| self.zeros[g * self.rows + row]),
            ),
            self.scale_tensor(module),
        ]
    }
    /// As AutoGPTQ packs them: the columns of a word one after the other, zero points less `one`.
    fn gptq(&self, module: &str, one: u32) -> Vec<Raw> {
        let in_word = 32 / self.bits;
        let mut words = vec![0u32; self.columns / in_word * self.rows];
        for row in 0..self.rows {
            for k in 0..self.columns {
                words[k / in_word * self.rows + row] |=
                    self.quants[row * self.columns + k] << (self.bits * (k % in_word));
            }
        }
        let groups = self.scales.len() / self.rows;
        let mut zeros = vec![0u32; groups * self.rows / in_word];
        for g in 0..groups {
            for row in 0..self.rows {
                zeros[g * (self.rows / in_word) + row / in_word] |=
                    (self.zeros[g * self.rows + row] - one) << (self.bits * (row % in_word));
            }
        }
        let rows = self.rows as u64;
        let order: Vec<u32> = self.group_of.iter().map(|g| *g as u32).collect();
        vec![
            Raw::i32s(&format!("{module}.qweight"), &[(self.columns / in_word) as u64, rows], &words),
            Raw::i32s(&format!("{module}.qzeros"), &[groups as u64, rows / in_word as u64], &zeros),
            self.scale_tensor(module),
            Raw::i32s(&format!("{module}.g_idx"), &[self.columns as u64], &order),
        ]
    }
}

/// A model whose matrices are grouped integers: packed by `pack`, and as the floats that they stand for.
fn checkpoint(
    bits: usize,
    group: usize,
    symmetric: bool,
    pack: impl Fn(&mut Grouped, &str) -> Vec<Raw>,
) -> (Folder, Folder) {
    let mut exact = Folder::of(&importable("llama", false, false));
    let mut packed = exact.clone();
    for layer in 0..2 {
        for (i, module) in MODULES.iter().enumerate() {
            let module = format!("model.layers.{layer}.{module}");
            let weight = exact.tensor(&format!("{module}.weight"));
            let [rows, columns] = weight.shape[..] else { panic!() };
            let seed = 100 * layer + i as u64 + 1;
            let mut grouped = Grouped::random(rows as usize, columns as usize, bits, group, symmetric, seed);
            let tensors = pack(&mut grouped, &module);
            *weight = Raw::f32s(&weight.name, &[rows, columns], &grouped.values());
            packed.tensors.retain(|t| t.name != format!("{module}.weight"));
            packed.tensors.extend(tensors);
        }
    }
    (packed, exact)
}

fn awq(group: usize) -> (Folder, Folder) {
    let (mut packed, exact) = checkpoint(4, group, false, |grouped, module| grouped.awq(module));
    packed.config["quantization_config"] =
        json!({"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": true});
    (packed, exact)
}

fn gptq(bits: usize, group: usize, symmetric: bool, format: &str) -> (Folder, Folder) {
    let one = u32::from(format == "gptq");
    let (mut packed, exact) = checkpoint(bits, group, symmetric, |grouped, module| grouped.gptq(module, one));
    let group_size = if group == 256 { -1 } else { group as i64 };
    packed.config["quantization_config"] =
        json!({"quant_method": "gptq", "bits": bits, "group_size": group_size, "checkpoint_format": format});
    (packed, exact)
}

/// The tensors that hold the integers, by their names in GGUF.
fn names() -> impl Iterator<Item = String> {
    let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    (0..2).flat_map(move |layer| parts.map(|part| format!("blk.{layer}.{part}.weight")))
}

#[test]
fn values_of_packed_checkpoints_are_exact_in_floats() {
    let cases = [
        awq(32),
        awq(128),
        gptq(4, 64, false, "gptq"),
        gptq(4, 256, false, "gptq_v2"),
        gptq(8, 32, false, "gptq"),
    ];
    for (i, (packed, exact)) in cases.iter().enumerate() {
        let ((packed, _), (exact, _)) = (imported(packed, "F32", &[]), imported(exact, "F32", &[]));
        assert_eq!(packed.tensors().len(), exact.tensors().len());
        for t in exact.tensors() {
            let found = packed.require_tensor(&t.name).unwrap();
            assert!(found.bytes == exact.require_tensor(&t.name).unwrap().bytes, "case {i}: {}", t.name);
        }
    }
}

#[test]
fn integers_with_zero_points_become_q4_1_up_to_the_rounding_of_minima() {
    for (packed, exact) in [awq(32), awq(64), gptq(4, 128, false, "gptq")] {
        let ((file, said), (exact, _)) = (imported(&packed, "Q4_1", &[]), imported(&exact, "F32", &[]));
        assert!(
            said.contains("14 tensors hold the checkpoint's own integers") && said.contains("dB"),
            "{said}"
        );
        for name in names() {
            assert_eq!(file.tensor_info(&name).unwrap().format, Format::Q4_1, "{name}");
            let (got, want) = (values(&file, &name), values(&exact, &name));
            // All that is rounded is m = -s * z, to 11 bits: by at most 2^-11 of it. |s| <= 2.5 / 128, z <= 15.
            let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 15.0 * 2.5 / 128.0 / 2048.0, "{name}: {worst}");
            assert!(worst > 0.0 && nmse(&got, &want) < 1e-6, "{name}: {}", nmse(&got, &want));
        }
    }
}

#[test]
fn symmetric_integers_become_q4_0_and_q8_0_without_any_loss() {
    for (bits, format) in [(4, "Q4_0"), (4, "Q4_1"), (8, "Q8_0")] {
        for layout in ["gptq", "gptq_v2"] {
            let (packed, exact) = gptq(bits, 32, true, layout);
            let ((file, said), (exact, _)) = (imported(&packed, format, &[]), imported(&exact, "F32", &[]));
            assert!(said.contains("nothing was lost"), "{said}");
            for name in names() {
                assert_eq!(file.tensor_info(&name).unwrap().format.info().name, format, "{name}");
                assert_eq!(values(&file, &name), values(&exact, &name), "{name}");
            }
        }
    }
}

#[test]
fn what_was_lost_is_measured_tensor_by_tensor() {
    let (file, done) = import(&awq(32).0, "Q4_1", &["--measure", "--json"]);
    assert!(file.is_some(), "{done:?}");
    let plan: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let tensor =
        plan["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "blk.1.attn_k.weight").unwrap();
    let snr = tensor["measures"]["snr_db"].as_f64().unwrap();
    assert!((60.0..90.0).contains(&snr), "{snr}");
}

/// Columns dealt to the groups out of order, as act-order leaves them.
fn act_order() -> (Folder, Folder) {
    let (mut packed, exact) = checkpoint(4, 32, true, |grouped, module| {
        let n = grouped.columns;
        grouped.group_of = (0..n).map(|k| k * 37 % n / 32).collect();
        grouped.gptq(module, 1)
    });
    packed.config["quantization_config"] =
        json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true});
    (packed, exact)
}

#[test]
fn act_order_is_undone_in_floats_and_refused_in_blocks() {
    let (packed, exact) = act_order();
    let ((file, _), (exact, _)) = (imported(&packed, "F32", &[]), imported(&exact, "F32", &[]));
    for name in names() {
        assert_eq!(values(&file, &name), values(&exact, &name), "{name}");
    }
    let (_, done) = import(&packed, "Q4_0", &[]);
    assert!(
        done.code == Some(3) && done.stderr.contains("act-order") && done.stderr.contains(".qweight"),
        "{done:?}"
    );
    let (file, _) = imported(&packed, "Q4_0", &["--allow-requantize"]);
    assert_eq!(file.tensor_info("blk.0.ffn_up.weight").unwrap().format, Format::Q4_0);
}

#[test]
fn rounding_again_needs_to_be_asked_for() {
    let (packed, _) = awq(64);
    for format in ["Q4_K_M", "Q8_0", "Q4_0"] {
        let (_, done) = import(&packed, format, &[]);
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(
            done.stderr.contains("Q4_1 takes its integers") && done.stderr.contains("--allow-requantize"),
            "{done:?}"
        );
    }
    let (file, _) = imported(&packed, "Q4_K_S", &["--allow-requantize"]);
    assert_eq!(file.tensor_info("blk.0.ffn_up.weight").unwrap().format, Format::Q4_K);
    let (_, done) = import(&gptq(8, 32, false, "gptq").0, "Q8_0", &[]);
    assert!(done.code == Some(3) && done.stderr.contains("zero points other than 128"), "{done:?}");
}

#[test]
fn packed_checkpoints_that_cannot_be_true_are_named() {
    const MODULE: &str = "model.layers.1.mlp.up_proj";
    type Damage = (&'static str, fn(&mut Folder), &'static [&'static str]);
    let damages: &[Damage] = &[
        (
            "no method",
            |f| f.config["quantization_config"] = json!(null),
            &[".qweight", "quantization_config"],
        ),
        (
            "three bits",
            |f| f.config["quantization_config"]["bits"] = json!(3),
            &["quantization_config.bits", "is 3"],
        ),
        (
            "no bits",
            |f| f.config["quantization_config"]["bits"] = json!(null),
            &["quantization_config.bits", "missing"],
        ),
        ("a group of 0", |f| f.config["quantization_config"]["group_size"] = json!(0), &["group_size"]),
        (
            "another group",
            |f| f.config["quantization_config"]["group_size"] = json!(64),
            &["scales", "groups of 64"],
        ),
        (
            "another layout",
            |f| f.config["quantization_config"]["checkpoint_format"] = json!("marlin"),
            &["checkpoint_format"],
        ),
        ("no zeros", |f| f.tensors.retain(|t| t.name != format!("{MODULE}.qzeros")), &[".qzeros"]),
        (
            "zeros of another shape",
            |f| f.tensor(&format!("{MODULE}.qzeros")).shape = vec![32, 8],
            &[".qzeros", "shape"],
        ),
        (
            "floats as words",
            |f| f.tensor(&format!("{MODULE}.qweight")).dtype = "F32",
            &[".qweight", "F32", "I32"],
        ),
        ("integers as scales", |f| f.tensor(&format!("{MODULE}.scales")).dtype = "I16", &[".scales", "I16"]),
        (
            "a group beyond",
            |f| f.tensor(&format!("{MODULE}.g_idx")).bytes[..4].copy_from_slice(&8u32.to_le_bytes()),
            &[".g_idx", "group 8 of 8"],
        ),
        (
            "a scale that is no number",
            |f| f.tensor(&format!("{MODULE}.scales")).bytes[..2].copy_from_slice(&f16::NAN.to_le_bytes()),
            &["blk.1.ffn_up.weight", "value 0", "NaN"],
        ),
    ];
    let (good, _) = gptq(4, 32, true, "gptq");
    for (what, damage, named) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        let (_, done) = import(&bad, "Q4_0", &[]);
        assert_eq!(done.code, Some(3), "{what}: {done:?}");
        assert!(named.iter().all(|name| done.stderr.contains(name)), "{what}: {named:?}: {}", done.stderr);
    }
    let mut bad = awq(32).0;
    bad.config["quantization_config"]["version"] = json!("gemv");
    assert!(import(&bad, "Q4_1", &[]).1.stderr.contains("quantization_config.version"));
}

/// The number of a code, by the definition.
fn float8(code: u8, e5m2: bool) -> f32 {
    let (exponent_bits, mantissa_bits, bias) = if e5m2 { (5, 2, 15) } else { (4, 3, 7) };
    let exponent = i32::from(code >> mantissa_bits & ((1 << exponent_bits) - 1));
    let mantissa = f32::from(code & ((1 << mantissa_bits) - 1)) / f32::from(1u8 << mantissa_bits);
    let magnitude = if exponent == 0 {
        mantissa * 2f32.powi(1 - bias)
    } else {
        (1.0 + mantissa) * 2f32.powi(exponent - bias)
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// A checkpoint of 8-bit floats whose scales have this shape, with the values that it stands for.
fn float8s(e5m2: bool, scales: &str) -> (Folder, Folder) {
    let mut exact = Folder::of(&importable("llama", false, false));
    let mut coded = exact.clone();
    for layer in 0..2u64 {
        for (i, module) in MODULES.iter().enumerate() {
            let name = format!("model.layers.{layer}.{module}.weight");
            let weight = exact.tensor(&name);
            let [rows, columns] = weight.shape[..] else { panic!() };
            let seed = 50 * layer + i as u64 + 1;
            // No NaN and no infinity.
            let top = if e5m2 { 0x7B } else { 0x7E };
            let codes: Vec<u8> = noise((rows * columns) as usize, seed)
                .iter()
                .map(|c| if c & 0x7F > top { 0x30 } else { *c })
                .collect();
            let mut random = Random(seed);
            let mut scale = |n: u64| -> Vec<f32> { (0..n).map(|_| (1.5 + random.float()) * 1e-3).collect() };
            let (suffix, shape, factors): (_, Vec<u64>, _) = match scales {
                "tensor" => ("_scale", vec![], scale(1)),
                "row" => ("_scale", vec![rows, 1], scale(rows)),
                _ => (
                    "_scale_inv",
                    vec![rows.div_ceil(96), columns.div_ceil(128)],
                    scale(rows.div_ceil(96) * columns.div_ceil(128)),
                ),
            };
            let value = |at: usize| {
                let (row, column) = (at as u64 / columns, at as u64 % columns);
                let scale = match scales {
                    "tensor" => factors[0],
                    "row" => factors[row as usize],
                    _ => factors[(row / 96 * columns.div_ceil(128) + column / 128) as usize],
                };
                float8(codes[at], e5m2) * scale
            };
            let decoded: Vec<f32> = (0..codes.len()).map(value).collect();
            *weight = Raw::f32s(&name, &[rows, columns], &decoded);
            let dtype = if e5m2 { "F8_E5M2" } else { "F8_E4M3" };
            *coded.tensor(&name) = Raw::new(&name, dtype, &[rows, columns], codes);
            coded.tensors.push(Raw::f32s(&format!("{name}{suffix}"), &shape, &factors));
            coded.tensors.push(Raw::f32s(&name.replace(".weight", ".input_scale"), &[], &[1.0]));
        }
    }
    coded.config["quantization_config"] = json!({"quant_method": "fp8", "weight_block_size": [96, 128]});
    (coded, exact)
}

#[test]
fn eight_bit_floats_keep_their_values() {
    for e5m2 in [false, true] {
        for scales in ["tensor", "row", "block"] {
            let (coded, exact) = float8s(e5m2, scales);
            let ((file, _), (exact, _)) = (imported(&coded, "F32", &[]), imported(&exact, "F32", &[]));
            for t in exact.tensors() {
                let found = file.require_tensor(&t.name).unwrap();
                assert!(found.bytes == exact.require_tensor(&t.name).unwrap().bytes, "{scales}: {}", t.name);
            }
        }
    }
}

#[test]
fn eight_bit_floats_in_other_formats_are_rounded_once_and_measured() {
    let (coded, exact) = float8s(false, "block");
    for (format, least) in [("BF16", 50.0), ("Q8_0", 30.0)] {
        let (file, done) = import(&coded, format, &["--measure", "--json"]);
        let (direct, _) = imported(&exact, format, &[]);
        let file = file.unwrap();
        let plan: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        for name in names() {
            assert_eq!(
                file.require_tensor(&name).unwrap().bytes,
                direct.require_tensor(&name).unwrap().bytes,
                "{name}"
            );
            let tensor =
                plan["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name.as_str()).unwrap();
            let snr = tensor["measures"]["snr_db"].as_f64().unwrap();
            assert!(snr > least, "{name}: {format}: {snr} dB");
        }
    }
}

#[test]
fn eight_bit_floats_that_cannot_be_true_are_named() {
    const NAME: &str = "model.layers.0.mlp.down_proj.weight";
    type Damage = (&'static str, fn(&mut Folder), &'static [&'static str]);
    let damages: &[Damage] = &[
        ("no scale", |f| f.tensors.retain(|t| t.name != format!("{NAME}_scale_inv")), &[NAME, "_scale_inv"]),
        (
            "a scale of another shape",
            |f| f.tensor(&format!("{NAME}_scale_inv")).shape = vec![2, 3],
            &["_scale_inv", "[2, 3]"],
        ),
        (
            "another block",
            |f| f.config["quantization_config"]["weight_block_size"] = json!([64, 64]),
            &["_scale_inv", "tiles of 64 x 64"],
        ),
        (
            "no block",
            |f| f.config["quantization_config"]["weight_block_size"] = json!([0, 64]),
            &["weight_block_size"],
        ),
        ("not a number", |f| f.tensor(NAME).bytes[5] = 0x7F, &["blk.0.ffn_down.weight", "value 5", "NaN"]),
    ];
    let (good, _) = float8s(false, "block");
    for (what, damage, named) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        let (_, done) = import(&bad, "BF16", &[]);
        assert_eq!(done.code, Some(3), "{what}: {done:?}");
        assert!(named.iter().all(|name| done.stderr.contains(name)), "{what}: {named:?}: {}", done.stderr);
    }
}
