//! Look-ups as the article on service discovery writes them, under the names of its headings.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft::app::server::{Server, names};
use weft::config::{DnsKeys, ZoneKeys, ZoneKind};

use super::port::register;
use super::tools::{app, dig};
use crate::pace::look_again;
use crate::process::slow;
use crate::programs;
use crate::{http, mesh};

/// The article's `consul-service.json`, checked at a port where the test has an application.
fn consul_service(check: SocketAddr) -> String {
    format!(
        r#"{{
  "service": {{
    "name": "user-service",
    "id": "user-service-1",
    "port": 8080,
    "tags": ["v1", "production"],
    "meta": {{
      "version": "1.2.3",
      "protocol": "http"
    }},
    "check": {{
      "http": "http://{check}/health",
      "interval": "10s",
      "timeout": "5s"
    }}
  }}
}}"#
    )
}

async fn with_zones(zones: &[(&str, ZoneKind)]) -> (Server, SocketAddr) {
    let zone =
        |(name, kind): &(&str, ZoneKind)| ZoneKeys { name: (*name).to_owned(), kind: *kind, ttl: None };
    let keys = DnsKeys { zones: zones.iter().map(zone).collect(), ..DnsKeys::default() };
    let server = mesh::server_answering(names(&keys).unwrap()).await;
    let dns = server.bound().dns.unwrap();
    (server, dns)
}

/// Asks until the answer has this line, blanks aside.
async fn until_answered(dns: SocketAddr, args: &[&str], line: &str) -> String {
    let started = Instant::now();
    loop {
        let said = dig(dns, args).await;
        if said.lines().any(|said| said.split_whitespace().eq(line.split_whitespace())) {
            return said;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{line:?} is not in {said}");
        look_again().await;
    }
}

#[tokio::test]
async fn consul_dns_interface() {
    if !programs::present(&["dig"]) {
        return;
    }
    let server = mesh::server().await;
    let dns = server.bound().dns.unwrap();
    let health = app("127.0.0.1:0".parse().unwrap(), "ok").await;
    let body = consul_service(health);
    let registered = http::send(server.bound().http, "PUT", "/v1/agent/service/register", &body).await;
    assert_eq!(registered.status, 200, "{registered:?}");
    // Query for healthy instances: not there before its check has passed.
    let line = "user-service.service.consul. 0 IN A 127.0.0.1";
    let said = until_answered(dns, &["user-service.service.consul"], line).await;
    assert!(said.contains("status: NOERROR") && said.contains("flags: qr aa rd;"), "{said}");
    // Query for specific tag
    let said = dig(dns, &["v1.user-service.service.consul"]).await;
    assert!(said.contains("v1.user-service.service.consul.") && said.contains("127.0.0.1"), "{said}");
    let said = dig(dns, &["v2.user-service.service.consul"]).await;
    assert!(said.contains("status: NXDOMAIN"), "{said}");
    let said = dig(dns, &["user-service.service.consul", "SRV", "+short"]).await;
    assert_eq!(said, "1 1 8080 machine.node.dc1.consul.\n");
    server.stop().await;
}

/// "In application - just use DNS": programs that know of nothing but the system's resolver, which asks
/// port 53. Needs root, for that port and for a `resolv.conf` of its own.
#[tokio::test]
async fn consul_dns_interface_in_an_application() {
    if !slow("curl by name through the system's resolver, which needs root") {
        return;
    }
    let server = mesh::server().await;
    let application = app("127.0.0.1:0".parse().unwrap(), "user 123").await;
    register(&server, "user-service", &["127.0.0.1"], application.port()).await;
    let resolver: SocketAddr = "127.77.0.53:53".parse().unwrap();
    let settings = names(&DnsKeys::default()).unwrap();
    let metrics = weft::telemetry::ServerMetrics::new();
    let dns = weft::dns::Server::bind(resolver, server.catalog().clone(), settings, metrics).unwrap();
    let serving = tokio::spawn(dns.serve(std::future::pending()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", resolver.ip())).unwrap();
    let url = format!("http://user-service.service.consul:{}/users/123", application.port());
    let script = format!("mount --bind {} /etc/resolv.conf && exec curl -sS {url}", file.display());
    let curl = tokio::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output();
    let ran = tokio::time::timeout(Duration::from_secs(20), curl).await.unwrap().unwrap();
    let said = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said, ("user 123".into(), "".into()));
    serving.abort();
    server.stop().await;
}

#[tokio::test]
async fn kubernetes_dns() {
    if !programs::present(&["dig"]) {
        return;
    }
    let (server, dns) = with_zones(&[("cluster.local", ZoneKind::Kubernetes)]).await;
    let body = r#"{"Name":"user-service","Port":8080,"Address":"10.0.0.7","Meta":{"k8s-namespace":"production","k8s-port-name":"http"}}"#;
    let sent = http::send(server.bound().http, "PUT", "/v1/agent/service/register", body).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let name = "user-service.production.svc.cluster.local";
    assert_eq!(dig(dns, &[name, "+short"]).await, "10.0.0.7\n");
    // The shorter names are made whole by the resolver's search list.
    for (short, search) in [
        ("user-service.production.svc", "cluster.local"),
        ("user-service", "production.svc.cluster.local"),
    ] {
        let search = format!("+domain={search}");
        assert_eq!(dig(dns, &[short, &search, "+ndots=5", "+short"]).await, "10.0.0.7\n", "{short}");
    }
    let named = "_http._tcp.user-service.production.svc.cluster.local";
    let target = format!("1 1 8080 user-service.{name}.\n");
    assert_eq!(dig(dns, &[named, "SRV", "+short"]).await, target);
    assert_eq!(dig(dns, &["dns-version.cluster.local", "TXT", "+short"]).await, "\"1.1.0\"\n");
    server.stop().await;
}

#[tokio::test]
async fn headless_services() {
    if !programs::present(&["dig"]) {
        return;
    }
    let (server, dns) = with_zones(&[("cluster.local", ZoneKind::Kubernetes)]).await;
    register(&server, "database", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], 5432).await;
    let said = dig(dns, &["database.default.svc.cluster.local", "+short"]).await;
    let mut pods: Vec<_> = said.lines().collect();
    pods.sort_unstable();
    assert_eq!(pods, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    // Each pod on its own, as for the primary of a database.
    let said = dig(dns, &["database-1.database.default.svc.cluster.local", "+short"]).await;
    assert_eq!(said, "10.0.0.2\n");
    server.stop().await;
}

#[tokio::test]
async fn aws_cloud_map() {
    if !programs::present(&["dig"]) {
        return;
    }
    let kind = ZoneKind::CloudMap { all_when_unhealthy: true };
    let (server, dns) = with_zones(&[("internal.example.com", kind)]).await;
    register(&server, "user-service", &["10.0.2.1"], 8080).await;
    let line = "user-service.internal.example.com. 10 IN A 10.0.2.1";
    until_answered(dns, &["user-service.internal.example.com"], line).await;
    server.stop().await;
}
