//! A UNIX socket in the file system that a server listens on, and who is at its other end.
//!
//! `api` and `workload` listen on one. It is made whole before anybody can connect, in the place of a dead
//! one only, where nobody else could put his own; and it is removed at the end unless somebody else's has
//! taken its place.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

use super::limits;

/// Why nobody can listen at a path.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("there is a file that is no socket, and stays as it is")]
    NotASocket,
    #[error("another process listens there")]
    InUse,
    #[error(
        "anybody could replace it: others may write to its directory; choose one that they cannot, or that \
         has the sticky bit"
    )]
    OpenDirectory,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<LocalError> for io::Error {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::System(error) => error,
            other => Self::other(other),
        }
    }
}

/// A bound socket; its file goes with it.
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: another process may have put its own in the place.
    file: (u64, u64),
}

impl LocalListener {
    /// Listens at `path`, for those whom `mode` lets in. A socket that nobody listens at is replaced, and
    /// with `succeeds` one that somebody does: its process is about to leave. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// As `bind(2)`, and when something else has the place or could take it.
    pub fn bind(path: &Path, mode: u32, succeeds: bool) -> Result<Self, LocalError> {
        SockAddr::unix(path)?; // clients could not connect to a longer one
        if is_open(path)? {
            return Err(LocalError::OpenDirectory);
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(LocalError::NotASocket),
            Ok(_) if !succeeds && is_alive(path) => return Err(LocalError::InUse),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        Ok(Self::make(path, mode)?)
    }

    /// Under another name first: when it appears, its mode is right and it listens.
    fn make(path: &Path, mode: u32) -> io::Result<Self> {
        let hidden = path.with_file_name(format!(".weft-{}", std::process::id()));
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&hidden)?)?;
        let made = (|| {
            fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
            socket.listen(limits::BACKLOG)?;
            socket.set_nonblocking(true)?;
            let file = identity(&hidden)?;
            fs::rename(&hidden, path)?;
            let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
            Ok(Self { listener, path: path.to_owned(), file })
        })();
        if made.is_err() {
            // What failed is told; a file that stays is replaced by the next attempt.
            let _gone = fs::remove_file(&hidden);
        }
        made
    }

    /// The next caller, and the process at the other end, as the kernel knows it. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<(UnixStream, UCred)> {
        let (stream, _nameless) = self.listener.accept().await?;
        let other = stream.peer_cred()?;
        Ok((stream, other))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket");
        }
    }
}

/// Whether somebody listens, or it cannot be told.
fn is_alive(path: &Path) -> bool {
    StdStream::connect(path).err().is_none_or(|error| error.kind() != io::ErrorKind::ConnectionRefused)
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
        let path = dir.path().join("weft.sock");
        let first = LocalListener::bind(&path, 0o600, false).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(LocalListener::bind(&path, 0o600, false), Err(LocalError::InUse)));
        let second = LocalListener::bind(&path, 0o660, true).unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(first);
        assert!(path.exists(), "it is the successor's by now");
        drop(second);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves its file
        let third = LocalListener::bind(&path, 0o600, false).expect("nobody listens there");
        assert!(StdStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        drop(third);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(LocalListener::bind(&path, 0o600, true), Err(LocalError::NotASocket)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(LocalListener::bind(&link, 0o600, true), Err(LocalError::NotASocket)));
        let missing = dir.path().join("none/weft.sock");
        assert!(matches!(LocalListener::bind(&missing, 0o600, false), Err(LocalError::System(_))));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(LocalListener::bind(&long, 0o600, false), Err(LocalError::System(_))));
    }

    #[tokio::test]
    async fn a_directory_where_others_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.sock");
        for (mode, refused) in [(0o777, true), (0o770, true), (0o1777, false), (0o755, false)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let bound = LocalListener::bind(&path, 0o600, false);
            assert_eq!(matches!(bound, Err(LocalError::OpenDirectory)), refused, "{mode:o}");
            assert_eq!(bound.is_ok(), !refused, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn the_other_end_has_a_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.sock");
        let listener = LocalListener::bind(&path, 0o600, false).unwrap();
        let (dialled, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert_eq!(accepted.unwrap().1.uid(), rustix::process::geteuid().as_raw());
        drop(dialled.unwrap());
    }
}
