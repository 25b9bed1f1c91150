//! Following a store: the contents that the store and its watchers share, and a watcher's place in
//! the log of recent commits.
//!
//! A watcher pulls, so a slow one costs nothing; when the log has moved past it, it is told so.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::contents::Contents;
use super::{Commit, Image, Revision, StoreError};

/// How far a store has come, for those who wait.
#[derive(Debug, Clone)]
enum Progress {
    At(Revision),
    Stopped(Arc<str>),
}

/// What a store shares with its watchers.
#[derive(Debug)]
pub(super) struct Shared {
    contents: RwLock<Contents>,
    progress: watch::Sender<Progress>,
}

impl Shared {
    pub(super) fn new(contents: Contents) -> Arc<Self> {
        let progress = watch::Sender::new(Progress::At(contents.revision()));
        Arc::new(Self { contents: RwLock::new(contents), progress })
    }

    /// What is there, for reading. Hold it briefly and never across an await.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies whole commits that are now kept and tells the watchers.
    pub(super) fn apply(&self, commits: Vec<Commit>) {
        self.write(|contents| commits.into_iter().for_each(|commit| contents.apply(commit)));
    }

    /// Changes the contents under the lock and tells the watchers.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut contents);
        let revision = contents.revision();
        drop(contents);
        self.progress.send_if_modified(|progress| match progress {
            Progress::At(old) if *old < revision => {
                *old = revision;
                true
            }
            _ => false,
        });
        result
    }

    /// Ends all watches after the last commit. The first reason stays.
    pub(super) fn stop(&self, reason: &str) {
        self.progress.send_if_modified(|progress| {
            let running = matches!(progress, Progress::At(_));
            if running {
                *progress = Progress::Stopped(reason.into());
            }
            running
        });
    }

    /// Why the store has stopped, if it has.
    ///
    /// # Errors
    /// `Stopped` with that reason.
    pub(super) fn running(&self) -> Result<(), StoreError> {
        match &*self.progress.borrow() {
            Progress::At(_) => Ok(()),
            Progress::Stopped(reason) => Err(StoreError::Stopped(reason.to_string())),
        }
    }

    pub(super) fn image(&self, prefix: &str) -> Image {
        self.read().image(prefix)
    }

    /// Begins to watch.
    ///
    /// # Errors
    /// `Compacted` when the log does not reach back to `after`.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.read().after(after)?;
        let progress = self.progress.subscribe();
        Ok(Watch { shared: Arc::clone(self), prefix: prefix.to_owned(), after, progress })
    }
}

/// Every commit after the revision asked for, in order.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    prefix: String,
    after: Revision,
    progress: watch::Receiver<Progress>,
}

impl Watch {
    /// Waits for the next commit that touches the prefix; it carries only the changes under it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `Compacted` when this watcher has fallen behind the log: load the store again and watch from
    /// there. `Stopped` after the last commit of a store that has stopped.
    pub async fn recv(&mut self) -> Result<Commit, StoreError> {
        loop {
            self.progress.borrow_and_update();
            if let Some(commit) = self.try_recv()? {
                return Ok(commit);
            }
            self.shared.running()?;
            // The sender lives in `shared`, which this watch holds: it cannot be gone.
            self.progress.changed().await.map_err(|e| StoreError::Stopped(e.to_string()))?;
        }
    }

    /// The next commit that touches the prefix, if there is one already.
    ///
    /// # Errors
    /// `Compacted` as in `recv`.
    pub fn try_recv(&mut self) -> Result<Option<Commit>, StoreError> {
        let contents = self.shared.read();
        while let Some(commit) = contents.after(self.after)? {
            self.after = commit.revision;
            let under = |(key, _): &&(String, _)| key.starts_with(&self.prefix);
            let changes: Vec<_> = commit.changes.iter().filter(under).cloned().collect();
            if !changes.is_empty() {
                return Ok(Some(Commit { revision: commit.revision, changes }));
            }
        }
        Ok(None)
    }
}
