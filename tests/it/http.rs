//! A server on a free port, and a client that says exactly what it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use weft::access::Access;
use weft::api::{ApiState, Listen, Server};
use weft::ca::{self, Ca};
use weft::catalog::{self, Catalog};
use weft::kv::Kv;
use weft::model::{Action, CheckStatus, NodeName};
use weft::store::{MemoryStore, Store};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running API and what stands behind it.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<Touches>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// Remembers what the listener to check results was told.
#[derive(Default)]
pub(crate) struct Touches(pub(crate) Mutex<Vec<(String, CheckStatus, String)>>);

impl Api {
    /// A server with an empty catalog in memory: node `n1`, datacenter `dc1`, default policy allow.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same in dev mode, which hands out keys.
    pub(crate) async fn dev() -> Self {
        Self::start_with(|state| state.hands_out_leaves = true).await
    }

    /// The same, with a state that `adapt` has changed.
    pub(crate) async fn start_with(adapt: impl FnOnce(&mut ApiState)) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let settings = catalog::Settings {
            datacenter: "dc1".to_owned(),
            node: NodeName::new("n1").unwrap(),
            node_address: "127.0.0.1".to_owned(),
            default_action: Action::Allow,
        };
        let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
        let settings = ca::Settings {
            datacenter: "dc1".to_owned(),
            server_id: "n1".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
        };
        let custody = ca::Custody { settle: Duration::ZERO, ..ca::Custody::default() };
        let ca = Ca::open_in(Arc::clone(&store), settings, custody).await.unwrap();
        let kv = Kv::open(Arc::clone(&store), catalog.clone()).await.unwrap();
        let access = Access::new(store, false);
        let clock = Arc::new(Touches::default());
        let mut state = ApiState::new(catalog.clone(), ca, kv, access, weft::app::server::decoders());
        let told = Arc::clone(&clock);
        catalog.on_report(move |taken| {
            let weft::model::CheckReport { id, status, output } = taken.report.clone();
            told.0.lock().unwrap().push((id, status, output));
        });
        state.allowed_hosts = vec!["mesh.test".to_owned()];
        state.routes = axum::Router::new().route("/metrics", axum::routing::get(|| async { "up 1\n" }));
        adapt(&mut state);
        let server = Server::bind(&[Listen::Tcp("127.0.0.1:0".parse().unwrap())], state).await.unwrap();
        let address = server.local_addrs()[0].unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            let _gone = stopped.await;
        }));
        Self { address, catalog, clock, stop: Some(stop), serving }
    }

    /// Begins the shutdown and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], "").await
    }

    pub(crate) async fn put(&self, target: &str, body: &str) -> Answer {
        self.send("PUT", target, &[], body).await
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.raw(format!("{head}{body}").as_bytes()).await
    }

    /// Sends bytes and reads until the server closes. A server that refuses a body it has not read may
    /// break the connection off after its answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        Answer::parse(&self.bytes(request).await)
    }

    /// As [`Self::raw`], without a look at the answer.
    pub(crate) async fn bytes(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _refused = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..count]);
            }
        };
        tokio::time::timeout(PATIENCE * 100, reading).await.expect("no end of the answer");
        bytes
    }
}

/// Sends one request to any server of ours.
pub(crate) async fn send(address: SocketAddr, method: &str, target: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    Answer::parse(&bytes)
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(header).collect(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn index(&self) -> u64 {
        self.header("x-consul-index").parse().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.body))
    }

    /// The JSON with indexes and UUIDs replaced, as text, so that the order of fields counts.
    pub(crate) fn shape(&self) -> String {
        let mut value = self.json();
        normalise(&mut value);
        value.to_string()
    }
}

fn normalise(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "CreateIndex" | "ModifyIndex" => {
                        assert!(value.as_u64().is_some(), "{name} is {value}");
                        *value = Value::from(0);
                    }
                    "ID" if value.as_str().is_some_and(|id| id.len() == 36) => {
                        *value = Value::from("uuid");
                    }
                    _ => normalise(value),
                }
            }
        }
        _ => {}
    }
}
