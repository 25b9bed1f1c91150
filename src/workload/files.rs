//! An SVID as PEM files that change together.
//!
//! `weft cert write` keeps them. Each set is written into a directory of its own, `..NUMBER`; the link
//! `..data` leads to the present one and is replaced in one step; `svid.pem`, `svid_key.pem` and
//! `bundle.pem` are links through it. Who opens a file gets it whole, and who resolves `..data` first gets
//! a set whose parts fit, which stays until the set after the next one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::client::Fetched;
use crate::model::pem;

pub const CERTIFICATE: &str = "svid.pem";
pub const KEY: &str = "svid_key.pem";
pub const BUNDLE: &str = "bundle.pem";
/// The present set.
const CURRENT: &str = "..data";
/// The link before it takes the place of [`CURRENT`].
const NEXT: &str = "..data_next";
/// What the names of sets begin with; nothing else that we make does, followed by a digit.
const SET: &str = "..";
/// Sets that stay: the present one, and the one that somebody may be reading.
const KEPT: usize = 2;

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is there and is not one of ours; choose another directory", path = .0.display())]
    InTheWay(PathBuf),
}

/// A directory with the files of one SVID. One process writes it.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the directory, which only this user can enter, unless it is there.
    ///
    /// # Errors
    /// When it cannot be made, or has files of others under our names.
    pub fn open(dir: PathBuf) -> Result<Self, FilesError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| io_error("make", &dir, source))?;
        for name in [CERTIFICATE, KEY, BUNDLE, CURRENT, NEXT] {
            let path = dir.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_symlink()) {
                return Err(FilesError::InTheWay(path));
            }
        }
        Ok(Self { dir })
    }

    /// Puts a new set in the place of the present one.
    ///
    /// # Errors
    /// When something cannot be written; then the present set stays.
    pub fn replace(&self, svid: &Fetched) -> Result<(), FilesError> {
        let sets = self.sets()?;
        let number = sets.last().map_or(1, |last| last + 1);
        let name = format!("{SET}{number}");
        let set = self.dir.join(&name);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&set)
            .map_err(|source| io_error("make", &set, source))?;
        let certificates = |all: &[Vec<u8>]| -> String {
            all.iter().map(|der| pem::encode("CERTIFICATE", der)).collect()
        };
        let key = zeroize::Zeroizing::new(pem::encode("PRIVATE KEY", &svid.key));
        write(&set.join(KEY), 0o600, &key)?;
        write(&set.join(CERTIFICATE), 0o644, &certificates(&svid.chain))?;
        write(&set.join(BUNDLE), 0o644, &certificates(&svid.roots))?;
        self.point(CURRENT, Path::new(&name))?;
        for name in [CERTIFICATE, KEY, BUNDLE] {
            self.point(name, &Path::new(CURRENT).join(name))?;
        }
        let old = sets.len().saturating_sub(KEPT - 1);
        for number in &sets[..old] {
            let set = self.dir.join(format!("{SET}{number}"));
            fs::remove_dir_all(&set).map_err(|source| io_error("remove", &set, source))?;
        }
        Ok(())
    }

    /// Lets a link lead to `target`, in one step.
    fn point(&self, name: &str, target: &Path) -> Result<(), FilesError> {
        let (link, next) = (self.dir.join(name), self.dir.join(NEXT));
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        match fs::remove_file(&next) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &next, source));
            }
            _ => {}
        }
        symlink(target, &next).map_err(|source| io_error("make the link", &next, source))?;
        fs::rename(&next, &link).map_err(|source| io_error("replace", &link, source))
    }

    /// Numbers of the sets that are there, the oldest first.
    fn sets(&self) -> Result<Vec<u64>, FilesError> {
        let failed = |source| io_error("read", &self.dir, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(|name| name.strip_prefix(SET)?.parse::<u64>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), FilesError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| io_error("write", path, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> FilesError {
    FilesError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use zeroize::Zeroizing;

    use super::*;

    fn svid(content: &[u8]) -> Fetched {
        let der = content.to_vec();
        Fetched {
            id: "spiffe://mesh/web".to_owned(),
            chain: vec![der.clone(), der.clone()],
            key: Zeroizing::new(der.clone()),
            roots: vec![der],
        }
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn a_set_is_replaced_whole_and_few_stay() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("certs");
        let files = Files::open(dir.clone()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        files.replace(&svid(b"one")).unwrap();
        let one = pem::encode("PRIVATE KEY", b"one");
        assert_eq!(read(&dir, KEY), one);
        assert_eq!(fs::metadata(dir.join(KEY)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&dir, CERTIFICATE).matches("BEGIN CERTIFICATE").count(), 2);
        let held = fs::canonicalize(dir.join(CURRENT)).unwrap();
        // Another process goes on where the first one ended.
        let files = Files::open(dir.clone()).unwrap();
        files.replace(&svid(b"two")).unwrap();
        assert_eq!(read(&dir, KEY), pem::encode("PRIVATE KEY", b"two"));
        assert_eq!(read(&held, KEY), one, "who resolved the set before still has it");
        for _ in 0..5 {
            files.replace(&svid(b"more")).unwrap();
        }
        let sets = fs::read_dir(&dir)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(sets.count(), KEPT);
        assert_eq!(read(&dir, BUNDLE), pem::encode("CERTIFICATE", b"more"));
    }

    #[test]
    fn files_of_others_stay() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(KEY), "precious").unwrap();
        let refused = Files::open(root.path().to_owned());
        assert!(matches!(refused, Err(FilesError::InTheWay(_))));
        assert_eq!(read(root.path(), KEY), "precious");
    }
}
