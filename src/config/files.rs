//! From paths to texts: which files a path stands for, and reading them within limits.

#![allow(
    clippy::result_large_err,
    reason = "files are read once; the error is the report for its author"
)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Code, Diagnostic, Severity};
use super::excerpt::Source;
use super::lexer::Notation;
use super::value::{MAX_FILE_BYTES, Span};

/// Most files of one load; beyond that somebody named the wrong directory.
const MAX_FILES: usize = 10_000;

/// A text that is ready to be parsed.
pub(super) struct Text {
    pub(super) source: Source,
    pub(super) notation: Notation,
}

/// Reads every file the paths stand for, in the order of the paths, directories by name.
pub(super) fn read_all(paths: &[PathBuf], faults: &mut Vec<Diagnostic>) -> Vec<Text> {
    let mut texts = Vec::new();
    for path in paths {
        let files = match files_of(path) {
            Ok(files) => files,
            Err(fault) => {
                faults.push(*fault);
                continue;
            }
        };
        for (file, notation) in files {
            if texts.len() >= MAX_FILES {
                faults.push(*error(
                    Code::Limit,
                    path,
                    &format!("more than {MAX_FILES} configuration files"),
                ));
                return texts;
            }
            match read(&file, notation) {
                Ok(text) => texts.push(text),
                Err(fault) => faults.push(*fault),
            }
        }
    }
    texts
}

/// The configuration files a path stands for: itself, or what a directory holds.
fn files_of(path: &Path) -> Result<Vec<(PathBuf, Notation)>, Box<Diagnostic>> {
    let meta = fs::metadata(path).map_err(|cause| cannot_read(path, &cause))?;
    if !meta.is_dir() {
        let Some(notation) = notation_of(path) else {
            let mut fault = error(Code::File, path, "a configuration file ends in .hcl or .json");
            fault.help("rename it");
            return Err(fault);
        };
        return Ok(vec![(path.to_owned(), notation)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|cause| cannot_read(path, &cause))? {
        let file = entry.map_err(|cause| cannot_read(path, &cause))?.path();
        if let Some(notation) = notation_of(&file)
            && !file.is_dir()
        {
            files.push((file, notation));
        }
        if files.len() > MAX_FILES {
            return Err(error(Code::Limit, path, &format!("more than {MAX_FILES} configuration files")));
        }
    }
    if files.is_empty() {
        let message = "no .hcl or .json files in this directory";
        return Err(Box::new(Diagnostic::of_file(Severity::Warning, Code::File, &name(path), message)));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

fn notation_of(path: &Path) -> Option<Notation> {
    match path.extension()?.to_str()? {
        "hcl" => Some(Notation::Hcl),
        "json" => Some(Notation::Json),
        _ => None,
    }
}

fn read(path: &Path, notation: Notation) -> Result<Text, Box<Diagnostic>> {
    // Opening a pipe would wait for somebody to write to it.
    let meta = fs::metadata(path).map_err(|cause| cannot_read(path, &cause))?;
    if !meta.is_file() {
        return Err(error(Code::File, path, "this is not a regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let file = File::open(path).map_err(|cause| cannot_read(path, &cause))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|cause| cannot_read(path, &cause))?;
    Ok(Text { source: source(&name(path), &bytes)?, notation })
}

/// The text of a file: at most `MAX_FILE_BYTES` of UTF-8, perhaps after a byte order mark.
pub(super) fn source(name: &str, bytes: &[u8]) -> Result<Source, Box<Diagnostic>> {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("the file is longer than {MAX_FILE_BYTES} bytes");
        let mut fault = Diagnostic::of_file(Severity::Error, Code::Limit, name, &message);
        fault.help("split it");
        return Err(Box::new(fault));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())),
        Err(bad) => {
            // Up to the bad byte the lossy text is the text.
            let shown = Source::new(name, String::from_utf8_lossy(bytes).into_owned());
            let at = bad.valid_up_to();
            let message = "the file is not UTF-8 text";
            Err(Box::new(Diagnostic::at(
                &shown,
                Span::new(at, at),
                Severity::Error,
                Code::Limit,
                message,
            )))
        }
    }
}

fn cannot_read(path: &Path, cause: &io::Error) -> Box<Diagnostic> {
    let mut fault = error(Code::File, path, &format!("cannot read: {cause}"));
    fault.help(match cause.kind() {
        io::ErrorKind::NotFound => "check the path; it is taken from the working directory",
        io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "check that it is a readable file or directory",
    });
    fault
}

fn error(code: Code, path: &Path, message: &str) -> Box<Diagnostic> {
    Box::new(Diagnostic::of_file(Severity::Error, code, &name(path), message))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
