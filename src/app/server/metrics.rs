//! Feeds the server's metrics: every listener that other modules offer, and what is read at a scrape.

use std::sync::Arc;

use crate::ca::{Ca, Event};
use crate::catalog::{Catalog, Sizes};
use crate::control::edges::{EdgeKey, EdgeTotals, Edges};
use crate::control::sessions::Sessions;
use crate::etcd::Keys;
use crate::kv::Kv;
use crate::store::{Image, Outcome, Revision, Store, StoreFuture, Txn, Watch};
use crate::telemetry::reading::Read;
use crate::telemetry::{EdgeReading, Reading, ServerMetrics};

/// A store whose transactions are counted.
pub(super) struct CountedStore {
    store: Arc<dyn Store>,
    metrics: ServerMetrics,
}

impl CountedStore {
    pub(super) fn over(store: Arc<dyn Store>, metrics: &ServerMetrics) -> Arc<dyn Store> {
        Arc::new(Self { store, metrics: metrics.clone() })
    }
}

impl Store for CountedStore {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        self.store.load(prefix)
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            let outcome = self.store.commit(txn).await;
            self.metrics.store_commit(match &outcome {
                Ok(Outcome::Committed(_)) => "ok",
                Ok(Outcome::Conflict) => "conflict",
                Err(_) => "error",
            });
            outcome
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        self.store.watch(prefix, after)
    }
}

/// Counts certificates and tokens.
pub(super) fn count_events(ca: &Ca, metrics: &ServerMetrics) {
    let metrics = metrics.clone();
    ca.on_event(move |event| match event {
        Event::Leaf { granted } => metrics.certificate_issued(granted),
        Event::TokenCreated => metrics.token("created"),
        Event::TokenUsed => metrics.token("used"),
        Event::TokenRefused => metrics.token("refused"),
        Event::TokenRevoked => metrics.token("revoked"),
        Event::Renewal(result) => metrics.renewal(result),
    });
}

/// What is read at a scrape.
pub(super) struct Sources {
    pub(super) catalog: Catalog,
    pub(super) kv: Kv,
    pub(super) keys: Keys,
    pub(super) sessions: Sessions,
    pub(super) edges: Edges,
}

/// Reads the size of the catalog and of the keys, the sidecars and what they report.
pub(super) fn reader(sources: Sources) -> Arc<Read> {
    Arc::new(move || {
        let Sources { catalog, kv, keys, sessions, edges } = &sources;
        let Sizes { nodes, services, instances, intentions, checks } = catalog.sizes();
        let ((kv_keys, kv_sessions), (etcd_keys, etcd_leases)) = (kv.counts(), keys.counts());
        Reading {
            proxies_connected: sessions.connected(),
            catalog: vec![
                ("nodes", nodes),
                ("services", services),
                ("instances", instances),
                ("checks", checks.values().sum()),
                ("intentions", intentions),
                ("kv_keys", kv_keys),
                ("kv_sessions", kv_sessions),
                ("etcd_keys", etcd_keys),
                ("etcd_leases", etcd_leases),
            ],
            checks: checks.into_iter().map(|(status, count)| (status.as_str(), count)).collect(),
            edges: edges.once().into_iter().map(edge).collect(),
        }
    })
}

fn edge((key, totals): (EdgeKey, EdgeTotals)) -> EdgeReading {
    EdgeReading {
        source: key.source.to_string(),
        destination: key.destination.to_string(),
        reason: key.reason.as_str(),
        connections: totals.connections,
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
    }
}
