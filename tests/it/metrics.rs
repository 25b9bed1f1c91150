//! No metric is only a name: after some traffic each is on the metrics page of a server or a proxy, and
//! each method that counts is called by somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use weft::model::CheckStatus;

use crate::http;
use crate::mesh;
use crate::pace::look_again;

const DEADLINE: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(600);

fn telemetry(file: &str) -> String {
    fs::read_to_string(source().join("telemetry").join(file)).unwrap()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The names of metrics by their constants.
fn declared() -> BTreeMap<String, String> {
    let text = telemetry("metrics.rs");
    let (_, names) = text.split_once("mod names {").unwrap();
    let (names, _) = names.split_once("\n}\n").unwrap();
    let declarations = names.split("const ").skip(1);
    let all = declarations.map(|declaration| {
        let (constant, rest) = declaration.split_once(':').unwrap();
        (constant.to_owned(), rest.split('"').nth(1).unwrap().to_owned())
    });
    all.collect()
}

/// The constants that a file uses.
fn used(file: &str) -> BTreeSet<String> {
    let text = telemetry(file);
    let uses = text.split("names::").skip(1);
    let constants =
        uses.map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect());
    // The type `Name` begins with a capital, too.
    constants.filter(|constant: &String| constant.len() > 1).collect()
}

/// The names that a page has a sample of.
fn shown(page: &str, names: &BTreeMap<String, String>) -> BTreeSet<String> {
    let is_of = |line: &str, name: &str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| {
            ["{", " ", "_total", "_count", "_info"].iter().any(|next| rest.starts_with(next))
        })
    };
    let samples = || page.lines().filter(|line| !line.starts_with('#'));
    let shown = names.iter().filter(|(_, name)| samples().any(|line| is_of(line, name)));
    shown.map(|(constant, _)| constant.clone()).collect()
}

async fn page(address: SocketAddr) -> String {
    let answer = http::send(address, "GET", "/metrics", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Waits until a page has a line that begins with each of these.
async fn shows(address: SocketAddr, expected: &[&str]) -> String {
    let started = Instant::now();
    loop {
        let page = page(address).await;
        let missing: Vec<_> = expected
            .iter()
            .filter(|start| !page.lines().any(|line| line.starts_with(**start)))
            .collect();
        if missing.is_empty() {
            return page;
        }
        assert!(started.elapsed() < DEADLINE, "{missing:?} is not in\n{page}");
        look_again().await;
    }
}

/// Sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    port
}

/// What comes back of five bytes; an error when the sidecar has nowhere to go and resets, which may come
/// before the connection is seen to be made.
async fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let exchanged = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        Ok(back)
    };
    tokio::time::timeout(DEADLINE, exchanged).await.unwrap()
}

/// One question, and one message that is none.
async fn ask_names(port: SocketAddr) {
    let dns = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    dns.connect(port).await.unwrap();
    dns.send(b"\0").await.unwrap();
    dns.send(b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x06consul\0\0\x06\0\x01").await.unwrap();
}

#[tokio::test]
async fn every_metric_is_fed() {
    let names = declared();
    let server = mesh::server().await;
    let http = server.bound().http;
    let db = mesh::sidecar(&server, "db", echo().await, &[], TTL).await;
    let web = mesh::sidecar(&server, "web", 1, &["db"], TTL).await;
    let (web_admin, db_admin) = (web.bound().admin.unwrap(), db.bound().admin.unwrap());
    let to_db = web.bound().upstreams[0].address;
    assert_eq!(exchange(to_db).await.unwrap(), b"hello");
    db.checks().update_ttl("service:db", CheckStatus::Critical, "tired");
    shows(web_admin, &[r#"weft_endpoints{dst="db",state="unhealthy"} 1"#]).await;
    db.checks().update_ttl("service:db", CheckStatus::Passing, "");
    let healthy = r#"weft_endpoints{dst="db",state="healthy"} 1"#;
    shows(web_admin, &[healthy, r#"weft_lanes_open{direction="outbound"} 1"#]).await;
    let inbound = [
        r#"weft_lanes_open{direction="inbound"} 1"#,
        r#"weft_tls_handshakes_total{direction="inbound",result="ok"} 1"#,
        r#"weft_connections_closed_total{direction="inbound",src="web",dst="db",reason="ok"} 1"#,
        r#"weft_authz_total{src="web",dst="db",action="allow"} 1"#,
    ];
    let db_page = shows(db_admin, &inbound).await;
    ask_names(server.bound().dns.unwrap()).await;
    // Somebody who speaks no TLS.
    let mut stranger = TcpStream::connect(server.bound().grpc).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(http::send(http, "POST", "/v1/weft/tokens", r#"{"services":["x"]}"#).await.status, 200);

    assert_eq!(http::send(http, "GET", "/v1/health/service/db", "").await.status, 200);

    // Its endpoint stays until the lease runs out, so that web learns the hard way.
    db.kill().await;
    for _ in 0..4 {
        assert!(exchange(to_db).await.is_err());
    }
    let gone = [r#"weft_ejections_total{dst="db"} "#, r#"weft_lanes_open{direction="outbound"} 0"#];
    let web_page = shows(web_admin, &gone).await;
    web.withdraw().await; // reports what it has counted
    let server_page = shows(
        http,
        &[
            r#"weft_edge_connections_total{src="web",dst="db",reason="ok"} 1"#,
            r#"weft_edge_bytes_total{src="web",dst="db",way="received"} 5"#,
            r#"weft_grpc_requests_total{method="/weft.v1.Identity/Enrol",code="ok"} 2"#,
            r#"weft_grpc_requests_total{method="/weft.v1.Mesh/Sync",code=""#,
            r#"weft_http_requests_total{route="/v1/weft/tokens",method="POST",class="2xx"} 1"#,
            r#"weft_http_answers_total{source="made"} 1"#,
            r#"weft_certificates_issued_total{result="ok"} 2"#,
            r#"weft_tokens_total{event="created"} 1"#,
            r#"weft_tls_refused_total{port="grpc",reason="tls_handshake"} 1"#,
            r#"weft_dns_queries_total{type="SOA",rcode="NOERROR"} 1"#,
            r#"weft_dns_dropped_total{cause="no_question"} 1"#,
            r#"weft_check_changes_total{status="critical"} "#,
            r#"weft_catalog_size{kind="instances"} 5"#,
            r#"weft_catalog_size{kind="kv_sessions"} 0"#,
            r#"weft_catalog_size{kind="etcd_keys"} 0"#,
            r#"weft_catalog_checks{status="passing"}"#,
            r#"weft_store_commits_total{result="ok"}"#,
            "weft_proxies_connected 1",
        ],
    )
    .await;

    let process = used("process.rs");
    let mut of_server = &(&used("server.rs") | &used("reading.rs")) | &process;
    of_server.insert("BUILD".to_owned());
    let of_proxy = &used("metrics.rs") | &process;
    let all = &of_server | &of_proxy;
    assert_eq!(all, names.keys().cloned().collect::<BTreeSet<_>>(), "every name has a registry");
    let missing = &of_server - &shown(&server_page, &names);
    assert!(missing.is_empty(), "a server does not show {missing:?}:\n{server_page}");
    let proxies = &shown(&web_page, &names) | &shown(&db_page, &names);
    let missing = &of_proxy - &proxies;
    assert!(missing.is_empty(), "proxies do not show {missing:?}:\n{web_page}");

    web.finish().await;
    server.stop().await;
}

/// Some metrics show a zero before anything happened; for those the page proves nothing.
#[test]
fn every_method_that_counts_is_called() {
    let mut callers = String::new();
    let mut to_visit = vec![source()];
    while let Some(directory) = to_visit.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("telemetry") {
                to_visit.push(path);
            } else if path.is_file() {
                callers += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut count = 0;
    for file in ["metrics.rs", "edges.rs", "server.rs"] {
        let text = telemetry(file);
        for method in text.split("\n    pub fn ").skip(1).filter(|rest| {
            let head = rest.split(')').next().unwrap();
            head.contains("&self")
        }) {
            let method = method.split('(').next().unwrap();
            assert!(callers.contains(&format!(".{method}(")), "{file}: nobody calls {method}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} methods were found");
}
