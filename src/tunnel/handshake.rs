//! TLS handshakes on a plain socket, on either side, within a deadline.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::lane::Mode;
use crate::model::{Reason, SpiffeId};
use crate::net::{limits, socket};
use crate::tls;

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no TLS handshake with {address} in time")]
    Timeout { address: SocketAddr },
    #[error("{address} left without a word")]
    Silent { address: SocketAddr },
    #[error("{address} broke off the TLS handshake: {source}")]
    Io { address: SocketAddr, source: io::Error },
    #[error("TLS handshake with {address} failed: {source}")]
    Tls { address: SocketAddr, source: rustls::Error },
    #[error("{address} has no usable identity: {source}")]
    Identity { address: SocketAddr, source: tls::TlsError },
}

impl HandshakeError {
    /// The word for it in the closed list.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                Reason::ConnectTimeout
            }
            Self::Connect { .. } => Reason::ConnectRefused,
            Self::Timeout { .. } | Self::Silent { .. } | Self::Io { .. } => Reason::TlsHandshake,
            Self::Tls { source, .. } => tls::reason_of(source),
            Self::Identity { .. } => Reason::IdentityMismatch,
        }
    }
}

/// A finished handshake.
pub struct Established {
    pub(super) socket: TcpStream,
    pub(super) tls: Connection,
    pub peer: SpiffeId,
    pub mode: Mode,
    /// When the peer's leaf expires.
    pub expires: SystemTime,
}

/// Dials a sidecar and proves both identities to each other within `limit`.
///
/// # Errors
/// See [`HandshakeError`]; whatever it is, the far application saw nothing.
pub async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<Established, HandshakeError> {
    let started = Instant::now();
    let socket = socket::connect(address, limit)
        .await
        .map_err(|source| HandshakeError::Connect { address, source })?;
    let left = limit.saturating_sub(started.elapsed()).min(limits::HANDSHAKE);
    // No server name is sent; the verifier looks at the SPIFFE ID only.
    let name = ServerName::IpAddress(address.ip().into());
    let tls =
        ClientConnection::new(config, name).map_err(|source| HandshakeError::Tls { address, source })?;
    establish(socket, tls.into(), address, left, None).await
}

/// Whose turn it is to compute. Handshakes of peers are expensive and anybody may begin one, so they
/// queue for one place on the thread, and what else runs there comes in between. Waiting for a slow
/// or silent peer holds no place.
pub type Turn = Semaphore;

/// Takes a peer's connection.
///
/// # Errors
/// See [`HandshakeError`].
pub async fn accept(
    socket: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    turn: &Turn,
) -> Result<Established, HandshakeError> {
    let tls = ServerConnection::new(config).map_err(|source| HandshakeError::Tls { address, source })?;
    establish(socket, tls.into(), address, limits::HANDSHAKE, Some(turn)).await
}

async fn establish(
    socket: TcpStream,
    mut tls: Connection,
    address: SocketAddr,
    limit: Duration,
    turn: Option<&Turn>,
) -> Result<Established, HandshakeError> {
    tokio::time::timeout(limit, shake_hands(&socket, &mut tls, turn))
        .await
        .map_err(|_elapsed| HandshakeError::Timeout { address })?
        .map_err(|failure| match failure {
            Failure::Silent => HandshakeError::Silent { address },
            Failure::Io(source) => HandshakeError::Io { address, source },
            Failure::Tls(source) => HandshakeError::Tls { address, source },
        })?;
    let peer = tls::peer_id(tls.peer_certificates())
        .map_err(|source| HandshakeError::Identity { address, source })?;
    let expires = tls::peer_expiry(tls.peer_certificates())
        .map_err(|source| HandshakeError::Identity { address, source })?;
    let mode = if tls.alpn_protocol() == Some(tls::ALPN_LANE) { Mode::Lane } else { Mode::Raw };
    if mode == Mode::Lane {
        socket::notice_vanished(&socket);
    }
    Ok(Established { socket, tls, peer, mode, expires })
}

enum Failure {
    /// The end came before the first byte, as from a check of the port.
    Silent,
    Io(io::Error),
    Tls(rustls::Error),
}

async fn shake_hands(
    socket: &TcpStream,
    tls: &mut Connection,
    turn: Option<&Turn>,
) -> Result<(), Failure> {
    let mut heard = false;
    loop {
        write_all(socket, tls).await.map_err(Failure::Io)?;
        if !tls.is_handshaking() {
            return Ok(());
        }
        socket.readable().await.map_err(Failure::Io)?;
        match tls.read_tls(&mut NonBlocking(socket)) {
            Ok(0) if !heard => return Err(Failure::Silent),
            Ok(0) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => heard = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Failure::Io(error)),
        }
        if let Err(error) = compute(tls, turn).await {
            // The alert that explains the refusal; the refusal stands whether or not it arrives.
            let _alert = write_all(socket, tls).await;
            return Err(Failure::Tls(error));
        }
    }
}

async fn compute(tls: &mut Connection, turn: Option<&Turn>) -> Result<(), rustls::Error> {
    let Some(turn) = turn else { return tls.process_new_packets().map(drop) };
    // It is never closed; if it were, there would be nobody to wait for.
    let _place = turn.acquire().await;
    let result = tls.process_new_packets().map(drop);
    yield_now().await;
    result
}

async fn write_all(socket: &TcpStream, tls: &mut Connection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut NonBlocking(socket)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets rustls read from and write to a tokio socket without waiting.
pub(super) struct NonBlocking<'a>(pub(super) &'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
