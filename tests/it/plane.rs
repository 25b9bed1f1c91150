//! Two data planes without a control plane: configuration and certificates are put in by hand, so
//! that a test can change either at will. Sockets, TLS and workers are the real ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::pace::look_again;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use weft::agent::{EdgeCount, Handle, Status};
use weft::ca::{Ca, Settings as CaSettings};
use weft::model::ban::Subject;
use weft::model::snapshot::Change;
use weft::model::{
    Action, CheckStatus, Endpoint, EndpointId, InstanceId, NodeName, Party, Reason, ServiceName,
    Snapshot, UpstreamConfig, Weights,
};
use weft::net::capacity::Capacity;
use weft::net::socket;
use weft::proxy::{LocalApp, Proxy, Settings, Upstream};
use weft::store::MemoryStore;
use weft::telemetry::ProxyMetrics;
use weft::tls::{BanList, Identity, KeyRequest};

/// Every wait of these tests ends here.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// Waits for `future`, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what} in time"))
}

/// A certificate authority of its own for each test.
pub struct Authority(pub Ca, Arc<MemoryStore>);

impl Authority {
    pub async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()), Duration::from_secs(3600)).await
    }

    async fn over(store: Arc<MemoryStore>, leaf_ttl: Duration) -> Self {
        let settings =
            CaSettings { datacenter: "dc1".to_owned(), server_id: "test".to_owned(), leaf_ttl };
        Self(Ca::open(Arc::clone(&store) as _, settings).await.unwrap(), store)
    }

    /// A certificate that expires soon.
    pub async fn short_lived(&self, service: &str, ttl: Duration) -> Arc<Identity> {
        Self::over(Arc::clone(&self.1), ttl).await.identity(service, 1)
    }

    /// A fresh certificate for a service.
    pub fn identity(&self, service: &str, generation: u64) -> Arc<Identity> {
        self.guarded(service, generation, &BanList::default())
    }

    /// The same, for somebody who refuses peers on this list.
    pub fn guarded(&self, service: &str, generation: u64, bans: &BanList) -> Arc<Identity> {
        let request = KeyRequest::generate().unwrap();
        let id = self.0.service_id(&name(service)).unwrap();
        let leaf = self.0.issue(&id, &request.csr).unwrap();
        let bundle = self.0.bundle().borrow().clone();
        let (key, now) = (&request.key, SystemTime::now());
        Arc::new(Identity::guarded(generation, leaf.chain, key, &bundle, bans, now).unwrap())
    }
}

/// Limits of a sidecar; those of an ordinary one unless said otherwise.
#[derive(Clone)]
pub struct Tuning {
    pub upstream: UpstreamConfig,
    pub capacity: Capacity,
}

impl Default for Tuning {
    fn default() -> Self {
        let connect_timeout = Some(Duration::from_secs(2));
        let upstream = UpstreamConfig { connect_timeout, ..UpstreamConfig::default() };
        Self { upstream, capacity: Capacity::of_this_process() }
    }
}

/// A data plane and the strings it hangs on.
pub struct Plane {
    pub proxy: Option<Proxy>,
    pub inbound: SocketAddr,
    pub upstreams: BTreeMap<String, SocketAddr>,
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    pub bans: BanList,
    pub edges: mpsc::Receiver<EdgeCount>,
    pub metrics: ProxyMetrics,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    status: watch::Sender<Status>,
    _checks: mpsc::Receiver<weft::model::CheckReport>,
}

/// A listener on a free port of loopback.
pub fn local() -> std::net::TcpListener {
    socket::listen("127.0.0.1:0".parse().unwrap()).unwrap()
}

impl Plane {
    /// A sidecar of `service` whose application is at `app`, with ports for its upstreams.
    pub fn start(authority: &Authority, service: &str, app: SocketAddr, upstreams: &[&str]) -> Self {
        Self::tuned(authority, service, app, upstreams, Tuning::default())
    }

    /// As [`Self::start`], with limits of the test's choice.
    pub fn tuned(
        authority: &Authority,
        service: &str,
        app: SocketAddr,
        upstreams: &[&str],
        tuning: Tuning,
    ) -> Self {
        Self::behind(local(), authority, service, app, upstreams, tuning)
    }

    /// As [`Self::tuned`], with a listener for its peers.
    pub fn behind(
        inbound: std::net::TcpListener,
        authority: &Authority,
        service: &str,
        app: SocketAddr,
        upstreams: &[&str],
        tuning: Tuning,
    ) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (changes, changed) = watch::channel(0);
        let bans = BanList::default();
        let (identity, identities) = watch::channel(Some(authority.guarded(service, 1, &bans)));
        let synced = Status { connected: true, registered: true, synced: true, ..Status::default() };
        let (status, statuses) = watch::channel(synced);
        let (checks, checks_kept) = mpsc::channel(16);
        let (edges_out, edges) = mpsc::channel(4096);
        let handle = Handle {
            application: weft::agent::Application::default(),
            snapshot: Arc::clone(&snapshot),
            changes: changed,
            identity: identities,
            status: statuses,
            checks,
            edges: edges_out,
        };
        let inbound_address = inbound.local_addr().unwrap();
        let mut ports = BTreeMap::new();
        let upstreams = upstreams
            .iter()
            .map(|upstream| {
                let listener = local();
                ports.insert((*upstream).to_owned(), listener.local_addr().unwrap());
                Upstream { destination: name(upstream), listener, config: tuning.upstream.clone() }
            })
            .collect();
        let settings = Settings {
            service: name(service),
            app: LocalApp {
                host: app.ip().to_string(),
                port: app.port(),
                connect_timeout: Duration::from_secs(2),
            },
            inbound: Some(inbound),
            upstreams,
            workers: 2,
            capacity: tuning.capacity,
        };
        let metrics = ProxyMetrics::new();
        let proxy = Proxy::start(settings, &handle, &metrics).unwrap();
        Self {
            proxy: Some(proxy),
            inbound: inbound_address,
            upstreams: ports,
            identity,
            bans,
            edges,
            metrics,
            snapshot,
            changes,
            status,
            _checks: checks_kept,
        }
    }

    /// Applies changes as the agent would.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        for change in changes {
            next.apply(change);
        }
        self.bans.replace(Arc::clone(&next.bans));
        self.snapshot.store(Arc::new(next));
        self.changes.send_modify(|generation| *generation += 1);
    }

    pub fn allow_all(&self) {
        self.apply([Change::DefaultAction(Action::Allow)]);
    }

    /// Puts a ban, or lifts it.
    pub fn ban(&self, subject: &Subject, banned: bool) {
        let subject = subject.clone();
        self.apply([if banned { Change::Ban(subject) } else { Change::BanGone(subject) }]);
    }

    /// Puts an intention toward this sidecar's service.
    pub fn intend(&self, source: &str, destination: &str, action: Action) {
        let (source, destination) = (Party::parse(source).unwrap(), Party::parse(destination).unwrap());
        self.apply([Change::Intention { source, destination, action }]);
    }

    /// Tells this sidecar of an instance of `service`.
    pub fn knows(&self, service: &str, instance: &str, address: SocketAddr) {
        let id = EndpointId {
            node: NodeName::new("n1").unwrap(),
            instance: InstanceId::new(instance).unwrap(),
        };
        self.apply([
            Change::Service { name: name(service), exists: true },
            Change::Endpoint(Endpoint {
                id: id.clone(),
                service: name(service),
                host: address.ip().to_string(),
                port: address.port(),
                weights: Weights::default(),
            }),
            Change::Health { service: name(service), id, status: CheckStatus::Passing },
        ]);
    }

    /// Tells this sidecar that an instance has left.
    pub fn forgets(&self, service: &str, instance: &str) {
        let id = EndpointId {
            node: NodeName::new("n1").unwrap(),
            instance: InstanceId::new(instance).unwrap(),
        };
        self.apply([Change::EndpointGone { service: name(service), id }]);
    }

    /// Opens an application connection to an upstream.
    pub async fn dial(&self, upstream: &str) -> TcpStream {
        self.try_dial(upstream).await.unwrap()
    }

    /// As [`Self::dial`], for whom a refusal may reach before the connection is seen to be there.
    pub async fn try_dial(&self, upstream: &str) -> std::io::Result<TcpStream> {
        soon("local connection", TcpStream::connect(self.upstreams[upstream])).await
    }

    /// A sample of the metrics, zero when it is not there.
    pub fn metric(&self, sample: &str) -> f64 {
        let page = weft::telemetry::metrics::encode(&self.metrics.registry());
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How often a limit was reached.
    pub fn reached(&self, limit: &str) -> f64 {
        self.metric(&format!("weft_limit_reached_total{{limit=\"{limit}\"}}"))
    }

    /// Waits until a sample of the metrics is as wanted.
    pub async fn shows(&self, sample: &str, wanted: impl Fn(f64) -> bool) {
        let shown = async {
            while !wanted(self.metric(sample)) {
                look_again().await;
            }
        };
        soon(sample, shown).await;
    }

    /// The reason of the next connection that ended.
    pub async fn ended(&mut self) -> Reason {
        soon("end of a connection", self.edges.recv()).await.unwrap().reason
    }

    /// Whether start-up is over, as connections see it.
    pub fn set_synced(&self, synced: bool) {
        self.status.send_modify(|status| status.synced = synced);
    }
}

/// A listener for an application of the test.
pub async fn application() -> (TcpListener, SocketAddr) {
    // As many as the kernel allows: storms are for the sidecars to stand, not for the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Echoes for as long as the listener lives.
pub fn echo(app: TcpListener) {
    tokio::spawn(async move {
        while let Ok((mut server, _)) = app.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = server.split();
                let _broken_off = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
}

/// `web` with an upstream `db`, both allowed everything; the listener is `db`'s application.
pub async fn pair() -> (Plane, Plane, TcpListener, Authority) {
    let authority = Authority::new().await;
    let (app, address) = application().await;
    let db = Plane::start(&authority, "db", address, &[]);
    let web = Plane::start(&authority, "web", address, &["db"]);
    db.allow_all();
    web.knows("db", "db-1", db.inbound);
    (web, db, app, authority)
}
