//! Keeps the figure of the house true: who may use whom, who sees generated types, how long a file is.
//!
//! The table below is the one in `docs/architecture.md`; a test compares them. To add an edge, change
//! both, and say in the commit why the edge is worth it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every module of `src`, and the modules it may use. Same module is always allowed.
const TABLE: [(&str, &[&str]); 22] = [
    ("model", &[]),
    ("pb", &["model"]),
    ("net", &["model"]),
    ("config", &["model"]),
    ("store", &["model"]),
    ("catalog", &["store", "model", "net"]),
    ("health", &["model", "net"]),
    ("kv", &["store", "catalog", "model", "net"]),
    ("ca", &["store", "model"]),
    ("etcd", &["store", "catalog", "model", "net", "pb"]),
    ("control", &["access", "catalog", "ca", "model", "net", "tls", "pb"]),
    ("access", &["store", "model"]),
    ("api", &["access", "catalog", "ca", "kv", "model", "net", "telemetry"]),
    ("dns", &["catalog", "model", "net", "telemetry"]),
    ("tls", &["model", "net"]),
    ("agent", &["tls", "model", "net", "pb"]),
    ("tunnel", &["tls", "net", "model"]),
    ("proxy", &["agent", "tunnel", "net", "model", "tls", "telemetry"]),
    ("workload", &["agent", "model", "net", "pb"]),
    ("telemetry", &["model", "net"]),
    ("cli", &[EVERYTHING]),
    ("app", &[EVERYTHING]),
];

const EVERYTHING: &str = "everything";

/// The files that may name protobuf types: conversions, and what holds or feeds a gRPC stream. All of
/// `etcd` and `workload` may, which are about their messages only.
const PB_FILES: [&str; 15] = [
    "control/convert.rs",
    "control/flow.rs",
    "control/hello.rs",
    "control/identity.rs",
    "control/mesh.rs",
    "control/mod.rs",
    "control/registry.rs",
    "control/sync.rs",
    "agent/application.rs",
    "agent/convert.rs",
    "agent/credentials.rs",
    "agent/edges.rs",
    "agent/receiver.rs",
    "agent/stream.rs",
    "agent/svid.rs",
];

const MAX_LINES: usize = 500;

#[test]
fn every_source_file_keeps_the_rules() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    assert!(files.len() > 50, "only {} files were found under {}", files.len(), source.display());
    let faults: Vec<String> = files.iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_document_shows_the_same_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let document = fs::read_to_string(&path).unwrap();
    let ours: BTreeMap<_, BTreeSet<_>> =
        TABLE.into_iter().map(|(module, uses)| (module, uses.iter().copied().collect())).collect();
    assert_eq!(documented_table(&document), ours);
}

/// The rows of the section "Modules", such as ``| `net` | what it is | `model`, `pb` |``.
fn documented_table(document: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let section = document.split("\n## ").find(|section| section.starts_with("Modules\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let uses = cells[2].trim().split(", ").filter(|cell| *cell != "nothing");
        (cells[0].trim().trim_matches('`'), uses.map(|cell| cell.trim_matches('`')).collect())
    })
    .collect()
}

/// Path relative to `source`, with `/`, and content of every `.rs` file.
fn rust_files(source: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut to_visit = vec![source.to_owned()];
    while let Some(directory) = to_visit.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                to_visit.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(source).unwrap();
                let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
                found.push((parts.join("/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// What is wrong with one file; `path` is relative to `src`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("src/{path}: {lines} lines; at most {MAX_LINES} are allowed"));
    }
    if !text.starts_with("//!") {
        faults.push(format!("src/{path}: does not begin with a //! that says what it is"));
    }
    let Some(module) = module_of(path) else { return faults };
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == module) else {
        faults.push(format!("src/{path}: module {module} is not in the table"));
        return faults;
    };
    if is_test(path) {
        return faults;
    }
    for used in used_modules(&code(text)) {
        if used != module && !allowed.contains(&used.as_str()) && !allowed.contains(&EVERYTHING) {
            faults.push(format!("src/{path}: {module} must not use {used}"));
        }
        if used == "pb" && !matches!(module, "pb" | "etcd" | "workload") && !PB_FILES.contains(&path) {
            faults.push(format!("src/{path}: names protobuf types; only {PB_FILES:?} may"));
        }
    }
    faults
}

/// `lib.rs` and `main.rs` belong to no module.
fn module_of(path: &str) -> Option<&str> {
    match path {
        "lib.rs" | "main.rs" => None,
        _ => Some(path.split_once('/').map_or(path.trim_end_matches(".rs"), |(module, _)| module)),
    }
}

/// Tests may use more than the code they test.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text without comments and without the test module at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens_module = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(opens_module) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// The first segment of every path that begins with `crate::`, groups included.
fn used_modules(code: &str) -> BTreeSet<String> {
    let paths = code.split("crate::").skip(1);
    paths
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => group_members(group),
            None => vec![first_word(rest)],
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// The first words of the members of `a::b, c::{d, e}}…`, whose opening brace was taken already.
fn group_members(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => members.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if let Some(member) = members.last_mut() {
            member.push(c);
        }
    }
    members.iter().map(|member| first_word(member.trim_start_matches([',', ' ', '\n']))).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn planted_violations_are_found() {
    let long = format!("//! A file.\n{}", "\n".repeat(MAX_LINES));
    for (path, text, expected) in [
        ("proxy/dial.rs", "//! x\nuse crate::catalog::Catalog;\n", "proxy must not use catalog"),
        ("model/name.rs", "//! x\nfn f() { crate::net::rng(); }\n", "model must not use net"),
        (
            "tunnel/codec.rs",
            "//! x\nuse crate::{\n    model::{A, B},\n    ca::C,\n};\n",
            "tunnel must not use ca",
        ),
        ("agent/state.rs", "//! x\nuse crate::pb::Snapshot;\n", "names protobuf types"),
        ("health/probe.rs", "//! x\npub use crate::pb;\n", "health must not use pb"),
        ("stuff/mod.rs", "//! x\n", "module stuff is not in the table"),
        ("stuff.rs", "//! x\n", "module stuff is not in the table"),
        ("net/mod.rs", "// no module comment\n", "does not begin with a //!"),
        ("main.rs", "fn main() {}\n", "does not begin with a //!"),
        ("net/socket.rs", &long, "501 lines"),
    ] {
        let found = faults(path, text);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{path}: {expected:?} not in {found:?}"
        );
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (path, text) in [
        ("proxy/dial.rs", "//! x\nuse crate::agent::Agent;\nuse crate::proxy::worker;\n"),
        ("proxy/dial.rs", "//! Like `crate::catalog`.\n// use crate::catalog::X;\n"),
        ("proxy/dial.rs", "//! x\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::ca::Ca;\n}\n"),
        ("proxy/tests/flow.rs", "//! x\nuse crate::ca::Ca;\n"),
        ("agent/convert.rs", "//! x\nuse crate::{model::A, pb};\n"),
        ("app/mod.rs", "//! x\nuse crate::catalog::Catalog;\nuse crate::proxy::Proxy;\n"),
        ("lib.rs", "//! x\npub mod anything;\n"),
    ] {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{path}");
    }
    // A test module declared without a body ends nothing.
    let text = "//! x\n#[cfg(test)]\nmod tests;\n\nuse crate::catalog::Catalog;\n";
    assert_eq!(faults("proxy/dial.rs", text), ["src/proxy/dial.rs: proxy must not use catalog"]);
}

/// Tests wait for conditions; where they let time pass, they say what for.
#[test]
fn no_test_sleeps_but_by_a_name_that_says_why() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let sleeps =
        |(path, text): &(String, String)| path != "pace.rs" && text.contains(&["sleep", "("].concat());
    let found: Vec<String> = rust_files(&dir).into_iter().filter(sleeps).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "a bare sleep: use a helper of tests/it/pace.rs in {found:?}");
}
