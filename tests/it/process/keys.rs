//! Keys, locks and etcd's leases over a crash of the server.

use std::net::SocketAddr;

use serde_json::Value;
use weft::pb::etcd::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest};

use super::mesh::{is_ready, send};
use super::support::{Process, free_port, local, until};
use crate::etcd::Client;

const KEY: &str = "/services/user-service/instance-1";
const VALUE: &str = r#"{"address": "10.0.0.1", "port": 8080}"#;

struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    etcd: SocketAddr,
}

impl Addresses {
    async fn serve(&self, data: &str) -> Process {
        let [http, grpc, etcd] = [self.http, self.grpc, self.etcd].map(|address| address.to_string());
        let mut args = vec!["server", "--node", "central", "--data-dir", data, "--log-format", "json"];
        args.extend(["--http-addr", &http, "--grpc-addr", &grpc, "--etcd-addr", &etcd]);
        let process = Process::start("server", &args, &[]);
        until("the server's readiness", async || is_ready(self.http).await).await;
        process
    }

    async fn put(&self, target: &str, body: &str) -> Value {
        let answer = send(self.http, "PUT", target, body).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn get(&self, target: &str) -> Value {
        send(self.http, "GET", target, "").await.unwrap().json()
    }
}

#[tokio::test]
async fn a_crash_loses_no_key_and_ends_no_session_or_lease() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_string_lossy().into_owned();
    let at = Addresses { http: local(free_port()), grpc: local(free_port()), etcd: local(free_port()) };
    let server = at.serve(&data).await;
    let session = at.put("/v1/session/create", r#"{"TTL":"10s"}"#).await["ID"].clone();
    let session = session.as_str().unwrap().to_owned();
    assert_eq!(at.put(&format!("/v1/kv/leader?acquire={session}"), "me").await, true);
    let mut client = Client::connect(at.etcd).await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 30, id: 42 }).await.unwrap();
    let revision = client.put(KEY, VALUE, 42).await;
    let health = "/v1/health/service/user-service?passing";
    until("the instance", async || at.get(health).await.as_array().unwrap().len() == 1).await;
    let before = (at.get("/v1/kv/leader").await, client.prefix("/services/").await);

    server.kill().await;
    let mut server = at.serve(&data).await;
    let mut client = Client::connect(at.etcd).await;
    assert_eq!((at.get("/v1/kv/leader").await, client.prefix("/services/").await), before);
    assert_eq!(at.get(health).await[0]["Service"]["ID"], "instance-1");
    assert_eq!(at.put(&format!("/v1/session/renew/{session}"), "").await[0]["ID"], *session);
    let beat = tokio_stream::iter([LeaseKeepAliveRequest { id: 42 }]);
    let mut kept = client.lease.lease_keep_alive(beat).await.unwrap().into_inner();
    assert_eq!(kept.message().await.unwrap().unwrap().ttl, 30);
    assert_eq!(client.put(KEY, VALUE, 42).await, revision + 1, "revisions go on");
    assert_eq!(server.stop().await, 0);
}
