//! Sums up connection counts and reports them over the connection of the Sync stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::EdgeCount;
use super::shared::Life;
use crate::model::{EndpointId, Reason, ServiceName};
use crate::pb;
use crate::pb::mesh_client::MeshClient;
use crate::tls::Identity;

/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Time for one.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Edges in memory and in one report; the server takes no more.
const MAX_EDGES: usize = 1024;

type Sums = BTreeMap<(ServiceName, ServiceName, Reason), EdgeCount>;

/// Sums and reports for one sidecar.
pub(super) struct Reporter {
    pub instance: EndpointId,
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// The connection in use, while there is one.
    pub channel: watch::Receiver<Option<Channel>>,
    pub life: watch::Receiver<Life>,
}

impl Reporter {
    /// Runs until the handle is gone.
    pub(super) async fn run(mut self, mut counts: mpsc::Receiver<EdgeCount>) {
        let mut sums = Sums::new();
        let mut reported_leaf = 0;
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                count = counts.recv() => match count {
                    Some(count) => { add(&mut sums, count); continue; }
                    None => return,
                },
                _ = ticks.tick() => {}
                // What was counted until the end shall not wait for the next tick.
                Ok(()) = self.life.changed() => {}
            }
            self.report(&mut sums, &mut reported_leaf).await;
        }
    }

    /// Sends what there is; what cannot be sent stays for the next time.
    async fn report(&self, sums: &mut Sums, reported_leaf: &mut i64) {
        let Some(channel) = self.channel.borrow().clone() else { return };
        let leaf_not_after = self.leaf_not_after();
        if sums.is_empty() && leaf_not_after == *reported_leaf {
            return;
        }
        let request = pb::ReportRequest {
            leaf_not_after,
            edges: sums.values().map(message).collect(),
            node: self.instance.node.to_string(),
            instance: self.instance.instance.to_string(),
        };
        match timeout(REPORT_TIMEOUT, MeshClient::new(channel).report(request)).await {
            Ok(Ok(_)) => {
                sums.clear();
                *reported_leaf = leaf_not_after;
            }
            Ok(Err(status)) => {
                tracing::debug!(cause = status.message(), "the report was not taken");
                if status.code() == Code::InvalidArgument || status.code() == Code::PermissionDenied {
                    // The same counts would be refused for ever.
                    sums.clear();
                }
            }
            Err(_) => tracing::debug!("the report was not answered in time"),
        }
    }

    fn leaf_not_after(&self) -> i64 {
        let not_after = self.identity.borrow().as_ref().map(|identity| identity.not_after());
        let since = not_after.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

fn add(sums: &mut Sums, count: EdgeCount) {
    let key = (count.source.clone(), count.destination.clone(), count.reason);
    if let Some(sum) = sums.get_mut(&key) {
        sum.connections = sum.connections.saturating_add(count.connections);
        sum.bytes_sent = sum.bytes_sent.saturating_add(count.bytes_sent);
        sum.bytes_received = sum.bytes_received.saturating_add(count.bytes_received);
    } else if sums.len() < MAX_EDGES {
        sums.insert(key, count);
    } else {
        tracing::debug!(source = %count.source, destination = %count.destination, "no room for another edge");
    }
}

fn message(count: &EdgeCount) -> pb::EdgeCount {
    pb::EdgeCount {
        source: count.source.to_string(),
        destination: count.destination.to_string(),
        reason: count.reason.as_str().to_owned(),
        connections: count.connections,
        bytes_sent: count.bytes_sent,
        bytes_received: count.bytes_received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_per_edge_and_bounded() {
        let count = |n: usize, reason| EdgeCount {
            source: ServiceName::new("web").unwrap(),
            destination: ServiceName::new(format!("db-{n}")).unwrap(),
            reason,
            connections: 1,
            bytes_sent: 10,
            bytes_received: 20,
        };
        let mut sums = Sums::new();
        for n in 0..2 * MAX_EDGES {
            add(&mut sums, count(n, Reason::Ok));
        }
        assert_eq!(sums.len(), MAX_EDGES);
        add(&mut sums, count(0, Reason::Ok));
        let first = sums.values().next().unwrap();
        assert_eq!((first.connections, first.bytes_sent, first.bytes_received), (2, 20, 40));
    }
}
