//! What `weft dev` says when it is up: addresses, identities and what to try, as text or JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Demo, Member};
use crate::app::server::Server;

/// A card in both forms.
pub(in crate::app) struct Card {
    text: String,
    json: Value,
}

impl Card {
    pub(in crate::app) fn text(&self) -> String {
        self.text.clone()
    }

    pub(in crate::app) fn json(&self) -> String {
        self.json.to_string()
    }
}

/// The card of a server alone.
pub(in crate::app) fn server(server: &Server, took: Duration) -> Card {
    let bound = server.bound();
    let mut text = head("dev server", took);
    let _never_fails = write!(
        text,
        "  API       http://{}\n  gRPC      {} (TLS 1.3)\n{}{}  domain    {}\n\
         \n  In memory, loopback only, no tokens: for development.\n  Next:  weft run --help",
        bound.http,
        bound.grpc,
        dns_line(server),
        bound.etcd.map(|etcd| format!("  etcd      {etcd}\n")).unwrap_or_default(),
        server.ca().trust_domain()
    );
    Card { text, json: server_json(server, took) }
}

/// The card of the demo mesh.
pub(in crate::app) fn demo(server: &Server, demo: &Demo, took: Duration) -> Card {
    let bound = server.bound();
    let api = demo.api_address();
    let mut text = head("dev mesh", took);
    let _never_fails = write!(
        text,
        "  API       http://{}    gRPC {} (TLS 1.3)\n\
         \x20 services  web → api ({}) → db\n",
        bound.http,
        bound.grpc,
        demo.apis.len()
    );
    for member in members(demo) {
        let _never_fails = writeln!(text, "  identity  {}", identity(member));
    }
    for upstream in moved(demo) {
        let _never_fails = writeln!(text, "  note      {upstream}");
    }
    let at =
        if bound.http.port() == 8500 { String::new() } else { format!(" --http-addr {}", bound.http) };
    let _never_fails = write!(
        text,
        "  Try, in another terminal:\n\
         \x20   curl http://{api}/hello              # plain in, mutual TLS between the sidecars\n\
         \x20   weft{at} intention deny web api        # refused at once; open connections are cut, too\n\
         \x20   weft{at} intention check web api       # which rule decides, and its precedence\n\
         \x20   weft{at} intention allow web api       # and back"
    );
    let mut json = server_json(server, took);
    json["upstream"] = json!(api.to_string());
    json["services"] = members(demo).into_iter().map(member_json).collect();
    Card { text, json }
}

fn dns_line(server: &Server) -> String {
    server.bound().dns.map_or_else(String::new, |dns| format!("  DNS       {dns} (UDP, TCP)\n"))
}

fn head(what: &str, took: Duration) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "  weft {version}  {what} ready in {:.2} s      Ctrl-C stops everything\n",
        took.as_secs_f64()
    )
}

fn server_json(server: &Server, took: Duration) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "http": server.bound().http.to_string(),
        "grpc": server.bound().grpc.to_string(),
        "dns": server.bound().dns.map(|address| address.to_string()),
        "etcd": server.bound().etcd.map(|address| address.to_string()),
        "trust_domain": server.ca().trust_domain().as_str(),
    })
}

fn members(demo: &Demo) -> Vec<&Member> {
    [&demo.web].into_iter().chain(&demo.apis).chain([&demo.db]).collect()
}

fn identity(member: &Member) -> String {
    let identity = member.sidecar.agent().identity.borrow();
    identity.as_ref().map_or_else(String::new, |held| held.id().to_string())
}

fn member_json(member: &Member) -> Value {
    let bound = member.sidecar.bound();
    let upstreams: Vec<Value> = bound
        .upstreams
        .iter()
        .map(|u| json!({ "destination": u.destination.as_str(), "address": u.address.to_string() }))
        .collect();
    json!({
        "service": member.sidecar.service().as_str(),
        "identity": identity(member),
        "inbound": bound.inbound.to_string(),
        "admin": bound.admin.map(|address| address.to_string()),
        "upstreams": upstreams,
    })
}

/// Ports that are not where they are declared.
fn moved(demo: &Demo) -> Vec<String> {
    let upstreams = members(demo).into_iter().flat_map(|member| &member.sidecar.bound().upstreams);
    let moved = upstreams.filter(|upstream| upstream.moved);
    moved.map(|u| format!("a port was taken: upstream {} is at {}", u.destination, u.address)).collect()
}
