//! What a data plane is told once, at start.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::admission::Admission;
use super::route::Route;
use crate::model::{ServiceName, UpstreamConfig};
use crate::net::capacity::Capacity;
use crate::net::socket;

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
    pub config: UpstreamConfig,
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
    /// How much they may hold together.
    pub capacity: Capacity,
}

/// What connections need of the settings. Without the listening sockets, which belong to whoever
/// accepts: the kernel refuses new connections as soon as the last handle is closed.
pub(super) struct Plan {
    pub(super) service: ServiceName,
    pub(super) app: LocalApp,
    pub(super) routes: Vec<Route>,
    pub(super) capacity: Capacity,
    pub(super) admission: Admission,
    /// Where this sidecar listens: dialling there would be a loop.
    own: Vec<SocketAddr>,
}

impl Plan {
    /// Whether a connection to `address` would come back to this sidecar.
    pub(super) fn leads_back(&self, address: SocketAddr) -> bool {
        let is_ours = |own: &SocketAddr| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || own.ip().is_unspecified() && socket::is_local(address.ip()))
        };
        self.own.iter().any(is_ours)
    }
}

/// The listening sockets of one worker; upstreams in the order of the routes.
pub(super) struct Listeners {
    pub(super) inbound: Option<TcpListener>,
    pub(super) upstreams: Vec<TcpListener>,
}

impl Settings {
    pub(super) fn split(self) -> (Plan, Listeners) {
        let Self { service, app, inbound, upstreams, workers: _, capacity } = self;
        let mut routes = Vec::new();
        let mut sockets = Vec::new();
        for Upstream { destination, listener, config } in upstreams {
            routes.push(Route::new(routes.len(), destination, &config));
            sockets.push(listener);
        }
        // A socket that listens has an address; one that has none can lead nowhere.
        let own = inbound.iter().chain(&sockets).filter_map(|l| l.local_addr().ok()).collect();
        let admission = Admission::new(&capacity);
        let plan = Plan { service, app, routes, capacity, admission, own };
        (plan, Listeners { inbound, upstreams: sockets })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str) -> TcpListener {
        TcpListener::bind(address).unwrap()
    }

    #[test]
    fn ways_that_lead_back_are_known() {
        let (inbound, upstream) = (listen("0.0.0.0:0"), listen("127.0.0.1:0"));
        let (inbound_at, upstream_at) = (inbound.local_addr().unwrap(), upstream.local_addr().unwrap());
        let config = UpstreamConfig::default();
        let name = ServiceName::new("db").unwrap();
        let settings = Settings {
            service: name.clone(),
            app: LocalApp { host: "127.0.0.1".to_owned(), port: 1, connect_timeout: Duration::ZERO },
            inbound: Some(inbound),
            upstreams: vec![Upstream { destination: name, listener: upstream, config }],
            workers: 1,
            capacity: Capacity::derive(1024, None),
        };
        let (plan, _listeners) = settings.split();
        let at = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        assert!(plan.leads_back(upstream_at));
        assert!(plan.leads_back(at([127, 0, 0, 1], inbound_at.port())), "it listens everywhere");
        assert!(plan.leads_back(at([127, 9, 9, 9], inbound_at.port())));
        assert!(!plan.leads_back(at([192, 0, 2, 1], inbound_at.port())), "that is another machine");
        assert!(!plan.leads_back(at([127, 0, 0, 2], upstream_at.port())), "it listens at one address");
        assert!(!plan.leads_back(at([127, 0, 0, 1], 1)));
    }
}
