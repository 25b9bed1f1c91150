//! Every impostor against a running sidecar, in both directions: nobody reaches an application, and each
//! is refused for its own reason.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{LocalApp, Proxy, Settings, Upstream};
use crate::agent::{Application, EdgeCount, Handle, Status};
use crate::model::snapshot::Change;
use crate::model::{
    Action, CheckStatus, Endpoint, EndpointId, InstanceId, NodeName, Reason, ServiceName, Snapshot,
    UpstreamConfig, Weights,
};
use crate::net::capacity::Capacity;
use crate::net::socket;
use crate::telemetry::ProxyMetrics;
use crate::tls::impostors::{CASES, Want, World, world};
use crate::tls::{ALPN_LANE, no_server_name};

const DEADLINE: Duration = Duration::from_secs(20);

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what} in time"))
}

/// A sidecar with an identity of the forge, and the strings it hangs on.
struct Rig {
    proxy: Proxy,
    inbound: SocketAddr,
    upstream: SocketAddr,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    edges: mpsc::Receiver<EdgeCount>,
    metrics: ProxyMetrics,
    _kept: Box<dyn std::any::Any>,
}

impl Rig {
    /// The sidecar of `service` before `app`, with `db` as its upstream; allowed everything.
    fn start(world: &World, service: &str, app: SocketAddr) -> Self {
        let mut first = Snapshot::default();
        first.apply(Change::DefaultAction(Action::Allow));
        let snapshot = Arc::new(ArcSwap::from_pointee(first));
        let (changes, changed) = watch::channel(0);
        let (identity, identities) = watch::channel(Some(Arc::new(world.mesh.identity(service))));
        let (status, statuses) = watch::channel(Status { synced: true, ..Status::default() });
        let (checks, checks_kept) = mpsc::channel(16);
        let (edges_out, edges) = mpsc::channel(4096);
        let handle = Handle {
            snapshot: Arc::clone(&snapshot),
            changes: changed,
            identity: identities,
            status: statuses,
            checks,
            edges: edges_out,
            application: Application::default(),
        };
        let local = || socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (inbound, upstream) = (local(), local());
        let addresses = (inbound.local_addr().unwrap(), upstream.local_addr().unwrap());
        let connect_timeout = Duration::from_secs(5);
        let settings = Settings {
            service: name(service),
            app: LocalApp { host: app.ip().to_string(), port: app.port(), connect_timeout },
            inbound: Some(inbound),
            upstreams: vec![Upstream {
                destination: name("db"),
                listener: upstream,
                config: UpstreamConfig::default(),
            }],
            workers: 1,
            capacity: Capacity::of_this_process(),
        };
        let metrics = ProxyMetrics::new();
        let proxy = Proxy::start(settings, &handle, &metrics).unwrap();
        let (inbound, upstream) = addresses;
        let _kept = Box::new((identity, status, checks_kept));
        Self { proxy, inbound, upstream, snapshot, changes, edges, metrics, _kept }
    }

    /// The only instance of `db` is at this address now.
    fn points_at(&self, number: usize, address: SocketAddr) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        let node = NodeName::new("n1").unwrap();
        let id = |number: usize| EndpointId {
            node: node.clone(),
            instance: InstanceId::new(format!("db-{number}")).unwrap(),
        };
        next.services.clear();
        let (host, port) = (address.ip().to_string(), address.port());
        let endpoint =
            Endpoint { id: id(number), service: name("db"), host, port, weights: Weights::default() };
        next.apply(Change::Service { name: name("db"), exists: true });
        next.apply(Change::Endpoint(endpoint));
        let status = CheckStatus::Passing;
        next.apply(Change::Health { service: name("db"), id: id(number), status });
        self.snapshot.store(Arc::new(next));
        self.changes.send_modify(|generation| *generation += 1);
    }

    /// Handshakes of one direction, by result.
    fn handshakes(&self, direction: &str) -> BTreeMap<String, f64> {
        let page = crate::telemetry::metrics::encode(&self.metrics.registry());
        let prefix = format!("weft_tls_handshakes_total{{direction=\"{direction}\",result=\"");
        let samples = page.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
        samples.map(|(result, count)| (result.to_owned(), count.parse().unwrap())).collect()
    }
}

/// An application that counts who reaches it.
async fn application() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, reached) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&reached);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, reached)
}

/// OPEN on stream 1 toward `db`, and DATA right behind it.
fn first_words() -> Vec<u8> {
    let open = [&[1, 0, 0, 4, 0, 0, 0, 1][..], b"\0\0db"].concat();
    [&open, &[4, 0, 0, 1, 0, 0, 0, 1, b'x'][..]].concat()
}

#[tokio::test]
async fn no_impostor_that_dials_reaches_the_application() {
    let (world, (app, reached)) = (world(), application().await);
    let db = Rig::start(&world, "db", app);
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for lanes in [true, false] {
        for case in CASES {
            let Want::Refused(reason) = case.dialling else { continue };
            let mut client = Arc::unwrap_or_clone((case.make)(&world).careless_client());
            client.alpn_protocols = if lanes { vec![ALPN_LANE.to_vec()] } else { Vec::new() };
            let tcp = TcpStream::connect(db.inbound).await.unwrap();
            let connected = TlsConnector::from(Arc::new(client)).connect(no_server_name(), tcp).await;
            *expected.entry(reason.as_str().to_owned()).or_default() += 1.0;
            // With TLS 1.3 it believes that it is in until it hears otherwise.
            let Ok(mut stream) = connected else { continue };
            let _refused = stream.write_all(&first_words()).await;
            let mut answer = Vec::new();
            let end = soon(case.name, stream.read_to_end(&mut answer)).await;
            assert!(end.is_err() && answer.is_empty(), "{}: {end:?} {answer:?}", case.name);
        }
    }
    let refused = |counts: &BTreeMap<String, f64>| counts.values().sum::<f64>();
    let all = async {
        while refused(&db.handshakes("inbound")) < refused(&expected) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a reason for each", all).await;
    assert_eq!(db.handshakes("inbound"), expected);
    assert_eq!(reached.load(Ordering::SeqCst), 0, "an impostor reached the application");
    db.proxy.kill().await;
}

#[tokio::test]
async fn no_impostor_that_serves_gets_a_byte() {
    let (world, (app, _)) = (world(), application().await);
    let mut web = Rig::start(&world, "web", app);
    let heard = Arc::new(AtomicUsize::new(0));
    for (number, case) in CASES.iter().enumerate() {
        let Want::Refused(reason) = case.serving else { continue };
        let mut server = Arc::unwrap_or_clone((case.make)(&world).careless_server());
        server.alpn_protocols = vec![ALPN_LANE.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        web.points_at(number, listener.local_addr().unwrap());
        let count = Arc::clone(&heard);
        let impostor = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(tcp).await else { return };
            if stream.read_u8().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut client = TcpStream::connect(web.upstream).await.unwrap();
        client.write_all(b"secret").await.unwrap();
        let mut answer = Vec::new();
        let end = soon(case.name, client.read_to_end(&mut answer)).await;
        assert!(end.is_err() && answer.is_empty(), "{}", case.name);
        let edge = soon(case.name, web.edges.recv()).await.unwrap();
        assert_eq!(edge.reason, reason, "{}", case.name);
        soon("the end of the impostor", impostor).await.unwrap();
    }
    assert_eq!(heard.load(Ordering::SeqCst), 0, "an impostor was told something");
    assert!(!web.handshakes("outbound").contains_key(Reason::Ok.as_str()));
    web.proxy.kill().await;
}

/// Without this, the two above would prove nothing.
#[tokio::test]
async fn the_rig_carries_honest_connections() {
    let (world, (app, reached)) = (world(), application().await);
    let db = Rig::start(&world, "db", app);
    let web = Rig::start(&world, "web", app);
    web.points_at(0, db.inbound);
    let mut client = TcpStream::connect(web.upstream).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let arrival = async {
        while reached.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the connection at the application", arrival).await;
    web.proxy.kill().await;
    db.proxy.kill().await;
}
