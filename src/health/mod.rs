//! Runs checks: probes over HTTP, TCP and gRPC, TTL clocks and aliases. Pure state machines are in
//! `model::check`; this module owns the tasks and the sockets and reports changes through a channel.

use tokio::sync::mpsc;

use crate::model::{CheckDefinition, CheckReport, CheckStatus};

/// A set of running checks. Dropping it stops them.
pub struct Runner {
    _private: (),
}

impl Runner {
    /// Starts all checks; the first run is at once. Only changes of status (and the first result) are
    /// sent to `sink`.
    pub fn start(_checks: Vec<CheckDefinition>, _sink: mpsc::Sender<CheckReport>) -> Self {
        todo!()
    }
    /// Feeds a TTL check; false when there is no such TTL check.
    pub fn update_ttl(&self, _id: &str, _status: CheckStatus, _output: &str) -> bool {
        todo!()
    }
}
