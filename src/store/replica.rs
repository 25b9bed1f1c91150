//! A state in memory that follows the store: the way of a write is plan, commit, see it come back
//! through the store's watch, answer.
//!
//! `kv` and `etcd` keep theirs by it. Only [`Replica::follow`] changes what is in the store as well, in the
//! order of the store's commits, so that a write by another server is no different from one's own. Invariant: what
//! [`Replica::write`] has answered is durable, and reads show it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::{Commit, Entry, Image, Outcome, Revision, Store, StoreError, Txn, Watch};

/// How often a write is planned anew because others changed what it is about.
const MAX_ATTEMPTS: usize = 32;

/// A state that is a function of the commits under one prefix.
pub trait Follow: Send + Sync + 'static {
    /// What others have to be told of a commit.
    type Effects;

    /// Applies one commit. What cannot be read is left out and logged: whoever wrote it is newer or
    /// broken, and the rest goes on.
    fn apply(&mut self, commit: &Commit, now: Instant) -> Self::Effects;

    /// Goes to what an image shows, when the store's log did not reach back to what is held.
    ///
    /// # Errors
    /// `Damaged` when a value cannot be read.
    fn catch_up(&mut self, image: &Image, now: Instant) -> Result<Self::Effects, StoreError>;
}

/// A transaction, and what to answer once it is committed.
#[derive(Debug)]
pub struct Plan<T> {
    pub txn: Txn,
    pub value: T,
}

/// See the module.
pub struct Replica<S> {
    store: Arc<dyn Store>,
    prefix: &'static str,
    held: RwLock<Held<S>>,
    /// The revision that reads show; its sender belongs to whoever follows.
    applied: watch::Receiver<Revision>,
    /// Writers that met another one wait for their turn, so that none of them tries in vain for long.
    turn: Mutex<()>,
}

struct Held<S> {
    state: S,
    revision: Revision,
}

/// What [`Replica::follow`] follows.
pub struct Feed {
    watch: Watch,
    applied: watch::Sender<Revision>,
}

impl<S: Follow> Replica<S> {
    /// Loads what is under `prefix`; the feed is for [`Self::follow`].
    ///
    /// # Errors
    /// When the store cannot be read, or `load` finds damage.
    pub async fn open(
        store: Arc<dyn Store>,
        prefix: &'static str,
        load: impl FnOnce(&Image) -> Result<S, StoreError>,
    ) -> Result<(Self, Feed), StoreError> {
        let image = store.load(prefix).await?;
        let watch = store.watch(prefix, image.revision).await?;
        let held = RwLock::new(Held { state: load(&image)?, revision: image.revision });
        let (sender, applied) = watch::channel(image.revision);
        let replica = Self { store, prefix, held, applied, turn: Mutex::default() };
        Ok((replica, Feed { watch, applied: sender }))
    }

    /// Changes what of the state is not in the store.
    pub fn adjust<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// Looks at the state. Be brief: nothing is applied meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.held().state)
    }

    /// Plans a write on what reads show, commits it, and waits until reads show it. When somebody else
    /// changed what the plan rests on, plans again. All conditions must be about keys of the prefix.
    ///
    /// # Errors
    /// What `plan` says; `Contended` when others keep changing the same keys; those of the store.
    pub async fn write<T, E: From<StoreError>>(
        &self,
        mut plan: impl FnMut(&S) -> Result<Plan<T>, E>,
    ) -> Result<(Revision, T), E> {
        let mut turn = None;
        for _ in 0..MAX_ATTEMPTS {
            let (Plan { txn, value }, seen) = {
                let held = self.held();
                (plan(&held.state)?, held.revision)
            };
            if txn.ops.is_empty() {
                return Ok((seen, value));
            }
            match self.store.commit(txn).await? {
                Outcome::Committed(revision) => {
                    self.applied(revision).await?;
                    return Ok((revision, value));
                }
                // What the plan rests on was changed after `seen`, so at least one commit follows.
                Outcome::Conflict => self.applied(seen + 1).await?,
            }
            if turn.is_none() {
                turn = Some(self.turn.lock().await);
            }
        }
        Err(StoreError::Contended.into())
    }

    /// Applies what the store commits, until it stops. `tell` is called after each commit, when reads
    /// show it, and must not block.
    pub async fn follow(&self, mut feed: Feed, tell: impl Fn(S::Effects)) {
        loop {
            let step = match feed.watch.recv().await {
                Ok(commit) => self.apply(&commit),
                Err(StoreError::Compacted(_)) => self.relist(&mut feed.watch).await,
                Err(error) => Err(error),
            };
            match step {
                Ok((revision, effects)) => {
                    tell(effects);
                    feed.applied.send_replace(revision);
                }
                Err(error) => {
                    tracing::error!(%error, prefix = self.prefix, "the store is not followed any more");
                    return;
                }
            }
        }
    }

    fn apply(&self, commit: &Commit) -> Result<(Revision, S::Effects), StoreError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.revision = commit.revision;
        Ok((commit.revision, held.state.apply(commit, Instant::now())))
    }

    async fn relist(&self, watch: &mut Watch) -> Result<(Revision, S::Effects), StoreError> {
        let image = self.store.load(self.prefix).await?;
        *watch = self.store.watch(self.prefix, image.revision).await?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.revision = image.revision;
        Ok((image.revision, held.state.catch_up(&image, Instant::now())?))
    }

    async fn applied(&self, revision: Revision) -> Result<(), StoreError> {
        let mut applied = self.applied.clone();
        let stopped = |_| StoreError::Stopped("it is not followed any more".to_owned());
        applied.wait_for(|now| *now >= revision).await.map(drop).map_err(stopped)
    }

    fn held(&self) -> RwLockReadGuard<'_, Held<S>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commit that leads from what is held, by key and version, to an image of the store.
#[must_use]
pub fn difference(versions: &HashMap<String, Revision>, image: &Image) -> Commit {
    let mut gone = versions.clone();
    let mut changes: Vec<(String, Option<Entry>)> = Vec::new();
    for entry in &image.entries {
        if gone.remove(&entry.key) != Some(entry.modified) {
            changes.push((entry.key.clone(), Some(entry.clone())));
        }
    }
    changes.extend(gone.into_keys().map(|key| (key, None)));
    Commit { revision: image.revision, changes }
}
