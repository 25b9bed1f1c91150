//! Envoy: its TCP proxy filter on both sides.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Peer, Place, command};
use crate::certificates::{CLIENT, Certificates, Leaf, SERVER};
use crate::fault::Outcome;

pub struct Envoy;

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
/// Above any number of connections that a measure opens; Envoy's own default is 1,024.
const MOST_CONNECTIONS: u32 = 100_000;
/// Spare ports.
const SERVER_ADMIN: u16 = 0;
const CLIENT_ADMIN: u16 = 1;

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// The settings both ends share: TLS 1.3 only, our leaf, and the name the other end must have.
fn tls(certificates: &Certificates, leaf: &Leaf, peer: &Leaf) -> Value {
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [{
            "certificate_chain": { "filename": certificates.chain(leaf) },
            "private_key": { "filename": certificates.key(leaf) },
        }],
        "validation_context": {
            "trusted_ca": { "filename": certificates.root() },
            "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": peer.name } }],
        },
    })
}

fn transport(context: &str, mut settings: Value) -> Value {
    settings["@type"] = json!(format!("{TLS}.{context}"));
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": settings })
}

/// One listener, one cluster, and TLS on the side that `upstream` says.
fn bootstrap(admin: u16, listen: u16, connect: u16, socket: &Value, upstream: bool) -> Value {
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": { "@type": FILTER, "stat_prefix": "bench", "cluster": "next" },
    }] });
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "circuit_breakers": { "thresholds": [{
            "max_connections": MOST_CONNECTIONS,
            "max_pending_requests": MOST_CONNECTIONS,
        }] },
        "load_assignment": { "cluster_name": "next", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(connect) } },
        ] }] },
    });
    let secured = if upstream { &mut cluster } else { &mut chain };
    secured["transport_socket"] = socket.clone();
    json!({
        "admin": { "address": address(admin) },
        "static_resources": {
            "listeners": [{ "name": "bench", "address": address(listen), "filter_chains": [chain] }],
            "clusters": [cluster],
        },
    })
}

fn start(program: &Path, place: &Place<'_>, name: &str, bootstrap: &Value) -> Outcome<Command> {
    let file = place.write(name, &bootstrap.to_string())?;
    let workers = place.workers.to_string();
    let mut command = command(program, [&"--config-path", &file, &"--concurrency", &workers]);
    command.args(["--disable-hot-restart", "--log-level", "error"]);
    Ok(command)
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("envoy", "ENVOY_BIN")
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let settings = json!({
            "require_client_certificate": true,
            "common_tls_context": tls(place.certificates, &SERVER, &CLIENT),
        });
        let socket = transport("DownstreamTlsContext", settings);
        let (admin, ports) = (place.ports.spare(SERVER_ADMIN), place.ports);
        let bootstrap = bootstrap(admin, ports.inner, ports.backend, &socket, false);
        start(program, place, "envoy-server.json", &bootstrap)
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let settings = json!({ "sni": SERVER.name, "common_tls_context": tls(place.certificates, &CLIENT, &SERVER) });
        let socket = transport("UpstreamTlsContext", settings);
        let (admin, ports) = (place.ports.spare(CLIENT_ADMIN), place.ports);
        let bootstrap = bootstrap(admin, ports.outer, ports.inner, &socket, true);
        start(program, place, "envoy-client.json", &bootstrap)
    }
}
