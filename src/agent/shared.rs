//! What the tasks of one agent share: servers to try, the status, and the checks' latest results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Status;
use super::fault::Fault;
use crate::model::{CheckId, CheckReport};

/// First and longest pause before the next server is tried.
pub(super) const RECONNECT_LEAST: Duration = Duration::from_millis(100);
pub(super) const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// The same trouble is logged no more often than this.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How far an agent is with its life; only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    Running,
    /// Peers shall stop choosing this instance.
    Draining,
    /// The instance shall be removed.
    Leaving,
}

/// Which of the processes of one sidecar this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It registers the instance, keeps its lease and reports its checks.
    Holder,
    /// Another one does; this one only follows the configuration.
    Observer,
}

/// See the module.
pub(super) struct Shared {
    pub servers: Servers,
    pub status: watch::Sender<Status>,
    last_complaint: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(servers: Vec<String>, status: watch::Sender<Status>) -> Self {
        let servers = Servers { all: servers, turn: AtomicUsize::new(0) };
        Self { servers, status, last_complaint: Mutex::default() }
    }

    /// Notes a failure that will be tried again: always in the status, in the log once in a while.
    pub(super) fn complain(&self, fault: &Fault) {
        let text = fault.to_string();
        let mut last = self.last_complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(error = text, "trouble with the control plane; trying again");
        } else {
            tracing::debug!(error = text, "trouble with the control plane");
        }
        drop(last);
        self.status.send_modify(|status| status.last_error = Some(text));
    }

    /// The same when this proxy can do nothing at all until it is mended.
    pub(super) fn cry_out(&self, fault: &Fault) {
        let text = format!("the certificate has expired and there is no other: {fault}");
        tracing::error!(error = text, "no connection is possible; trying again");
        self.status.send_modify(|status| status.last_error = Some(text));
    }

    /// All is well again.
    pub(super) fn recovered(&self) {
        *self.last_complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.status.send_modify(|status| status.last_error = None);
    }
}

/// The control plane's servers; all tasks use the same one until somebody has trouble with it.
pub(super) struct Servers {
    all: Vec<String>,
    turn: AtomicUsize,
}

impl Servers {
    /// `host:port` of the server in turn.
    pub(super) fn current(&self) -> String {
        let turn = self.turn.load(Ordering::Relaxed);
        self.all.get(turn % self.all.len().max(1)).cloned().unwrap_or_default()
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn advance(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}

/// The latest result of each check. Bounded by the checks that are registered.
pub(super) type Results = BTreeMap<CheckId, CheckReport>;

/// Keeps the latest result of each registered check, whether there is a stream or not.
pub(super) async fn keep_results(
    registered: BTreeSet<CheckId>,
    mut results: mpsc::Receiver<CheckReport>,
    latest: watch::Sender<Results>,
) {
    while let Some(report) = results.recv().await {
        if !registered.contains(&report.id) {
            tracing::warn!(check = report.id, "a result of a check that is not registered is dropped");
            continue;
        }
        latest.send_if_modified(|latest| {
            latest.insert(report.id.clone(), report.clone()).as_ref() != Some(&report)
        });
    }
}
