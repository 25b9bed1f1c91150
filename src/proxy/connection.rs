//! The record of one connection: resolved counters at its start, one access-log line and one report
//! at its end, whatever way it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::reports::Reports;
use crate::agent::EdgeCount;
use crate::model::{Reason, ServiceName, Verdict};
use crate::telemetry::{AccessRecord, EdgeMetrics, Emitted, ProxyMetrics};
use crate::tunnel::End;

/// The two sides of a tunnel, as logs and metrics call them.
pub(super) const OUTBOUND: &str = "outbound";
pub(super) const INBOUND: &str = "inbound";

/// See the module. Dropping it unclosed records that the process stopped the connection.
pub(super) struct Connection {
    access: AccessRecord,
    metrics: EdgeMetrics,
    all: ProxyMetrics,
    reports: Option<Rc<Reports>>,
    started: Instant,
    closed: bool,
}

impl Connection {
    pub(super) fn open(
        direction: &'static str,
        source: &ServiceName,
        destination: &ServiceName,
        client: Option<SocketAddr>,
        metrics: &ProxyMetrics,
    ) -> Self {
        let all = metrics.clone();
        let metrics = metrics.edge(direction, source.as_str(), destination.as_str());
        metrics.opened();
        Self {
            all,
            access: AccessRecord {
                direction,
                source: source.clone(),
                destination: destination.clone(),
                source_id: None,
                destination_id: None,
                endpoint: None,
                endpoint_address: None,
                client_address: client,
                bytes_sent: 0,
                bytes_received: 0,
                duration: Duration::ZERO,
                connect: Duration::ZERO,
                attempts: 0,
                reason: Reason::Drained,
                audited: None,
                detail: String::new(),
            },
            metrics,
            reports: None,
            started: Instant::now(),
            closed: false,
        }
    }

    /// Counts this connection in the report to the control plane, too.
    pub(super) fn report_to(&mut self, reports: &Rc<Reports>) {
        self.reports = Some(Rc::clone(reports));
    }

    pub(super) const fn access(&mut self) -> &mut AccessRecord {
        &mut self.access
    }

    /// The far application is connected.
    pub(super) fn connected(&mut self) {
        self.access.connect = self.started.elapsed();
        self.metrics.dialled(self.access.connect);
    }

    /// Policy was asked, at the start or again after a change.
    pub(super) fn authorized(&mut self, verdict: &Verdict) {
        self.metrics.authorized(verdict.action);
        if verdict.is_audited() {
            self.access.audited = Some(verdict.to_string());
        }
    }

    /// Application bytes: from the dialling application, and to it.
    pub(super) const fn moved(&mut self, sent: u64, received: u64) {
        self.access.bytes_sent = sent;
        self.access.bytes_received = received;
    }

    pub(super) fn close(mut self, end: End) {
        self.record(end);
    }

    fn record(&mut self, end: End) {
        self.closed = true;
        self.access.reason = end.reason;
        self.access.detail = end.detail;
        self.access.duration = self.started.elapsed();
        let (sent, received) = (self.access.bytes_sent, self.access.bytes_received);
        self.metrics.bytes(sent, received);
        self.metrics.closed(end.reason);
        if self.access.emit() == Emitted::Lost {
            self.all.limit_reached("access_log");
        }
        if let Some(reports) = self.reports.take() {
            reports.add(EdgeCount {
                source: self.access.source.clone(),
                destination: self.access.destination.clone(),
                reason: end.reason,
                connections: 1,
                bytes_sent: sent,
                bytes_received: received,
            });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.closed {
            self.record(End::new(Reason::Drained, "the sidecar stopped"));
        }
    }
}
