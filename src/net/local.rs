//! A UNIX socket in the file system that a server listens on, and who is at its other end.
//!
//! Its mode is right from the moment it is there; a socket that a dead process left is replaced, one
//! that somebody listens on, or a file that is no socket, is not.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::limits;

/// A bound socket; its file goes with it.
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: another process may have put its own in the place.
    file: (u64, u64),
}

impl LocalListener {
    /// Listens at `path`, for those whom `mode` lets in. Must be called within a runtime.
    ///
    /// # Errors
    /// As `bind(2)`; `AddrInUse` when somebody listens there, `AlreadyExists` when it is no socket.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux the file takes over the mode of the socket, so that it is never open to more.
        let handle = File::from(socket.as_fd().try_clone_to_owned()?);
        handle.set_permissions(Permissions::from_mode(mode))?;
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(limits::BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        let metadata = fs::symlink_metadata(path)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Self { listener, path: path.to_owned(), file })
    }

    /// The next caller, and the user whose process it is. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let (stream, _nameless) = self.listener.accept().await?;
        let user = stream.peer_cred()?.uid();
        Ok((stream, user))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        let still = fs::symlink_metadata(&self.path);
        if still.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file) {
            // The next one at this place replaces what is left.
            let _best_effort = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let why = "there is a file that is no socket; move it away";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = LocalListener::bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let kind = |result: io::Result<LocalListener>| result.err().map(|error| error.kind());
        assert_eq!(kind(LocalListener::bind(&path, 0o600)), Some(io::ErrorKind::AddrInUse));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves its file
        let second = LocalListener::bind(&path, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        // A successor's socket is not removed by its predecessor's end.
        fs::remove_file(&path).unwrap();
        let third = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(second);
        assert!(path.exists());
        drop(third);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(kind(LocalListener::bind(&path, 0o600)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn the_other_end_has_a_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = LocalListener::bind(&path, 0o600).unwrap();
        let (dialled, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert_eq!(accepted.unwrap().1, rustix::process::geteuid().as_raw());
        drop(dialled.unwrap());
    }
}
