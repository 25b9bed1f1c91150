//! Documents name the tests that hold what they promise: these must exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The names in the last column of every table of a page that is headed `held by`, such as
/// `crowds::a_denial_closes_all`.
fn named(page: &str) -> Vec<&str> {
    let tables =
        page.split("\n\n").filter(|part| part.lines().any(|line| line.ends_with("| held by |")));
    let cells =
        tables.flat_map(str::lines).filter_map(|line| line.strip_prefix("| ")?.rsplit('|').nth(1));
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
fn every_test_that_the_documents_name_is_there() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = [home.join("tests/it"), home.join("src")];
    for (page, least) in [("threat-model.md", 60), ("consul-compatibility.md", 20), ("tunnel.md", 12)] {
        let text = fs::read_to_string(home.join("docs").join(page)).unwrap();
        let names = named(&text);
        assert!(names.len() >= least, "{page} names {} tests", names.len());
        let is_lost = |name: &&&str| !roots.iter().any(|root| exists(root, name));
        let lost: Vec<_> = names.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "named in docs/{page} and not there: {lost:?}");
    }
    assert!(!exists(&roots[0], "crowds::no_such_test") && !exists(&roots[0], "no_such_module::a"));
}
