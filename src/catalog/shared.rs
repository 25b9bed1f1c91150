//! What all handles and tasks of a catalog share, and the way of a write: commit to the store, see it
//! come back through the store's watch, answer.
//!
//! Only `follow` changes the state, in the order of the store's commits. So a write by another server
//! is no different from one's own.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::changelog::Changelog;
use super::draft::{Output, Plan};
use super::index::Topic;
use super::key::PREFIX;
use super::plan;
use super::proxies::Board;
use super::reports::Listener;
use super::resource::Resource;
use super::state::State;
use super::subscription::Registry;
use super::{CatalogError, LeaseId, Settings};
use crate::model::Bans;
use crate::net::deadlines::Clock;
use crate::net::waiters::Waiters;
use crate::store::{Commit, Outcome, Revision, Store, StoreError, Watch};

/// How often a write is planned anew because others changed what it is about.
const MAX_ATTEMPTS: usize = 32;
/// Commits that are applied before those who wait for them are told.
const MAX_COMMITS: usize = 256;

pub(super) struct Shared {
    pub(super) settings: Settings,
    store: Arc<dyn Store>,
    live: RwLock<Live>,
    /// The revision that reads show; its sender belongs to the task that applies commits.
    applied: watch::Receiver<Revision>,
    /// Of the leases.
    pub(super) clock: Clock<LeaseId>,
    pub(super) waiters: Waiters<Topic>,
    pub(super) readers: Registry,
    pub(super) board: Board,
    pub(super) listener: Listener,
    pub(super) bans: watch::Sender<Arc<Bans>>,
}

/// What changes together.
pub(super) struct Live {
    pub(super) state: State,
    pub(super) log: Changelog,
}

impl Shared {
    pub(super) fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        state: State,
        applied: watch::Receiver<Revision>,
    ) -> Self {
        let clock = Clock::new("leases");
        for (lease, ttl) in &state.leases {
            clock.grant(*lease, *ttl);
        }
        let log = Changelog::new(state.position.revision);
        Self {
            settings,
            store,
            bans: watch::Sender::new(Arc::clone(&state.banned)),
            live: RwLock::new(Live { state, log }),
            applied,
            clock,
            waiters: Waiters::default(),
            readers: Registry::default(),
            board: Board::default(),
            listener: Listener::default(),
        }
    }

    /// The state, for reading. Hold it briefly and never across an await.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a write on what reads show, commits it, and waits until reads show it. When somebody else
    /// changed what the plan rests on, plans again.
    pub(super) async fn write<T>(
        &self,
        plan: impl Fn(&State) -> Result<Plan<T>, CatalogError>,
    ) -> Result<(Revision, T), CatalogError> {
        for _ in 0..MAX_ATTEMPTS {
            let (plan, seen) = {
                let live = self.read();
                (plan(&live.state)?, live.state.position.revision)
            };
            let outcome = if plan.txn.ops.is_empty() {
                Outcome::Committed(seen)
            } else {
                self.store.commit(plan.txn).await?
            };
            match outcome {
                Outcome::Committed(revision) => {
                    self.applied(revision).await?;
                    self.keep_outputs(plan.outputs);
                    return Ok((revision, plan.value));
                }
                // What the plan rests on was changed after `seen`, so at least one commit follows.
                Outcome::Conflict => self.applied(seen + 1).await?,
            }
        }
        Err(CatalogError::Contended)
    }

    /// Keeps outputs of checks in memory.
    fn keep_outputs(&self, outputs: Vec<Output>) {
        if outputs.is_empty() {
            return;
        }
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        for (node, id, output) in outputs {
            live.state.set_output(&node, &id, output);
        }
    }

    /// Ends a lease and removes what it owns. Once the lease is gone nothing new can come under it, but
    /// something may have come just before: so until nothing is left.
    pub(super) async fn end_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        loop {
            let (_, ended) = self.write(|state| Ok(plan::end_lease(state, lease))).await?;
            if !ended {
                return Ok(());
            }
        }
    }

    async fn applied(&self, revision: Revision) -> Result<(), StoreError> {
        let mut applied = self.applied.clone();
        let stopped = |_| StoreError::Stopped("it is not followed any more".to_owned());
        applied.wait_for(|now| *now >= revision).await.map(drop).map_err(stopped)
    }

    fn apply(&self, commit: &Commit) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let effects = live.state.apply(commit);
        let resources: Vec<_> = effects.resources.into_iter().map(Arc::new).collect();
        live.log.record(commit.revision, &resources);
        let marked = self.readers.mark(&resources);
        if resources.iter().any(|resource| matches!(**resource, Resource::Ban(_))) {
            self.bans.send_replace(Arc::clone(&live.state.banned));
        }
        drop(live);
        self.apply_leases(&effects.leases);
        for inbox in marked {
            inbox.wake();
        }
        self.waiters.wake(&effects.topics);
        if effects.extinction {
            self.waiters.wake_where(|topic| !self.read().state.is_present(topic));
        }
    }

    fn apply_leases(&self, leases: &[(LeaseId, Option<std::time::Duration>)]) {
        for (lease, ttl) in leases {
            match ttl {
                Some(ttl) => self.clock.grant(*lease, *ttl),
                None => self.clock.remove(lease),
            }
        }
    }

    /// What happened while the store's log did not reach back to us, as one commit.
    async fn relist(&self) -> Result<(Commit, Watch), StoreError> {
        let image = self.store.load(PREFIX).await?;
        let watch = self.store.watch("", image.revision).await?;
        Ok((self.read().state.catch_up(image), watch))
    }
}

/// Applies what the store commits, until it stops. Also the commits of others than the catalog, so
/// that positions keep up with the store.
pub(super) async fn follow(shared: Arc<Shared>, mut watch: Watch, applied: watch::Sender<Revision>) {
    loop {
        let mut commit = match next(&shared, &mut watch).await {
            Ok(commit) => commit,
            Err(error) => {
                tracing::error!(%error, "the catalog does not follow the store any more");
                return;
            }
        };
        let mut left = MAX_COMMITS;
        loop {
            shared.apply(&commit);
            left -= 1;
            if left == 0 {
                break;
            }
            // An error comes again, and is looked at, when the next commit is waited for.
            let Ok(Some(more)) = watch.try_recv() else { break };
            commit = more;
        }
        applied.send_replace(commit.revision);
    }
}

async fn next(shared: &Shared, watch: &mut Watch) -> Result<Commit, StoreError> {
    match watch.recv().await {
        Err(StoreError::Compacted(_)) => {
            let (commit, anew) = shared.relist().await?;
            *watch = anew;
            Ok(commit)
        }
        next => next,
    }
}
