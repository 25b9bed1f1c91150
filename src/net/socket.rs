//! TCP sockets with the options every connection of ours has.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::limits;

/// Silence after which the kernel begins to ask whether the peer still lives. With the probes it makes
/// 28 s: a peer that has vanished is noticed within 30 s, late timers included.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(13);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// Bytes for an application that the kernel queues beyond what the application has room for.
const UNSENT_BYTES: u32 = 64 * 1024;
/// Bytes for a peer that the kernel queues beyond what is under way to it: one write of a busy lane.
const LANE_UNSENT_BYTES: u32 = 256 * 1024;
/// Data of a lane that is unacknowledged for this long ends it: the peer's host is gone. Noticed within
/// 20 s, late timers included.
const USER_TIMEOUT: Duration = Duration::from_secs(18);

/// A bound, listening, non-blocking socket.
///
/// # Errors
/// As `bind(2)` and `listen(2)`; `AddrInUse` when the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Lets no new connection begin, while those that have begun still come: the close of a listener resets
/// whatever waits in its queue, and a client that is connected already shall not meet that. Whoever
/// knocks meanwhile is refused when it knocks again, after the close.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn admit_no_more(listener: &std::net::TcpListener) -> io::Result<()> {
    // Classic BPF over the TCP header: drop what has the SYN flag in byte 13, pass the rest.
    const FLAGS_BYTE: u32 = 13;
    const SYN: u32 = 0x02;
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_IF_ANY: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_BYTE),
        SockFilter::new(JUMP_IF_ANY, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Sets what every connection needs: no delay for small writes, detection of vanished peers.
///
/// A limit on unacknowledged data is left to [`face_peer`]: the kernel counts it against a peer
/// that lives and does not read, too, and an application may take its time.
///
/// # Errors
/// As `setsockopt(2)`, for instance when the connection is already gone.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// What a lane needs beside, whose other end always reads: it ends when the peer acknowledges nothing or
/// reads nothing for a while, and the kernel queues little in front of what its streams say next.
pub fn face_peer(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // A failure means that the connection is gone already, which the next read tells, too.
    let _gone = socket
        .set_tcp_user_timeout(Some(USER_TIMEOUT))
        .and_then(|()| socket.set_tcp_notsent_lowat(LANE_UNSENT_BYTES));
}

/// Makes the coming close a reset, so that the other end cannot take it for a clean end. Set early, it
/// holds for the end of the process, too.
pub fn reset_on_close(stream: &TcpStream) {
    // A failure means that the connection is gone already, which is what the caller wants.
    let _gone = stream.set_zero_linger();
}

/// What a connection to an application needs beside: unless it has ended cleanly ([`finish_on_close`]),
/// its close is a reset; and the kernel queues little for one that does not read, so that its sidecar
/// notices before it has granted the sender more credit.
pub fn face_application(stream: &TcpStream) {
    reset_on_close(stream);
    queue_little(stream);
}

/// Lets the kernel queue little for an application that does not read.
pub fn queue_little(stream: &TcpStream) {
    // As above.
    let _gone = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Lets the kernel queue as much as its memory for the socket holds.
pub fn queue_all(stream: &TcpStream) {
    // As above.
    let _gone = SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX);
}

/// Makes the coming close a clean one again.
pub fn finish_on_close(stream: &TcpStream) {
    // As above.
    let _gone = SockRef::from(stream).set_linger(None);
}

/// Sends FIN; the other direction stays open.
///
/// # Errors
/// `NotConnected` when the connection is gone.
pub fn shut_write(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

/// Opens a connection within `limit` and tunes it.
///
/// # Errors
/// As `connect(2)`; `TimedOut` when the limit is over.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    // It fails only when the peer has reset the connection already, which the first read tells, too.
    let _gone = tune(&stream);
    Ok(stream)
}

/// Reads once, without waiting. A read that leaves room has emptied the socket, which spares the call
/// that would find that out.
///
/// # Errors
/// As `read(2)`; `WouldBlock` when there is nothing to read now.
pub fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let whole = buffer.len();
    to_its_end(stream, Interest::READABLE, || {
        let count = rustix::io::read(stream, &mut *buffer)?;
        Ok((count, count > 0 && count < whole))
    })
}

/// Writes once, without waiting. A short write has filled the socket.
///
/// # Errors
/// As `write(2)`; `WouldBlock` when the socket takes nothing now.
pub fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    to_its_end(stream, Interest::WRITABLE, || {
        let count = rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?;
        Ok((count, count < bytes.len()))
    })
}

/// Writes once, whatever the socket was last known to be ready for: for who has just made room in it.
///
/// # Errors
/// As `write(2)`; `WouldBlock` when the socket takes nothing now.
pub fn push(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}

/// Does `action`, which says what it moved and whether the socket has no more for it. Only an action
/// that would block makes the runtime forget that a socket is ready, so one that has come to its end
/// pretends to.
fn to_its_end(
    stream: &TcpStream,
    interest: Interest,
    action: impl FnOnce() -> io::Result<(usize, bool)>,
) -> io::Result<usize> {
    let mut moved = None;
    let result = stream.try_io(interest, || {
        let (count, at_end) = action()?;
        moved = Some(count);
        if at_end { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (moved, result) {
        (Some(count), _) => Ok(count),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(0), // an action that moved nothing has failed
    }
}

/// The error that a socket reports by its readiness.
#[must_use]
pub fn error_of(stream: &TcpStream) -> io::Error {
    let error = stream.take_error().ok().flatten();
    error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

/// Waits for bytes and reads them; 0 at the end of the stream.
///
/// # Errors
/// As `read(2)`.
pub async fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match read(stream, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Resolves `host` (an IP address or a name) to its first address, within `limit`.
///
/// # Errors
/// `NotFound` when the name has no address, `TimedOut` when the limit is over.
pub async fn resolve(host: &str, port: u16, limit: Duration) -> io::Result<SocketAddr> {
    if let Ok(ip) = host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    tokio::time::timeout(limit, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??
        .next()
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether an address is one of this machine's: only those can be bound.
#[must_use]
pub fn is_local(ip: std::net::IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// Raises the limit of open files to the most this process may have; returns it.
#[must_use]
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let held = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: held.maximum, maximum: held.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => held.maximum.unwrap_or(u64::MAX),
        Err(_) => held.current.unwrap_or(u64::MAX),
    }
}
