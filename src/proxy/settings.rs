//! What a data plane is told once, at start.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use super::Listeners;
use crate::model::ServiceName;

/// Where the sidecar finds its application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApp {
    /// IP address or host name.
    pub host: String,
    pub port: u16,
    pub connect_timeout: Duration,
}

/// One upstream with its bound local port.
#[derive(Debug)]
pub struct Upstream {
    pub destination: ServiceName,
    pub listener: TcpListener,
    /// One attempt, TCP and TLS.
    pub connect_timeout: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Settings {
    /// The service this sidecar stands for.
    pub service: ServiceName,
    pub app: LocalApp,
    /// Where peers connect; `None` for a sidecar that only dials.
    pub inbound: Option<TcpListener>,
    pub upstreams: Vec<Upstream>,
    /// Threads that carry traffic; at least one.
    pub workers: usize,
}

impl Settings {
    /// Another handle to every listening socket: workers accept from the same queues.
    pub(super) fn share_listeners(&self) -> io::Result<Listeners> {
        Ok(Listeners {
            inbound: self.inbound.as_ref().map(TcpListener::try_clone).transpose()?,
            upstreams: self
                .upstreams
                .iter()
                .map(|upstream| upstream.listener.try_clone())
                .collect::<io::Result<_>>()?,
        })
    }
}
