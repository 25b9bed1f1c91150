//! `docs/threat-model.md` names the tests that hold what it says: they must exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The names in the last column of the page's tables, such as `crowds::a_denial_closes_all`.
fn named(page: &str) -> Vec<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.rsplit('|').nth(1));
    let quoted = |cell| str::split(cell, '`').skip(1).step_by(2);
    cells.flat_map(quoted).filter(|name| !name.contains(' ') && !name.contains(['/', '-'])).collect()
}

/// The file or directory of a module below `root`.
fn module(root: &Path, path: &[&str]) -> Option<PathBuf> {
    let place = path.iter().fold(root.to_owned(), |place, name| place.join(name));
    [place.with_extension("rs"), place].into_iter().find(|found| found.exists())
}

fn has_function(file: &Path, name: &str) -> bool {
    let file = if file.is_dir() { file.join("mod.rs") } else { file.to_owned() };
    fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}(")))
}

fn exists(root: &Path, name: &str) -> bool {
    let path: Vec<&str> = name.trim_end_matches("::").split("::").collect();
    let Some((last, before)) = path.split_last() else { return false };
    let function = |file: PathBuf| !before.is_empty() && has_function(&file, last);
    module(root, &path).is_some() || module(root, before).is_some_and(function)
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(home.join("docs/threat-model.md")).unwrap();
    let names = named(&page);
    assert!(names.len() > 60, "{names:?}");
    let roots = [home.join("tests/it"), home.join("src")];
    let is_lost = |name: &&&str| !roots.iter().any(|root| exists(root, name));
    let lost: Vec<_> = names.iter().filter(is_lost).collect();
    assert!(lost.is_empty(), "named in docs/threat-model.md and not there: {lost:?}");
    assert!(!exists(&roots[0], "crowds::no_such_test") && !exists(&roots[0], "no_such_module::a"));
}
