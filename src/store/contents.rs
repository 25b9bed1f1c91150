//! What a store holds in memory, and the rules of a transaction. Pure: no I/O, no waiting.
//!
//! Used by `memory` and `redb`. A group of transactions is staged first (conditions are judged one
//! after the other, each on top of those before it) and applied later, once it is kept; readers never
//! see a staged commit. Invariant: revisions in the log have no gaps.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{Commit, Entry, Image, MAX_KEY_BYTES, MAX_TXN_BYTES, Op, Revision, StoreError, Txn};

/// Most changes the log of recent commits holds. A watcher that falls further behind loads anew.
pub(super) const LOG_CHANGES: usize = 100_000;
/// Most bytes of keys and values the log holds.
pub(super) const LOG_BYTES: usize = 64 << 20;

/// Everything in a store, and its recent past.
#[derive(Debug)]
pub(super) struct Contents {
    epoch: u64,
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    log: VecDeque<Arc<Commit>>,
    log_changes: usize,
    log_bytes: usize,
}

impl Contents {
    pub(super) fn new(epoch: u64, revision: Revision, entries: BTreeMap<String, Entry>) -> Self {
        Self { epoch, revision, entries, log: VecDeque::new(), log_changes: 0, log_bytes: 0 }
    }

    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Everything under a prefix, in the order of the keys.
    pub(super) fn image(&self, prefix: &str) -> Image {
        let range = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let entries = range
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Image { epoch: self.epoch, revision: self.revision, entries }
    }

    /// Begins a group of transactions on top of what is there.
    pub(super) fn stage(&self) -> Stage<'_> {
        Stage { base: self, revision: self.revision, written: HashMap::new() }
    }

    /// Takes a staged commit that is now kept. Commits must come in the order they were staged in.
    pub(super) fn apply(&mut self, commit: Commit) {
        debug_assert_eq!(commit.revision, self.revision + 1, "commits have no gaps");
        self.revision = commit.revision;
        for (key, entry) in &commit.changes {
            match entry {
                Some(entry) => drop(self.entries.insert(key.clone(), entry.clone())),
                None => drop(self.entries.remove(key)),
            }
        }
        self.log_changes += commit.changes.len();
        self.log_bytes += weight(&commit);
        self.log.push_back(Arc::new(commit));
        while self.log_changes > LOG_CHANGES || self.log_bytes > LOG_BYTES {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_changes -= oldest.changes.len();
            self.log_bytes -= weight(&oldest);
        }
    }

    /// The commit that follows `after`, or `None` when there is none yet.
    ///
    /// # Errors
    /// `Compacted` when the log does not reach back so far.
    pub(super) fn after(&self, after: Revision) -> Result<Option<Arc<Commit>>, StoreError> {
        if after >= self.revision {
            return Ok(None);
        }
        let first = self.log.front().map_or(self.revision + 1, |commit| commit.revision);
        let place = (after + 1).checked_sub(first).ok_or(StoreError::Compacted(after))?;
        let place = usize::try_from(place).map_err(|_| StoreError::Compacted(after))?;
        self.log.get(place).cloned().map(Some).ok_or(StoreError::Compacted(after))
    }
}

/// A group of transactions that is being judged.
pub(super) struct Stage<'a> {
    base: &'a Contents,
    revision: Revision,
    /// Keys written by this group: when they were created and modified, or that they are gone.
    written: HashMap<String, Option<(Revision, Revision)>>,
}

impl Stage<'_> {
    /// The revision after the commits staged so far.
    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Judges one transaction. `None` when a condition does not hold. A transaction without writes
    /// gives a commit without changes and takes no revision.
    pub(super) fn judge(&mut self, txn: Txn) -> Option<Commit> {
        let holds = |(key, expected): &(String, Revision)| {
            self.times(key).map_or(0, |(_, modified)| modified) == *expected
        };
        if !txn.conditions.iter().all(holds) {
            return None;
        }
        if txn.ops.is_empty() {
            return Some(Commit { revision: self.revision, changes: Vec::new() });
        }
        self.revision += 1;
        let changes = txn.ops.into_iter().map(|op| self.change(op)).collect();
        Some(Commit { revision: self.revision, changes })
    }

    fn change(&mut self, op: Op) -> (String, Option<Entry>) {
        match op {
            Op::Put { key, value } => {
                let created = self.times(&key).map_or(self.revision, |(created, _)| created);
                self.written.insert(key.clone(), Some((created, self.revision)));
                let entry = Entry { key: key.clone(), value, created, modified: self.revision };
                (key, Some(entry))
            }
            Op::Delete { key } => {
                self.written.insert(key.clone(), None);
                (key, None)
            }
        }
    }

    fn times(&self, key: &str) -> Option<(Revision, Revision)> {
        match self.written.get(key) {
            Some(times) => *times,
            None => self.base.entries.get(key).map(|entry| (entry.created, entry.modified)),
        }
    }
}

/// Refuses a transaction that is too large for any store.
pub(super) fn check_size(txn: &Txn) -> Result<(), StoreError> {
    let mut bytes = 0_usize;
    for op in &txn.ops {
        let (key, value) = match op {
            Op::Put { key, value } => (key, value.len()),
            Op::Delete { key } => (key, 0),
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::TooLarge { bytes: key.len() });
        }
        bytes += key.len() + value;
    }
    if bytes > MAX_TXN_BYTES { Err(StoreError::TooLarge { bytes }) } else { Ok(()) }
}

fn weight(commit: &Commit) -> usize {
    let value = |entry: &Option<Entry>| entry.as_ref().map_or(0, |e| Bytes::len(&e.value));
    commit.changes.iter().map(|(key, entry)| key.len() + value(entry)).sum()
}
