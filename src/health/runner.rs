//! The tasks: one per probe or TTL clock, and one that hands reports to the sink.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::board::Board;
use super::probe::Prober;
use crate::model::check::{CheckMachine, cut_output};
use crate::model::{Check, CheckDefinition, CheckId, CheckKind, CheckReport, CheckStatus, InstanceId};
use crate::net::rng::Rng;

/// Probes in flight at a time; more wait for their turn. Bounds sockets, and the burst when a runner
/// with many checks starts.
const MAX_CONCURRENT_PROBES: usize = 64;

/// Everything a runner runs, and what it has to know besides.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// Each with the instance it is about; none for a check of the node. Of two with one id the later
    /// counts.
    pub checks: Vec<(Option<InstanceId>, CheckDefinition)>,
    /// Instances there are: an alias of any other fails.
    pub instances: BTreeSet<InstanceId>,
    /// Checks that somebody else runs, whose state counts for aliases.
    pub others: Vec<Check>,
}

/// Consul's floor for intervals, and what keeps a zero interval from spinning.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Intervals vary by this part, so that checks that started together drift apart.
const JITTER: f64 = 0.1;

/// A set of running checks. Dropping it stops them.
pub struct Runner {
    shared: Arc<Shared>,
    prober: Arc<Prober>,
    permits: Arc<Semaphore>,
    running: BTreeMap<CheckId, Running>,
    tasks: JoinSet<()>,
}

/// A check with what runs for it.
struct Running {
    instance: Option<InstanceId>,
    check: CheckDefinition,
    /// None for an alias, which the board keeps up to date by itself.
    task: Option<AbortHandle>,
    /// Feeds a TTL check.
    updates: Option<watch::Sender<Option<(CheckStatus, String)>>>,
}

impl Runner {
    /// Starts all checks; the first run is at once. Only changes of status (and the first result) are sent to `sink`;
    /// while it is full the latest report of each check waits, and no check is delayed.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(workload: Workload, sink: mpsc::Sender<CheckReport>) -> Self {
        let shared = Arc::new(Shared { board: Mutex::default(), news: Notify::new() });
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(Arc::clone(&shared), sink));
        let mut runner = Self {
            shared,
            prober: Arc::new(Prober::new()),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_PROBES)),
            running: BTreeMap::new(),
            tasks,
        };
        runner.replace(workload);
        runner
    }

    /// Runs exactly this from now on. A check that was there with the same definition goes on
    /// undisturbed (its initial status does not count): no extra run, no new TTL period. All others
    /// stop, and new ones start as in `start`.
    pub fn replace(&mut self, workload: Workload) {
        let Workload { checks, instances, others } = workload;
        let mut wanted: BTreeMap<_, _> =
            checks.into_iter().map(|(instance, check)| (check.id.clone(), (instance, check))).collect();
        let mut gone = Vec::new();
        self.running.retain(|id, running| {
            let stays = wanted.get(id).is_some_and(|wanted| running.is(wanted));
            if stays {
                wanted.remove(id);
            } else {
                running.stop();
                gone.push(id.clone());
            }
            stays
        });
        let new = wanted.values().map(|(instance, check)| (instance.as_ref(), check));
        let mut board = self.shared.board();
        board.change(&gone, new);
        board.surround(instances, others);
        drop(board);
        self.shared.news.notify_one();
        for (id, (instance, check)) in wanted {
            let running = self.run(instance, check);
            self.running.insert(id, running);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Feeds a TTL check; false when there is no such TTL check.
    pub fn update_ttl(&self, id: &str, status: CheckStatus, output: &str) -> bool {
        let Some(updates) = self.running.get(id).and_then(|running| running.updates.as_ref()) else {
            return false;
        };
        updates.send_replace(Some((status, cut_output(output))));
        true
    }

    fn run(&mut self, instance: Option<InstanceId>, check: CheckDefinition) -> Running {
        let shared = Arc::clone(&self.shared);
        let (mut task, mut updates) = (None, None);
        match check.kind {
            CheckKind::Ttl { ttl } => {
                let (sender, receiver) = watch::channel(None);
                task = Some(self.tasks.spawn(run_ttl(check.id.clone(), ttl, receiver, shared)));
                updates = Some(sender);
            }
            CheckKind::Alias { .. } => {}
            _ => {
                let (prober, permits) = (Arc::clone(&self.prober), Arc::clone(&self.permits));
                task = Some(self.tasks.spawn(run_probe(check.clone(), prober, permits, shared)));
            }
        }
        Running { instance, check, task, updates }
    }
}

impl Running {
    fn is(&self, (instance, check): &(Option<InstanceId>, CheckDefinition)) -> bool {
        let same_start = CheckDefinition { initial: self.check.initial, ..check.clone() };
        self.instance == *instance && self.check == same_start
    }

    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
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
