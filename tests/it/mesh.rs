//! A whole server and whole sidecars in this process, as `weft dev` has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use weft::app::server::{self, DnsSettings, Server};
use weft::app::sidecar::{self, Sidecar};
use weft::config::DnsKeys;
use weft::dns;
use weft::model::{
    Action, CheckDefinition, CheckKind, CheckStatus, Definition, NodeName, ServiceName, Upstream,
};
use weft::workload;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: SocketAddr = SocketAddr::new(LOOPBACK, 0);

/// Server and sidecars are on the same machine, as on a developer's.
pub(crate) fn node() -> NodeName {
    NodeName::new("machine").unwrap()
}

pub(crate) async fn server() -> Server {
    Server::start(settings()).await.unwrap()
}

/// A server whose certificates for services live for this long.
pub(crate) async fn server_with_leaves_of(leaf_ttl: Duration) -> Server {
    Server::start(server::Settings { leaf_ttl, ..settings() }).await.unwrap()
}

/// A server that is told how to answer names.
pub(crate) async fn server_answering(names: dns::Settings) -> Server {
    let dns = Some(DnsSettings { address: ANY, names });
    Server::start(server::Settings { dns, ..settings() }).await.unwrap()
}

/// As [`server`], with a port for etcd clients.
pub(crate) async fn server_with_etcd() -> Server {
    Server::start(server::Settings { etcd: Some(ANY.into()), ..settings() }).await.unwrap()
}

fn settings() -> server::Settings {
    let names = server::names(&DnsKeys::default()).unwrap();
    server::Settings {
        definitions: Vec::new(),
        node_checks: Vec::new(),
        paths: Vec::new(),
        agent: weft::config::AgentKeys::default(),
        data_dir: None,
        ca_key_file: None,
        http: ANY.into(),
        https: None,
        grpc: ANY,
        bundle: Some(ANY),
        dns: Some(DnsSettings { address: ANY, names }),
        etcd: None,
        node: node(),
        node_address: LOOPBACK.to_string(),
        datacenter: "dc1".to_owned(),
        leaf_ttl: Duration::from_secs(3600),
        default_action: Action::Allow,
        allowed_hosts: Vec::new(),
        access: server::AccessSettings::default(),
        dev: true,
        next_free_ports: false,
    }
}

/// As [`sidecar`], with the Workload API at `path` for these users.
pub(crate) async fn sidecar_with_workload(
    server: &Server,
    service: &str,
    path: &Path,
    uids: &[u32],
) -> Sidecar {
    let workload = workload::Settings { path: path.to_owned(), uids: uids.to_vec() };
    let settings = sidecar_settings(server, definition(service, 1, &[], Duration::from_secs(60)));
    ready(sidecar::Settings { workload: Some(workload), ..settings }).await
}

/// A sidecar that is ready; its service has a check `service:NAME` with a TTL that begins as passing.
pub(crate) async fn sidecar(
    server: &Server,
    service: &str,
    app: u16,
    upstreams: &[&str],
    ttl: Duration,
) -> Sidecar {
    ready(sidecar_settings(server, definition(service, app, upstreams, ttl))).await
}

async fn ready(settings: sidecar::Settings) -> Sidecar {
    let mut sidecar = Sidecar::start(settings).unwrap();
    sidecar.ready(Duration::from_secs(20)).await.unwrap();
    sidecar
}

fn definition(service: &str, app: u16, upstreams: &[&str], ttl: Duration) -> Definition {
    let mut definition = Definition::new(ServiceName::new(service).unwrap(), app).unwrap();
    definition.checks = vec![CheckDefinition {
        id: format!("service:{service}"),
        name: "alive".to_owned(),
        notes: String::new(),
        kind: CheckKind::Ttl { ttl },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        initial: CheckStatus::Passing,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }];
    let declared = definition.sidecar.get_or_insert_default();
    declared.upstreams = upstreams
        .iter()
        .map(|upstream| Upstream {
            destination: ServiceName::new(*upstream).unwrap(),
            local_bind_address: String::new(),
            local_bind_port: 0,
            datacenter: String::new(),
            // Lets the only endpoint be ejected, too, so that the metric of it is seen.
            config: [("passive_health_check".to_owned(), json!({ "max_ejection_percent": 100 }))].into(),
        })
        .collect();
    definition
}

fn sidecar_settings(server: &Server, definition: Definition) -> sidecar::Settings {
    sidecar::Settings {
        definition,
        servers: vec![server.bound().grpc.to_string()],
        token: None,
        node: node(),
        bind: LOOPBACK,
        advertise: None,
        inbound_port: Some(0),
        admin: Some(ANY),
        workload: None,
        workers: 1,
        next_free_ports: false,
        drain_delay: Duration::ZERO,
        drain_grace: Duration::from_secs(1),
    }
}
