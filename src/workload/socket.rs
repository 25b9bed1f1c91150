//! The socket as a file: made whole before anybody can connect, in the place of a dead one only, and
//! removed at the end unless somebody else's has taken its place.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Type};
use tokio::net::UnixListener;

use super::WorkloadError;
use super::limits::BACKLOG;

/// For the own user only: the file system keeps the others out.
const OWN: u32 = 0o600;
/// Others are on the list: who connects is for the list to judge.
const ALL: u32 = 0o666;

/// A listening socket with its file.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Socket {
    /// Listens at `path`. A socket that nobody listens at is replaced, and with `succeeds` one that
    /// somebody does: its process is about to leave.
    pub(super) fn bind(path: &Path, only_own: bool, succeeds: bool) -> Result<Self, WorkloadError> {
        let failed = |source| WorkloadError::Bind { path: path.to_owned(), source };
        SockAddr::unix(path).map_err(failed)?; // clients could not connect to a longer one
        if is_open(path).map_err(failed)? {
            return Err(WorkloadError::OpenDirectory(path.to_owned()));
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(WorkloadError::NotASocket(path.to_owned()));
            }
            Ok(_) if !succeeds && UnixStream::connect(path).is_ok() => {
                return Err(WorkloadError::InUse(path.to_owned()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mode = if only_own { OWN } else { ALL };
        Self::make(path, mode).map_err(failed)
    }

    /// Under another name first: when it appears, its mode is right and it listens.
    fn make(path: &Path, mode: u32) -> io::Result<Self> {
        let hidden = path.with_file_name(format!(".weft-{}", std::process::id()));
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&hidden)?)?;
        let made = (|| {
            fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let file = identity(&hidden)?;
            fs::rename(&hidden, path)?;
            let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
            Ok(Self { listener, path: path.to_owned(), file })
        })();
        if made.is_err() {
            // What failed is told; a file that stays is replaced by the next attempt.
            let _gone = fs::remove_file(&hidden);
        }
        made
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the workload socket");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Whether others could put a socket of theirs in the place of ours.
fn is_open(path: &Path) -> io::Result<bool> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mode = fs::metadata(directory.unwrap_or(Path::new(".")))?.mode();
    Ok(mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload.sock");
        let first = Socket::bind(&path, true, false).unwrap();
        assert_eq!(mode(&path), OWN);
        assert!(matches!(Socket::bind(&path, true, false), Err(WorkloadError::InUse(_))));
        let second = Socket::bind(&path, false, true).unwrap();
        assert_eq!(mode(&path), ALL);
        drop(first);
        assert!(path.exists(), "it is the successor's by now");
        drop(second);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let third = Socket::bind(&path, true, false).expect("nobody listens there");
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        drop(third);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(Socket::bind(&path, true, true), Err(WorkloadError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Socket::bind(&link, true, true), Err(WorkloadError::NotASocket(_))));
        let missing = dir.path().join("none/workload.sock");
        assert!(matches!(Socket::bind(&missing, true, false), Err(WorkloadError::Bind { .. })));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(Socket::bind(&long, true, false), Err(WorkloadError::Bind { .. })));
    }

    #[tokio::test]
    async fn a_directory_where_others_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload.sock");
        for (mode, refused) in [(0o777, true), (0o770, true), (0o1777, false), (0o755, false)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let bound = Socket::bind(&path, true, false);
            assert_eq!(matches!(bound, Err(WorkloadError::OpenDirectory(_))), refused, "{mode:o}");
            assert_eq!(bound.is_ok(), !refused, "{mode:o}");
        }
    }
}
