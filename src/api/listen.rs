//! Where the API listens, and how a connection becomes a stream to serve HTTP on: TCP, TCP with TLS, or
//! a UNIX socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::gate::Peer;
use super::guard::Ends;
use super::limits::HANDSHAKE_DEADLINE;
use crate::model::Reason;
use crate::net::accept::TlsSource;
use crate::net::local::LocalListener;

/// TLS as the process around the API has it.
#[derive(Clone)]
pub struct Tls {
    pub settings: TlsSource,
    /// How logs name the certificate of a client.
    pub name: fn(&CertificateDer<'_>) -> String,
    /// Why a handshake failed, and what was wrong with the client's certificate, if that was it.
    pub why: fn(&io::Error) -> (Reason, Option<String>),
}

/// Why a connection carries no request. The other end learns nothing of it.
pub(super) struct Refused {
    pub(super) reason: Reason,
    /// What was wrong with the client's certificate, if that was it.
    pub(super) certificate: Option<String>,
    pub(super) fault: io::Error,
}

impl From<io::Error> for Refused {
    fn from(fault: io::Error) -> Self {
        Self { reason: Reason::TlsHandshake, certificate: None, fault }
    }
}

/// One place to listen at.
#[derive(Clone)]
pub enum Listen {
    /// Port 0 picks a free one.
    Tcp(SocketAddr),
    /// A client certificate, when the settings ask for one, makes its owner an operator.
    Tls(SocketAddr, Tls),
    Unix {
        path: PathBuf,
        mode: u32,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Tls(address, _) => write!(f, "https://{address}"),
            Self::Unix { path, .. } => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A place that is bound.
pub(super) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
    Unix(LocalListener),
}

impl Listener {
    pub(super) async fn bind(place: &Listen) -> io::Result<Self> {
        Ok(match place {
            Listen::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
            Listen::Tls(address, source) => Self::Tls(TcpListener::bind(address).await?, source.clone()),
            Listen::Unix { path, mode } => Self::Unix(LocalListener::bind(path, *mode, false)?),
        })
    }

    /// `None` for a socket of this machine.
    pub(super) fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Raw, Peer)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Raw::Tcp(stream), Peer::Tcp(peer))
            }
            Self::Tls(listener, source) => {
                let (stream, peer) = listener.accept().await?;
                (Raw::Tls(stream, source.clone()), Peer::Tcp(peer))
            }
            Self::Unix(listener) => {
                let (stream, process) = listener.accept().await?;
                (Raw::Unix(stream), Peer::User(process.uid()))
            }
        })
    }
}

/// A connection that was accepted; nothing was read of it.
pub(super) enum Raw {
    Tcp(TcpStream),
    Tls(TcpStream, Tls),
    Unix(UnixStream),
}

/// What HTTP is served on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Raw {
    /// Makes the connection ready for HTTP; over TLS this is the handshake.
    pub(super) async fn open(self, peer: Peer) -> Result<(Box<dyn Stream>, Ends), Refused> {
        let ends = |local: Option<SocketAddr>, certificate| Ends {
            peer,
            local: local.map(|address| address.ip()),
            certificate,
        };
        match self {
            Self::Tcp(stream) => {
                let local = tuned(&stream)?;
                Ok((Box::new(stream), ends(Some(local), None)))
            }
            Self::Tls(stream, tls) => {
                let local = tuned(&stream)?;
                let handshake = TlsAcceptor::from((tls.settings)()).accept(stream);
                let stream = timeout(HANDSHAKE_DEADLINE, handshake).await.map_err(io::Error::from)?;
                let stream = stream.map_err(|fault| {
                    let (reason, certificate) = (tls.why)(&fault);
                    Refused { reason, certificate, fault }
                })?;
                let certificates = stream.get_ref().1.peer_certificates();
                let leaf = certificates.and_then(<[_]>::first);
                let certificate = leaf.map(|leaf| (tls.name)(leaf).into());
                Ok((Box::new(stream), ends(Some(local), certificate)))
            }
            Self::Unix(stream) => Ok((Box::new(stream), ends(None, None))),
        }
    }
}

/// Small answers must not wait for the peer's delayed acknowledgement.
fn tuned(stream: &TcpStream) -> io::Result<SocketAddr> {
    let _best_effort = stream.set_nodelay(true);
    stream.local_addr()
}
