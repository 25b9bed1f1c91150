//! What a data plane is told once, at start.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

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

/// What connections need of the settings. Without the listening sockets, which belong to whoever
/// accepts: the kernel refuses new connections as soon as the last handle is closed.
pub(super) struct Plan {
    pub(super) service: ServiceName,
    pub(super) app: LocalApp,
    pub(super) routes: Vec<Route>,
}

/// An upstream without its socket.
pub(super) struct Route {
    pub(super) destination: ServiceName,
    pub(super) connect_timeout: Duration,
}

/// The listening sockets of one worker; upstreams in the order of the routes.
pub(super) struct Listeners {
    pub(super) inbound: Option<TcpListener>,
    pub(super) upstreams: Vec<TcpListener>,
}

impl Settings {
    pub(super) fn split(self) -> (Plan, Listeners) {
        let Self { service, app, inbound, upstreams, workers: _ } = self;
        let (routes, upstreams) = upstreams
            .into_iter()
            .map(|Upstream { destination, listener, connect_timeout }| {
                (Route { destination, connect_timeout }, listener)
            })
            .unzip();
        (Plan { service, app, routes }, Listeners { inbound, upstreams })
    }
}

impl Listeners {
    /// Another handle to every socket: workers accept from the same queues.
    pub(super) fn share(&self) -> io::Result<Self> {
        Ok(Self {
            inbound: self.inbound.as_ref().map(TcpListener::try_clone).transpose()?,
            upstreams: self.upstreams.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?,
        })
    }
}
