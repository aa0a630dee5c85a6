//! The rules of the house that the compiler does not know: who may import whom, how long a file may be, that every
//! directory is accounted for, and that nothing is left unfinished without saying so. A violation names file and line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module of the crate may name through `crate::`, apart from itself.
///
/// - `kv` (formats of rows, which cell holds what, what a token sees) is pure logic on top of `chaski-gguf`; graph and
///   backend may name it because a cache's format is part of a node's type. The memory of a cache is the engine's.
/// - `model` knows no device: it never names exec, cpu or engine. It may name `kv` for the same reason as `graph`.
/// - Only `engine` names a device's module; `cli` may, for what its flags say of the machine (`--isa`).
/// - `cpu` and `gpu` never name each other.
/// - `demo` is the bytes of the embedded model, and knows nothing of what is done with them.
/// - `machine` asks the system (memory, cores, paging) and knows nothing of models.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("tensor", &[]),
    ("kv", &["tensor"]),
    ("tokenizer", &[]),
    ("sample", &[]),
    ("machine", &[]),
    ("demo", &[]),
    ("graph", &["tensor", "kv"]),
    ("model", &["tensor", "kv", "graph"]),
    ("backend", &["tensor", "kv", "graph"]),
    ("cpu", &["tensor", "kv", "graph", "backend"]),
    ("gpu", &["tensor", "kv", "graph", "backend"]),
    ("exec", &["tensor", "kv", "graph", "backend"]),
    ("engine", &["tensor", "kv", "graph", "backend", "exec", "model", "cpu", "gpu", "machine"]),
    ("measure", &["tensor", "kv", "graph", "model", "tokenizer", "sample", "engine", "machine"]),
    ("quant", &["tensor", "kv", "graph", "model", "tokenizer", "engine", "measure", "machine"]),
    ("chat", &["model", "tokenizer", "sample", "engine"]),
    (
        "cli",
        &[
            "tensor",
            "kv",
            "graph",
            "backend",
            "cpu",
            "gpu",
            "model",
            "tokenizer",
            "sample",
            "engine",
            "measure",
            "quant",
            "chat",
            "machine",
            "demo",
        ],
    ),
    ("main", &["cli"]),
];

/// Lines of a file. The aim is 600; this is where a file has certainly become two.
const MAX_LINES: usize = 700;

struct Source {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folders` with one of these extensions.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).filter(|f| f.is_dir()).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root()).unwrap().to_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The text with comments and the contents of string literals blanked out, line for line, so that a path or a word
/// in prose is no path or word of code.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => out.extend(chars.next().map(blank)),
                        '"' => break,
                        c => out.push(blank(c)),
                    }
                }
                out.push('"');
            }
            // A character literal that would open a string.
            '\'' if chars.peek() == Some(&'"') => {
                chars.next();
                out.push(' ');
            }
            c => out.push(c),
        }
    }
    out
}

/// The line number of a byte of a text.
fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The names right behind each `prefix`, with their lines: of `prefix::a::b` the name `a`, of `prefix::{a::b, c}` the
/// names `a` and `c`.
fn names_behind(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let ident =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line(code, at), ident(rest)));
            continue;
        };
        let (mut depth, mut start) = (1, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => start = true,
                c if start && !c.is_whitespace() => {
                    found.push((line(code, at + prefix.len() + 1 + i), ident(&group[i..])));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The top-level module that a file belongs to: `src/cpu/ops/add.rs` is of `cpu`.
fn module(path: &Path) -> String {
    let name = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    name.trim_end_matches(".rs").to_owned()
}

/// What a file imports against the table, as `file:line: ...`.
fn forbidden(path: &Path, text: &str) -> Vec<String> {
    let of = module(path);
    let code = code(text);
    let prefix = if of == "main" { "chaski::" } else { "crate::" };
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == of) else {
        return vec![format!("{}:1: module {of} is in no row of the table", path.display())];
    };
    let wrong = names_behind(&code, prefix).into_iter().filter(|(_, name)| {
        let known = MAY_IMPORT.iter().any(|(module, _)| module == name);
        *name != of && !(known && allowed.contains(&name.as_str()))
    });
    wrong.map(|(line, name)| format!("{}:{line}: {of} may not import {name}", path.display())).collect()
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let sources = files(&["src"], &["rs"]);
    assert!(sources.len() > 50, "the sources are not where this test looks");
    // lib.rs declares the modules and names none of them otherwise.
    let lib = sources.iter().filter(|s| s.path != Path::new("src/lib.rs"));
    report(&lib.flat_map(|s| forbidden(&s.path, &s.text)).collect::<Vec<_>>());
}

#[test]
fn the_table_allows_no_circle() {
    // Rows are in an order in which each names only rows before it.
    for (i, (name, allowed)) in MAY_IMPORT.iter().enumerate() {
        for other in *allowed {
            let at = MAY_IMPORT.iter().position(|(n, _)| n == other);
            assert!(at.is_some_and(|at| at < i), "{name} -> {other}");
        }
    }
}

#[test]
fn a_wrong_import_is_found_with_its_line_and_prose_is_not() {
    let text = "//! See crate::gpu.\nuse crate::{\n    backend::Buffer,\n    engine::{Engine, exec::X},\n};\nfn f() { crate::gpu::g(\"crate::cli\"); }\n";
    let found = forbidden(Path::new("src/cpu/x.rs"), text);
    assert_eq!(
        found,
        ["src/cpu/x.rs:4: cpu may not import engine", "src/cpu/x.rs:6: cpu may not import gpu"]
    );
    assert!(
        forbidden(Path::new("src/cpu/x.rs"), "use crate::tensor::Act;\nuse crate::cpu::act;\n").is_empty()
    );
    assert_eq!(forbidden(Path::new("src/main.rs"), "chaski::engine::run()").len(), 1);
}

#[test]
fn the_file_format_knows_nothing_of_the_rest() {
    let wrong = files(&["gguf/src"], &["rs"]).into_iter().flat_map(|s| {
        let code = code(&s.text);
        let named = names_behind(&code, "chaski::");
        named
            .into_iter()
            .map(move |(line, name)| format!("{}:{line}: names chaski::{name}", s.path.display()))
    });
    report(&wrong.collect::<Vec<_>>());
    let manifest = fs::read_to_string(root().join("gguf/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|l| l.trim_start().starts_with("chaski ") || l.contains("path = \"..\"")));
}

#[test]
fn shaders_are_named_in_one_file_only() {
    let wrong =
        files(&["src"], &["rs"]).into_iter().filter(|s| !s.path.starts_with("src/gpu")).filter_map(|s| {
            let at = s.text.find(".wgsl\"")?;
            Some(format!("{}:{}: names a shader", s.path.display(), line(&s.text, at)))
        });
    report(&wrong.collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_it_may_be() {
    let sources = files(&["src", "gguf", "tests", "benches", "shaders"], &["rs", "wgsl"]);
    let long = sources.iter().filter_map(|s| {
        let lines = s.text.lines().count();
        (lines > MAX_LINES).then(|| format!("{}:{lines}: at most {MAX_LINES} lines", s.path.display()))
    });
    report(&long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_marked_as_unfinished() {
    // Put together, so that this file does not hold them itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"], ["HA", "CK"]].map(|w| w.concat());
    let macros = [["to", "do!"], ["unimple", "mented!"]].map(|w| w.concat());
    let mut wrong = Vec::new();
    for s in files(&["src", "gguf", "tests", "benches", "shaders"], &["rs", "wgsl"]) {
        for (i, text) in s.text.lines().enumerate() {
            let mut here = text.split(|c: char| !c.is_alphanumeric());
            if here.any(|w| words.iter().any(|x| x == w)) || macros.iter().any(|m| text.contains(m)) {
                wrong.push(format!("{}:{}: {}", s.path.display(), i + 1, text.trim()));
            }
        }
    }
    report(&wrong);
}

#[test]
fn architecture_md_names_every_directory_of_the_tree() {
    let account = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let sources = files(&["src", "gguf/src", "shaders"], &["rs", "wgsl"]);
    let folders: BTreeSet<&Path> = sources.iter().filter_map(|s| s.path.parent()).collect();
    let missing = folders.into_iter().filter_map(|folder| {
        // In a drawing of the tree a directory stands below its parent, under its own name.
        let name = folder.file_name()?.to_str()?;
        let named = account.contains(&format!("{name}/")) || account.contains(&format!("`{name}`"));
        (!named).then(|| format!("ARCHITECTURE.md:1: says nothing of {}", folder.display()))
    });
    report(&missing.collect::<Vec<_>>());
}
