//! Follows a sidecar's agent: ticks readiness off and keeps the metrics of configuration, certificate
//! and endpoints. Run by the sidecar for as long as its agent lives.

use std::time::SystemTime;

use crate::agent::{self, Status};
use crate::model::Snapshot;
use crate::telemetry::{Pending, ProxyMetrics, Readiness};
use crate::tls::Identity;

/// What readiness waits for.
pub(super) struct Waits {
    certificate: Option<Pending>,
    registration: Option<Pending>,
    configuration: Option<Pending>,
}

impl Waits {
    pub(super) fn new(readiness: &Readiness) -> Self {
        Self {
            certificate: Some(readiness.pending("certificate")),
            registration: Some(readiness.pending("registration")),
            configuration: Some(readiness.pending("configuration")),
        }
    }
}

/// Runs until the agent is gone.
pub(super) async fn watch_agent(agent: agent::Handle, metrics: ProxyMetrics, mut waits: Waits) {
    let agent::Handle { mut status, mut identity, mut changes, snapshot, .. } = agent;
    let mut counted = Counted::default();
    loop {
        if let Some(held) = identity.borrow_and_update().as_deref() {
            follow_identity(held, &metrics, &mut waits);
        }
        let now = status.borrow_and_update().clone();
        follow_status(&now, &metrics, &mut waits);
        let applied = *changes.borrow_and_update();
        counted.config(applied, &now, &metrics);
        counted.certificates(&now, &metrics);
        show_endpoints(&snapshot.load(), &metrics);
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = identity.changed() => changed,
            changed = changes.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn follow_identity(held: &Identity, metrics: &ProxyMetrics, waits: &mut Waits) {
    metrics.certificate(held.not_after());
    if held.not_after() > SystemTime::now() {
        drop(waits.certificate.take());
    }
}

fn follow_status(status: &Status, metrics: &ProxyMetrics, waits: &mut Waits) {
    metrics.control_connected(status.connected);
    if status.registered {
        drop(waits.registration.take());
    }
    if status.synced {
        drop(waits.configuration.take());
    }
}

/// How many endpoints each upstream has that may be chosen, and how many that may not.
fn show_endpoints(snapshot: &Snapshot, metrics: &ProxyMetrics) {
    for (service, view) in &snapshot.services {
        let healthy = view.endpoints.values().filter(|endpoint| endpoint.weight() > 0).count();
        metrics.endpoints(service.as_str(), "healthy", healthy);
        metrics.endpoints(service.as_str(), "unhealthy", view.endpoints.len() - healthy);
    }
}

/// The agent's counts that are in the metrics already: a watch may skip some of its values.
#[derive(Default)]
struct Counted {
    applied: u64,
    refused: u64,
    heartbeats: u64,
    certificates: u64,
    certificate_failures: u64,
}

impl Counted {
    fn config(&mut self, applied: u64, status: &Status, metrics: &ProxyMetrics) {
        let refused = status.stale_refused.saturating_add(status.resources_refused);
        let more = growth(&mut self.applied, applied);
        let heartbeats = growth(&mut self.heartbeats, status.heartbeats);
        if more > 0 || heartbeats > 0 {
            metrics.config_confirmed();
        }
        metrics.config_updates(true, more);
        metrics.config_updates(false, growth(&mut self.refused, refused));
    }

    fn certificates(&mut self, status: &Status, metrics: &ProxyMetrics) {
        metrics.renewals(true, growth(&mut self.certificates, status.certificates));
        let failures = growth(&mut self.certificate_failures, status.certificate_failures);
        metrics.renewals(false, failures);
    }
}

fn growth(before: &mut u64, now: u64) -> u64 {
    now.saturating_sub(std::mem::replace(before, now))
}
