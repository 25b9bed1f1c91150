//! TLS handshakes on a plain socket, on either side, within a deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::lane::Mode;
use super::session::Session;
use crate::model::Reason;
use crate::net::{limits, socket};
use crate::tls;

/// As much as one read of a handshake takes; its messages have a few KiB.
const READ_BYTES: usize = 4096;

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
    #[error("{address} sent more than {most} bytes before it had proved who it is")]
    TooLong { address: SocketAddr, most: usize },
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
            Self::Timeout { .. } | Self::Silent { .. } | Self::Io { .. } | Self::TooLong { .. } => {
                Reason::TlsHandshake
            }
            Self::Tls { source, .. } => tls::reason_of(source),
            Self::Identity { .. } => Reason::IdentityMismatch,
        }
    }
}

/// A finished handshake.
pub struct Established {
    pub(super) socket: TcpStream,
    pub(super) tls: Session,
    /// What the peer said right after the handshake, and the beginning of a record behind it.
    pub(super) plain: Vec<u8>,
    pub(super) input: Vec<u8>,
    pub(super) closed: bool,
    /// As its certificate says.
    pub peer: tls::Peer,
    pub mode: Mode,
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
    let tls = UnbufferedClientConnection::new(config, name)
        .map_err(|source| HandshakeError::Tls { address, source })?;
    establish(socket, Session::Client(tls), address, left, None).await
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
    let tls = UnbufferedServerConnection::new(config)
        .map_err(|source| HandshakeError::Tls { address, source })?;
    establish(socket, Session::Server(tls), address, limits::HANDSHAKE, Some(turn)).await
}

async fn establish(
    socket: TcpStream,
    tls: Session,
    address: SocketAddr,
    limit: Duration,
    turn: Option<&Turn>,
) -> Result<Established, HandshakeError> {
    let mut handshake = Handshake { socket, tls, input: Vec::new(), plain: Vec::new(), closed: false };
    tokio::time::timeout(limit, handshake.run(turn))
        .await
        .map_err(|_elapsed| HandshakeError::Timeout { address })?
        .map_err(|failure| match failure {
            Failure::Silent => HandshakeError::Silent { address },
            Failure::Io(source) => HandshakeError::Io { address, source },
            Failure::Tls(source) => HandshakeError::Tls { address, source },
            Failure::TooLong => HandshakeError::TooLong { address, most: limits::HANDSHAKE_BYTES },
        })?;
    let Handshake { socket, tls, input, plain, closed } = handshake;
    let facts = tls.facts();
    let peer = tls::peer(facts.peer_certificates())
        .map_err(|source| HandshakeError::Identity { address, source })?;
    let mode = if facts.alpn_protocol() == Some(tls::ALPN_LANE) { Mode::Lane } else { Mode::Raw };
    if mode == Mode::Lane {
        socket::face_peer(&socket);
    }
    Ok(Established { socket, tls, plain, input, closed, peer, mode })
}

enum Failure {
    /// The end came before the first byte, as from a check of the port.
    Silent,
    Io(io::Error),
    Tls(rustls::Error),
    TooLong,
}

/// A handshake under way.
struct Handshake {
    socket: TcpStream,
    tls: Session,
    /// Read and not yet understood.
    input: Vec<u8>,
    /// What the peer said as soon as it could.
    plain: Vec<u8>,
    closed: bool,
}

impl Handshake {
    async fn run(&mut self, turn: Option<&Turn>) -> Result<(), Failure> {
        let mut heard = 0;
        loop {
            let mut reply = Vec::new();
            let understood = if heard > 0 {
                self.open_in_turn(&mut reply, turn).await
            } else {
                self.open(&mut reply)
            };
            let written = write_all(&self.socket, &reply).await;
            // The alert that explains a refusal may be lost; the refusal stands.
            understood.map_err(Failure::Tls)?;
            written.map_err(Failure::Io)?;
            if !self.tls.facts().is_handshaking() {
                return Ok(());
            }
            if heard > limits::HANDSHAKE_BYTES {
                return Err(Failure::TooLong);
            }
            match self.read().await.map_err(Failure::Io)? {
                0 if heard == 0 => return Err(Failure::Silent),
                0 => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
                more => heard += more,
            }
        }
    }

    async fn open_in_turn(
        &mut self,
        reply: &mut Vec<u8>,
        turn: Option<&Turn>,
    ) -> Result<(), rustls::Error> {
        let Some(turn) = turn else { return self.open(reply) };
        // It is never closed; if it were, there would be nobody to wait for.
        let _place = turn.acquire().await;
        let result = self.open(reply);
        yield_now().await;
        result
    }

    fn open(&mut self, reply: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let opened = self.tls.open(&mut self.input, &mut self.plain, reply)?;
        self.input.drain(..opened.used);
        self.closed |= opened.closed;
        Ok(())
    }

    async fn read(&mut self) -> io::Result<usize> {
        let held = self.input.len();
        self.input.resize(held + READ_BYTES, 0);
        let read = socket::read_some(&self.socket, &mut self.input[held..]).await;
        self.input.truncate(held + *read.as_ref().unwrap_or(&0));
        read
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket::write(socket, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
