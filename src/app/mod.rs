//! The only wiring: builds each process from its parts, says what addresses were bound, runs until
//! told to stop, and drains in the right order.
//!
//! `cli` calls one function per process; the demo and the tests start the same servers and sidecars
//! inside one process.

pub mod demo;
pub mod dev;
mod ports;
pub mod process;
pub mod proxy;
pub mod run;
pub mod server;
pub mod sidecar;
pub mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access::AccessError;
use crate::access::audit::AuditError;
use crate::agent::AgentError;
use crate::api;
use crate::ca::CaError;
use crate::catalog::CatalogError;
use crate::config::Diagnostic;
use crate::control::ControlError;
use crate::dns::DnsError;
use crate::etcd::EtcdError;
use crate::kv::KvError;
use crate::model::NameError;
use crate::store::StoreError;
use crate::tls::files::FileError;
use crate::workload::WorkloadError;

/// Why a process could not start or had to stop. Each ends in one message and an exit code.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the configuration is not valid")]
    Config(Vec<Diagnostic>),
    #[error("{0}")]
    Usage(String),
    #[error(
        "cannot listen on {address} for {purpose}: {source}; stop what uses the port or choose another"
    )]
    Bind { address: SocketAddr, purpose: String, source: io::Error },
    #[error(
        "no port from {first} to {last} is free for the sidecar's inbound side; set one with --inbound-port"
    )]
    NoPort { first: u16, last: u16 },
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Tls(#[from] FileError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Api(#[from] api::BindError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Upgrade(#[from] upgrade::UpgradeError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no control plane could be reached within {seconds} s at {servers}: {cause}")]
    Unreachable { servers: String, seconds: u64, cause: String },
    #[error("cannot start {what}: {source}")]
    Start { what: String, source: io::Error },
    #[error("{0} has died; this is a fault in weft")]
    Died(&'static str),
    #[error("{0}")]
    Story(String),
}
