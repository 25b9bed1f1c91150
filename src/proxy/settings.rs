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

/// What workers go by for all their life: the settings without the sockets. A listener lives only with
/// the task that accepts from it, so that its port refuses as soon as nobody does.
pub(super) struct Plan {
    pub(super) service: ServiceName,
    pub(super) app: LocalApp,
    pub(super) upstreams: Vec<Target>,
}

/// An upstream without its local port.
pub(super) struct Target {
    pub(super) destination: ServiceName,
    pub(super) connect_timeout: Duration,
}

impl Settings {
    pub(super) fn split(self) -> (Plan, Listeners) {
        let Self { service, app, inbound, upstreams, .. } = self;
        let (targets, doors) = upstreams
            .into_iter()
            .map(|Upstream { destination, listener, connect_timeout }| {
                (Target { destination, connect_timeout }, listener)
            })
            .unzip();
        (Plan { service, app, upstreams: targets }, Listeners { inbound, upstreams: doors })
    }
}

impl Listeners {
    /// Another handle to every listening socket: workers accept from the same queues.
    pub(super) fn share(&self) -> io::Result<Self> {
        let upstreams = self.upstreams.iter().map(TcpListener::try_clone);
        Ok(Self {
            inbound: self.inbound.as_ref().map(TcpListener::try_clone).transpose()?,
            upstreams: upstreams.collect::<io::Result<_>>()?,
        })
    }
}
