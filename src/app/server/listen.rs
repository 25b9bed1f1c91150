//! Where the HTTP API of a server listens, and where it may.
//!
//! Plain text stays on this machine: on loopback, or on a UNIX socket that its mode guards. Whoever is to
//! call from elsewhere needs TLS, and something that says who calls.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{Settings, free, https};
use crate::api::Listen;
use crate::app::AppError;
use crate::net::accept::TlsSource;

/// Stands for the address of a UNIX socket.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The one place of the HTTP API in plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpPlace {
    At(SocketAddr),
    /// For those whom the mode lets in.
    Socket {
        path: PathBuf,
        mode: u32,
    },
}

impl HttpPlace {
    /// Which users a socket lets in, when nobody says otherwise: the server's own.
    pub const MODE: u32 = 0o600;

    /// The same place with the port that was found for it.
    #[must_use]
    pub fn bound(&self, address: SocketAddr) -> Self {
        match self {
            Self::At(_) => Self::At(address),
            Self::Socket { .. } => self.clone(),
        }
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::At(address) => address.ip().to_canonical().is_loopback(),
            Self::Socket { .. } => true,
        }
    }
}

impl From<SocketAddr> for HttpPlace {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl fmt::Display for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Socket { path, .. } => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Every place to listen at, the one in plain text first.
///
/// # Errors
/// When plain text would leave this machine, or no port is free.
pub(super) fn places(settings: &Settings, tls: Option<TlsSource>) -> Result<Vec<Listen>, AppError> {
    if !settings.http.is_local() {
        return Err(AppError::Usage(format!(
            "the HTTP API in plain text listens on loopback only, not on {}; use --https-addr with a \
             certificate and --require-token or --https-client-ca-file, or a UNIX socket \
             (--http-addr unix:///PATH) for containers of this machine",
            settings.http
        )));
    }
    let mut places = vec![match &settings.http {
        HttpPlace::At(address) => Listen::Tcp(free(*address, "the HTTP API", settings.next_free_ports)?),
        HttpPlace::Socket { path, mode } => Listen::Unix { path: path.clone(), mode: *mode },
    }];
    if let Some((https, source)) = settings.https.as_ref().zip(tls) {
        let is_local = https.address.ip().to_canonical().is_loopback();
        if !is_local && !settings.access.require_token && https.client_ca.is_none() {
            return Err(AppError::Usage(format!(
                "the HTTP API would be open to whoever reaches {}; ask for tokens with --require-token, or \
                 for certificates with --https-client-ca-file",
                https.address
            )));
        }
        places.push(Listen::Tls(https.address, https::tls(source)));
    }
    Ok(places)
}
