//! etcd's API over real sockets: by generated clients, by `etcdctl`, by a client in Python, and side by
//! side with a real etcd.

mod against;
mod etcdctl;
mod python;
mod registry;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::pace::look_again;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use weft::catalog::{self, Catalog};
use weft::etcd::{Bridge, Keys, Server};
use weft::model::{Action, NodeName, ServiceName};
use weft::net::socket;
use weft::pb::etcd::etcdserverpb::kv_client::KvClient;
use weft::pb::etcd::etcdserverpb::lease_client::LeaseClient;
use weft::pb::etcd::etcdserverpb::watch_client::WatchClient;
use weft::pb::etcd::etcdserverpb::{PutRequest, RangeRequest};
use weft::store::{MemoryStore, Store};

/// Longest wait for anything here; most of it takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// A listener with the catalog that is made of its keys.
struct Etcd {
    store: Arc<dyn Store>,
    catalog: Catalog,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    bridge: JoinHandle<()>,
}

impl Etcd {
    async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let settings = catalog::Settings {
            datacenter: "dc1".to_owned(),
            node: NodeName::new("n1").unwrap(),
            node_address: "127.0.0.1".to_owned(),
            default_action: Action::Allow,
        };
        let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
        let keys = Keys::open(Arc::clone(&store)).await.unwrap();
        let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = Server::new(listener, None, keys.clone(), &catalog).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        let bridge = tokio::spawn(Bridge::new(keys, catalog.clone()).run());
        Self { store, catalog, address, stop, serving, bridge }
    }

    /// Ends everything, as the end of the process does; gives back what a later run needs.
    async fn stop(self) -> Arc<dyn Store> {
        drop(self.stop);
        timeout(DEADLINE, self.serving).await.expect("the listener did not stop").unwrap();
        self.bridge.abort();
        assert!(self.bridge.await.is_err());
        self.store
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    fn instances(&self, service: &str) -> Vec<(String, String, u16)> {
        let entries = self.catalog.health(&ServiceName::new(service).unwrap());
        let shown = entries.iter().map(|entry| &entry.instance.instance);
        shown.map(|i| (i.id.to_string(), i.address.clone(), i.port)).collect()
    }
}

/// What `clientv3` opens: one connection for everything.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str, lease: i64) -> i64 {
        let request = PutRequest { lease, ..put(key, value) };
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn prefix(&mut self, prefix: &str) -> Vec<(String, String)> {
        let answer = self.kv.range(under(prefix)).await.unwrap().into_inner();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

/// Everything that begins so, as `WithPrefix` asks for it.
fn under(prefix: &str) -> RangeRequest {
    RangeRequest { key: bytes(prefix), range_end: end_of(prefix), ..RangeRequest::default() }
}

fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    end.into()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        look_again().await;
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}
