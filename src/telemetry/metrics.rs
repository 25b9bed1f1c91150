//! The names of all metrics, and the handles of a proxy.
//!
//! Every metric of the project is named in `names` and nowhere else. Units are seconds and bytes;
//! counters get `_total` from the encoder. Labels come from configuration or from authenticated peers
//! only, and their number is bounded.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

use super::edges::{DirectionLabels, EdgeFamilies, EdgeMetrics, EdgeTable, OTHER};
use super::process;
use crate::model::Reason;

/// Every metric: its name without the `_total` of counters, and its help text without the full stop.
pub(super) mod names {
    pub(in super::super) type Name = (&'static str, &'static str);

    pub(super) const BUILD: Name = ("weft_build", "Version of the running binary");
    pub(super) const CONNECTIONS_OPENED: Name =
        ("weft_connections_opened", "Application connections accepted");
    pub(super) const CONNECTIONS_CLOSED: Name =
        ("weft_connections_closed", "Application connections ended or refused, by reason");
    pub(super) const CONNECTIONS_OPEN: Name =
        ("weft_connections_open", "Application connections now open");
    pub(super) const BYTES: Name =
        ("weft_bytes", "Application bytes; sent is from the dialling application");
    pub(super) const DIAL_SECONDS: Name =
        ("weft_dial_seconds", "Time from an application connection to an open stream");
    pub(super) const TLS_HANDSHAKES: Name = ("weft_tls_handshakes", "TLS handshakes, by result");
    pub(super) const AUTHZ: Name = ("weft_authz", "Intention decisions");
    pub(super) const ENDPOINTS: Name = ("weft_endpoints", "Endpoints of an upstream, by state");
    pub(super) const EJECTIONS: Name = ("weft_ejections", "Endpoints ejected after failures");
    pub(super) const LANES_OPEN: Name = ("weft_lanes_open", "Tunnel connections now open");
    pub(super) const CERT_EXPIRY: Name =
        ("weft_cert_expiry_timestamp_seconds", "When the leaf certificate expires, in Unix time");
    pub(super) const CERT_RENEWALS: Name =
        ("weft_cert_renewals", "Attempts to get a leaf certificate, by result");
    pub(super) const CONTROL_CONNECTED: Name =
        ("weft_control_connected", "1 while the stream to the control plane is up");
    pub(super) const CONFIG_AGE: Name =
        ("weft_config_age_seconds", "Time since the control plane last confirmed the configuration");
    pub(super) const CONFIG_UPDATES: Name =
        ("weft_config_updates", "Configuration updates received, by result");
    pub(super) const LIMIT_REACHED: Name =
        ("weft_limit_reached", "Times that something was refused or delayed by a limit");

    pub(in super::super) const PROXIES_CONNECTED: Name =
        ("weft_proxies_connected", "Proxies whose control stream is up");
    pub(in super::super) const CATALOG_SIZE: Name =
        ("weft_catalog_size", "Entries in the catalog, by kind");
    pub(in super::super) const CATALOG_CHECKS: Name =
        ("weft_catalog_checks", "Health checks in the catalog, by status");
    pub(in super::super) const EDGE_CONNECTIONS: Name =
        ("weft_edge_connections", "Connections that sidecars reported as ended, by reason");
    pub(in super::super) const EDGE_BYTES: Name =
        ("weft_edge_bytes", "Application bytes that sidecars reported, by way");
    pub(in super::super) const STORE_COMMITS: Name =
        ("weft_store_commits", "Store transactions, by result");
    pub(in super::super) const GRPC_REQUESTS: Name =
        ("weft_grpc_requests", "gRPC requests answered, by method and code");
    pub(in super::super) const HTTP_REQUESTS: Name =
        ("weft_http_requests", "HTTP API requests answered, by route and class of status code");
    pub(in super::super) const HTTP_SECONDS: Name =
        ("weft_http_request_seconds", "Time to answer an HTTP API request that does not block");
    pub(in super::super) const HTTP_ANSWERS: Name = (
        "weft_http_answers",
        "Lists of instances that were made for a request, or kept from an earlier one, by source",
    );
    pub(in super::super) const DNS_QUERIES: Name =
        ("weft_dns_queries", "DNS questions answered, by type and code of the answer");
    pub(in super::super) const DNS_DROPPED: Name =
        ("weft_dns_dropped", "What came to the DNS port and got no answer, or no service, by cause");
    pub(in super::super) const CHECK_RESULTS: Name =
        ("weft_check_changes", "Changes of health checks taken in, by status");
    pub(in super::super) const CERTIFICATES_ISSUED: Name =
        ("weft_certificates_issued", "Leaf certificates requested, by result");
    pub(in super::super) const RENEWALS: Name =
        ("weft_renewals", "Renewals decided by generation; stale means that a key was copied");
    pub(in super::super) const SIGNING_LIMITED: Name = (
        "weft_signing_limited",
        "Requests for a certificate or token refused by a limit of rate, by limit",
    );
    pub(in super::super) const TLS_REFUSED: Name = (
        "weft_tls_refused",
        "Connections to ports of the server that ended in the TLS handshake, by port and reason",
    );
    pub(in super::super) const TOKENS: Name = ("weft_tokens", "Enrolment tokens, by event");

    pub(in super::super) const PROCESS_MEMORY: Name =
        ("weft_process_resident_memory_bytes", "Resident memory");
    pub(in super::super) const PROCESS_FDS: Name = ("weft_process_open_fds", "Open file descriptors");
    pub(in super::super) const PROCESS_START: Name =
        ("weft_process_start_time_seconds", "When the process started, in Unix time");
    pub(in super::super) const PROCESS_CPU: Name =
        ("weft_process_cpu_seconds", "CPU time used, user and system");
}

/// Most upstreams with series of their own in metrics that have only a destination.
pub const MAX_DESTINATIONS: usize = 256;

/// The limits that are counted; they show as zero before they are reached, so that a rate sees the first.
/// `docs/limits.md` explains each.
const LIMITS: [&str; 10] = [
    "accept",
    "connections",
    "descriptors",
    "handshakes",
    "inbound_tls",
    "max_connections",
    "max_pending",
    "per_source",
    "retry_budget",
    "streams",
];

/// From 100 µs (a warm lane on loopback) to 10 s (the longest dial that is waited for).
const DIAL_BUCKETS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The registry as OpenMetrics text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(fmt::Error) = prometheus_client::encoding::text::encode(&mut text, registry) {
        tracing::error!("a metric refused to be encoded; the scrape is empty");
        text.clear();
    }
    text
}

/// A registry with what every process has: build information and process basics.
pub(super) fn base_registry() -> Registry {
    let mut registry = Registry::default();
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    add(&mut registry, names::BUILD, version);
    registry.register_collector(Box::new(process::ProcessCollector));
    registry
}

pub(super) fn add(registry: &mut Registry, (name, help): names::Name, metric: impl Metric) {
    registry.register(name, help, metric);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    direction: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    dst: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    dst: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

/// Label value of a fallible thing.
pub(super) const fn result_label(succeeded: bool) -> &'static str {
    if succeeded { "ok" } else { "error" }
}

/// Metrics of one proxy. Cheap to clone.
#[derive(Clone)]
pub struct ProxyMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<Registry>,
    edges: EdgeTable,
    destinations: BoundedLabels,
    tls_handshakes: Family<HandshakeLabels, Counter>,
    endpoints: Family<EndpointLabels, Gauge>,
    ejections: Family<DestinationLabels, Counter>,
    lanes_open: Family<DirectionLabels, Gauge>,
    cert_expiry: Gauge,
    cert_renewals: Family<ResultLabels, Counter>,
    control_connected: Gauge,
    config_age: Age,
    config_updates: Family<ResultLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
}

impl Default for ProxyMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ProxyMetrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = base_registry();
        let edges = EdgeTable::new(edge_families(&mut registry));
        let mut inner = Inner {
            registry: Arc::default(),
            edges,
            destinations: BoundedLabels::new(MAX_DESTINATIONS),
            tls_handshakes: Family::default(),
            endpoints: Family::default(),
            ejections: Family::default(),
            lanes_open: Family::default(),
            cert_expiry: Gauge::default(),
            cert_renewals: Family::default(),
            control_connected: Gauge::default(),
            config_age: Age::default(),
            config_updates: Family::default(),
            limits: Family::default(),
        };
        add(&mut registry, names::TLS_HANDSHAKES, inner.tls_handshakes.clone());
        add(&mut registry, names::ENDPOINTS, inner.endpoints.clone());
        add(&mut registry, names::EJECTIONS, inner.ejections.clone());
        add(&mut registry, names::LANES_OPEN, inner.lanes_open.clone());
        add(&mut registry, names::CERT_EXPIRY, inner.cert_expiry.clone());
        add(&mut registry, names::CERT_RENEWALS, inner.cert_renewals.clone());
        add(&mut registry, names::CONTROL_CONNECTED, inner.control_connected.clone());
        add(&mut registry, names::CONFIG_AGE, inner.config_age.clone());
        add(&mut registry, names::CONFIG_UPDATES, inner.config_updates.clone());
        add(&mut registry, names::LIMIT_REACHED, inner.limits.clone());
        inner.registry = Arc::new(registry);
        for limit in LIMITS {
            drop(inner.limits.get_or_create(&LimitLabels { limit }));
        }
        Self { inner: Arc::new(inner) }
    }

    /// What the admin endpoint encodes.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.inner.registry)
    }

    /// The handles of one edge; resolve them once per connection. `src` and `dst` must come from
    /// configuration or from a verified certificate, never from unauthenticated bytes.
    #[must_use]
    pub fn edge(&self, direction: &'static str, src: &str, dst: &str) -> EdgeMetrics {
        self.inner.edges.resolve(direction, src, dst)
    }

    /// A handshake with a peer ended; `Reason::Ok` when it succeeded.
    pub fn tls_handshake(&self, direction: &'static str, result: Reason) {
        let labels = HandshakeLabels { direction, result: result.as_str() };
        self.inner.tls_handshakes.get_or_create(&labels).inc();
    }

    /// How many endpoints of an upstream are in a state, such as `healthy` or `ejected`.
    pub fn endpoints(&self, dst: &str, state: &'static str, count: usize) {
        let labels = EndpointLabels { dst: self.inner.destinations.admit(dst).to_owned(), state };
        self.inner.endpoints.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An endpoint was ejected after failures.
    pub fn ejected(&self, dst: &str) {
        let labels = DestinationLabels { dst: self.inner.destinations.admit(dst).to_owned() };
        self.inner.ejections.get_or_create(&labels).inc();
    }

    /// A tunnel connection came up; it counts as open until the guard is dropped.
    #[must_use]
    pub fn lane(&self, direction: &'static str) -> LaneGuard {
        let open = self.inner.lanes_open.get_or_create_owned(&DirectionLabels { direction });
        open.inc();
        LaneGuard(open)
    }

    /// A leaf certificate is in use from now on.
    pub fn certificate(&self, not_after: SystemTime) {
        let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        self.inner.cert_expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// So many further attempts to get a certificate ended.
    pub fn renewals(&self, succeeded: bool, count: u64) {
        let labels = ResultLabels { result: result_label(succeeded) };
        self.inner.cert_renewals.get_or_create(&labels).inc_by(count);
    }

    /// The stream to the control plane came up or went down.
    pub fn control_connected(&self, connected: bool) {
        self.inner.control_connected.set(i64::from(connected));
    }

    /// The control plane said (by data or a heartbeat) that the configuration is current.
    pub fn config_confirmed(&self) {
        self.inner.config_age.restart();
    }

    /// So many further configuration updates were applied, or items of them refused.
    pub fn config_updates(&self, applied: bool, count: u64) {
        let labels = ResultLabels { result: if applied { "applied" } else { "refused" } };
        self.inner.config_updates.get_or_create(&labels).inc_by(count);
    }

    /// A limit was reached; `limit` is the name of its constant in lower case.
    pub fn limit_reached(&self, limit: &'static str) {
        self.inner.limits.get_or_create(&LimitLabels { limit }).inc();
    }
}

/// One open tunnel connection.
pub struct LaneGuard(Gauge);

impl Drop for LaneGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn edge_families(registry: &mut Registry) -> EdgeFamilies {
    let families = EdgeFamilies {
        opened: Family::default(),
        closed: Family::default(),
        open: Family::default(),
        bytes: Family::default(),
        authz: Family::default(),
        dial: Histogram::new(DIAL_BUCKETS_SECONDS),
    };
    add(registry, names::CONNECTIONS_OPENED, families.opened.clone());
    add(registry, names::CONNECTIONS_CLOSED, families.closed.clone());
    add(registry, names::CONNECTIONS_OPEN, families.open.clone());
    add(registry, names::BYTES, families.bytes.clone());
    add(registry, names::AUTHZ, families.authz.clone());
    add(registry, names::DIAL_SECONDS, families.dial.clone());
    families
}

/// A set of label values that stops growing: later values become `other`.
pub(super) struct BoundedLabels {
    known: RwLock<HashSet<String>>,
    max: usize,
}

impl BoundedLabels {
    pub(super) fn new(max: usize) -> Self {
        Self { known: RwLock::default(), max }
    }

    pub(super) fn admit<'a>(&self, label: &'a str) -> &'a str {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(label) {
            return label;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.max && !known.contains(label) {
            return OTHER;
        }
        known.insert(label.to_owned());
        label
    }
}

/// A gauge of the seconds since something happened, computed at the scrape; absent until it happened.
#[derive(Clone, Debug, Default)]
struct Age {
    since: Arc<RwLock<Option<Instant>>>,
}

impl Age {
    fn restart(&self) {
        *self.since.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl TypedMetric for Age {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Age {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match *self.since.read().unwrap_or_else(PoisonError::into_inner) {
            Some(since) => encoder.encode_gauge(&since.elapsed().as_secs_f64()),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests;
