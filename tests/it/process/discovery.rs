//! Consul service discovery as its introductions show it, word for word: the file, the `curl`, and the HTTP
//! calls that a client library makes, against the real binary.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::mesh::is_ready;
use super::support::{Process, free_port, local, until, within};
use super::traffic::App;
use crate::http::send;
use crate::programs;

/// The file as it stands in the introduction, comment line and all; only the port is filled in.
const FILE: &str = r#"// consul-service.json
{
  "service": {
    "name": "user-service",
    "id": "user-service-1",
    "port": PORT,
    "tags": ["v1", "production"],
    "meta": {
      "version": "1.2.3",
      "protocol": "http"
    },
    "check": {
      "http": "http://localhost:PORT/health",
      "interval": "10s",
      "timeout": "5s"
    }
  }
}
"#;

struct Server {
    http: SocketAddr,
    process: Process,
    directory: tempfile::TempDir,
}

impl Server {
    /// With the file in its configuration directory, or beside it.
    async fn start(file: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let http = local(free_port());
        let (address, grpc) = (http.to_string(), local(free_port()).to_string());
        let mut args = vec!["server", "--memory", "--http-addr", &address, "--grpc-addr", &grpc];
        args.extend(["--dns-addr", "off", "--node", "n1", "--log-format", "json"]);
        let path = directory.path().to_string_lossy().into_owned();
        if let Some(file) = file {
            std::fs::write(directory.path().join("consul-service.json"), file).unwrap();
            args.extend(["--config-dir", &path]);
        }
        let process = Process::start("server", &args, &[]);
        until("the server's readiness", async || is_ready(http).await).await;
        Self { http, process, directory }
    }

    /// The entries that `Health().Service(name, "", true, nil)` of Consul's Go client gets.
    async fn healthy(&self, name: &str) -> Vec<Value> {
        let target = format!("/v1/health/service/{name}?passing=1");
        let entries = send(self.http, "GET", &target, "").await.json();
        entries.as_array().unwrap().clone()
    }
}

/// An application that is healthy, and the file that declares it.
async fn user_service() -> (tokio::task::JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let healthy = axum::Router::new().route("/health", axum::routing::get(|| async { "healthy" }));
    let serving = tokio::spawn(async move { axum::serve(listener, healthy).await.unwrap() });
    (serving, FILE.replace("PORT", &port.to_string()))
}

#[tokio::test]
async fn service_registration_by_file() {
    let (_app, file) = user_service().await;
    let server = Server::start(Some(&file)).await;
    until("a healthy instance", async || !server.healthy("user-service").await.is_empty()).await;
    let entry = &server.healthy("user-service").await[0];
    assert_eq!(entry["Service"]["ID"], "user-service-1");
    assert_eq!(entry["Service"]["Tags"], serde_json::json!(["v1", "production"]));
    assert_eq!(entry["Service"]["Meta"]["version"], "1.2.3");
}

#[tokio::test]
async fn service_registration_via_the_api() {
    if !programs::present(&["curl"]) {
        return;
    }
    let (app, file) = user_service().await;
    let server = Server::start(None).await;
    let path = server.directory.path().join("consul-service.json");
    std::fs::write(&path, &file).unwrap();
    curl(&server, &path).await;
    until("a healthy instance", async || !server.healthy("user-service").await.is_empty()).await;

    // "Automatic removal of unhealthy instances": the check runs every ten seconds.
    app.abort();
    until("the removal", async || server.healthy("user-service").await.is_empty()).await;
    let all = send(server.http, "GET", "/v1/health/service/user-service", "").await.json();
    assert_eq!(all[0]["Checks"][1]["Status"], "critical");
}

/// `curl -X PUT -d @consul-service.json http://consul:8500/v1/agent/service/register`; the host name leads
/// to the server under test.
async fn curl(server: &Server, file: &Path) {
    let body = format!("@{}", file.display());
    let route = format!("consul:8500:127.0.0.1:{}", server.http.port());
    let url = "http://consul:8500/v1/agent/service/register";
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail",
        "--noproxy",
        "*",
        "--connect-to",
        &route,
        "-X",
        "PUT",
        "-d",
        &body,
        url,
    ]);
    let ran = within("curl", curl.output()).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
async fn service_discovery_by_a_client() {
    let app = App::start("user-service").await;
    let server = Server::start(None).await;
    let body = format!(r#"{{"Name":"user-service","Port":{}}}"#, app.port());
    assert_eq!(send(server.http, "PUT", "/v1/agent/service/register", &body).await.status, 200);
    let entry = &server.healthy("user-service").await[0];
    // An instance without an address of its own is at that of its node.
    assert_eq!(entry["Service"]["Address"], "");
    let host = entry["Node"]["Address"].as_str().unwrap();
    let found: SocketAddr = format!("{host}:{}", entry["Service"]["Port"]).parse().unwrap();
    assert_eq!(found.port(), app.port());
    super::traffic::ask(found, "hello").await.unwrap();
    assert!(server.healthy("nobody").await.is_empty(), "no healthy instances is an empty list");
}

/// The calls of a gRPC resolver for `consul://user-service`: a list, then the next one when it changes.
#[tokio::test]
async fn client_side_load_balancing_by_a_resolver() {
    let server = Server::start(None).await;
    let register = async |id: &str, port: u16| {
        let body =
            format!(r#"{{"Name":"user-service","ID":"{id}","Address":"127.0.0.1","Port":{port}}}"#);
        assert_eq!(send(server.http, "PUT", "/v1/agent/service/register", &body).await.status, 200);
    };
    register("user-service-1", 1001).await;
    let list = async |index: u64| {
        let target =
            format!("/v1/health/service/user-service?passing=1&near=_agent&index={index}&wait=10m");
        let answer = send(server.http, "GET", &target, "").await;
        let ports: Vec<_> =
            answer.json().as_array().unwrap().iter().map(|e| e["Service"]["Port"].clone()).collect();
        (answer.index(), ports)
    };
    let (index, ports) = list(0).await;
    assert_eq!(ports, [1001]);
    let ((next, ports), ()) = tokio::join!(list(index), register("user-service-2", 1002));
    assert!(next > index);
    assert_eq!(ports, [1001, 1002]);
    let gone = async {
        let target = "/v1/agent/service/deregister/user-service-1";
        assert_eq!(send(server.http, "PUT", target, "").await.status, 200);
    };
    let ((_, ports), ()) = tokio::join!(list(next), gone);
    assert_eq!(ports, [1002]);
}

/// The order of a shutdown: not ready, deregistered, and only then gone.
#[tokio::test]
async fn graceful_shutdown() {
    let mut server = Server::start(None).await;
    let put = async |target: &str, body: &str| {
        assert_eq!(send(server.http, "PUT", target, body).await.status, 200);
    };
    put(
        "/v1/agent/service/register",
        r#"{"Name":"my-service","ID":"instance-1","Address":"10.0.0.1","Port":8080}"#,
    )
    .await;
    assert_eq!(server.healthy("my-service").await.len(), 1);
    put("/v1/agent/service/maintenance/instance-1?enable=true&reason=shutting+down", "").await;
    assert!(server.healthy("my-service").await.is_empty(), "no new traffic");
    put("/v1/agent/service/deregister/instance-1", "").await;
    let all = send(server.http, "GET", "/v1/catalog/service/my-service", "").await;
    assert_eq!(all.body, "[]");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.ended().await, 0);
}
