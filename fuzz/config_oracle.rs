//! What must hold for any configuration file and any body of a registration: the oracle of the fuzz targets
//! `hcl` and `registration`.
//!
//! Used by `fuzz_targets` with what libFuzzer makes up, and by `tests/it/fuzz_corpus.rs` with the corpus. It
//! ends with a panic when something does not hold.

use std::fs;
use std::path::PathBuf;

use weft::config::{self, Diagnostic};
use weft::model::NodeName;

/// Checks a file in HCL. Returns whether it is a valid one.
pub fn file(input: &[u8]) -> bool {
    let path = scratch();
    fs::write(&path, input).expect("the scratch file can be written");
    let loaded = config::load(std::slice::from_ref(&path));
    let again = config::load(std::slice::from_ref(&path));
    // Should it stay, the next input overwrites it.
    let _left_behind = fs::remove_file(path);
    assert_eq!(shown(&loaded.diagnostics), shown(&again.diagnostics), "faults are told in two ways");
    assert_eq!(loaded.definitions, again.definitions, "one text has two meanings");
    for definition in &loaded.definitions {
        let node = NodeName::new("n1").expect("a name");
        // A name may be too long for a sidecar's to be made of it; nothing else is left to go wrong.
        let _too_long = definition.expand(&node, 21_000);
    }
    // Read as values alone, a file has a form or not, whatever its keys mean.
    let form = config::parse_values("input.hcl", input);
    assert!(form.is_ok() || !loaded.is_valid(), "a file without a form is valid");
    loaded.is_valid()
}

/// Checks a body as a registration of a service and of a check. Returns whether it is either.
pub fn registration(input: &[u8]) -> bool {
    let service = config::parse_definition_json(input);
    assert_eq!(service.as_ref().ok(), config::parse_definition_json(input).as_ref().ok());
    if let Err(faults) = &service {
        explained(faults);
    }
    let check = config::parse_check_json(input);
    if let Err(faults) = &check {
        explained(faults);
    }
    service.is_ok() || check.is_ok()
}

/// A refusal says something, and one line of a log at most says it.
fn explained(faults: &[Diagnostic]) {
    let text = config::api_message(faults);
    assert!(!text.is_empty(), "a refusal without a word: {:?}", shown(faults));
}

fn shown(faults: &[Diagnostic]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// A file of this process and thread, which every input overwrites.
fn scratch() -> PathBuf {
    let name = format!("weft-fuzz-{}-{:?}.hcl", std::process::id(), std::thread::current().id());
    std::env::temp_dir().join(name)
}
