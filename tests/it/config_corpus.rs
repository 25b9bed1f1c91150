//! Every file of `tests/corpus/config` against its expected diagnostics, and every file of its
//! `good` directory against the records it expands to.
//!
//! `UPDATE_EXPECTED=1` writes what is found as what is expected; review the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use weft::config::{self, Loaded};
use weft::model::NodeName;

const CORPUS: &str = "tests/corpus/config";
const GOOD: &str = "tests/corpus/config/good";

#[test]
fn broken_files_have_the_expected_diagnostics() {
    let files = inputs(Path::new(CORPUS));
    assert!(files.len() >= 25, "only {} files in {CORPUS}", files.len());
    compare_all(&files, |loaded| {
        let shown: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        shown.join("\n")
    });
}

#[test]
fn no_broken_file_is_accepted() {
    for file in inputs(Path::new(CORPUS)) {
        let loaded = config::load(std::slice::from_ref(&file));
        assert!(!loaded.is_valid(), "{} was accepted", file.display());
    }
}

#[test]
fn good_files_expand_to_the_expected_records() {
    let files = inputs(Path::new(GOOD));
    assert!(files.len() >= 10, "only {} files in {GOOD}", files.len());
    for file in &files {
        let loaded = config::load(std::slice::from_ref(file));
        let faults: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert!(loaded.is_valid(), "{}:\n{}", file.display(), faults.join("\n"));
    }
    compare_all(&files, summary);
}

/// The configuration files directly in a directory, by name.
fn inputs(dir: &Path) -> Vec<PathBuf> {
    let is_config = |path: &PathBuf| path.extension().is_some_and(|e| e == "hcl" || e == "json");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(is_config).collect();
    files.sort();
    files
}

fn compare_all(files: &[PathBuf], show: impl Fn(&Loaded) -> String) {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = String::new();
    for file in files {
        let expected = file.with_extension("expected");
        let found = show(&config::load(std::slice::from_ref(file)));
        if update {
            fs::write(&expected, &found).unwrap();
            continue;
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_else(|cause| {
            panic!("{}: {cause}; run with UPDATE_EXPECTED=1", expected.display())
        });
        if found != wanted {
            write!(different, "=== {}\n--- expected\n{wanted}\n--- found\n{found}\n", file.display())
                .unwrap();
        }
    }
    assert!(different.is_empty(), "{different}");
}

/// What a file says: records, node checks, agent keys and warnings.
fn summary(loaded: &Loaded) -> String {
    let node = NodeName::new("n1").unwrap();
    let mut text = String::new();
    for definition in &loaded.definitions {
        for registration in definition.expand(&node, 21_000).unwrap() {
            writeln!(text, "{}", serde_json::to_string_pretty(&registration).unwrap()).unwrap();
        }
    }
    for check in &loaded.node_checks {
        writeln!(text, "node check {}", serde_json::to_string_pretty(check).unwrap()).unwrap();
    }
    if loaded.agent != config::AgentKeys::default() {
        writeln!(text, "{:#?}", loaded.agent).unwrap();
    }
    for fault in &loaded.diagnostics {
        write!(text, "{fault}").unwrap();
    }
    text
}
