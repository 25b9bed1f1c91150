//! Runs the checks of instances that live on the server's own node: those from files, from the HTTP
//! API and from the registry service. Sidecars run their own: those come without a definition.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::reaper;
use crate::catalog::{Catalog, Reporter, Taken, Topic};
use crate::health::{Runner, Workload};
use crate::model::{CheckDefinition, CheckReport};
use crate::telemetry::ServerMetrics;

/// Results that may wait for the catalog.
const QUEUE: usize = 1024;
/// The set of checks is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct Checks {
    catalog: Catalog,
    runner: Arc<Mutex<Option<Runner>>>,
}

impl Checks {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, runner: Arc::default() }
    }

    /// From now on whatever is reported on a TTL check, by whatever door, starts its clock anew; and
    /// changes are counted.
    pub(super) fn listen(&self, metrics: &ServerMetrics) {
        let (runner, metrics) = (Arc::clone(&self.runner), metrics.clone());
        let own = self.catalog.settings().node.clone();
        self.catalog.on_report(move |Taken { node, report, changed, reporter }| {
            if changed {
                metrics.check_changed(report.status.as_str());
            }
            // What the runner says itself is no sign of life of whoever feeds the check.
            if reporter == Reporter::Outside && *node == own {
                let runner = runner.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(runner) = runner.as_ref() {
                    // False for a check without a TTL, which has no clock to start.
                    let _has_ttl = runner.update_ttl(&report.id, report.status, &report.output);
                }
            }
        });
    }

    /// Follows the catalog and keeps exactly its checks running. Never returns.
    pub(super) async fn run(self) {
        let (sink, results) = mpsc::channel(QUEUE);
        tokio::join!(self.follow(sink), self.report(results), reaper::run(&self.catalog));
    }

    async fn follow(&self, sink: mpsc::Sender<CheckReport>) {
        let mut index = 0;
        loop {
            let wanted = self.wanted();
            match &mut *self.runner.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(runner) => runner.replace(wanted),
                empty => *empty = Some(Runner::start(wanted, sink.clone())),
            }
            index = self.catalog.wait(&Topic::Checks, index, LOOK_AGAIN).await;
        }
    }

    /// The checks of the server's node. Each begins with the status it has, so that none flips when the
    /// server starts.
    fn wanted(&self) -> Workload {
        let node = &self.catalog.settings().node;
        let mut workload = Workload::default();
        for record in self.catalog.instances_on(node) {
            workload.instances.insert(record.instance.id.clone());
        }
        for record in self.catalog.checks_on(node) {
            let check = record.check;
            // The catalog's word about the node is no check that anybody could fail.
            if check.is_alive() {
                continue;
            }
            let Some(definition) = check.definition.clone() else {
                // What the catalog says of this agent is none of the agent's checks: with nothing else,
                // an alias finds none, as in Consul.
                if check.id != "serfHealth" {
                    workload.others.push((*check).clone());
                }
                continue;
            };
            let instance = check.instance.as_ref().map(|(instance, _)| instance.clone());
            let definition = CheckDefinition { initial: check.status, ..definition };
            workload.checks.push((instance, definition));
        }
        workload
    }

    async fn report(&self, mut results: mpsc::Receiver<CheckReport>) {
        let node = &self.catalog.settings().node;
        while let Some(report) = results.recv().await {
            let id = report.id.clone();
            // A check that was deregistered meanwhile has nobody left to tell.
            if let Err(error) = self.catalog.record_checks(node, vec![report]).await {
                tracing::debug!(check = %id, %error, "result of a check was not taken");
            }
        }
    }
}
