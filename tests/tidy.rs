//! The shape of the tree: nothing lies around uncompiled, modules use only what they may, and the documents are whole.
//!
//! It reads text, so that it needs no feature and no dependency. What it takes for code is close enough to Rust for a tree
//! that rustfmt has seen; strings and block comments are not understood.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own tree has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate, and what each may use beside itself. ARCHITECTURE.md explains the table.
const MODULES: &[(&str, &[&str])] = &[
    ("dask", &[]),
    ("engine", &["dask"]),
    ("shuffle", &["dask"]),
    ("wire", &["dask"]),
    ("translate", &["dask", "engine", "wire"]),
    ("coordination", &["dask", "engine", "wire"]),
    ("api", &[]),
    ("comm", &["dask", "wire"]),
    ("server", &["dask", "engine", "shuffle", "wire", "translate", "coordination", "comm"]),
    ("pods", &["api", "dask"]),
    ("controller", &["api", "dask", "engine", "server", "pods"]),
    ("telemetry", &["dask", "engine", "server"]),
    ("cli", &["api"]),
    ("local", &["dask", "engine", "wire", "api", "comm", "server", "controller", "telemetry"]),
    ("operator", &["dask", "engine", "wire", "api", "comm", "server", "pods", "controller", "telemetry", "local", "cli"]),
];

/// Modules that every other may use: they know nothing of Mainstay.
const FOR_ALL: &[&str] = &["error"];

/// Modules that decide and encode without I/O.
const CORE: &[&str] = &["dask", "engine", "shuffle", "wire", "translate", "coordination"];

/// What the core may not name, because it would do I/O, read a clock or start threads.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "kube",
    "k8s_openapi",
    "futures::",
    "std::fs",
    "std::thread",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant",
    "SystemTime",
];

#[test]
fn tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = read_tree(&root.join("src"));
    let tests = read_tree(&root.join("tests"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();

    let mut faults = Vec::new();
    for file in &sources {
        check_opening(file, &mut faults);
        check_declared(file, &sources, &manifest, &mut faults);
        check_uses(file, &mut faults);
        check_core(file, &mut faults);
    }
    for file in &tests {
        check_declared(file, &tests, &manifest, &mut faults);
    }
    assert!(sources.len() > 1, "found no sources below {}", root.display());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// One `.rs` file.
struct Source {
    /// Path from the package's root, with `/`.
    path: String,
    text: String,
    /// The text without line comments.
    code: String,
}

impl Source {
    /// The crate's module that the file belongs to; none for `lib.rs`, binaries and tests.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let first = below.split('/').next()?.trim_end_matches(".rs");
        (!matches!(first, "lib" | "bin")).then_some(first)
    }
}

fn read_tree(folder: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    collect_paths(folder, &mut paths);
    paths.sort();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            Source { path, code: without_comments(&text), text }
        })
        .collect()
}

fn collect_paths(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_paths(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let start = if line.trim_start().starts_with("//") { 0 } else { line.find(" // ").unwrap_or(line.len()) };
        code.push_str(&line[..start]);
        code.push('\n');
    }
    code
}

fn check_opening(file: &Source, faults: &mut Vec<String>) {
    // A file of unit tests is about the file that it belongs to.
    if !file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs") {
        faults.push(format!("{}: does not open with `//!` and what the module owns", file.path));
    }
}

/// A file that no `mod` names and no target of Cargo.toml is never compiled.
fn check_declared(file: &Source, all: &[Source], manifest: &str, faults: &mut Vec<String>) {
    if file.code.lines().any(|line| line.trim_start().starts_with("#[path")) {
        faults.push(format!("{}: `#[path]` hides where a module is", file.path));
    }
    if file.path == "src/lib.rs" || manifest.contains(&format!("path = \"{}\"", file.path)) {
        return;
    }
    let (folder, name) = file.path.rsplit_once('/').unwrap();
    let stem = name.trim_end_matches(".rs");
    let (folder, stem) = if stem == "mod" { folder.rsplit_once('/').unwrap() } else { (folder, stem) };
    let declaration = format!("mod {stem};");
    let parents = [format!("{folder}/lib.rs"), format!("{folder}/main.rs"), format!("{folder}/mod.rs"), format!("{folder}.rs")];
    let declared = all
        .iter()
        .filter(|one| parents.contains(&one.path) && one.path != file.path)
        .any(|parent| parent.code.lines().any(|line| line.trim_end().ends_with(&declaration)));
    if !declared {
        faults.push(format!("{}: nothing declares it, so it is not compiled", file.path));
    }
}

fn check_uses(file: &Source, faults: &mut Vec<String>) {
    let Some(module) = file.module() else { return };
    if FOR_ALL.contains(&module) {
        return;
    }
    let Some((_, may_use)) = MODULES.iter().find(|(name, _)| *name == module) else {
        faults.push(format!("{}: module `{module}` has no row in the table of tests/tidy.rs", file.path));
        return;
    };
    if file.code.contains("super::super::") {
        faults.push(format!("{}: write `crate::` instead of `super::super::`", file.path));
    }
    for used in names_after_crate(&file.code) {
        let is_module = MODULES.iter().any(|(name, _)| *name == used);
        if is_module && used != module && !may_use.contains(&used.as_str()) {
            faults.push(format!("{}: `{module}` may not use `{used}`", file.path));
        }
    }
}

fn check_core(file: &Source, faults: &mut Vec<String>) {
    if !file.module().is_some_and(|module| CORE.contains(&module)) {
        return;
    }
    for name in NOT_IN_CORE {
        if contains_word(&file.code, name) {
            faults.push(format!("{}: names `{name}`, but this module does no I/O", file.path));
        }
    }
}

/// `a` of `crate::a::B`, and `a` and `c` of `crate::{a::B, c}`.
fn names_after_crate(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            None => names.extend(leading_name(rest)),
            Some(group) => names.extend(top_level_items(group).into_iter().filter_map(leading_name)),
        }
    }
    names
}

fn leading_name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The items of a `use` group up to the brace that closes it, split at the commas that are not inside inner braces.
fn top_level_items(group: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                items.push(&group[start..at]);
                break;
            }
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn contains_word(code: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && (word.ends_with("::") || !after.is_some_and(is_part))
    })
}

#[test]
fn every_reason_is_in_the_troubleshooting_guide() {
    let code = read("src/api/conditions.rs");
    let (_, reasons) = code.split_once("pub mod reasons").unwrap();
    let (reasons, _) = reasons.split_once("\n}\n").unwrap();
    let guide = read("docs/troubleshoot.md");
    let names: Vec<_> = reasons.lines().filter_map(|line| line.split_once("&str = \"")?.1.split('"').next()).collect();
    assert!(names.len() > 10, "found no reasons");
    let missing: Vec<_> = names.into_iter().filter(|name| !guide.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "docs/troubleshoot.md has no row for {missing:?}");
}

#[test]
fn every_field_of_the_spec_is_in_the_guide() {
    let crd = read("crds/persistedcollections.mainstay.dev.yaml");
    let (_, spec) = crd.split_once("\n          spec:\n").unwrap();
    let (spec, _) = spec.split_once("\n          status:\n").unwrap();
    let guide = read("docs/write-a-collection.md");
    let fields = properties(spec);
    assert!(fields.len() > 20, "found no fields");
    let missing: Vec<_> = fields.into_iter().filter(|field| !contains_word(&guide, field)).collect();
    assert!(missing.is_empty(), "docs/write-a-collection.md says nothing of {missing:?}");
}

#[test]
fn commands_in_documents_are_targets_of_the_makefile() {
    let makefile = read("Makefile");
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for start in ["`make ", "$ make ", "$(make "] {
            for (at, _) in text.match_indices(start) {
                let rest = &text[at + start.len()..];
                let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap_or(rest.len());
                let target = &rest[..end];
                assert!(makefile.contains(&format!("\n{target}:")), "{}: there is no `make {target}`", document.display());
            }
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (at, start) in text.match_indices("](") {
            let target = text[at + start.len()..].split(')').next().unwrap_or_default();
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.contains("://") {
                continue;
            }
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(file.exists(), "{}: {target} is not there", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&file).unwrap());
                assert!(anchors.contains(anchor), "{}: no heading for {target}", document.display());
            }
        }
    }
}

#[test]
fn tests_that_documents_name_are_there() {
    let persist = read("docs/persist.md");
    let mut found = 0;
    for name in persist.split('`').skip(1).step_by(2) {
        if let Some((path, test)) = name.split_once("::") {
            found += 1;
            assert!(read(path).contains(&format!("\ndef {test}(")), "docs/persist.md: {path} has no {test}");
        } else if let Some(scenario) = name.strip_suffix(".txt").filter(|name| !name.is_empty()) {
            found += 1;
            let path = format!("tests/engine/scenarios/{scenario}.txt");
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists(), "docs/persist.md: there is no {path}");
        }
    }
    let files = [
        "differential/test_differences.py",
        "differential/test_futures.py",
        "conformance/test_coordination.py",
        "conformance/test_diagnostics.py",
        "conformance/test_silence.py",
    ];
    let tests: String = files.map(|file| read(&format!("tests/{file}"))).concat();
    for name in read("docs/differences.md").split('`').skip(1).step_by(2).filter(|name| name.starts_with("test_")) {
        found += 1;
        assert!(tests.contains(&format!("\ndef {name}(")), "docs/differences.md: there is no {name}");
    }
    assert!(found > 50, "found no tests");
}

/// What people read, at the top of the tree and in its folders of documents.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> = [root.to_owned(), root.join("docs"), root.join("dev")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.sort();
    assert!(documents.len() > 3, "found no documents");
    documents
}

/// What a heading is called in links to it.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let name = |heading: &str| {
        let lower = heading.to_lowercase();
        lower.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

/// The names below every `properties:` of a YAML schema, at any depth.
fn properties(schema: &str) -> BTreeSet<&str> {
    let mut open: Vec<usize> = Vec::new();
    let mut names = BTreeSet::new();
    for line in schema.lines() {
        let indent = line.len() - line.trim_start().len();
        open.retain(|outer| *outer < indent);
        let name = line.trim().strip_suffix(':');
        if open.last().is_some_and(|outer| outer + 2 == indent) {
            names.extend(name);
        } else if name == Some("properties") {
            open.push(indent);
        }
    }
    names
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn uses_are_found_in_paths_and_in_groups() {
    let code = "use crate::{\n    dask::{Key, Spec},\n    engine,\n};\nfn f(x: crate::wire::Frame) {}\n";
    let names: Vec<_> = names_after_crate(code).into_iter().collect();
    assert_eq!(names, ["dask", "engine", "wire"]);
}

#[test]
fn comments_are_not_code() {
    assert_eq!(without_comments("//! crate::wire\nlet x = 1; // crate::wire\n"), "\nlet x = 1;\n");
}

#[test]
fn words_are_whole() {
    assert!(contains_word("use tokio::net;", "tokio"));
    assert!(!contains_word("let instant_answer = MyInstant;", "Instant"));
}
