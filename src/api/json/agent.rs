//! `agent/self`: what a client may want to know of the server it talks to.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Consul's number for a member that is alive.
const ALIVE: u8 = 1;

/// What `agent/self` tells.
#[derive(Debug, Clone)]
pub(in crate::api) struct SelfFacts<'a> {
    pub(in crate::api) datacenter: &'a str,
    pub(in crate::api) node: &'a str,
    pub(in crate::api) node_id: &'a str,
    pub(in crate::api) address: &'a str,
    pub(in crate::api) version: &'a str,
    pub(in crate::api) http: &'a [SocketAddr],
    pub(in crate::api) grpc: Option<SocketAddr>,
    pub(in crate::api) leader: &'a str,
    pub(in crate::api) services: usize,
    pub(in crate::api) checks: usize,
    pub(in crate::api) revision: u64,
    pub(in crate::api) default_policy: &'a str,
}

/// The whole answer. `DebugConfig` holds the keys that `consul connect envoy` and dashboards read;
/// the gRPC port speaks TLS only, so it stands under `xDS.Ports.TLS`. Ports that do not exist are -1.
pub(in crate::api) fn agent_self(facts: &SelfFacts<'_>) -> Value {
    let port = |address: Option<&SocketAddr>| address.map_or(-1, |address| i32::from(address.port()));
    let url = |address: &SocketAddr| format!("tcp://{address}");
    let http_port = port(facts.http.first());
    let grpc_port = port(facts.grpc.as_ref());
    json!({
        "Config": {
            "Datacenter": facts.datacenter,
            "NodeName": facts.node,
            "NodeID": facts.node_id,
            "Revision": "",
            "Server": true,
            "Version": facts.version,
        },
        "DebugConfig": {
            "AdvertiseAddrLAN": facts.address,
            "ConnectEnabled": true,
            "Datacenter": facts.datacenter,
            "DefaultIntentionPolicy": facts.default_policy,
            "GRPCAddrs": [],
            "GRPCPort": -1,
            "GRPCTLSAddrs": facts.grpc.iter().map(url).collect::<Vec<_>>(),
            "GRPCTLSPort": grpc_port,
            "HTTPAddrs": facts.http.iter().map(url).collect::<Vec<_>>(),
            "HTTPPort": http_port,
            "NodeName": facts.node,
            "ServerMode": true,
            "Version": facts.version,
        },
        "Member": member(facts),
        "Stats": stats(facts),
        "Meta": { "consul-network-segment": "" },
        "xDS": {
            "SupportedProxies": {},
            "Ports": { "Plaintext": -1, "TLS": grpc_port },
        },
    })
}

/// One of `agent/members`.
pub(in crate::api) fn member(facts: &SelfFacts<'_>) -> Value {
    let port = facts.http.first().map_or(0, SocketAddr::port);
    json!({
        "Name": facts.node,
        "Addr": facts.address,
        "Port": port,
        "Tags": {
            "acls": "0",
            "build": facts.version,
            "dc": facts.datacenter,
            "id": facts.node_id,
            "port": facts.grpc.map_or(port, |address| address.port()).to_string(),
            "role": "consul",
            "segment": "",
            "vsn": "2",
            "vsn_max": "3",
            "vsn_min": "2",
        },
        "Status": ALIVE,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    })
}

/// All values are texts, as in Consul.
fn stats(facts: &SelfFacts<'_>) -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "agent": {
            "checks": facts.checks.to_string(),
            "services": facts.services.to_string(),
        },
        "build": { "prerelease": "", "revision": "", "version": facts.version },
        "consul": {
            "acl": "disabled",
            "known_datacenters": "1",
            "leader": "true",
            "leader_addr": facts.leader,
            "server": "true",
        },
        "raft": {
            "applied_index": facts.revision.to_string(),
            "last_log_index": facts.revision.to_string(),
            "state": "Leader",
        },
        "runtime": {
            "arch": std::env::consts::ARCH,
            "cpu_count": cpus.to_string(),
            "os": std::env::consts::OS,
        },
    })
}
