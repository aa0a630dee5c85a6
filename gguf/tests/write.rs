//! What the writer makes, byte for byte, and what it refuses to make.

use chaski_gguf::{Format, Gguf, OwnedValue, ValueType, Writer};

fn written(writer: Writer) -> Vec<u8> {
    let expected = writer.file_bytes().unwrap();
    let mut bytes = Vec::new();
    assert_eq!(writer.write_to(&mut bytes).unwrap(), expected);
    assert_eq!(bytes.len() as u64, expected);
    bytes
}

#[test]
fn a_file_has_these_bytes() {
    let mut writer = Writer::new();
    writer.set("a", 258u16).unwrap().set("s", "hé").unwrap();
    writer.set("v", vec![true, false]).unwrap();
    writer.set("n", OwnedValue::Array(ValueType::Array, vec![vec!["x"].into()])).unwrap();
    writer.tensor("t", &[2, 1], Format::F16, &[1, 2, 3, 4]).unwrap();
    writer.tensor("u", &[], Format::I8, &[9]).unwrap();
    #[rustfmt::skip]
    let golden: &[&[u8]] = &[
        b"GGUF", &[3, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0], b"a", &[2, 0, 0, 0], &[2, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0], b"s", &[8, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], b"h\xc3\xa9",
        &[1, 0, 0, 0, 0, 0, 0, 0], b"v", &[9, 0, 0, 0], &[7, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0], &[1, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0], b"n", &[9, 0, 0, 0], &[9, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0],
            &[8, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0], b"x",
        &[1, 0, 0, 0, 0, 0, 0, 0], b"t", &[2, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0], &[0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0], b"u", &[0, 0, 0, 0], &[24, 0, 0, 0], &[32, 0, 0, 0, 0, 0, 0, 0],
        // 202 bytes so far; the data section begins at 224.
        &[0; 22],
        &[1, 2, 3, 4], &[0; 28], &[9], &[0; 31],
    ];
    assert_eq!(written(writer), golden.concat());
}

#[test]
fn the_alignment_that_is_set_is_kept() {
    let mut writer = Writer::new();
    writer.set("general.alignment", 64u32).unwrap();
    writer.tensor("a", &[1], Format::I8, &[1]).unwrap().tensor("b", &[1], Format::I8, &[2]).unwrap();
    let bytes = written(writer);
    let file = Gguf::from_bytes(&bytes).unwrap();
    let offsets: Vec<u64> = file.tensors().iter().map(|t| file.file_offset(t)).collect();
    assert_eq!((offsets[0] % 64, offsets[1] - offsets[0], bytes.len() % 64), (0, 64, 0));
    assert_eq!(file.require_tensor("b").unwrap().bytes, [2]);
}

#[test]
fn a_key_that_is_set_again_keeps_its_place() {
    let mut writer = Writer::new();
    writer.set("a", 1u32).unwrap().set("b", 2u32).unwrap().set("a", "new").unwrap();
    let file = Gguf::from_bytes(&written(writer)).unwrap();
    let keys: Vec<&str> = file.metadata().map(|(key, _)| key).collect();
    assert_eq!((keys, file.require_str("a").unwrap()), (vec!["a", "b"], "new"));
}

#[test]
fn what_no_reader_would_take_is_refused() {
    let mut w = Writer::new();
    assert!(w.set("", 1u8).is_err());
    assert!(w.set(&"k".repeat(65_536), 1u8).is_err());
    assert!(w.set("general.alignment", 24u32).is_err());
    assert!(w.set("general.alignment", "32").is_err());
    assert!(w.set("mixed", OwnedValue::Array(ValueType::U8, vec![1u16.into()])).is_err());
    let deep = (0..5).fold(OwnedValue::from(vec![1u8]), |v, _| OwnedValue::Array(ValueType::Array, vec![v]));
    assert!(w.set("deep", deep).is_err());
    assert!(w.tensor("", &[1], Format::I8, &[1]).is_err());
    assert!(w.tensor(&"t".repeat(64), &[1], Format::I8, &[1]).is_err());
    assert!(w.tensor("t", &[1; 5], Format::I8, &[1]).is_err());
    assert!(w.tensor("t", &[31], Format::Q8_0, &[0; 34]).is_err());
    assert!(w.tensor("t", &[2], Format::I8, &[1]).is_err());
    assert!(w.tensor("t", &[1 << 62, 8], Format::F64, &[]).is_err());
    // None of these left anything behind.
    w.tensor("t", &[1], Format::I8, &[1]).unwrap();
    assert!(w.tensor("t", &[1], Format::I8, &[1]).is_err());
    let file = Gguf::from_bytes(&written(w)).unwrap();
    assert_eq!((file.metadata().count(), file.tensors().len()), (0, 1));
}

#[test]
fn a_tensor_can_be_made_when_its_turn_comes() {
    let mut writer = Writer::new();
    writer
        .tensor_with("a", &[4], Format::I8, |out| Ok((0..4).try_for_each(|b| out.write_all(&[b]))?))
        .unwrap();
    writer.tensor("b", &[2], Format::I8, &[8, 9]).unwrap();
    let file = Gguf::from_bytes(&written(writer)).unwrap();
    assert_eq!(file.require_tensor("a").unwrap().bytes, [0, 1, 2, 3]);
    assert_eq!(file.require_tensor("b").unwrap().bytes, [8, 9]);
}

fn failing(bytes: &'static [u8], fail: bool) -> Writer<'static> {
    let mut writer = Writer::new();
    writer
        .tensor_with("blk.0.x", &[4], Format::I8, move |out| {
            out.write_all(bytes)?;
            if fail { Err("no such layer".into()) } else { Ok(()) }
        })
        .unwrap();
    writer
}

#[test]
fn a_producer_that_fails_or_miscounts_is_an_error() {
    let error = |bytes, fail| failing(bytes, fail).write_to(&mut Vec::new()).unwrap_err().to_string();
    assert_eq!(error(&[1, 2, 3], false), "cannot write tensor blk.0.x: its producer wrote 3 of 4 bytes");
    assert_eq!(error(&[1; 6], false), "cannot write tensor blk.0.x: 2 bytes more than the tensor takes");
    assert_eq!(error(&[1; 4], true), "cannot write tensor blk.0.x: no such layer");
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    failing(&[1; 4], false).save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(failing(&[2; 4], true).save(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    failing(&[3; 4], false).save(&path).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().require_tensor("blk.0.x").unwrap().bytes, [3; 4]);
    // No temporary file is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = failing(&[1; 4], false).save(folder.path().join("no/such/model.gguf")).unwrap_err();
    assert!(matches!(error, chaski_gguf::Error::Io { .. }));
}

#[test]
fn a_mapped_file_can_be_replaced_by_its_own_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    failing(&[5; 4], false).save(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    let mut writer = Writer::copy_of(&file).unwrap();
    writer.set("general.name", "copy").unwrap();
    writer.save(&path).unwrap();
    assert_eq!(file.require_tensor("blk.0.x").unwrap().bytes, [5; 4]);
    assert_eq!(Gguf::open(&path).unwrap().require_str("general.name").unwrap(), "copy");
}

#[test]
fn the_layout_is_that_of_the_file_and_a_key_can_be_taken_away() {
    let (a, b) = ([1u8; 34], [2u8; 4 * 5]);
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .unwrap()
        .set("x.gone", 1u32)
        .unwrap()
        .set("x.kept", 2u32)
        .unwrap();
    writer.remove("x.gone").set("x.kept", 3u32).unwrap();
    writer.tensor("a", &[32], Format::Q8_0, &a).unwrap().tensor("b", &[5], Format::F32, &b).unwrap();
    let layout = writer.layout().unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    assert!(bytes.starts_with(&layout.head));
    let part = |i: usize| &bytes[layout.tensors[i].start as usize..layout.tensors[i].end as usize];
    assert!(part(0).starts_with(&a) && part(1).starts_with(&b));
    assert_eq!(layout.tensors[1].end as usize, bytes.len());
    let file = Gguf::from_bytes(&bytes).unwrap();
    assert!(file.get("x.gone").is_none());
    assert_eq!(file.require_u32("x.kept").unwrap(), 3);
}

#[test]
fn a_head_alone_opens_and_has_no_bytes_to_give() {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.tensor_with("a", &[32, 4], Format::Q8_0, |_| Ok(())).unwrap();
    writer.tensor_with("b", &[1 << 40], Format::F32, |_| Ok(())).unwrap();
    let head = writer.layout().unwrap().head;
    assert!(Gguf::from_bytes(&head).unwrap_err().to_string().contains("ends at"));
    let file = Gguf::from_head(&head).unwrap();
    assert_eq!(file.require_str("general.architecture").unwrap(), "llama");
    assert_eq!(file.tensor_info("b").unwrap().bytes, 1 << 42);
    assert!(file.require_tensor("a").is_err() && file.tensor("b").is_none());
    assert!(Gguf::from_head(&head[..head.len() / 2]).is_err());
}
