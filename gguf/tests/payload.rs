//! The scan of tensors for values that are not finite.

use chaski_gguf::{Format, Gguf, Writer};

fn scan(format: Format, shape: &[u64], data: &[u8]) -> Result<(), String> {
    let mut writer = Writer::new();
    writer.tensor("first", &[1], Format::F32, &[0; 4]).unwrap();
    writer.tensor("blk.0.ffn_up.weight", shape, format, data).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Gguf::from_bytes(&bytes).unwrap().check_payload(|_, _| ()).map_err(|e| e.to_string())
}

#[test]
fn the_first_value_that_is_not_finite_is_named() {
    let n = 10_000;
    let mut values = vec![1.0f32; n];
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    scan(Format::F32, &[n as u64], &bytes(&values)).unwrap();
    values[9_000] = f32::INFINITY;
    values[9_001] = f32::NAN;
    let error = scan(Format::F32, &[n as u64], &bytes(&values)).unwrap_err();
    // The header takes 24 + 37 + 51 bytes, the data section begins at 128, the tensor 32 bytes into it.
    let offset = 160 + 4 * 9_000;
    let expected = format!(
        "tensor blk.0.ffn_up.weight: block 9000 (F32) decodes to inf at its value 0 (byte offset {offset})"
    );
    assert_eq!(error, expected);
}

/// Bytes of f16 numbers that are not finite.
const NOT_FINITE: [(&str, [u8; 2]); 3] =
    [("NaN", [0x00, 0x7e]), ("inf", [0x00, 0x7c]), ("-inf", [0x00, 0xfc])];

#[test]
fn a_broken_scale_is_found_in_every_format_that_has_one() {
    // Where a block of the format has an f16 scale or minimum.
    let scales = [
        (Format::F16, 0),
        (Format::Q4_0, 0),
        (Format::Q4_1, 0),
        (Format::Q4_1, 2),
        (Format::Q5_0, 0),
        (Format::Q5_1, 2),
        (Format::Q8_0, 0),
        (Format::Q2_K, 80),
        (Format::Q3_K, 108),
        (Format::Q2_K, 82),
        (Format::Q4_K, 0),
        (Format::Q4_K, 2),
        (Format::Q5_K, 2),
        (Format::Q6_K, 208),
        (Format::IQ4_NL, 0),
        (Format::IQ4_XS, 0),
    ];
    for (format, at) in scales {
        let info = format.info();
        let blocks = 100;
        let mut data = vec![1u8; blocks * info.block_bytes];
        // Small scales and minima everywhere: 0x0101 is a tiny f16.
        scan(format, &[(blocks * info.block_len) as u64], &data).unwrap_or_else(|e| panic!("{format}: {e}"));
        for (name, bits) in NOT_FINITE {
            let mut data = data.clone();
            data[77 * info.block_bytes + at..][..2].copy_from_slice(&bits);
            let error = scan(format, &[(blocks * info.block_len) as u64], &data).unwrap_err();
            assert!(error.contains(&format!("block 77 ({format})")), "{format} {name}: {error}");
        }
        data.fill(0);
        scan(format, &[(blocks * info.block_len) as u64], &data).unwrap();
    }
}

#[test]
fn progress_counts_bytes_up_to_all() {
    let data = vec![0; 34 * 1000];
    let mut writer = Writer::new();
    writer.tensor("a", &[32_000], Format::Q8_0, &data).unwrap();
    writer.tensor("b", &[3], Format::F32, &data[..12]).unwrap();
    writer.tensor("none", &[0], Format::F32, &[]).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    let mut calls = Vec::new();
    Gguf::from_bytes(&bytes).unwrap().check_payload(|done, total| calls.push((done, total))).unwrap();
    assert!(calls.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(calls.last(), Some(&(34_012, 34_012)));
}

#[test]
fn the_shared_models_are_finite() {
    let Some(root) = std::env::var_os("CHASKI_TEST_DATA") else {
        eprintln!("SKIPPED: CHASKI_TEST_DATA is not set");
        return;
    };
    for name in [
        "models/stories260K",
        "models/stories260K-gguf-v1",
        "models/wiki-7m-q2_k",
        "conformance/llama-q4_k_m",
    ] {
        let path = std::path::Path::new(&root).join(format!("{name}.gguf"));
        Gguf::open(&path).unwrap().check_payload(|_, _| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
