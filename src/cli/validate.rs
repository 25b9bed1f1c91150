//! `weft validate PATH…`: checks configuration files without starting anything.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{self, Diagnostic};

/// The configuration can be used.
const VALID: u8 = 0;
/// It has errors.
const INVALID: u8 = 1;
/// Nothing to check was given, or the result could not be written.
const USAGE: u8 = 2;

const VERDICT: &str = "Configuration is valid!";

/// The result as one JSON object.
#[derive(Serialize)]
struct Summary<'a> {
    valid: bool,
    errors: usize,
    warnings: usize,
    services: usize,
    diagnostics: &'a [Diagnostic],
}

/// Checks all files of `paths`, prints what is wrong, and returns the exit code: 0 valid, 1 not,
/// 2 wrong use.
///
/// The verdict goes to `out` and diagnostics to `err`; with `json` one object with both goes to `out`.
pub(super) fn run(paths: &[PathBuf], json: bool, out: &mut impl Write, err: &mut impl Write) -> u8 {
    if paths.is_empty() {
        let usage = "error: no path is given\n  try: weft validate FILE_OR_DIRECTORY…";
        return writeln!(err, "{usage}").map_or(USAGE, |()| USAGE);
    }
    let loaded = config::load(paths);
    let errors = loaded.diagnostics.iter().filter(|fault| fault.is_error()).count();
    let summary = Summary {
        valid: loaded.is_valid(),
        errors,
        warnings: loaded.diagnostics.len() - errors,
        services: loaded.definitions.len(),
        diagnostics: &loaded.diagnostics,
    };
    let written = if json { print_json(&summary, out) } else { print_text(&summary, out, err) };
    match written {
        Ok(()) if summary.valid => VALID,
        Ok(()) => INVALID,
        Err(_) => USAGE,
    }
}

/// The same check as `consul validate` says it: the verdict on stdout, unless it is to be quiet, and
/// what is wrong on stderr.
pub(super) fn as_consul(
    paths: &[PathBuf],
    quiet: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let loaded = config::load(paths);
    let written = if loaded.is_valid() {
        let warnings = loaded.diagnostics.iter().try_for_each(|warning| writeln!(err, "{warning}"));
        warnings.and_then(|()| if quiet { Ok(()) } else { writeln!(out, "{VERDICT}") })
    } else {
        let worst = config::api_message(&loaded.diagnostics);
        let verdict = writeln!(err, "Config validation failed: {worst}");
        verdict.and_then(|()| loaded.diagnostics.iter().try_for_each(|fault| writeln!(err, "{fault}")))
    };
    if written.is_ok() && loaded.is_valid() { VALID } else { INVALID }
}

fn print_json(summary: &Summary<'_>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, summary)?;
    writeln!(out)
}

fn print_text(summary: &Summary<'_>, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    for fault in summary.diagnostics {
        writeln!(err, "{fault}")?;
    }
    let warnings = counted(summary.warnings, "warning");
    if !summary.valid {
        let errors = counted(summary.errors, "error");
        return writeln!(err, "Configuration is not valid: {errors}, {warnings}");
    }
    if summary.warnings > 0 {
        writeln!(err, "{warnings}")?;
    }
    writeln!(out, "{VERDICT}")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn validate(text: &str, json: bool) -> (u8, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.hcl");
        fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&[path], json, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_valid_file_has_consuls_verdict() {
        let (code, out, err) = validate("service { name = \"web\" }", false);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "Configuration is valid!\n", ""));
    }

    #[test]
    fn warnings_are_shown_and_do_not_fail() {
        let (code, out, err) = validate("server = true", false);
        assert_eq!((code, out.as_str()), (0, "Configuration is valid!\n"));
        assert!(err.starts_with("warning[W0205]") && err.ends_with("\n1 warning\n"), "{err}");
    }

    #[test]
    fn faults_are_counted() {
        let (code, out, err) = validate("service { prot = 1 }", false);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.ends_with("Configuration is not valid: 2 errors, 0 warnings\n"), "{err}");
    }

    #[test]
    fn json_is_one_object_on_stdout() {
        let (code, out, err) = validate("service { name = 1 }", true);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, err.as_str()), (1, ""));
        let fault = &value["diagnostics"][0];
        assert_eq!((value["valid"].as_bool(), value["errors"].as_u64()), (Some(false), Some(1)));
        assert_eq!((fault["code"].as_str(), fault["line"].as_u64()), (Some("W0207"), Some(1)));
        assert_eq!((fault["column"].as_u64(), fault["end_column"].as_u64()), (Some(18), Some(19)));
    }

    #[test]
    fn no_path_is_wrong_use() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&[], false, &mut out, &mut err), 2);
    }
}
