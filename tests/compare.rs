//! What `compare` promises: a table, a report and its raw figures, no file left behind, and everything that can be refused refused
//! before anything is made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chaski_gguf::{Gguf, keys};
use common::hf::{Folder, importable};
use common::{Run, arg, run, tiny_llama};
use serde_json::Value;

struct Case {
    folder: tempfile::TempDir,
    source: PathBuf,
    text: PathBuf,
}

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let source = tiny_llama().write(folder.path(), "source.gguf");
        let text = folder.path().join("text.txt");
        fs::write(&text, "hello abc ab hello bc a cab ".repeat(8)).unwrap();
        Case { folder, source, text }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn compare(&self, words: &[&str]) -> Run {
        let out = self.path("report.html");
        let fixed = ["compare", arg(&self.source), "-f", arg(&self.text), "-o", arg(&out), "-c", "32"];
        run(&[&fixed, words].concat())
    }
    /// What lies in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
    fn facts(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

/// A page without what a browser, a parser or a reader would trip over.
fn check_page(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    for bad in ["<script", "http://", "https://", "src=", "NaN", "inf<", "url("] {
        assert!(!html.contains(bad), "{bad}");
    }
    // Every element that is opened is closed, in order.
    let mut open: Vec<&str> = Vec::new();
    for part in html.split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split(|c: char| c.is_whitespace() || c == '/').next().unwrap();
        if tag.starts_with('!') || ["meta", "br"].contains(&name) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn one_command_makes_the_table_the_report_and_the_figures() {
    let case = Case::new();
    let done = case.compare(&["Q8_0", "q4_0", "--kv-types", "q8_0,q4_0", "--kv-pairs", "--activations"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(case.names(), ["report.html", "report.json", "source.gguf", "text.txt"]);
    for words in ["F32 (source)", "Q8_0", "Q4_0", "KV cache", "8-bit activations", "K q8_0 V q4_0"] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    let facts = case.facts();
    let entry = |i: usize| &facts["entries"][i];
    assert_eq!((&entry(0)["label"], &entry(1)["label"]), (&"Q8_0".into(), &"Q4_0".into()));
    assert_eq!(entry(1)["method"], "nearest");
    let number =
        |v: &Value, path: &str| v.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}"));
    let kl = |i: usize| number(entry(i), "/divergence/kl/mean/value");
    assert!(kl(0) > 0.0 && kl(0) < kl(1), "{} {}", kl(0), kl(1));
    assert!(number(entry(0), "/bits_per_weight") > number(entry(1), "/bits_per_weight"));
    assert!(number(entry(1), "/bytes") < number(&facts["source"], "/bytes"));
    assert!(entry(1)["speed"][1]["mean"].as_f64().unwrap() > 0.0);
    assert_eq!(entry(1)["layers"].as_array().unwrap().len(), 2);
    assert!(number(entry(1), "/layers/0/noise_to_signal") > number(entry(0), "/layers/0/noise_to_signal"));
    assert!(entry(1)["tensors"].as_array().unwrap().iter().any(|t| t["name"] == "blk.0.attn_q.weight"));
    // Activations that meet weights in floats are not rounded; those that meet Q4_0 are.
    assert!(number(&facts["source"], "/activations/divergence/kl/mean/value") < 1e-6);
    assert!(number(entry(1), "/activations/divergence/kl/mean/value") > 0.0);
    let cache = facts["cache_quality"].as_array().unwrap();
    let pair = |k: &str, v: &str| cache.iter().find(|q| q["k"] == k && q["v"] == v).unwrap();
    assert_eq!(cache.len(), 4);
    assert!(
        number(pair("q4_0", "q4_0"), "/bytes_per_token") < number(pair("q8_0", "q4_0"), "/bytes_per_token")
    );
    assert!(
        number(pair("q8_0", "q8_0"), "/divergence/kl/mean/value")
            < number(pair("q4_0", "q4_0"), "/divergence/kl/mean/value")
    );
    let html = fs::read_to_string(case.path("report.html")).unwrap();
    check_page(&html);
    assert!(html.matches("<svg viewBox=\"0 0 440").count() >= 7, "plots");
    assert!(html.contains("V q8_0") && html.contains("prefers-color-scheme: dark"));
}

#[test]
fn files_that_are_there_are_compared_and_kept_ones_say_what_was_found() {
    let case = Case::new();
    let there = case.path("mine.gguf");
    assert_eq!(run(&["quantize", arg(&case.source), arg(&there), "Q5_0", "-q"]).code, Some(0));
    let keep = case.path("kept");
    let done = case.compare(&[arg(&there), "Q4_1", "--no-speed", "--keep", arg(&keep), "--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let facts: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(facts, case.facts());
    assert_eq!(
        (&facts["entries"][0]["label"], &facts["entries"][0]["method"]),
        (&"mine".into(), &"file".into())
    );
    assert_eq!(
        (&facts["entries"][0]["format"], &facts["entries"][0]["speed"]),
        (&"Q5_0".into(), &Value::Array(vec![]))
    );
    let kept: Vec<_> = fs::read_dir(&keep).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept, [keep.join("source-Q4_1.gguf")]);
    let file = Gguf::open(&kept[0]).unwrap();
    let entry = &facts["entries"][1];
    let said = |key| file.get(key).and_then(|v| v.as_f64()).unwrap();
    assert_eq!(Some(said(keys::CHASKI_QUANTIZE_PERPLEXITY)), entry["perplexity"].as_f64());
    assert_eq!(
        Some(said(keys::CHASKI_QUANTIZE_KL_MEAN)),
        entry["divergence"]["kl"]["mean"]["value"].as_f64()
    );
    assert_eq!(file.require_str(keys::CHASKI_QUANTIZE_TEXT).unwrap(), "text.txt");
    assert_eq!(file.require_str(keys::CHASKI_QUANTIZE_FILE_TYPE).unwrap(), "Q4_1");
    // A kept file is never replaced.
    let again = case.compare(&["Q4_1", "--no-speed", "--keep", arg(&keep)]);
    assert!(again.code == Some(2) && again.stderr.contains("is there already"), "{again:?}");
    check_page(&fs::read_to_string(case.path("report.html")).unwrap());
}

#[test]
fn an_importance_matrix_makes_a_format_of_its_own() {
    let case = Case::new();
    let matrix = case.path("imatrix.gguf");
    assert_eq!(
        run(&["imatrix", arg(&case.source), "-f", arg(&case.text), "-o", arg(&matrix), "-c", "32"]).code,
        Some(0)
    );
    let with = ["--imatrix", arg(&matrix), "--no-speed"];
    let done = case.compare(&[&["Q4_0", "Q4_0+imatrix"], &with[..]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    let facts = case.facts();
    let perplexity = |i: usize| facts["entries"][i]["perplexity"].as_f64().unwrap();
    assert_eq!(
        (&facts["entries"][1]["label"], &facts["entries"][1]["method"]),
        (&"Q4_0+imatrix".into(), &"imatrix".into())
    );
    assert!(perplexity(0) != perplexity(1));
    let unused = case.compare(&[&["Q4_0"], &with[..]].concat());
    assert!(unused.code == Some(2) && unused.stderr.contains("--imatrix has no effect"), "{unused:?}");
    let missing = case.compare(&["Q4_0+imatrix"]);
    assert!(missing.code == Some(2) && missing.stderr.contains("needs an importance matrix"), "{missing:?}");
}

#[test]
fn calibrated_ways_of_rounding_are_those_of_quantize() {
    let case = Case::new();
    let words = case.path("words.txt");
    fs::write(&words, "cab a bc hello ab abc hello a ".repeat(12)).unwrap();
    let keep = case.path("kept");
    let flags = ["--calibrate", arg(&words), "--calibrate-ctx", "32", "--damping", "0.05"];
    let formats = ["Q4_0", "Q4_0+gptq", "q4_0+GPTQ,awq"];
    let done = case.compare(&[&formats, &flags[..], &["--no-speed", "--keep", arg(&keep)]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("rounded layers") && !done.stderr.contains("the text that is scored"),
        "{done:?}"
    );
    let facts = case.facts();
    let of = |key: &str| -> Vec<&str> {
        facts["entries"].as_array().unwrap().iter().map(|e| e[key].as_str().unwrap()).collect()
    };
    assert_eq!(of("label"), ["Q4_0", "Q4_0+gptq", "Q4_0+awq,gptq"]);
    assert_eq!(of("method"), ["nearest", "gptq", "awq+gptq"]);
    assert_eq!(facts["calibration"]["name"], "words.txt");
    assert_eq!(
        (&facts["calibration"]["ctx"], &facts["calibration"]["scored_too"]),
        (&32.into(), &false.into())
    );
    let perplexity: Vec<f64> = (0..3).map(|i| facts["entries"][i]["perplexity"].as_f64().unwrap()).collect();
    assert!(perplexity[0] != perplexity[1] && perplexity[1] != perplexity[2], "{perplexity:?}");
    // Scaled tensors are other tensors: what they lost cannot be told one by one.
    let tensors = |i: usize| facts["entries"][i]["tensors"].as_array().unwrap().len();
    assert!(tensors(1) > 0 && tensors(2) == 0);
    let html = fs::read_to_string(case.path("report.html")).unwrap();
    check_page(&html);
    for words in
        ["Q4_0+awq,gptq", "rounded by awq, gptq", "Calibrated files were calibrated on words.txt", "Not of"]
    {
        assert!(html.contains(words), "{words}");
    }
    // The very bytes that the command by itself writes, and the file says how it was made.
    let own = case.path("own.gguf");
    let quantize = ["quantize", arg(&case.source), arg(&own), "Q4_0", "--method", "gptq,awq", "-q"];
    assert_eq!(run(&[&quantize, &flags[..]].concat()).code, Some(0));
    let (own, kept) =
        (Gguf::open(&own).unwrap(), Gguf::open(keep.join("source-Q4_0+awq,gptq.gguf")).unwrap());
    assert_eq!(kept.require_str(keys::CHASKI_QUANTIZE_METHOD).unwrap(), "awq+gptq");
    for t in own.tensors() {
        let bytes = |file: &Gguf| file.require_tensor(&t.name).unwrap().bytes.to_vec();
        assert!(bytes(&own) == bytes(&kept), "{}", t.name);
    }
}

#[test]
fn a_text_that_is_calibrated_on_and_scored_is_told() {
    let case = Case::new();
    let text = arg(&case.text).to_owned();
    let done = case.compare(&["Q4_0+smooth", "--calibrate", &text, "--calibrate-ctx", "32", "--no-speed"]);
    assert!(done.code == Some(0) && done.stderr.contains("it is the text that is scored"), "{done:?}");
    assert_eq!(case.facts()["calibration"]["scored_too"], true);
    assert!(fs::read_to_string(case.path("report.html")).unwrap().contains("their figures flatter them"));
}

#[test]
fn a_folder_of_safetensors_is_a_source() {
    let case = Case::new();
    let folder = case.path("model");
    fs::create_dir(&folder).unwrap();
    let no_model =
        run(&["compare", arg(&folder), "Q8_0", "-f", arg(&case.text), "-o", arg(&case.path("r.html"))]);
    assert!(
        no_model.code == Some(3) && no_model.stderr.contains("a folder without config.json"),
        "{no_model:?}"
    );
    Folder::of(&importable("llama", false, false)).write(&folder);
    let (report, keep) = (case.path("report.html"), case.path("kept"));
    let words = [
        "compare",
        arg(&folder),
        "Q8_0",
        "Q4_0+gptq",
        "-f",
        arg(&case.text),
        "-o",
        arg(&report),
        "-c",
        "32",
        "--no-speed",
        "--calibrate",
        arg(&case.text),
        "--calibrate-ctx",
        "32",
        "--keep",
        arg(&keep),
    ];
    let done = run(&words);
    assert_eq!(done.code, Some(0), "{done:?}");
    let facts = case.facts();
    assert_eq!((&facts["model"], &facts["source"]["label"]), (&"model".into(), &"F32 (source)".into()));
    assert_eq!(facts["entries"][1]["method"], "gptq");
    assert!(facts["entries"][0]["divergence"]["kl"]["mean"]["value"].as_f64().unwrap() > 0.0);
    assert_eq!(case.names(), ["kept", "model", "report.html", "report.json", "source.gguf", "text.txt"]);
    let mut kept: Vec<_> = fs::read_dir(case.path("kept"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["model-Q4_0+gptq.gguf", "model-Q8_0.gguf"]);
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_left_behind() {
    let case = Case::new();
    let out = arg(&case.path("report.html")).to_owned();
    let source = arg(&case.source).to_owned();
    let text = arg(&case.text).to_owned();
    let before = case.names();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["Q9_Z"], 2, &["Q9_Z is no file; Q9_Z is no file type", "Q4_K_M"]),
        (&["q4km"], 2, &["is Q4_K_M meant?"]),
        (&["Q9_Z+gptq"], 2, &["Q9_Z is no file type"]),
        (&["/"], 2, &["is a folder"]),
        (&["Q4_0+best"], 2, &["is no way of rounding; there are imatrix, smooth, awq, gptq"]),
        (&["Q4_0+"], 2, &["is no way of rounding"]),
        (&["Q4_0+gptq"], 2, &["needs a calibration text: --calibrate TEXT"]),
        (&["Q4_0", "--calibrate", &text], 2, &["--calibrate has no effect"]),
        (&["Q4_0", "--damping", "0.1"], 2, &["--calibrate"]),
        (&["Q4_0+awq", "--calibrate", &text, "--damping", "0.1"], 2, &["--damping has no effect", "+gptq"]),
        (&["Q4_0+gptq", "--calibrate", &text, "--smooth-alpha", "0.1"], 2, &["--smooth-alpha has no effect"]),
        (&["Q4_0+gptq", "--calibrate", &text, "--damping=-1"], 2, &["--damping -1"]),
        (&["Q4_0+gptq", "--calibrate", "nowhere.txt"], 3, &["cannot read nowhere.txt"]),
        (&["Q4_0+gptq", "--calibrate", &source], 3, &["is no text"]),
        (
            &["Q4_0+gptq", "--calibrate", &text, "--calibrate-ctx", "3000"],
            3,
            &["Q4_0+gptq", "do not fill a window of 3000"],
        ),
        (
            &["Q4_0+gptq", "--calibrate", &text, "--calibrate-ctx", "32", "--calibrate-memory", "1KiB"],
            4,
            &["--calibrate-memory", "1024 are too little"],
        ),
        (&["F16+gptq", "--calibrate", &text, "--calibrate-ctx", "32"], 2, &["--method gptq has no effect"]),
        (&["Q4_0", "--pre-tokenizer", "qwen2"], 2, &["--pre-tokenizer is for folders"]),
        (&["Q4_0", "q4_0"], 2, &["named twice"]),
        (&["Q4_0", "--kv-types", "q9"], 2, &["--kv-types"]),
        (&["Q4_0", "--activations", "--cpu-exact"], 2, &["--activations has no effect"]),
        (&["Q4_0", "-c", "3000"], 3, &["do not fill a window"]),
        (&["Q4_0", "-o", arg(Path::new("/nowhere/r.html"))], 2, &["its folder is not there"]),
        (&["Q4_0", "-o", "x.json"], 2, &["the report needs another ending"]),
        (&[text.as_str()], 3, &["not a GGUF file"]),
    ];
    for (words, code, says) in cases {
        // Of -c and -o the last would count, were they not refused twice.
        let mut all = vec!["compare", &source, "-f", &text];
        if !words.contains(&"-o") {
            all.extend(["-o", &out]);
        }
        if !words.contains(&"-c") {
            all.extend(["-c", "32"]);
        }
        let done = run(&[&all[..], words].concat());
        assert_eq!(done.code, Some(*code), "{words:?}: {done:?}");
        for words in *says {
            assert!(done.stderr.contains(words), "{words}: {done:?}");
        }
        assert_eq!(case.names(), before, "{words:?}");
    }
    let replaced = run(&["compare", &source, "Q4_0", "-f", &text, "-o", &text]);
    assert!(
        replaced.code == Some(2) && replaced.stderr.contains("is an input of this command"),
        "{replaced:?}"
    );
    let quantized = case.path("q8.gguf");
    assert_eq!(run(&["quantize", &source, arg(&quantized), "Q8_0", "-q"]).code, Some(0));
    let again = run(&["compare", arg(&quantized), "Q4_0", "-f", &text, "-o", &out, "-c", "32"]);
    assert!(again.code == Some(3) && again.stderr.contains("--allow-requantize"), "{again:?}");
}

#[test]
fn a_file_of_another_model_is_refused() {
    let case = Case::new();
    let other = case.path("other.gguf");
    fs::copy(&case.source, &other).unwrap();
    // What has the same shape may be another form of the model.
    assert_eq!(case.compare(&[arg(&other), "--no-speed"]).code, Some(0));
    let out = case.path("r.html");
    let demo =
        ["compare", "demo", arg(&other), "-f", arg(&case.text), "-o", arg(&out), "-c", "32", "--no-speed"];
    let demo = run(&demo);
    assert!(demo.code == Some(3) && demo.stderr.contains("another model"), "{demo:?}");
    assert!(!case.path("r.html").exists());
}

/// A browser that can be asked for the page as it understood it.
fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
}

#[test]
fn the_report_opens_in_a_browser_without_errors() {
    let Some(browser) = chromium() else {
        eprintln!("SKIPPED the_report_opens_in_a_browser_without_errors: there is no Chromium here");
        return;
    };
    let case = Case::new();
    let done = case.compare(&["Q8_0", "Q4_0", "Q4_1", "--kv-types", "q8_0,q4_0", "--kv-pairs"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let page = format!("file://{}", arg(&case.path("report.html")));
    let profile = format!("--user-data-dir={}", arg(&case.path("profile")));
    let shot = case.path("shot.png");
    let open = |flags: &[&str]| {
        let fixed = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ];
        Command::new(browser).args(fixed).arg(&profile).args(flags).arg(&page).output().unwrap()
    };
    let dump = open(&["--dump-dom"]);
    let dom = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    // What the parser made of the page is what was written: it moved and closed nothing.
    let html = fs::read_to_string(case.path("report.html")).unwrap();
    for tag in ["<svg", "<table", "<figure", "<section", "<path", "<text", "<tr", "<td", "<li"] {
        assert_eq!(dom.matches(tag).count(), html.matches(tag).count(), "{tag}");
    }
    let said = String::from_utf8_lossy(&dump.stderr).into_owned();
    assert!(!said.contains("CONSOLE"), "{said}");
    for (width, height) in [(1280, 2400), (390, 1600)] {
        let size = format!("--window-size={width},{height}");
        let taken = open(&[&format!("--screenshot={}", arg(&shot)), &size, "--hide-scrollbars"]);
        assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
        let png = fs::read(&shot).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 20_000, "{} bytes", png.len());
    }
}
