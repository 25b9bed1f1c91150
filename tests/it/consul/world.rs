//! What stood around the captured Consul: the server under test as `n1` in dev mode, an application that
//! answers `hi <path>`, and a gRPC server without a health service.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use weft::app::server::{Server, Settings};
use weft::config::AgentKeys;
use weft::model::{Action, NodeName};

use crate::http::{self, Answer};

/// Ends with everything in it when it is dropped.
pub(super) struct World {
    pub(super) http: SocketAddr,
    /// Port of the application.
    pub(super) app: u16,
    /// Port of the gRPC server.
    pub(super) grpc: u16,
    open: watch::Sender<bool>,
    _server: Server,
    _others: JoinSet<()>,
}

impl World {
    /// The application answers nothing until [`World::open`].
    pub(super) async fn start() -> Self {
        let server = Server::start(Settings {
            definitions: Vec::new(),
            node_checks: Vec::new(),
            paths: Vec::new(),
            agent: AgentKeys::default(),
            data_dir: None,
            ca_key_file: None,
            http: "127.0.0.1:0".parse::<SocketAddr>().unwrap().into(),
            https: None,
            grpc: "127.0.0.1:0".parse().unwrap(),
            bundle: None,
            dns: None,
            etcd: None,
            node: NodeName::new("n1").unwrap(),
            node_address: "127.0.0.1".to_owned(),
            datacenter: "dc1".to_owned(),
            leaf_ttl: Duration::from_secs(72 * 3600),
            default_action: Action::Allow,
            allowed_hosts: Vec::new(),
            access: weft::app::server::AccessSettings::default(),
            dev: true,
            next_free_ports: false,
        });
        let server = server.await.unwrap();
        let (open, opened) = watch::channel(false);
        let mut others = JoinSet::new();
        let (app, listener) = listen().await;
        others.spawn(serve_app(listener, opened));
        let (grpc, listener) = listen().await;
        others.spawn(serve_grpc(listener));
        Self { http: server.bound().http, app, grpc, open, _server: server, _others: others }
    }

    /// Sends a request: `METHOD target`, and ` <= body` if it has one.
    pub(super) async fn send(&self, request: &str) -> Answer {
        let (line, body) = request.split_once(" <= ").unwrap_or((request, ""));
        let (method, target) = line.split_once(' ').unwrap();
        http::send(self.http, method, target, body).await
    }

    /// Sends requests that must succeed.
    pub(super) async fn send_all(&self, requests: &[&str]) {
        for request in requests {
            let answer = self.send(request).await;
            assert_eq!(answer.status, 200, "{request}: {}", answer.body);
        }
    }

    /// From now on the application answers, also those who wait already.
    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }
}

async fn listen() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

/// `/c/<code>` is answered with that status.
async fn serve_app(listener: TcpListener, opened: watch::Receiver<bool>) {
    let answer = move |uri: Uri| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            let code = uri.path().strip_prefix("/c/").and_then(|code| code.parse().ok()).unwrap_or(200);
            (StatusCode::from_u16(code).unwrap(), format!("hi {}", uri.path()))
        }
    };
    axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
}

/// Refuses every call in the words of Go's server for a service that it does not have.
async fn serve_grpc(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let refuse = service_fn(|_request| async {
            hyper::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "12")
                .header("grpc-message", "unknown service grpc.health.v1.Health")
                .body(Empty::<Bytes>::new())
        });
        connections.spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A caller that goes away is no fault of this server.
            let _gone = server.serve_connection(TokioIo::new(stream), refuse).await;
        });
    }
}
