//! The control plane and its agents over real sockets, with a store in memory.

mod application;
mod bans;
mod enrol;
mod ledger;
mod race;
mod registry;
mod renewal;
mod requests;
mod rotation;
mod succession;
mod sync;

pub(crate) use enrol::dial;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::pace::look_again;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use weft::agent::{self, Agent};
use weft::ca::{self, Ca, Custody};
use weft::catalog::{self, Catalog};
use weft::control::edges::Edges;
use weft::control::sessions::Sessions;
use weft::control::{Asked, Server, Settings, Written};
use weft::model::{
    Action, CheckDefinition, CheckKind, CheckStatus, Definition, InstanceId, NodeName, Registration,
    ServiceName, Sidecar,
};
use weft::store::{MemoryStore, Store};

/// Longest wait for anything here; most of it takes milliseconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
const LEAF_TTL: Duration = Duration::from_secs(3600);

/// A control plane that can be stopped and started again over the same store.
pub(super) struct Plane {
    pub(super) store: Arc<dyn Store>,
    pub(super) catalog: Catalog,
    pub(super) ca: Ca,
    pub(super) address: SocketAddr,
    pub(super) edges: Edges,
    pub(super) sessions: Sessions,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// What a test may want to be different.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) control: Settings,
    pub(super) leaf_ttl: Duration,
    pub(super) default_action: Action,
    /// How long a rotation takes an empty port for one whose sidecars are not back yet.
    pub(super) settle: Duration,
    /// Writes down what is signed.
    pub(super) write: Option<Arc<dyn Fn(Asked) -> Written + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        let control = Settings { dev: true, ..Settings::default() };
        let (default_action, settle) = (Action::Allow, Duration::ZERO);
        Self { control, leaf_ttl: LEAF_TTL, default_action, settle, write: None }
    }
}

impl Plane {
    pub(super) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        Self::over(Arc::new(MemoryStore::new()), address, options).await
    }

    pub(super) async fn over(store: Arc<dyn Store>, address: SocketAddr, options: Options) -> Self {
        let settings = catalog::Settings {
            datacenter: "dc1".to_owned(),
            node: NodeName::new("server").unwrap(),
            node_address: "127.0.0.1".to_owned(),
            default_action: options.default_action,
        };
        let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
        let settings = ca::Settings {
            datacenter: "dc1".to_owned(),
            server_id: "s1".to_owned(),
            leaf_ttl: options.leaf_ttl,
        };
        let custody = Custody { settle: options.settle, ..Custody::default() };
        let ca = Ca::open_in(Arc::clone(&store), settings, custody).await.unwrap();
        let bound = Server::bind(address, catalog.clone(), ca.clone(), options.control).unwrap();
        if let Some(write) = options.write {
            bound.on_signed(move |asked| write(asked));
        }
        let (address, edges, sessions) = (bound.local_addr(), bound.edges(), bound.sessions());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(bound.serve(async { drop(stopped.await) }));
        Self { store, catalog, ca, address, edges, sessions, stop, serving }
    }

    /// Stops in good order and gives back what a later run needs.
    pub(super) async fn stop(self) -> (Arc<dyn Store>, SocketAddr) {
        drop(self.stop);
        timeout(DEADLINE, self.serving).await.expect("the server did not stop").unwrap();
        (self.store, self.address)
    }

    pub(super) fn settings(&self, service: &str, upstreams: &[&str]) -> agent::Settings {
        agent::Settings {
            servers: vec![self.address.to_string()],
            token: None,
            service: name(service),
            registrations: instance(service, &format!("{service}-1"), 21_000),
            upstreams: upstreams.iter().map(|upstream| name(upstream)).collect(),
            serves_workload: false,
        }
    }

    /// A sidecar that has its first snapshot.
    pub(super) async fn agent(&self, service: &str, upstreams: &[&str]) -> Agent {
        synced(self.settings(service, upstreams)).await
    }

    /// The endpoint of `service-1` in the catalog.
    pub(super) fn status_of(&self, service: &str) -> Option<CheckStatus> {
        let id = InstanceId::new(format!("{service}-1-sidecar-proxy")).unwrap();
        self.catalog.instance(&NodeName::new("n1").unwrap(), &id).map(|entry| entry.status())
    }
}

pub(super) async fn synced(settings: agent::Settings) -> Agent {
    let agent = Agent::start(settings);
    eventually("the first snapshot", || agent.handle.status.borrow().synced).await;
    agent
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// An instance on node `n1` with one check of its own, and its sidecar without any.
pub(super) fn instance(service: &str, id: &str, port: u16) -> Vec<Registration> {
    let mut definition = Definition::new(name(service), 80).unwrap();
    definition.id = InstanceId::new(id).unwrap();
    definition.checks = vec![CheckDefinition {
        id: format!("service:{id}"),
        name: "alive".to_owned(),
        notes: String::new(),
        kind: CheckKind::Ttl { ttl: Duration::from_secs(60) },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        initial: CheckStatus::Passing,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }];
    definition.sidecar = Some(Sidecar::default());
    let mut all = definition.expand(&NodeName::new("n1").unwrap(), port).unwrap();
    all[1].checks.clear();
    all
}

/// Addresses and states of the endpoints of `service` as an agent sees them.
pub(super) fn endpoints(agent: &Agent, service: &str) -> Vec<(String, u16, CheckStatus)> {
    let snapshot = agent.handle.snapshot.load();
    let Some(view) = snapshot.services.get(&name(service)) else { return Vec::new() };
    let states = view.endpoints.values();
    states.map(|s| (s.endpoint.host.clone(), s.endpoint.port, s.status)).collect()
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        look_again().await;
    }
}

/// Waits for a future.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}
