//! Connection counts of every edge of the mesh, summed from the reports of the sidecars.
//!
//! Written by `Mesh.Report`, read by the API and the metrics. Bounded: when it is full, counts of new
//! edges are dropped and the number of those is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::limits::MAX_EDGES;
use crate::model::{Reason, ServiceName};

/// Which end of an edge counted. Both ends see most connections, so sums are for one side only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Source,
    Destination,
}

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeKey {
    pub source: ServiceName,
    pub destination: ServiceName,
    pub reported_by: Side,
    pub reason: Reason,
}

/// Sums since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeTotals {
    pub connections: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// The counts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Edges {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    totals: BTreeMap<EdgeKey, EdgeTotals>,
    dropped: u64,
}

impl Edges {
    /// All edges, ordered.
    #[must_use]
    pub fn all(&self) -> Vec<(EdgeKey, EdgeTotals)> {
        self.lock().totals.iter().map(|(key, totals)| (key.clone(), *totals)).collect()
    }

    /// Each connection once: as the source counts it, or the destination where no source reports.
    #[must_use]
    pub fn once(&self) -> Vec<(EdgeKey, EdgeTotals)> {
        let mut all = self.all();
        let pair = |key: &EdgeKey| (key.source.clone(), key.destination.clone());
        let by_source = all.iter().filter(|(key, _)| key.reported_by == Side::Source);
        let reported: BTreeSet<_> = by_source.map(|(key, _)| pair(key)).collect();
        all.retain(|(key, _)| key.reported_by == Side::Source || !reported.contains(&pair(key)));
        all
    }

    /// Reports that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(super) fn add(&self, key: EdgeKey, more: EdgeTotals) {
        let state = &mut *self.lock();
        if state.totals.len() >= MAX_EDGES && !state.totals.contains_key(&key) {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        let totals = state.totals.entry(key).or_default();
        totals.connections = totals.connections.saturating_add(more.connections);
        totals.bytes_sent = totals.bytes_sent.saturating_add(more.bytes_sent);
        totals.bytes_received = totals.bytes_received.saturating_add(more.bytes_received);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Sums stay sums whatever a panicking holder left undone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up_and_sides_stay_apart() {
        let edges = Edges::default();
        let key = |reported_by| EdgeKey {
            source: ServiceName::new("web").unwrap(),
            destination: ServiceName::new("db").unwrap(),
            reported_by,
            reason: Reason::Ok,
        };
        let one = EdgeTotals { connections: 1, bytes_sent: 2, bytes_received: u64::MAX };
        edges.add(key(Side::Source), one);
        edges.add(key(Side::Source), one);
        edges.add(key(Side::Destination), one);
        let sum = EdgeTotals { connections: 2, bytes_sent: 4, bytes_received: u64::MAX };
        assert_eq!(edges.all(), [(key(Side::Source), sum), (key(Side::Destination), one)]);
        assert_eq!(edges.dropped(), 0);
        assert_eq!(edges.once(), [(key(Side::Source), sum)]);
        let foreign = EdgeKey { source: ServiceName::new("guest").unwrap(), ..key(Side::Destination) };
        edges.add(foreign.clone(), one);
        assert_eq!(edges.once(), [(foreign, one), (key(Side::Source), sum)]);
    }
}
