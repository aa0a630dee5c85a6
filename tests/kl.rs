//! What `--save-kl-base` and `--kl-base` promise: the divergence of a model from another form of it, from a small file, and nothing
//! from a base of something else.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, arg, run, test_data, tiny_llama};
use serde_json::Value;

const TEXT: &str = "hello abc ab hello bc a cab ";

/// A model, its form in Q4_0, and a text of some windows of 32 tokens.
struct Case {
    folder: tempfile::TempDir,
    source: PathBuf,
    rounded: PathBuf,
    text: PathBuf,
}

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let source = tiny_llama().write(folder.path(), "source.gguf");
        let (rounded, text) = (folder.path().join("rounded.gguf"), folder.path().join("text.txt"));
        assert_eq!(run(&["quantize", arg(&source), arg(&rounded), "Q4_0", "-q"]).code, Some(0));
        fs::write(&text, TEXT.repeat(20)).unwrap();
        Case { folder, source, rounded, text }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn perplexity(&self, model: &Path, flags: &[&str]) -> Run {
        run(&[&["perplexity", arg(model), "-f", arg(&self.text), "-c", "32"], flags].concat())
    }
    fn save(&self, name: &str, flags: &[&str]) -> PathBuf {
        let base = self.path(name);
        let done = self.perplexity(&self.source, &[&["--save-kl-base", arg(&base)], flags].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        base
    }
    fn divergence(&self, model: &Path, base: &Path, flags: &[&str]) -> Value {
        let done = self.perplexity(model, &[&["--json", "--kl-base", arg(base)], flags].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }
    fn refused(&self, model: &Path, flags: &[&str], code: i32, says: &[&str]) {
        let done = self.perplexity(model, flags);
        assert_eq!(done.code, Some(code), "{flags:?}: {done:?}");
        for words in says {
            assert!(done.stderr.contains(words), "{words}: {done:?}");
        }
        let left: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".partial")), "{left:?}");
    }
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

#[test]
fn a_model_is_at_no_distance_from_itself() {
    let case = Case::new();
    let base = case.save("base", &[]);
    let found = case.divergence(&case.source, &base, &[]);
    for path in ["/divergence/kl/mean/value", "/divergence/kl/max", "/divergence/top_probability_rms/value"] {
        assert_eq!(number(&found, path), 0.0, "{path}");
    }
    assert_eq!(number(&found, "/divergence/top_agreement/value"), 1.0);
    let (own, of_base) = (number(&found, "/perplexity"), number(&found, "/divergence/base_perplexity"));
    assert!((own / of_base - 1.0).abs() < 1e-6, "{own} {of_base}");
}

#[test]
fn a_rounded_model_is_at_one_and_fewer_tokens_see_less_of_it() {
    let case = Case::new();
    let mean = |flags: &[&str]| {
        let base = case.save("base", flags);
        let found = case.divergence(&case.rounded, &base, &[]);
        let d = &found["divergence"];
        let of = |path: &str| number(d, path);
        assert!(of("/kl/median") <= of("/kl/p90") && of("/kl/p90") <= of("/kl/p99"), "{d}");
        assert!(of("/kl/p99") <= of("/kl/p999") && of("/kl/p999") <= of("/kl/max"), "{d}");
        assert!(of("/kl/mean/stderr") > 0.0 && of("/kl/mean/stderr") < of("/kl/mean/value"), "{d}");
        assert!((0.0..=1.0).contains(&of("/top_agreement/value")), "{d}");
        let ratio = (number(&found, "/perplexity") / of("/base_perplexity")).ln();
        assert!((ratio - of("/ln_perplexity_ratio/value")).abs() < 1e-6, "{found}");
        (of("/kl/mean/value"), of("/tail"), fs::metadata(base).unwrap().len())
    };
    // The vocabulary has 271 tokens.
    let (all, few, one) = (mean(&["--kl-top", "1000"]), mean(&["--kl-top", "32"]), mean(&["--kl-top", "1"]));
    assert!(one.0 > 0.0 && one.0 < few.0 && few.0 < all.0, "{one:?} {few:?} {all:?}");
    assert!(all.1 == 0.0 && few.1 > 0.0 && one.1 > few.1);
    assert!(one.2 < few.2 && few.2 < all.2);
}

#[test]
fn results_do_not_depend_on_threads_or_micro_batches() {
    let case = Case::new();
    let base = case.save("base", &[]);
    let of =
        |flags: &[&str]| number(&case.divergence(&case.rounded, &base, flags), "/divergence/kl/mean/value");
    let one = of(&["-t", "1"]);
    assert_eq!(of(&["-t", "3"]), one);
    assert!((of(&["-ub", "7"]) / one - 1.0).abs() < 1e-3);
}

#[test]
fn the_first_windows_of_a_base_will_do_and_more_than_it_has_will_not() {
    let case = Case::new();
    let base = case.save("base", &["--chunks", "3"]);
    let found = case.divergence(&case.rounded, &base, &["--chunks", "2"]);
    assert_eq!((&found["chunks"], &found["tokens"]), (&2.into(), &30.into()));
    // Without --chunks: as many as the base has.
    assert_eq!(case.divergence(&case.rounded, &base, &[])["chunks"], 3);
    let flags = ["--kl-base", arg(&base), "--chunks", "4"];
    case.refused(&case.source, &flags, 2, &["--chunks 4", "has only 3 windows"]);
}

#[test]
fn a_base_of_something_else_is_refused_by_name() {
    let case = Case::new();
    let base = case.save("base", &[]);
    let flags = ["--kl-base", arg(&base)];
    let refused = |model: &str, ctx: &str, says: &[&str]| {
        let done = run(&["perplexity", model, "-f", arg(&case.text), "-c", ctx, "--kl-base", arg(&base)]);
        assert_eq!(done.code, Some(3), "{done:?}");
        for words in says {
            assert!(done.stderr.contains(words), "{words}: {done:?}");
        }
    };
    refused(arg(&case.source), "16", &["another context", "32 tokens, not 16"]);
    refused("demo", "32", &["another model: tiny (llama, 2 layers of 32, 271 tokens)", "not "]);
    fs::write(&case.text, "abc hello ".repeat(60)).unwrap();
    case.refused(&case.source, &flags, 3, &["another text: text.txt", "base"]);
}

#[test]
fn what_is_no_base_or_a_cut_one_is_refused() {
    let case = Case::new();
    let base = case.save("base", &[]);
    let bytes = fs::read(&base).unwrap();
    for (bytes, says) in [
        (&bytes[..bytes.len() - 1], "cut short"),
        (&bytes[..40], "cut short in its header"),
        (b"GGUF and so on, of whatever length", "not a base"),
        (b"", "not a base"),
    ] {
        let bad = case.path("bad");
        fs::write(&bad, bytes).unwrap();
        case.refused(&case.source, &["--kl-base", arg(&bad)], 3, &["bad", says]);
    }
    case.refused(&case.source, &["--kl-base", arg(&case.path("none"))], 3, &["none", "cannot read the base"]);
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_anything_is_measured() {
    let case = Case::new();
    let cases: &[(&Path, i32, &str)] = &[
        (&case.text, 2, "is an input of this command"),
        (&case.source, 2, "is an input of this command"),
        (case.folder.path(), 2, "is a folder"),
        (&case.path("no/base"), 2, "its folder is not there"),
    ];
    for (path, code, says) in cases {
        case.refused(&case.source, &["--save-kl-base", arg(path)], *code, &[says]);
    }
    assert_eq!(fs::read_to_string(&case.text).unwrap(), TEXT.repeat(20));
    case.refused(&case.source, &["--kl-top", "3"], 2, &["--kl-top has no effect"]);
    let both = ["--kl-base", "x", "--save-kl-base", "y"];
    case.refused(&case.source, &both, 2, &["cannot be used with"]);
}

/// A disk that is full, as Linux has one for tests.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let case = Case::new();
    std::os::unix::fs::symlink("/dev/full", case.path("base.partial")).unwrap();
    let base = case.path("base");
    let done = case.perplexity(&case.source, &["--save-kl-base", arg(&base)]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains("cannot write the base") && done.stderr.contains("No space left"),
        "{done:?}"
    );
    assert!(!base.exists());
}

#[test]
fn formats_of_a_trained_model_are_in_their_order() {
    let Some(data) = test_data("formats_of_a_trained_model_are_in_their_order") else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let text = data.join("text/wikitext2.test.txt");
    let of = |format: &str, flags: &[&str]| {
        let model = data.join(format!("models/wiki-7m-{format}.gguf"));
        let done =
            run(&[&["perplexity", arg(&model), "-f", arg(&text), "--json", "--chunks", "4"], flags].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str::<Value>(&done.stdout).unwrap()
    };
    of("f16", &["--save-kl-base", arg(&base)]);
    let mut last = (0.0, 1.0);
    for (format, most) in [("q8_0", 2e-3), ("q4_k_m", 0.03), ("q3_k_m", 0.1), ("q2_k", 0.4)] {
        let found = of(format, &["--kl-base", arg(&base)]);
        let kl = number(&found, "/divergence/kl/mean/value");
        let same = number(&found, "/divergence/top_agreement/value");
        eprintln!("{format}: KL {kl:.5}, same top token {same:.4}");
        assert!(kl > last.0 && kl < most && same < last.1, "{format}: {found}");
        last = (kl, same);
    }
}
