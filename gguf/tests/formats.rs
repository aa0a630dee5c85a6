//! Every row of the table of formats keeps the promises of the table: sizes, decoding, encoding.
//!
//! The hashes of `fixtures/formats.txt` were made by `tools/format_vectors.py` with independent codecs.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use chaski_gguf::{Format, FormatInfo, Gguf};

/// The hash of a thing of the fixture: `recorded("decode", "Q4_K")`.
fn recorded() -> HashMap<(&'static str, &'static str), &'static str> {
    include_str!("fixtures/formats.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words");
            ((word(), word()), word())
        })
        .collect()
}

/// Output `i` of splitmix64.
fn splitmix64(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sum of `(word + 1) * K^(position + 1)`.
fn digest(words: impl IntoIterator<Item = u32>) -> String {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let (mut sum, mut power) = (0u64, 1u64);
    for word in words {
        power = power.wrapping_mul(K);
        sum = sum.wrapping_add((u64::from(word) + 1).wrapping_mul(power));
    }
    format!("{sum:016x}")
}

/// The bits of a value; one NaN for all.
fn bits(value: f32) -> u32 {
    if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }
}

fn decode(info: &FormatInfo, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / info.block_bytes * info.block_len];
    (info.decode)(bytes, &mut out);
    out
}

fn encode(info: &FormatInfo, values: &[f32]) -> Option<Vec<u8>> {
    let mut out = vec![0; values.len() / info.block_len * info.block_bytes];
    info.encode.map(|encode| {
        encode(values, &mut out);
        out
    })
}

/// Every format that can be encoded.
fn encodable() -> impl Iterator<Item = &'static FormatInfo> {
    Format::ALL.iter().map(|format| format.info()).filter(|info| info.encode.is_some())
}

/// Bell-shaped values between -2 and 2 of standard deviation 0.58: sums of four uniform numbers.
fn bell(seed: u64, n: u64) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let word = splitmix64(seed, i);
            let sum: u64 = [0, 16, 32, 48].iter().map(|shift| (word >> shift) & 0xffff).sum();
            (sum as f32 - 131_070.0) / 65536.0
        })
        .collect()
}

/// 48 rows of 256: bell-shaped values at several scales, constants, zeros, huge and tiny rows.
fn encoder_input() -> Vec<f32> {
    let mut values = bell(0xc0dec, 48 * 256);
    for (row, values) in values.chunks_mut(256).enumerate() {
        let first = values[0];
        let early = row < 24;
        for (i, v) in values.iter_mut().enumerate() {
            match row % 8 {
                0..3 => *v *= 2f32.powi(row as i32 % 5 - 6),
                3 => *v *= 2f32.powi((i as i32 / 16) % 7 - 3),
                4 => *v = first,
                5 if early || i / 32 % 2 == 1 => *v = 0.0,
                5 => {}
                6 => *v *= 2f32.powi(if early { 100 } else { 14 }),
                _ => *v *= 2f32.powi(if early { -60 } else { -18 }),
            }
        }
    }
    values
}

/// 48 rows of 256 that squares do not overflow, and the importances of 1024 columns.
fn file_input() -> (Vec<f32>, Vec<f32>) {
    let mut values = bell(0xf11e, 48 * 256);
    for (row, values) in values.chunks_mut(256).enumerate() {
        let first = values[0];
        for (i, v) in values.iter_mut().enumerate() {
            match row % 8 {
                0..3 => *v *= 2f32.powi(row as i32 % 5 - 6),
                3 => *v *= 2f32.powi((i as i32 / 16) % 7 - 3),
                4 => *v = first,
                5 if i / 32 % 2 == 1 => *v = 0.0,
                _ => {}
            }
        }
    }
    let importance = (0..1024).map(|i| ((splitmix64(0x1394, i) & 0xffff) + 1) as f32 / 4096.0).collect();
    (values, importance)
}

fn quantize(info: &FormatInfo, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0; values.len() / info.block_len * info.block_bytes];
    (info.quantize)(values, importance, &mut out);
    out
}

#[test]
fn files_are_encoded_as_recorded_with_importances_and_without() {
    let recorded = recorded();
    let (values, importance) = file_input();
    for info in encodable().filter(|info| info.block_len > 1) {
        for (what, importance) in [("quantize", None), ("weighted", Some(&importance[..]))] {
            let bytes = quantize(info, &values, importance);
            let found = digest(bytes.iter().map(|b| u32::from(*b)));
            assert_eq!(found, recorded[&(what, info.name)], "{what} {}", info.name);
        }
    }
}

#[test]
fn the_search_for_files_gives_the_same_blocks_but_for_iq4_nl_better_ones() {
    let error = |info: &FormatInfo, values: &[f32], bytes: &[u8]| -> f64 {
        decode(info, bytes).iter().zip(values).map(|(y, x)| f64::from(y - x).powi(2)).sum()
    };
    for info in encodable() {
        // An odd number of blocks, so that the last search has idle lanes.
        for values in [&encoder_input()[..], &bell(5, 256 * 5)] {
            let (fast, plain) = (quantize(info, values, None), encode(info, values).unwrap());
            assert!(fast == plain || info.name == "IQ4_NL", "{}", info.name);
        }
    }
    let (info, values) = (Format::IQ4_NL.info(), bell(5, 256 * 5));
    let (file, cache) = (quantize(info, &values, None), encode(info, &values).unwrap());
    assert!(error(info, &values, &file) < error(info, &values, &cache));
}

#[test]
fn importances_move_the_error_to_columns_that_matter_less() {
    // Every fourth column matters a hundred times as much as the others.
    let values = bell(77, 512 * 64);
    let importance: Vec<f32> = (0..512).map(|c| if c % 4 == 0 { 100.0 } else { 1.0 }).collect();
    for info in encodable().filter(|info| info.block_len > 1 && !["Q8_0", "MXFP4"].contains(&info.name)) {
        let loss = |bytes: &[u8]| -> f64 {
            let errors = decode(info, bytes).into_iter().zip(&values).map(|(y, x)| f64::from(y - x).powi(2));
            errors.zip(importance.iter().cycle()).map(|(e, w)| e * f64::from(*w)).sum()
        };
        let (plain, weighted) = (quantize(info, &values, None), quantize(info, &values, Some(&importance)));
        let gain = loss(&plain) / loss(&weighted);
        assert!(gain > 1.02, "{}: only {gain} times less", info.name);
    }
}

#[test]
fn importances_of_any_kind_do_no_harm() {
    let values = bell(9, 512 * 2);
    for weight in [0.0, 1e-30, 1e30, -1.0, f32::NAN, f32::INFINITY] {
        for info in encodable().filter(|info| info.block_len > 1) {
            let importance: Vec<f32> = (0..512).map(|c| if c % 3 == 0 { weight } else { 1.0 }).collect();
            assert_eq!(
                quantize(info, &values, Some(&importance)).len(),
                1024 / info.block_len * info.block_bytes
            );
        }
    }
}

#[test]
fn names_and_ids_are_unique_and_found() {
    let mut seen = HashSet::new();
    for format in Format::ALL {
        let info = format.info();
        assert!(seen.insert(info.id.to_string()) && seen.insert(info.name.to_owned()), "{format} twice");
        assert_eq!(Format::from_id(info.id), Some(*format));
        assert_eq!((*format as u32, format.to_string().as_str()), (info.id, info.name));
    }
    // Ids that ggml gave up (4, 5), has for activations only (9, 15) or never gave.
    for id in [4, 5, 9, 15, 1000, u32::MAX] {
        assert_eq!(Format::from_id(id), None);
    }
}

#[test]
fn sizes_count_whole_blocks() {
    for format in Format::ALL {
        let info = format.info();
        let (len, size) = (info.block_len as u64, info.block_bytes as u64);
        assert_eq!(format.bytes_of(0), Some(0));
        assert_eq!(format.bytes_of(3 * len), Some(3 * size));
        assert_eq!(format.bytes_of(len + 1), (len == 1).then_some(2 * size));
        let most = u64::MAX / len * len;
        assert_eq!(format.bytes_of(most), (most / len).checked_mul(size), "{format}");
        assert!((2.0..=64.0).contains(&info.bits()), "{format}: {} bits", info.bits());
    }
    assert_eq!(Format::Q4_K.info().bits(), 4.5);
}

#[test]
fn zero_bytes_decode_to_zeros() {
    for format in Format::ALL {
        let info = format.info();
        let values = decode(info, &vec![0; 5 * info.block_bytes]);
        assert_eq!(values, vec![0.0; 5 * info.block_len], "{format}");
    }
}

#[test]
fn random_bytes_decode_as_recorded() {
    let recorded = recorded();
    for format in Format::ALL {
        let info = format.info();
        let n = if info.block_len == 1 { 4096 } else { 64 } * info.block_bytes;
        let words = (0..n.div_ceil(8) as u64).map(|i| splitmix64(u64::from(info.id), i).to_le_bytes());
        let bytes: Vec<u8> = words.flatten().take(n).collect();
        let values = decode(info, &bytes);
        assert_eq!(digest(values.into_iter().map(bits)), recorded[&("decode", info.name)], "{format}");
    }
}

#[test]
fn values_encode_as_recorded() {
    let (recorded, values) = (recorded(), encoder_input());
    for info in encodable() {
        let bytes = encode(info, &values).unwrap();
        let hash = digest(bytes.iter().map(|byte| u32::from(*byte)));
        assert_eq!(hash, recorded[&("encode", info.name)], "{}", info.name);
    }
}

#[test]
fn real_tensors_decode_as_recorded() {
    let Some(root) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("SKIPPED: CHASKI_TEST_DATA is not set");
        return;
    };
    let mut n_files = 0;
    for ((what, name), hash) in recorded() {
        if what == "file" {
            let file = Gguf::open(Path::new(&root).join("conformance").join(name)).unwrap();
            let mut words = Vec::new();
            for info in file.tensors() {
                let tensor = file.require_tensor(&info.name).unwrap();
                words.extend(decode(info.format.info(), tensor.bytes).into_iter().map(bits));
            }
            assert_eq!(digest(words), hash, "{name}");
            n_files += 1;
        }
    }
    assert!(n_files >= 30, "{n_files} files in the fixture");
}

/// What is lost by encoding, as a share of the values' root mean square.
#[test]
fn the_error_of_encoding_fits_the_bits() {
    let values = bell(7, 64 * 256);
    let square = |v: f32| f64::from(v) * f64::from(v);
    let norm: f64 = values.iter().map(|v| square(*v)).sum();
    for info in encodable().filter(|info| !info.name.starts_with('I') || info.block_len > 1) {
        let decoded = decode(info, &encode(info, &values).unwrap());
        let error: f64 = values.iter().zip(&decoded).map(|(v, d)| square(v - d)).sum();
        let loss = (error / norm).sqrt();
        println!(
            "{:7} {:7.4} bits: {loss:.2e} = {:.2} * 2^-bits",
            info.name,
            info.bits(),
            loss * info.bits().exp2()
        );
        if info.bits() < 9.0 {
            // A uniform quantizer of b bits over 4 standard deviations loses about 2^-b * 4 / sqrt(12).
            assert!(loss < 3.0 * (-info.bits()).exp2(), "{}: {loss}", info.name);
            assert!(loss > 0.5 * (-info.bits()).exp2(), "{}: {loss} is too good to be true", info.name);
        } else {
            assert!(loss < 2f64.powi(-8), "{}: {loss}", info.name);
        }
    }
}

/// Where the largest magnitude is stored exactly, what was rounded once is not rounded again.
#[test]
fn encoding_what_was_decoded_gives_the_same_bytes() {
    let values = bell(11, 64 * 256);
    let exact = ["F32", "F64", "F16", "BF16", "I8", "I16", "I32", "I64", "Q4_0", "Q5_0", "Q8_0", "MXFP4"];
    for info in encodable().filter(|info| exact.contains(&info.name)) {
        let bytes = encode(info, &values).unwrap();
        let again = encode(info, &decode(info, &bytes)).unwrap();
        assert!(bytes == again, "{}", info.name);
    }
}

#[test]
fn values_out_of_range_are_encoded_without_a_panic() {
    let strange =
        [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-39, 0.0, -0.0];
    for info in encodable() {
        for v in strange {
            for every in [1, 7, 256] {
                let mut values = bell(13, 256);
                values.iter_mut().step_by(every).for_each(|value| *value = v);
                let bytes = encode(info, &values).unwrap();
                assert_eq!(decode(info, &bytes).len(), 256);
            }
        }
    }
}

/// The lengths are the caller's duty (a debug build asserts them); a wrong one reads and writes no stray byte.
#[cfg(not(debug_assertions))]
#[test]
fn partial_blocks_are_left_alone() {
    for format in Format::ALL {
        let info = format.info();
        let (len, size) = (info.block_len, info.block_bytes);
        let bytes = vec![0; 3 * size];
        let mut out = vec![7.0; 3 * len];
        (info.decode)(&bytes[..2 * size - 1], &mut out);
        assert!(out[..len].iter().all(|v| *v == 0.0) && out[len..].iter().all(|v| *v == 7.0), "{format}");
        (info.decode)(&bytes, &mut out[..2 * len + len / 2]);
        assert!(
            out[..2 * len].iter().all(|v| *v == 0.0) && out[2 * len..].iter().all(|v| *v == 7.0),
            "{format}"
        );
        if let Some(encode) = info.encode {
            let mut bytes = vec![0xaa; 3 * size];
            encode(&out[..2 * len + len / 2], &mut bytes);
            assert!(bytes[2 * size..].iter().all(|byte| *byte == 0xaa), "{format}");
            encode(&out, &mut bytes[..size - 1]);
        }
    }
}
