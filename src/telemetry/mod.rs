//! What is seen from outside: metric names, access log, tracing set-up, readiness, admin endpoint.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Reason;

/// One finished (or refused) connection. `Display`ed nowhere: `emit` writes it.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    pub source: String,
    pub destination: String,
    pub source_id: String,
    pub destination_id: String,
    /// Instance id of the endpoint, when one was chosen.
    pub endpoint: String,
    pub endpoint_address: Option<SocketAddr>,
    pub client_address: Option<SocketAddr>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub duration: Duration,
    /// Time to an open stream.
    pub connect: Duration,
    pub attempts: u32,
    pub reason: Reason,
    /// The verdict's rule, or the cause in words.
    pub detail: String,
}

impl AccessRecord {
    /// Writes the line: target `access`.
    pub fn emit(&self) {
        todo!()
    }
}

/// Metrics of one proxy. Cheap to clone.
#[derive(Clone)]
pub struct ProxyMetrics {
    _private: Arc<()>,
}

/// Metrics of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerMetrics {
    _private: Arc<()>,
}

/// What must have happened before a process is ready. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    _private: Arc<()>,
}

/// Something that readiness waits for; dropping it (or `done`) ticks it off.
pub struct Pending {
    _private: (),
}

impl Readiness {
    pub fn new() -> Self {
        todo!()
    }
    /// Adds something to wait for.
    pub fn pending(&self, _what: &'static str) -> Pending {
        todo!()
    }
    /// What is missing; empty means ready.
    pub fn missing(&self) -> BTreeSet<String> {
        todo!()
    }
    /// Start-up has finished at least once.
    pub fn started(&self) -> bool {
        todo!()
    }
    /// Not ready any more: the process is draining.
    pub fn drain(&self) {
        todo!()
    }
    pub async fn ready(&self) {
        todo!()
    }
}
