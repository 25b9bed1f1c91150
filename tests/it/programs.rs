//! Programs and libraries of others that some tests run against ours.
//!
//! A machine without one of them leaves its tests out and says so; with `WEFT_PROGRAMS=1`, which `.ci/run`
//! sets after it has installed them all, a missing one is a failure.

use std::io::Write;
use std::path::Path;

/// Makes what is missing a failure.
const INSIST: &str = "WEFT_PROGRAMS";

/// Whether all of these are on `PATH`.
pub(crate) fn present(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    match programs.iter().find(|program| !found(program)) {
        Some(missing) => left_out(&format!("{missing} is not here")),
        None => true,
    }
}

/// Whether something that `how` installs is at this place.
pub(crate) fn installed(place: &Path, how: &str) -> bool {
    place.exists() || left_out(&format!("{} is not here; {how} installs it", place.display()))
}

/// Says that a test is left out; false. Past the harness, which keeps what tests print to itself.
pub(crate) fn left_out(why: &str) -> bool {
    let insists = insists();
    assert!(!insists, "{why}, and {INSIST}=1 asks for it");
    let _nobody_listens =
        writeln!(std::io::stderr(), "a test is left out: {why} (.ci/run installs all)");
    false
}

/// Whether a missing program is a failure.
pub(crate) fn insists() -> bool {
    std::env::var_os(INSIST).is_some_and(|value| value == "1")
}
