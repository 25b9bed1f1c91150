//! Files that hold secrets: a regular file that nobody but its owner may read or write, and no link.
//!
//! `ca` reads keys through it, and the store's own file has to be one.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error("{path} cannot be read: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0} is a symbolic link; name the file itself")]
    Link(PathBuf),
    #[error("{0} is not a regular file")]
    NotFile(PathBuf),
    #[error(
        "{path} is open to others (mode {mode:04o}); it holds secrets, so close it with `chmod 600 {path}`",
        path = path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} has more than {most} bytes", path = path.display())]
    TooLarge { path: PathBuf, most: u64 },
}

/// Checks a file that is there.
///
/// # Errors
/// When it is a link, anything but a regular file, or open to others.
pub fn check(path: &Path) -> Result<Metadata, PrivateError> {
    let unreadable = |source| PrivateError::Unreadable { path: path.to_owned(), source };
    let found = path.symlink_metadata().map_err(unreadable)?;
    judge(path, &found)?;
    Ok(found)
}

/// The bytes of such a file, at most `most`.
///
/// # Errors
/// As [`check`], and when it cannot be read or is too large.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, PrivateError> {
    let unreadable = |source| PrivateError::Unreadable { path: path.to_owned(), source };
    let found = check(path)?;
    let file = File::open(path).map_err(unreadable)?;
    // What was opened is what was looked at, even if somebody swaps files in between.
    let opened = file.metadata().map_err(unreadable)?;
    judge(path, &opened)?;
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(PrivateError::Link(path.to_owned()));
    }
    if opened.len() > most {
        return Err(PrivateError::TooLarge { path: path.to_owned(), most });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(opened.len()).unwrap_or(0));
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn judge(path: &Path, found: &Metadata) -> Result<(), PrivateError> {
    if found.is_symlink() {
        return Err(PrivateError::Link(path.to_owned()));
    }
    if !found.is_file() {
        return Err(PrivateError::NotFile(path.to_owned()));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn files_by_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(read(&path, 9), Err(PrivateError::Unreadable { .. })));
        fs::write(&path, "secret").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o644, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 9).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, 5), Err(PrivateError::TooLarge { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(read(&link, 9), Err(PrivateError::Link(_))));
        assert!(matches!(read(dir.path(), 9), Err(PrivateError::NotFile(_))));
    }
}
