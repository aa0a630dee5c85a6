//! Values by key: types that convert where nothing is lost, errors that say what was there, and overrides.

use chaski_gguf::{Error, Gguf, OwnedValue, Value, ValueType, keys, parse_override};

mod support;
use support::*;

fn file(build: impl FnOnce(&mut Raw), n_keys: u64) -> Gguf {
    let mut raw = Raw::header(3, 0, n_keys);
    build(&mut raw);
    Gguf::from_bytes(&raw.done()).unwrap()
}

#[test]
fn every_version_gives_the_same_values() {
    for version in 1..=3 {
        let file = Gguf::from_bytes(&small(version).bytes).unwrap();
        assert_eq!(file.version(), version);
        assert_eq!(file.get("general.architecture"), Some(Value::String("llama")));
        assert_eq!(file.get("u8"), Some(Value::U8(200)));
        assert_eq!(file.get("i8"), Some(Value::I8(-56)));
        assert_eq!(file.get("u16"), Some(Value::U16(60_000)));
        assert_eq!(file.get("i16"), Some(Value::I16(-2)));
        assert_eq!(file.get("u32"), Some(Value::U32(4_000_000_000)));
        assert_eq!(file.get("i32"), Some(Value::I32(-3)));
        assert_eq!(file.get("f32"), Some(Value::F32(1.5)));
        assert_eq!(file.get("bool"), Some(Value::Bool(true)));
        assert_eq!(file.get("u64"), Some(Value::U64(u64::MAX)));
        assert_eq!(file.get("i64"), Some(Value::I64(i64::MIN)));
        assert_eq!(file.get("f64"), Some(Value::F64(0.1)));
        assert_eq!(file.get("empty"), Some(Value::String("")));
        assert_eq!(file.get("absent"), None);
        let strings: Vec<&str> = file.require_string_array("strings").unwrap().strings().unwrap().collect();
        assert_eq!(strings, ["a", "", "Grüße"]);
        assert_eq!(file.integers("ints").unwrap(), Some(vec![1, 2, 3]));
        let bools = OwnedValue::Array(ValueType::Bool, vec![false.into(), true.into()]);
        let nested =
            vec![OwnedValue::from(vec!["x", "yz"]), OwnedValue::Array(ValueType::Array, vec![bools])];
        assert_eq!(file.get("nested").unwrap().to_owned(), OwnedValue::Array(ValueType::Array, nested));
        let order: Vec<&str> = file.metadata().map(|(key, _)| key).collect();
        assert_eq!((order.len(), order[0], order[16]), (17, "general.architecture", "general.alignment"));
    }
}

#[test]
fn integers_convert_where_they_fit() {
    let file = Gguf::from_bytes(&small(3).bytes).unwrap();
    assert_eq!(file.u32("u8").unwrap(), Some(200));
    assert_eq!(file.u64("u32").unwrap(), Some(4_000_000_000));
    assert_eq!(file.i64("i8").unwrap(), Some(-56));
    assert_eq!(file.integers("u8").unwrap(), Some(vec![200]));
    assert_eq!(file.u32("absent").unwrap(), None);
    for key in ["i8", "u64", "i64", "f32", "bool", "empty", "ints"] {
        assert!(file.u32(key).is_err(), "{key}");
    }
    assert!(file.i64("u64").is_err());
    assert_eq!(file.f32("f64").unwrap(), Some(0.1));
    assert!(file.f32("u8").is_err() && file.bool("u8").is_err() && file.str("strings").is_err());
    assert!(file.string_array("ints").is_err() && file.array("u8").is_err());
}

#[test]
fn an_error_names_key_types_and_offset() {
    let file = file(|r| _ = r.key("llama.block_count", I32, &(-3i32).to_le_bytes()).key_str("name", "x"), 2);
    let message = |error: Error| error.to_string();
    assert_eq!(
        message(file.u32("llama.block_count").unwrap_err()),
        "metadata key llama.block_count: wanted u32, found i32 -3 (byte offset 53)"
    );
    assert_eq!(
        message(file.f32("name").unwrap_err()),
        "metadata key name: wanted f32, found string \"x\" (byte offset 73)"
    );
    assert_eq!(message(file.require_str("absent").unwrap_err()), "metadata key absent: missing");
}

#[test]
fn an_id_of_all_ones_means_that_there_is_no_such_token() {
    let file = file(
        |r| {
            r.key("all ones", U32, &u32::MAX.to_le_bytes())
                .key("minus one", I32, &(-1i32).to_le_bytes())
                .key("wide", I64, &(-1i64).to_le_bytes())
                .key("two", U32, &2u32.to_le_bytes())
                .key("negative", I32, &(-2i32).to_le_bytes());
        },
        5,
    );
    for key in ["all ones", "minus one", "wide", "absent"] {
        assert_eq!(file.token_id(key).unwrap(), None, "{key}");
    }
    assert_eq!(file.token_id("two").unwrap(), Some(2));
    assert!(file.token_id("negative").is_err());
    // As a plain number it is read as it stands.
    assert_eq!(file.u32("all ones").unwrap(), Some(u32::MAX));
}

#[test]
fn an_override_replaces_and_adds() {
    let mut file = Gguf::from_bytes(&small(1).bytes).unwrap();
    file.override_value("u32", OwnedValue::I64(7)).unwrap();
    file.override_value("strings", vec!["new"]).unwrap();
    file.override_value("added", "text").unwrap();
    file.override_value("added", true).unwrap();
    assert_eq!(file.u32("u32").unwrap(), Some(7));
    assert!(file.require_bool("added").unwrap());
    assert_eq!(file.require_string_array("strings").unwrap().strings().unwrap().collect::<Vec<_>>(), ["new"]);
    let keys: Vec<&str> = file.metadata().map(|(key, _)| key).collect();
    assert_eq!((keys.len(), keys[5], keys[17]), (18, "u32", "added"));
    assert!(file.metadata().any(|(key, value)| key == "u32" && value == Value::I64(7)));
    let error = file.u32("added").unwrap_err().to_string();
    assert_eq!(error, "metadata key added: wanted u32, found bool true (given by an override)");
}

#[test]
fn an_override_that_could_have_no_effect_is_refused() {
    let mut file = Gguf::from_bytes(&small(3).bytes).unwrap();
    for key in [keys::GENERAL_ALIGNMENT, keys::SPLIT_COUNT, ""] {
        assert!(file.override_value(key, 32u32).is_err(), "{key}");
    }
    let mixed = OwnedValue::Array(ValueType::U8, vec![1u8.into(), true.into()]);
    assert!(file.override_value("mixed", mixed).unwrap_err().to_string().contains("bool as element 1"));
}

#[test]
fn overrides_are_written_as_llama_cpp_writes_them() {
    let parse = |text| parse_override(text).unwrap();
    assert_eq!(
        parse("llama.expert_used_count=int:3"),
        ("llama.expert_used_count".into(), OwnedValue::I64(3))
    );
    assert_eq!(parse("a=int:-1").1, OwnedValue::I64(-1));
    assert_eq!(parse("llama.rope.freq_base=float:1e4").1, OwnedValue::F64(10_000.0));
    assert_eq!(parse("tokenizer.ggml.add_bos_token=bool:true").1, OwnedValue::Bool(true));
    assert_eq!(parse("tokenizer.ggml.pre=str:a=b:c").1, OwnedValue::String("a=b:c".into()));
    assert_eq!(parse("a=str:").1, OwnedValue::String(String::new()));
    for wrong in [
        "a",
        "a=3",
        "=int:3",
        "a=int:x",
        "a=int:1.5",
        "a=bool:1",
        "a=float:",
        "a=u32:3",
        "a=int:99999999999999999999",
    ] {
        let error = parse_override(wrong).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
}
