//! A store that keeps nothing beyond the process: for `weft dev` and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contents::{Contents, check_size};
use super::watch::Shared;
use super::{Outcome, Revision, Store, StoreError, StoreFuture, Txn, Watch};

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store with an epoch of its own.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Shared::new(Contents::new(super::new_epoch(), 0, BTreeMap::new())) }
    }

    fn commit_now(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_size(&txn)?;
        Ok(self.shared.write(|contents| {
            let Some(commit) = contents.stage().judge(txn) else { return Outcome::Conflict };
            let revision = commit.revision;
            if !commit.changes.is_empty() {
                contents.apply(commit);
            }
            Outcome::Committed(revision)
        }))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.stop("it was closed");
    }
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, super::Image> {
        Box::pin(async move { Ok(self.shared.image(prefix)) })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        Box::pin(async move { self.commit_now(txn) })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(async move { self.shared.watch(prefix, after) })
    }
}
