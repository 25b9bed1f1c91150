//! Metrics of one edge (direction, source, destination), resolved once per connection.
//!
//! The data path gets an `EdgeMetrics` when a connection starts and afterwards only adds to atomics.
//! The number of edges is bounded: names come from configuration and from authenticated peers, but a
//! peer with many identities must not be able to fill memory with series.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::model::{Action, Reason};

/// Most edges with series of their own; a proxy has a few upstreams and a few callers, and each edge
/// costs at most some twenty series. What comes after is counted under `other`.
pub const MAX_EDGES: usize = 512;

/// Label value for everything beyond a cap.
pub const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabels {
    pub(super) direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EdgeLabels {
    direction: &'static str,
    src: Arc<str>,
    dst: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClosedLabels {
    direction: &'static str,
    src: Arc<str>,
    dst: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BytesLabels {
    direction: &'static str,
    src: Arc<str>,
    dst: Arc<str>,
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AuthzLabels {
    src: Arc<str>,
    dst: Arc<str>,
    action: &'static str,
}

/// The families that edges resolve their handles from.
#[derive(Clone)]
pub(super) struct EdgeFamilies {
    pub(super) opened: Family<EdgeLabels, Counter>,
    pub(super) closed: Family<ClosedLabels, Counter>,
    pub(super) open: Family<DirectionLabels, Gauge>,
    pub(super) bytes: Family<BytesLabels, Counter>,
    pub(super) authz: Family<AuthzLabels, Counter>,
    pub(super) dial: Histogram,
}

type Edges = HashMap<String, HashMap<String, EdgeMetrics>>;

/// All edges seen so far, at most `MAX_EDGES` and one `other` per direction.
pub(super) struct EdgeTable {
    families: EdgeFamilies,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_direction: HashMap<&'static str, Edges>,
    count: usize,
}

impl EdgeTable {
    pub(super) fn new(families: EdgeFamilies) -> Self {
        Self { families, known: RwLock::default() }
    }

    pub(super) fn resolve(&self, direction: &'static str, src: &str, dst: &str) -> EdgeMetrics {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(edge) = known.find(direction, src, dst) {
                return edge;
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(edge) = known.find(direction, src, dst) {
            return edge;
        }
        let full = known.count >= MAX_EDGES;
        let (src, dst) = if full { (OTHER, OTHER) } else { (src, dst) };
        if full && let Some(edge) = known.find(direction, OTHER, OTHER) {
            return edge;
        }
        let edge = EdgeMetrics::new(&self.families, direction, src, dst);
        known.insert(direction, src, dst, edge.clone());
        edge
    }
}

impl Known {
    fn find(&self, direction: &'static str, src: &str, dst: &str) -> Option<EdgeMetrics> {
        self.by_direction.get(direction)?.get(src)?.get(dst).cloned()
    }

    fn insert(&mut self, direction: &'static str, src: &str, dst: &str, edge: EdgeMetrics) {
        let destinations =
            self.by_direction.entry(direction).or_default().entry(src.to_owned()).or_default();
        if destinations.insert(dst.to_owned(), edge).is_none() {
            self.count += 1;
        }
    }
}

/// Counters of one edge. Cheap to clone; every method is a few atomic additions.
#[derive(Clone)]
pub struct EdgeMetrics {
    handles: Arc<Handles>,
}

struct Handles {
    families: EdgeFamilies,
    labels: EdgeLabels,
    opened: Counter,
    open: Gauge,
    sent: Counter,
    received: Counter,
    /// By `Reason::code`; a series appears when its reason first happens.
    closed: [OnceLock<Counter>; Reason::ALL.len()],
}

impl EdgeMetrics {
    fn new(families: &EdgeFamilies, direction: &'static str, src: &str, dst: &str) -> Self {
        let labels = EdgeLabels { direction, src: src.into(), dst: dst.into() };
        let bytes = |way| {
            let EdgeLabels { direction, src, dst } = labels.clone();
            families.bytes.get_or_create_owned(&BytesLabels { direction, src, dst, way })
        };
        let handles = Handles {
            opened: families.opened.get_or_create_owned(&labels),
            open: families.open.get_or_create_owned(&DirectionLabels { direction }),
            sent: bytes("sent"),
            received: bytes("received"),
            closed: Default::default(),
            families: families.clone(),
            labels,
        };
        Self { handles: Arc::new(handles) }
    }

    /// A connection was accepted.
    pub fn opened(&self) {
        self.handles.opened.inc();
        self.handles.open.inc();
    }

    /// A connection that was `opened` has ended. Call it exactly once per `opened`.
    pub fn closed(&self, reason: Reason) {
        self.handles.open.dec();
        let slot = &self.handles.closed[usize::from(reason.code())];
        slot.get_or_init(|| self.handles.closed_counter(reason)).inc();
    }

    /// Bytes moved since the last call: `sent` from the application that dialled towards the one that
    /// answers, `received` the other way.
    pub fn bytes(&self, sent: u64, received: u64) {
        self.handles.sent.inc_by(sent);
        self.handles.received.inc_by(received);
    }

    /// An intention was decided for a new stream, or again for a running one.
    pub fn authorized(&self, action: Action) {
        let EdgeLabels { src, dst, .. } = self.handles.labels.clone();
        let labels = AuthzLabels { src, dst, action: action.as_str() };
        self.handles.families.authz.get_or_create(&labels).inc();
    }

    /// Time from the application's connection to an open stream.
    pub fn dialled(&self, took: Duration) {
        self.handles.families.dial.observe(took.as_secs_f64());
    }
}

impl Handles {
    fn closed_counter(&self, reason: Reason) -> Counter {
        let EdgeLabels { direction, src, dst } = self.labels.clone();
        let labels = ClosedLabels { direction, src, dst, reason: reason.as_str() };
        self.families.closed.get_or_create_owned(&labels)
    }
}
