//! A proxy's end of the control stream: enrol, renew, sync, last-known-good.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::model::{CheckReport, Reason, Registration, ServiceName, Snapshot};
use crate::tls::Identity;

#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port` of control plane servers, tried in turn.
    pub servers: Vec<String>,
    /// Enrolment token; `None` only toward a dev server on loopback.
    pub token: Option<String>,
    pub service: ServiceName,
    /// The instance and its sidecar, with real ports.
    pub registrations: Vec<Registration>,
    pub upstreams: Vec<ServiceName>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    #[error("{0}")]
    Enrolment(String),
}

/// Where the agent stands; for readiness, metrics and logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    pub connected: bool,
    pub registered: bool,
    /// A snapshot was applied at least once.
    pub synced: bool,
    /// The last failure, in words, until the next success.
    pub last_error: Option<String>,
}

/// Connections of one edge, to be reported to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeCount {
    pub source: ServiceName,
    pub destination: ServiceName,
    pub reason: Reason,
    pub connections: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// What the rest of a proxy sees of its agent. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Last-known-good configuration; never goes back to empty.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes after every applied batch.
    pub changes: watch::Receiver<u64>,
    /// The identity in use; `None` before enrolment. An expired one is replaced by nothing newer.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    pub status: watch::Receiver<Status>,
    /// Results of the checks that the proxy runs.
    pub checks: mpsc::Sender<CheckReport>,
    pub edges: mpsc::Sender<EdgeCount>,
}

/// A running agent.
pub struct Agent {
    pub handle: Handle,
}

impl Agent {
    /// Starts the agent. It retries for ever; a refusal that no retry can mend (a bad token) ends up
    /// in `failed`.
    pub fn start(_settings: Settings) -> Self {
        todo!()
    }
    /// Waits for a failure that retrying cannot mend.
    pub async fn failed(&mut self) -> AgentError {
        todo!()
    }
    /// Tells the control plane that peers shall stop choosing this instance; waits for the
    /// acknowledgement at most `limit`.
    pub async fn drain(&self, _limit: Duration) {
        todo!()
    }
    /// Deregisters and ends the stream.
    pub async fn stop(self, _limit: Duration) {
        todo!()
    }
}
