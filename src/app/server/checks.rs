//! Runs the checks of instances that live on the server's own node: those from files, from the HTTP
//! API and from the registry service. Sidecars run their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::TtlClock;
use crate::catalog::{Catalog, Topic};
use crate::health::Runner;
use crate::model::{CheckDefinition, CheckReport, CheckStatus, InstanceId};

/// Results that may wait for the catalog.
const QUEUE: usize = 1024;
/// The set of checks is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

type Wanted = Vec<(InstanceId, CheckDefinition)>;

/// See the module.
pub(super) struct Checks {
    catalog: Catalog,
    runner: Arc<Mutex<Option<Runner>>>,
}

/// Starts a TTL check's period anew when somebody reports on it.
struct Clock(Arc<Mutex<Option<Runner>>>);

impl TtlClock for Clock {
    fn touch(&self, id: &str, status: CheckStatus, output: &str) {
        let runner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runner) = runner.as_ref() {
            // False for a check without a TTL, which has no clock to start.
            let _has_ttl = runner.update_ttl(id, status, output);
        }
    }
}

impl Checks {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, runner: Arc::default() }
    }

    pub(super) fn ttl_clock(&self) -> Arc<dyn TtlClock> {
        Arc::new(Clock(Arc::clone(&self.runner)))
    }

    /// Follows the catalog and keeps exactly its checks running. Never returns.
    pub(super) async fn run(self) {
        let (sink, results) = mpsc::channel(QUEUE);
        tokio::join!(self.follow(sink), self.report(results));
    }

    async fn follow(&self, sink: mpsc::Sender<CheckReport>) {
        let (mut index, mut running) = (0, Wanted::new());
        loop {
            let wanted = self.wanted();
            if definitions(&wanted) != definitions(&running) {
                // Every check begins with the status it has, so that none flips by the restart.
                let runner = Runner::start(wanted.clone(), sink.clone());
                *self.runner.lock().unwrap_or_else(PoisonError::into_inner) = Some(runner);
                running = wanted;
            }
            index = self.catalog.wait(&Topic::Checks, index, LOOK_AGAIN).await;
        }
    }

    fn wanted(&self) -> Wanted {
        let checks = self.catalog.checks_on(&self.catalog.settings().node);
        let wanted = checks.into_iter().filter_map(|record| {
            let check = record.check;
            let instance = match &check.instance {
                Some((instance, _)) => instance.clone(),
                // A check of the node: no alias asks for it, so any name does.
                None => InstanceId::new(check.node.as_str()).ok()?,
            };
            let definition = check.definition.clone()?;
            Some((instance, CheckDefinition { initial: check.status, ..definition }))
        });
        wanted.collect()
    }

    async fn report(&self, mut results: mpsc::Receiver<CheckReport>) {
        let node = &self.catalog.settings().node;
        while let Some(report) = results.recv().await {
            let id = report.id.clone();
            // A check that was deregistered meanwhile has nobody left to tell.
            if let Err(error) = self.catalog.report_checks(node, vec![report]).await {
                tracing::debug!(check = %id, %error, "result of a check was not taken");
            }
        }
    }
}

/// What makes two sets the same: everything but the status they begin with.
fn definitions(wanted: &Wanted) -> Wanted {
    let plain = |(instance, definition): &(InstanceId, CheckDefinition)| {
        (instance.clone(), CheckDefinition { initial: CheckStatus::Critical, ..definition.clone() })
    };
    wanted.iter().map(plain).collect()
}
