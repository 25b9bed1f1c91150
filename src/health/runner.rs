//! The tasks: one per probe or TTL clock, and one that hands reports to the sink.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::board::Board;
use super::probe::Prober;
use crate::model::check::{CheckMachine, cut_output};
use crate::model::{CheckDefinition, CheckId, CheckKind, CheckReport, CheckStatus, InstanceId};
use crate::net::rng::Rng;

/// Probes in flight at a time; more wait for their turn. Bounds sockets, and the burst when a runner
/// with many checks starts.
const MAX_CONCURRENT_PROBES: usize = 64;

/// Consul's floor for intervals, and what keeps a zero interval from spinning.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Intervals vary by this part, so that checks that started together drift apart.
const JITTER: f64 = 0.1;

/// A set of running checks. Dropping it stops them.
pub struct Runner {
    ttls: BTreeMap<CheckId, watch::Sender<Option<(CheckStatus, String)>>>,
    _tasks: JoinSet<()>,
}

impl Runner {
    /// Starts all checks, each with the instance it is about; the first run is at once. Of two checks
    /// with one id the later counts. Only changes of status (and the first result) are sent to `sink`;
    /// while it is full the latest report of each check waits, and no check is delayed.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(checks: Vec<(InstanceId, CheckDefinition)>, sink: mpsc::Sender<CheckReport>) -> Self {
        let shared = Arc::new(Shared { board: Mutex::new(Board::new(&checks)), news: Notify::new() });
        let prober = Arc::new(Prober::new());
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_PROBES));
        let by_id: BTreeMap<_, _> = checks.into_iter().map(|(_, c)| (c.id.clone(), c)).collect();
        let mut ttls = BTreeMap::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(Arc::clone(&shared), sink));
        for (id, check) in by_id {
            match check.kind {
                CheckKind::Ttl { ttl } => {
                    let (sender, updates) = watch::channel(None);
                    tasks.spawn(run_ttl(id.clone(), ttl, updates, Arc::clone(&shared)));
                    ttls.insert(id, sender);
                }
                // The board keeps aliases up to date by itself.
                CheckKind::Alias { .. } => {}
                _ => {
                    let (prober, permits) = (Arc::clone(&prober), Arc::clone(&permits));
                    tasks.spawn(run_probe(check, prober, permits, Arc::clone(&shared)));
                }
            }
        }
        Self { ttls, _tasks: tasks }
    }

    /// Feeds a TTL check; false when there is no such TTL check.
    #[must_use]
    pub fn update_ttl(&self, id: &str, status: CheckStatus, output: &str) -> bool {
        let Some(sender) = self.ttls.get(id) else { return false };
        sender.send_replace(Some((status, cut_output(output))));
        true
    }
}

struct Shared {
    board: Mutex<Board>,
    /// Told whenever a report may have been queued.
    news: Notify,
}

impl Shared {
    fn record(&self, id: &str, status: CheckStatus, output: String) {
        self.board().record(id, status, output);
        self.news.notify_one();
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a report off the board only when the sink has room for it, so that what waits is the latest.
async fn forward(shared: Arc<Shared>, sink: mpsc::Sender<CheckReport>) {
    loop {
        let Ok(permit) = sink.reserve().await else { return };
        let report = shared.board().next_report();
        match report {
            Some(report) => permit.send(report),
            None => {
                drop(permit);
                shared.news.notified().await;
            }
        }
    }
}

async fn run_probe(
    check: CheckDefinition,
    prober: Arc<Prober>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
) {
    let check = Arc::new(check);
    let probe = || {
        let (check, prober, permits) = (Arc::clone(&check), Arc::clone(&prober), Arc::clone(&permits));
        async move {
            let _permit = permits.acquire().await;
            prober.run(&check).await
        }
    };
    repeat(Arc::clone(&check), shared, probe).await;
}

/// The schedule of one check: a run, its verdict by the thresholds, a pause of about the interval.
/// Ends when there is nothing to run.
async fn repeat<F>(check: Arc<CheckDefinition>, shared: Arc<Shared>, mut probe: impl FnMut() -> F)
where
    F: Future<Output = Option<(CheckStatus, String)>>,
{
    let mut machine = CheckMachine::new(&check);
    let mut rng = Rng::new();
    while let Some((result, output)) = probe().await {
        let before = machine.status();
        let status = machine.observe(result);
        if status != before {
            tracing::info!(check = check.id, %status, "health check changed");
        }
        shared.record(&check.id, status, output);
        sleep(jittered(check.interval.max(MIN_INTERVAL), rng.fraction())).await;
    }
}

/// `interval` ± `JITTER`, by a `fraction` in [0, 1).
fn jittered(interval: Duration, fraction: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * fraction - 1.0))
}

/// The task is the only one that writes a TTL check's state, so an update and the expiry cannot race.
async fn run_ttl(
    id: CheckId,
    ttl: Duration,
    mut updates: watch::Receiver<Option<(CheckStatus, String)>>,
    shared: Arc<Shared>,
) {
    let mut expired = false;
    loop {
        let changed = tokio::select! {
            biased;
            changed = updates.changed() => changed,
            () = sleep(ttl), if !expired => {
                expired = true;
                shared.record(&id, CheckStatus::Critical, "TTL expired".to_owned());
                continue;
            }
        };
        if changed.is_err() {
            return;
        }
        let update = updates.borrow_and_update().clone();
        if let Some((status, output)) = update {
            expired = false;
            shared.record(&id, status, output);
        }
    }
}

#[cfg(test)]
mod tests;
