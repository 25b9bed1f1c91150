//! Data that arguments name: the argument itself, a file, or stdin; all bounded.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{CliError, Fault};

/// Where an argument takes its data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    Literal(&'a [u8]),
    File(&'a Path),
    Stdin,
}

/// The argument itself, the file after `@`, or stdin for `-`.
pub(super) fn value(argument: &[u8], max_bytes: u64) -> Result<Vec<u8>, CliError> {
    read(value_source(argument), max_bytes)
}

/// The file of this name, or stdin for `-`.
pub(super) fn file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, CliError> {
    read(if path == Path::new("-") { Source::Stdin } else { Source::File(path) }, max_bytes)
}

fn value_source(argument: &[u8]) -> Source<'_> {
    use std::os::unix::ffi::OsStrExt;
    match argument {
        b"-" => Source::Stdin,
        [b'@', path @ ..] => Source::File(Path::new(std::ffi::OsStr::from_bytes(path))),
        _ => Source::Literal(argument),
    }
}

fn read(source: Source<'_>, max_bytes: u64) -> Result<Vec<u8>, CliError> {
    let (name, data) = match source {
        Source::Literal(data) => ("the argument".to_owned(), Ok(data.to_vec())),
        Source::File(path) => {
            (path.display().to_string(), File::open(path).and_then(|file| all_of(file, max_bytes)))
        }
        Source::Stdin => ("stdin".to_owned(), all_of(io::stdin(), max_bytes)),
    };
    let data = data.map_err(|cause| {
        let next = "check that the path exists and that this user may read it";
        CliError::new(Fault::Local, format!("cannot read {name}"), cause.to_string(), next).in_consul(
            match source {
                Source::Stdin => format!("Failed to read stdin: {cause}"),
                _ => format!("Failed to read file: open {name}: {cause}"),
            },
        )
    })?;
    if u64::try_from(data.len()).is_ok_and(|length| length <= max_bytes) {
        return Ok(data);
    }
    let what = format!("{name} holds more than {max_bytes} bytes");
    Err(CliError::new(Fault::Usage, what, name, "split it"))
}

/// At most one byte more than is allowed, which is how the excess shows.
fn all_of(source: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    source.take(max_bytes.saturating_add(1)).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_by_table() {
        for (argument, source) in [
            (&b"v"[..], Source::Literal(b"v")),
            (b"", Source::Literal(b"")),
            (b"-5", Source::Literal(b"-5")),
            (b"\xff", Source::Literal(b"\xff")),
            (b"-", Source::Stdin),
            (b"@a/b", Source::File(Path::new("a/b"))),
        ] {
            assert_eq!(value_source(argument), source);
        }
    }

    #[test]
    fn files_are_read_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(file(&path, 5).unwrap(), b"12345");
        assert_eq!(file(&path, 4).unwrap_err().fault, Fault::Usage);
        assert_eq!(file(&dir.path().join("none"), 4).unwrap_err().fault, Fault::Local);
        assert_eq!(value(b"123", 2).unwrap_err().fault, Fault::Usage);
    }
}
