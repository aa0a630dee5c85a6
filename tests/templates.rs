//! Chat templates render as Python's jinja2 renders them.
//!
//! The cases are in the folder `templates` of the data that `CHASKI_TEST_DATA` names: beside each template a
//! file of conversations, each with the text that jinja2 renders or the error that it raises.

use std::path::PathBuf;

use chaski::chat::template::{RenderInput, Template, parse_time};
use serde_json::Value;

fn data() -> Option<PathBuf> {
    match std::env::var_os("CHASKI_TEST_DATA") {
        Some(path) => Some(PathBuf::from(path).join("templates")),
        None => {
            eprintln!("SKIPPED: CHASKI_TEST_DATA is not set, so no real template is rendered");
            None
        }
    }
}

fn input_of(case: &Value) -> RenderInput {
    let input = case["input"].as_object().expect("a case has an input");
    let mut render = RenderInput {
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        now: Some(parse_time("2026-01-02T03:04:05").unwrap()),
        ..RenderInput::default()
    };
    for (name, value) in input {
        match name.as_str() {
            "messages" => render.messages = value.clone(),
            "tools" => render.tools = Some(value.clone()),
            "add_generation_prompt" => render.add_generation_prompt = value.as_bool().unwrap(),
            _ => {
                render.extra.insert(name.clone(), value.clone());
            }
        }
    }
    render
}

#[test]
fn every_real_template_renders_as_jinja2_does() {
    let Some(folder) = data() else { return };
    let mut templates: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of templates")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jinja"))
        .collect();
    templates.sort();
    assert!(templates.len() >= 40, "only {} templates in {}", templates.len(), folder.display());
    let (mut cases, mut failures) = (0, Vec::new());
    for path in &templates {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let template = Template::parse(&std::fs::read_to_string(path).unwrap());
        let json = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let conversations: serde_json::Map<String, Value> = serde_json::from_str(&json).unwrap();
        for (which, case) in &conversations {
            cases += 1;
            let got = match &template {
                Ok(template) => template.render(&input_of(case)).map(|r| r.text).map_err(|e| e.to_string()),
                Err(e) => Err(format!("parse: {e}")),
            };
            match (
                &got,
                case.get("output").and_then(Value::as_str),
                case.get("error").and_then(Value::as_str),
            ) {
                (Ok(got), Some(want), _) if got == want => {}
                (Err(_), None, Some(_)) => {}
                (got, want, error) => {
                    failures.push(format!("{name}/{which}:\n  got  {got:?}\n  want {want:?} {error:?}"))
                }
            }
        }
    }
    println!("{} templates, {cases} conversations", templates.len());
    assert!(failures.is_empty(), "{} of {cases} differ:\n{}", failures.len(), failures.join("\n"));
}
