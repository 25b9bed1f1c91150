//! A private socket on which one process hands sockets to another of the same user.
//!
//! `app` talks over it when a sidecar is upgraded in place. Messages keep their borders
//! (`SOCK_SEQPACKET`) and carry one socket each at most. Both ends are of one user: the directory lets
//! nobody else in, and the kernel's word on the other end is checked as well.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use std::os::unix::net as std_unix;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind,
    connect, listen, recvmsg, sendmsg, socket_with, sockopt,
};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use zeroize::Zeroizing;

/// Longest message: a certificate chain and a bundle of many roots fit several times over.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Room for one socket beside a message, and for the alignment of that room.
const SOCKET_SPACE: usize = rustix::cmsg_space!(ScmRights(1)) + 2 * size_of::<usize>();
/// Processes that wait for their turn; more than one is a mistake already.
const BACKLOG: i32 = 4;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Whether nobody but this user (and root) can get at what is in the directory of `path`.
///
/// # Errors
/// When there is no such directory.
pub fn is_private(path: &Path) -> io::Result<bool> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = std::fs::metadata(directory.unwrap_or(Path::new(".")))?;
    Ok(directory.mode() & 0o077 == 0 && directory.uid() == geteuid().as_raw())
}

/// Connects to whoever listens at `path`; `None` when nobody does.
///
/// # Errors
/// As `connect(2)`, and when the other end is of another user.
pub fn dial(path: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => check_user(&socket).map(|()| Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where successors knock.
///
/// The types of the runtime watch any UNIX socket; only their reading and writing is for streams.
pub struct Door(UnixListener);

impl Door {
    /// Listens at `path`, in the place of a process that is gone. Must be called within a runtime.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listen(&socket, BACKLOG)?;
        Self::from_socket(socket)
    }

    /// Goes on with a socket that another process listened on.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        UnixListener::from_std(std_unix::UnixListener::from(socket)).map(Self)
    }

    /// The next one who knocks. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`, and when the other end is of another user.
    pub async fn accept(&self) -> io::Result<Courier> {
        let (socket, _) = self.0.accept().await?;
        check_user(&socket)?;
        Ok(Courier(socket))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One end of a conversation.
pub struct Courier(UnixStream);

/// A message, wiped when dropped because it may hold a key, and the socket that came with it.
pub type Parcel = (Zeroizing<Vec<u8>>, Option<OwnedFd>);

impl Courier {
    /// Takes a connected socket, as from [`dial`]. Must be called within a runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(std_unix::UnixStream::from(socket)).map(Self)
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn peer_process(&self) -> io::Result<i32> {
        Ok(sockopt::socket_peercred(&self.0)?.pid.as_raw_nonzero().get())
    }

    /// Sends a message, and a handle to a socket with it.
    ///
    /// # Errors
    /// As `sendmsg(2)`; `BrokenPipe` when the other end is gone.
    pub async fn send(&self, message: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); SOCKET_SPACE];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if let Some(socket) = &socket
                && !beside.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(socket)))
            {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            sendmsg(&self.0, &[IoSlice::new(message)], &mut beside, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// The next message; `None` when the other end is gone. Cancel-safe.
    ///
    /// # Errors
    /// As `recvmsg(2)`; `InvalidData` when a message is longer than any of ours.
    pub async fn receive(&self) -> io::Result<Option<Parcel>> {
        let receive = || {
            let mut message = Zeroizing::new(vec![0; MAX_MESSAGE_BYTES]);
            let mut space = [MaybeUninit::uninit(); SOCKET_SPACE];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut message)],
                &mut beside,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            message.truncate(got.bytes);
            let socket = beside.drain().find_map(|beside| match beside {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            Ok((message, socket))
        };
        let (message, socket) = self.0.async_io(Interest::READABLE, receive).await?;
        Ok((!message.is_empty()).then_some((message, socket)))
    }
}

fn check_user(socket: impl AsFd) -> io::Result<()> {
    if sockopt::socket_peercred(socket)?.uid == geteuid() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other end is of another user"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_passes_with_its_message_and_the_end_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("upgrade");
        assert!(dial(&path).unwrap().is_none(), "nobody listens");
        std::fs::write(&path, "").unwrap(); // left by a process that is gone
        let door = Door::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let near = Courier::new(dial(&path).unwrap().unwrap()).unwrap();
        let far = door.accept().await.unwrap();
        assert_eq!(near.peer_process().unwrap().unsigned_abs(), std::process::id());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        far.send(b"first", Some(listener.as_fd())).await.unwrap();
        far.send(&[7; MAX_MESSAGE_BYTES], None).await.unwrap();
        let (message, socket) = near.receive().await.unwrap().unwrap();
        assert_eq!(*message, b"first");
        let passed = TcpListener::from(socket.unwrap());
        assert_eq!(passed.local_addr().unwrap(), listener.local_addr().unwrap());
        let (message, socket) = near.receive().await.unwrap().unwrap();
        assert!(message.len() == MAX_MESSAGE_BYTES && socket.is_none());
        near.send(&[7; MAX_MESSAGE_BYTES + 1], None).await.unwrap();
        assert_eq!(far.receive().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(far);
        assert!(near.receive().await.unwrap().is_none());
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("upgrade");
        for (mode, private) in [(0o700, true), (0o710, false), (0o755, false), (0o701, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), permissions).unwrap();
            assert_eq!(is_private(&path).unwrap(), private, "{mode:o}");
        }
        assert!(is_private(&directory.path().join("none/upgrade")).is_err());
    }
}
