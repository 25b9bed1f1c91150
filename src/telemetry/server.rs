//! Metrics of a server: the handles that `api` and `app` count with.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::edges::OTHER;
use super::metrics::{BoundedLabels, ResultLabels, add, base_registry, names, result_label};
use super::reading::{Read, Readings};
use crate::model::Reason;

/// Most HTTP routes with series of their own; the API has well under two hundred.
const MAX_ROUTES: usize = 256;

/// How renewals are decided, and the limits that requests for certificates may meet. All show as zero before
/// they occur, so that a rate sees the first: a `stale` renewal is an alarm.
const RENEWALS: [&str; 6] = ["ok", "repeated", "adopted", "stale", "foreign", "not_enrolled"];
const SIGNING_LIMITS: [&str; 7] = [
    "renew_sidecar",
    "renew_all",
    "enrol_service",
    "enrol_all",
    "enrol_refused_source",
    "mint_sidecar",
    "mint_all",
];

/// From 250 µs (a read of the catalog) to 10 s.
const HTTP_BUCKETS_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The methods the API knows. Clients can send any word, so all others share one label.
const HTTP_METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrpcLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: String,
    method: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DnsLabels {
    r#type: &'static str,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    port: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// Metrics of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<Registry>,
    routes: BoundedLabels,
    readings: Readings,
    store_commits: Family<ResultLabels, Counter>,
    grpc_requests: Family<GrpcLabels, Counter>,
    http_requests: Family<HttpLabels, Counter>,
    http_seconds: Histogram,
    http_answers: Family<SourceLabels, Counter>,
    dns_queries: Family<DnsLabels, Counter>,
    dns_dropped: Family<CauseLabels, Counter>,
    check_changes: Family<StatusLabels, Counter>,
    certificates_issued: Family<ResultLabels, Counter>,
    tokens: Family<EventLabels, Counter>,
    renewals: Family<ResultLabels, Counter>,
    signing_limited: Family<LimitLabels, Counter>,
    tls_refused: Family<RefusedLabels, Counter>,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerMetrics {
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Arc::default(),
            routes: BoundedLabels::new(MAX_ROUTES),
            readings: Readings::default(),
            store_commits: Family::default(),
            grpc_requests: Family::default(),
            http_requests: Family::default(),
            http_seconds: Histogram::new(HTTP_BUCKETS_SECONDS),
            http_answers: Family::default(),
            dns_queries: Family::default(),
            dns_dropped: Family::default(),
            check_changes: Family::default(),
            certificates_issued: Family::default(),
            tokens: Family::default(),
            renewals: Family::default(),
            signing_limited: Family::default(),
            tls_refused: Family::default(),
        };
        let mut registry = base_registry();
        registry.register_collector(Box::new(inner.readings.clone()));
        add(&mut registry, names::STORE_COMMITS, inner.store_commits.clone());
        add(&mut registry, names::GRPC_REQUESTS, inner.grpc_requests.clone());
        add(&mut registry, names::HTTP_REQUESTS, inner.http_requests.clone());
        add(&mut registry, names::HTTP_SECONDS, inner.http_seconds.clone());
        add(&mut registry, names::HTTP_ANSWERS, inner.http_answers.clone());
        add(&mut registry, names::DNS_QUERIES, inner.dns_queries.clone());
        add(&mut registry, names::DNS_DROPPED, inner.dns_dropped.clone());
        add(&mut registry, names::CHECK_RESULTS, inner.check_changes.clone());
        add(&mut registry, names::CERTIFICATES_ISSUED, inner.certificates_issued.clone());
        add(&mut registry, names::TOKENS, inner.tokens.clone());
        add(&mut registry, names::RENEWALS, inner.renewals.clone());
        add(&mut registry, names::SIGNING_LIMITED, inner.signing_limited.clone());
        add(&mut registry, names::TLS_REFUSED, inner.tls_refused.clone());
        inner.registry = Arc::new(registry);
        for result in RENEWALS {
            drop(inner.renewals.get_or_create(&ResultLabels { result }));
        }
        for limit in SIGNING_LIMITS {
            drop(inner.signing_limited.get_or_create(&LimitLabels { limit }));
        }
        Self { inner: Arc::new(inner) }
    }

    /// What the metrics endpoint encodes.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.inner.registry)
    }

    /// Calls `read` at each scrape for as long as the caller keeps it. The first reader stays.
    pub fn read_with(&self, read: &Arc<Read>) {
        if self.inner.readings.0.set(Arc::downgrade(read)).is_err() {
            tracing::error!("the metrics have somebody who reads already");
        }
    }

    /// A store transaction ended: `ok`, `conflict` or `error`.
    pub fn store_commit(&self, result: &'static str) {
        self.inner.store_commits.get_or_create(&ResultLabels { result }).inc();
    }

    /// A gRPC request was answered; `code` is the word of its status code.
    pub fn grpc_request(&self, method: &'static str, code: &'static str) {
        self.inner.grpc_requests.get_or_create(&GrpcLabels { method, code }).inc();
    }

    /// An HTTP request was answered. `route` is the matched pattern, never the path; `took` is `None`
    /// for blocking queries, whose length says nothing.
    pub fn http_request(&self, route: &str, method: &str, status: u16, took: Option<Duration>) {
        let labels = HttpLabels {
            route: self.inner.routes.admit(route).to_owned(),
            method: HTTP_METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER),
            class: status_class(status),
        };
        self.inner.http_requests.get_or_create(&labels).inc();
        if let Some(took) = took {
            self.inner.http_seconds.observe(took.as_secs_f64());
        }
    }

    /// A list of instances was encoded for a request, or its encoding was kept from an earlier one.
    pub fn http_answer(&self, kept: bool) {
        let source = if kept { "kept" } else { "made" };
        self.inner.http_answers.get_or_create(&SourceLabels { source }).inc();
    }

    /// A DNS question was answered; both are words of a closed list.
    pub fn dns_query(&self, kind: &'static str, rcode: &'static str) {
        self.inner.dns_queries.get_or_create(&DnsLabels { r#type: kind, rcode }).inc();
    }

    /// Something came to the DNS port in vain.
    pub fn dns_dropped(&self, cause: &'static str) {
        self.inner.dns_dropped.get_or_create(&CauseLabels { cause }).inc();
    }

    /// A check changed to this status.
    pub fn check_changed(&self, status: &'static str) {
        self.inner.check_changes.get_or_create(&StatusLabels { status }).inc();
    }

    /// A request for a leaf certificate was granted or refused.
    pub fn certificate_issued(&self, granted: bool) {
        let labels = ResultLabels { result: result_label(granted) };
        self.inner.certificates_issued.get_or_create(&labels).inc();
    }

    /// A renewal was decided by its generation, in one word.
    pub fn renewal(&self, result: &'static str) {
        self.inner.renewals.get_or_create(&ResultLabels { result }).inc();
    }

    /// A request for a certificate met a limit of rate.
    pub fn signing_limited(&self, limit: &'static str) {
        self.inner.signing_limited.get_or_create(&LimitLabels { limit }).inc();
    }

    /// A TLS handshake failed.
    pub fn tls_refused(&self, port: &'static str, reason: Reason) {
        let labels = RefusedLabels { port, reason: reason.as_str() };
        self.inner.tls_refused.get_or_create(&labels).inc();
    }

    /// An enrolment token was `created`, `used`, `refused` or `revoked`.
    pub fn token(&self, event: &'static str) {
        self.inner.tokens.get_or_create(&EventLabels { event }).inc();
    }
}

const fn status_class(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}
