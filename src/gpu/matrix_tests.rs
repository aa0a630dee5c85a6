//! Matrices on a GPU against the formats' own decoders: every format, every shape of product.

use chaski_gguf::Format;

use super::device::Caps;
use super::formats::{FormatRow, Kind};
use super::layout::Layout;
use super::matrix::{self, Experts, Kernel, Norm, Part, Place, Product, Rows};
use super::matrix_harness::{Gpu, Matrix, Random, gpus};
use super::shader;
use crate::graph::Activation;

/// The mean square of the differences, by that of the expected values.
fn nmse(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    error / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)
}

/// Bound on `nmse`: what floats summed in another order differ by, far below the 1e-5 of the promise.
const FLOATS: f64 = 1e-10;
/// Where weights are kept as 16-bit floats on the way.
const HALVES: f64 = 1e-6;

fn all_formats() -> impl Iterator<Item = Format> {
    FormatRow::all().iter().map(|row| row.format)
}

/// All formats where the device's own tier is tested, a few of each kind where it is the baseline's other libraries.
fn formats_of(gpu: &Gpu) -> impl Iterator<Item = Format> {
    let few = [Format::F16, Format::Q8_0, Format::Q4_K];
    let all = gpu.caps.subgroups || gpus().len() == 1;
    all_formats().filter(move |f| all || few.contains(f))
}

/// A row length that is no multiple of a group: odd blocks straddle groups and rows.
fn row_len(format: Format) -> usize {
    if format.info().block_len == 256 { 768 } else { 288 }
}

#[test]
fn rows_by_number_are_what_the_format_decodes() {
    for gpu in gpus().iter().take(1) {
        let cases = all_formats().map(|f| (f, row_len(f)));
        // Rows of floats that end within a vector of four.
        for (format, k) in cases.chain([(Format::F32, 172), (Format::F16, 50), (Format::BF16, 51)]) {
            let m = Matrix::sharded(format, k, 37, 1, 1, Layout::of(format, k).unwrap().bytes(20).unwrap());
            assert!(m.shards.len() > 1);
            let ids = [36u32, 0, 5, 5, 17, 20, 19, 1];
            let out = 4;
            let kernels: Vec<(Kernel, Vec<&[u8]>)> = m
                .shards
                .iter()
                .map(|(rows, bytes)| {
                    (matrix::get_rows(rows, ("ids_inputs", 2), ids.len(), out).unwrap(), vec![&**bytes])
                })
                .collect();
            let inputs = [[7, 7].as_slice(), &ids].concat();
            let arena = gpu.run(&kernels, &vec![-9.0; out + ids.len() * k + 3], &[], &inputs);
            for (i, id) in ids.iter().enumerate() {
                let (want, got) = (&m.values[*id as usize * k..][..k], &arena[out + i * k..][..k]);
                let largest = want.iter().fold(0f32, |a, v| a.max(v.abs()));
                for (j, (want, got)) in want.iter().zip(got).enumerate() {
                    assert!(
                        (want - got).abs() <= 1e-6 * largest,
                        "{format} {k}: row {id}, {j}: {got} for {want}"
                    );
                }
            }
            let around = (&arena[..out], &arena[out + ids.len() * k..]);
            assert!(
                around.0.iter().chain(around.1).all(|v| *v == -9.0),
                "{format} {k}: nothing else is touched"
            );
        }
    }
}

/// `columns` vectors of `k`, `pad` words apart, at word 8; results at `out`.
struct Plain {
    arena: Vec<f32>,
    x: Place,
    out: Place,
}

fn plain(k: usize, columns: usize, rows: usize, pad: usize) -> Plain {
    let x = Place { at: 8, stride: k + pad };
    let arena = Random(7).values(8 + columns * (k + pad));
    let out = Place { at: arena.len(), stride: rows };
    let mut arena = arena;
    arena.resize(out.at + rows * columns + 5, -9.0);
    Plain { arena, x, out }
}

fn simple<'a>(parts: &'a [Part], plain: &Plain, columns: usize) -> Product<'a> {
    Product { parts, x: plain.x, columns, norm: None, glu: None, add: None, experts: None, bytes: false }
}

/// Multiply and compare; gives the error.
fn check(gpu: &Gpu, m: &Matrix, columns: usize, pad: usize) -> f64 {
    let plain = plain(m.k, columns, m.rows, pad);
    let parts = [Part { rows: m.shards[0].0, out: plain.out, bias: None }];
    let arena = gpu.product(&simple(&parts, &plain, columns), &[m], &plain.arena, &[], &[]);
    let want: Vec<f64> = (0..columns)
        .flat_map(|c| (0..m.rows).map(move |r| (c, r)))
        .map(|(c, r)| m.times(r, &plain.arena[plain.x.at + c * plain.x.stride..][..m.k]))
        .collect();
    let end = plain.out.at + want.len();
    assert_eq!(arena[end..], plain.arena[end..], "{} x {columns}: nothing behind the results", m.format);
    nmse(&arena[plain.out.at..end], &want)
}

#[test]
fn every_format_times_a_vector() {
    for gpu in gpus() {
        for format in formats_of(gpu) {
            let m = Matrix::new(format, row_len(format), 37, 2);
            let error = check(gpu, &m, 1, 0);
            assert!(error < FLOATS, "{format}, {:?}: {error}", gpu.caps);
        }
    }
}

#[test]
fn every_format_times_many_vectors() {
    for gpu in gpus() {
        for format in formats_of(gpu) {
            let m = Matrix::new(format, row_len(format), 101, 3);
            for columns in [33, 9, 70] {
                let error = check(gpu, &m, columns, 0);
                let bound = if gpu.caps.f16 { HALVES } else { FLOATS };
                assert!(error < bound, "{format} x {columns}, {:?}: {error}", gpu.caps);
            }
        }
    }
}

#[test]
fn every_number_of_columns() {
    for gpu in gpus() {
        // The baseline's sums are the same functions, whatever the number.
        let all = if gpu.caps.subgroups { 2..=8 } else { 7..=7 };
        for (format, columns) in [(Format::Q8_0, all), (Format::Q4_K, 8..=8), (Format::F16, 4..=4)] {
            let m = Matrix::new(format, 512, 9, 4);
            for columns in columns {
                let error = check(gpu, &m, columns, 8);
                assert!(error < FLOATS, "{format} x {columns}, {:?}: {error}", gpu.caps);
            }
        }
    }
}

#[test]
fn two_rows_a_team_and_rows_that_end_anywhere() {
    for gpu in gpus() {
        let m = Matrix::new(Format::Q8_0, 64, 4099, 5);
        for columns in [1, 3] {
            let error = check(gpu, &m, columns, 0);
            assert!(error < FLOATS, "4099 rows x {columns}: {error}");
        }
        for (format, k) in [(Format::F32, 172), (Format::F16, 50), (Format::BF16, 51), (Format::F32, 3)] {
            let m = Matrix::new(format, k, 21, 6);
            for columns in [1, 2, 12] {
                let error = check(gpu, &m, columns, 0);
                let bound = if gpu.caps.f16 { HALVES } else { FLOATS };
                assert!(error < bound, "{format} {k} x {columns}: {error}");
            }
        }
        // Vectors that begin at no multiple of four words.
        let m = Matrix::new(Format::Q4_0, 64, 21, 6);
        for columns in [2, 12] {
            let error = check(gpu, &m, columns, 1);
            assert!(error < HALVES, "unaligned x {columns}: {error}");
        }
    }
}

#[test]
fn vectors_of_bytes_give_what_their_rounding_costs() {
    for gpu in gpus() {
        for format in formats_of(gpu).filter(|f| f.info().block_len > 1) {
            let m = Matrix::new(format, 768, 21, 18);
            for columns in if format == Format::Q4_K { vec![1, 3] } else { vec![1] } {
                let mut plain = plain(m.k, columns, m.rows, 0);
                let bytes =
                    Place { at: plain.arena.len().next_multiple_of(4), stride: matrix::bytes_stride(m.k) };
                plain.arena.resize(bytes.at + columns * bytes.stride, 0.0);
                let rounding = matrix::quantize(m.k, plain.x, columns, bytes.at).unwrap();
                let parts = [Part { rows: m.shards[0].0, out: plain.out, bias: None }];
                let p = Product { x: bytes, bytes: true, ..simple(&parts, &plain, columns) };
                let product = matrix::product(&p, gpu.caps).unwrap().remove(0);
                let kernels = [(rounding, vec![]), (product, vec![&*m.shards[0].1])];
                let got = gpu.run(&kernels, &plain.arena, &[], &[]);
                let (mut exact, mut rounded) = (Vec::new(), Vec::new());
                for c in 0..columns {
                    let x = &plain.arena[plain.x.at + c * plain.x.stride..][..m.k];
                    let near: Vec<f32> = x.chunks(32).flat_map(to_bytes_and_back).collect();
                    exact.extend((0..m.rows).map(|r| m.times(r, x)));
                    rounded.extend((0..m.rows).map(|r| m.times(r, &near)));
                }
                let got = &got[plain.out.at..plain.out.at + exact.len()];
                // A quotient half-way between two integers may be rounded either way.
                let (to_exact, to_rounded) = (nmse(got, &exact), nmse(got, &rounded));
                assert!(to_rounded < 1e-7, "{format} x {columns}, {:?}: {to_rounded}", gpu.caps);
                assert!(to_exact < 1e-4, "{format} x {columns}, {:?}: {to_exact}", gpu.caps);
            }
        }
    }
}

fn to_bytes_and_back(x: &[f32]) -> Vec<f32> {
    let d = x.iter().fold(0f32, |a, v| a.max(v.abs())) / 127.0;
    x.iter().map(|v| (v / d).round() * d).collect()
}

#[test]
fn a_matrix_in_shards_gives_what_it_gives_in_one_piece() {
    for gpu in gpus() {
        for format in [Format::Q6_K, Format::F32] {
            let k = 256;
            let most = Layout::of(format, k).unwrap().bytes(70).unwrap();
            let m = Matrix::sharded(format, k, 200, 1, 8, most);
            assert!(m.shards.len() > 2);
            for columns in [1, 20] {
                let error = check(gpu, &m, columns, 0);
                assert!(error < HALVES, "{format} x {columns}: {error}");
            }
        }
    }
}

#[test]
fn results_are_added_to_and_biased() {
    for gpu in gpus() {
        let m = Matrix::new(Format::Q5_K, 256, 70, 9);
        for columns in [2, 10] {
            let plain = plain(m.k, columns, m.rows, 0);
            let vectors = Random(11).values(80);
            // What is added lies where the results go: a residual in place.
            let mut arena = plain.arena.clone();
            let residual = Random(12).values(columns * m.rows);
            arena[plain.out.at..plain.out.at + residual.len()].copy_from_slice(&residual);
            let parts = [Part { rows: m.shards[0].0, out: plain.out, bias: Some(10) }];
            let p = Product { add: Some(plain.out), ..simple(&parts, &plain, columns) };
            let got = gpu.product(&p, &[&m], &arena, &vectors, &[]);
            let want: Vec<f64> = (0..residual.len())
                .map(|i| {
                    let (c, r) = (i / m.rows, i % m.rows);
                    let product = m.times(r, &arena[plain.x.at + c * plain.x.stride..][..m.k]);
                    product + f64::from(vectors[10 + r]) + f64::from(residual[i])
                })
                .collect();
            let error = nmse(&got[plain.out.at..plain.out.at + want.len()], &want);
            assert!(error < HALVES, "x {columns}: {error}");
        }
    }
}

#[test]
fn three_matrices_in_one_dispatch_with_a_norm_before_them() {
    for gpu in gpus() {
        for (format, k) in [(Format::Q4_K, 512), (Format::F16, 50)] {
            let matrices = [50, 7, 21].map(|rows| Matrix::new(format, k, rows, rows as u64));
            for columns in [1, 3] {
                let plain = plain(k, columns, 50 + 7 + 21, 4);
                let vectors = Random(13).values(3 + k + 78);
                let norm = Norm { at: 3, eps: 1e-3 };
                // One after the other, results and biases alike.
                let before = [0, 50, 57];
                let parts = [0, 1, 2].map(|i: usize| {
                    let m = &matrices[i];
                    let out = Place { at: plain.out.at + columns * before[i], stride: m.rows };
                    Part { rows: m.shards[0].0, out, bias: Some(3 + k + before[i]) }
                });
                let p = Product { norm: Some(norm), ..simple(&parts, &plain, columns) };
                let of = [0, 1, 2].map(|i: usize| &matrices[i]);
                let got = gpu.product(&p, &of, &plain.arena, &vectors, &[]);
                let mut want = Vec::new();
                for (m, part) in of.iter().zip(&parts) {
                    for c in 0..columns {
                        let x =
                            normed(&plain.arena[plain.x.at + c * plain.x.stride..][..k], &vectors[3..], 1e-3);
                        for r in 0..m.rows {
                            want.push(m.times(r, &x) + f64::from(vectors[part.bias.unwrap() + r]));
                        }
                    }
                }
                let error = nmse(&got[plain.out.at..plain.out.at + want.len()], &want);
                assert!(error < FLOATS, "{format} {k} x {columns}: {error}");
            }
        }
    }
}

fn normed(x: &[f32], weights: &[f32], eps: f32) -> Vec<f32> {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    x.iter().zip(weights).map(|(x, w)| x * w * scale).collect()
}

fn activated(activation: Activation, gate: f64, up: f64) -> f64 {
    match activation {
        Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
        Activation::GeluTanh => {
            let t = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + t.tanh()) * up
        }
    }
}

#[test]
fn gate_and_up_in_one_dispatch() {
    for gpu in gpus() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let (gate, up) = (Matrix::new(Format::Q4_K, 256, 77, 14), Matrix::new(Format::Q4_K, 256, 77, 15));
            for columns in [1, 4] {
                let plain = plain(256, columns, 77, 0);
                let vectors = Random(16).values(256);
                let parts = [&gate, &up].map(|m| Part { rows: m.shards[0].0, out: plain.out, bias: None });
                let norm = Some(Norm { at: 0, eps: 1e-5 });
                let p = Product { norm, glu: Some(activation), ..simple(&parts, &plain, columns) };
                let got = gpu.product(&p, &[&gate, &up], &plain.arena, &vectors, &[]);
                let mut want = Vec::new();
                for c in 0..columns {
                    let x = normed(&plain.arena[plain.x.at + c * plain.x.stride..][..256], &vectors, 1e-5);
                    want.extend((0..77).map(|r| activated(activation, gate.times(r, &x), up.times(r, &x))));
                }
                let error = nmse(&got[plain.out.at..plain.out.at + want.len()], &want);
                assert!(error < FLOATS, "{activation:?} x {columns}: {error}");
            }
        }
    }
}

#[test]
fn experts_are_taken_by_numbers_in_the_arena() {
    for gpu in gpus() {
        let (k, rows, experts, used) = (256, 19, 5, 2);
        // One slot after the other, and so many that those of an expert are brought together: one has more than a tile's 64.
        let few = vec![4u32, 0, 1, 3, 2, 4];
        let many: Vec<u32> = (0..200).map(|i| if i % 2 == 0 { 3 } else { [0, 1, 4][i / 2 % 3] }).collect();
        let cases = [(Format::Q6_K, &few), (Format::Q4_0, &many), (Format::F32, &few), (Format::Q6_K, &many)];
        for (format, ids) in cases {
            let tokens = ids.len() / used;
            let whole = Layout::of(format, k).unwrap().bytes(rows * 2).unwrap() + 2048;
            for (x_per_slot, most) in [(false, usize::MAX), (true, whole)] {
                let m = Matrix::sharded(format, k, rows * experts, rows, 17, most);
                assert_eq!(m.shards.len() > 1, most != usize::MAX);
                let vectors = if x_per_slot { tokens * used } else { tokens };
                let mut plain = plain(k, vectors, rows, 0);
                let ids_at = plain.arena.len();
                plain.arena.extend(ids.iter().map(|id| f32::from_bits(*id)));
                plain.out.at = plain.arena.len();
                plain.arena.resize(plain.out.at + rows * used * tokens, -9.0);
                let parts = [Part { rows: m.shards[0].0, out: plain.out, bias: None }];
                let experts = Experts { ids: ("ids_arena", ids_at), experts, rows, used, x_per_slot };
                let p = Product { experts: Some(experts), ..simple(&parts, &plain, tokens * used) };
                let got = gpu.product(&p, &[&m], &plain.arena, &[], &[]);
                let mut want = Vec::new();
                for (slot, id) in ids.iter().enumerate().take(tokens * used) {
                    let vector = if x_per_slot { slot } else { slot / used };
                    let x = &plain.arena[plain.x.at + vector * plain.x.stride..][..k];
                    want.extend((0..rows).map(|r| m.times(*id as usize * rows + r, x)));
                }
                let error = nmse(&got[plain.out.at..], &want);
                let bound = if gpu.caps.f16 && tokens > 4 { HALVES } else { FLOATS };
                assert!(error < bound, "{format} {tokens} {x_per_slot}: {error}");
            }
        }
    }
}

fn row_is_blocks(format: Format) -> bool {
    FormatRow::of(format).unwrap().kind == Kind::Blocks
}

/// Every kernel that a format may need: what the shader compilers of all systems must take.
fn every_kernel(format: Format) -> Vec<(Kernel, Caps)> {
    let k = row_len(format);
    let rows = Rows { format, k, first: 0, rows: 64 };
    let mut found = Vec::new();
    for subgroups in [false, true] {
        let caps = Caps { subgroups, f16: subgroups, lanes: 32, ..Caps::default() };
        found.push((matrix::get_rows(&rows, ("ids_inputs", 0), 3, 0).unwrap(), caps));
        for columns in [1, 8, 9] {
            let place = Place { at: 0, stride: k };
            let part = Part { rows, out: place, bias: Some(0) };
            let p = Product {
                parts: &[part],
                x: place,
                columns,
                norm: None,
                glu: None,
                add: Some(place),
                experts: None,
                bytes: false,
            };
            found.extend(matrix::product(&p, caps).unwrap().into_iter().map(|k| (k, caps)));
            if columns > 8 {
                continue;
            }
            let norm = Some(Norm { at: 0, eps: 0.0 });
            let three = Product { parts: &[part; 3], norm, add: None, ..p.clone() };
            let parts = [Part { bias: None, ..part }; 2];
            let two = Product { parts: &parts, norm, glu: Some(Activation::Silu), ..p.clone() };
            let experts = Experts { ids: ("ids_arena", 0), experts: 8, rows: 8, used: 2, x_per_slot: true };
            let experts = Product { parts: &[part], experts: Some(experts), add: None, ..p.clone() };
            let bytes = Product { parts: &parts[..1], bytes: true, ..p.clone() };
            if row_is_blocks(format) {
                found.extend(matrix::product(&bytes, caps).unwrap().into_iter().map(|k| (k, caps)));
                found.push((matrix::quantize(k, place, columns, 0).unwrap(), caps));
            }
            let many = Product { columns: 99, ..experts.clone() };
            for p in [three, two, experts, many] {
                found.extend(matrix::product(&p, caps).unwrap().into_iter().map(|k| (k, caps)));
            }
        }
    }
    found
}

#[test]
fn every_kernel_is_valid_and_translates_to_metal_and_direct3d() {
    use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
    for row in FormatRow::all() {
        for (kernel, caps) in every_kernel(row.format) {
            let (text, _) = shader::assemble(&kernel.key, caps).unwrap();
            let name = format!("{} {:?}", row.format, kernel.key);
            let module = naga::front::wgsl::parse_str(&text)
                .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
            validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
            let info =
                validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
            assert!(kernel.immediates.bytes().len() <= 128, "{name}");

            use naga::back::{hlsl, msl};
            let options =
                msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
            let metal = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
            let (metal, _) = metal.unwrap_or_else(|e| panic!("{name}: Metal: {e}"));
            assert!(metal.contains("kernel void"), "{name}");

            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_2,
                fake_missing_bindings: true,
                immediates_target: Some(hlsl::BindTarget::default()),
                ..Default::default()
            };
            let mut direct3d = String::new();
            let pipeline = hlsl::PipelineOptions::default();
            let written = hlsl::Writer::new(&mut direct3d, &options, &pipeline).write(&module, &info, None);
            assert!(written.is_ok(), "{name}: Direct3D: {:?}", written.err());
            assert!(direct3d.contains("numthreads"), "{name}");
        }
    }
}

#[test]
fn quantized_and_float_formats_of_the_table_are_what_files_have() {
    for row in FormatRow::all() {
        let floats = row.format.info().block_len == 1;
        assert_eq!(row.kind == Kind::Floats, floats, "{}", row.format);
    }
    let none = [Format::I8, Format::I16, Format::I32, Format::I64, Format::F64];
    let missing: Vec<Format> = Format::ALL.iter().copied().filter(|f| FormatRow::of(*f).is_none()).collect();
    assert_eq!(missing, none, "every format of weights has a decoder");
}
