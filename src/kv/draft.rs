//! A transaction in the making: the state as it would be after it. Pure.
//!
//! A draft names the version of everything it looked at, so that the store refuses it when somebody
//! was faster.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::limits::{MAX_BYTES, MAX_KEYS};
use super::record::{Key, write_entry};
use super::state::{State, under, weight};
use super::{Entry, KvError};
use crate::store::{Op, Revision, Txn};

/// Index of what a draft writes: not known before it is committed. See [`settle`].
pub(super) const PENDING: Revision = Revision::MAX;

pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) now: Instant,
    conditions: BTreeMap<String, Revision>,
    written: BTreeMap<String, Option<Arc<Entry>>>,
}

impl<'a> Draft<'a> {
    pub(super) const fn new(state: &'a State, now: Instant) -> Self {
        Self { state, now, conditions: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// An entry as this transaction sees it.
    pub(super) fn get(&mut self, key: &str) -> Option<Arc<Entry>> {
        self.rest_on(&Key::Entry(key.to_owned()));
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.state.entries.get(key).cloned(),
        }
    }

    /// All entries under a prefix as this transaction sees them.
    pub(super) fn under(&mut self, prefix: &str) -> Vec<Arc<Entry>> {
        let mut all: BTreeMap<String, Arc<Entry>> =
            self.state.under(prefix).map(|entry| (entry.key.clone(), Arc::clone(entry))).collect();
        for (key, written) in under(&self.written, prefix) {
            match written {
                Some(entry) => drop(all.insert(key.clone(), Arc::clone(entry))),
                None => drop(all.remove(key)),
            }
        }
        for key in all.keys() {
            self.rest_on(&Key::Entry(key.clone()));
        }
        all.into_values().collect()
    }

    /// Whether a session is there, and will be when this is committed.
    pub(super) fn has_session(&mut self, id: &str) -> bool {
        self.rest_on(&Key::Session(id.to_owned()));
        self.state.sessions.contains_key(id)
    }

    /// Locks of a session, those of this transaction left out.
    pub(super) fn locks_of(&self, id: &str) -> usize {
        self.state.locks.get(id).map_or(0, std::collections::BTreeSet::len)
    }

    /// Writes an entry; one that is what it was keeps its index and writes nothing.
    pub(super) fn put(&mut self, entry: Entry) -> Arc<Entry> {
        let old = self.get(&entry.key);
        let created = old.as_ref().map_or(PENDING, |old| old.created);
        if let Some(old) = old {
            let unchanged = Entry { created, modified: old.modified, ..entry.clone() };
            if *old == unchanged {
                return old;
            }
        }
        let entry = Arc::new(Entry { created, modified: PENDING, ..entry });
        self.written.insert(entry.key.clone(), Some(Arc::clone(&entry)));
        entry
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.get(key).is_some() {
            self.written.insert(key.to_owned(), None);
        }
    }

    /// The transaction.
    ///
    /// # Errors
    /// `Full` when it would not leave the store within its limits.
    pub(super) fn finish(self) -> Result<Txn, KvError> {
        let (mut keys, mut bytes) = (self.state.entries.len(), self.state.bytes);
        let mut ops = Vec::with_capacity(self.written.len());
        let mut grows = false;
        for (key, written) in self.written {
            let old = self.state.entries.get(&key);
            (keys, bytes) =
                (keys - usize::from(old.is_some()), bytes - old.map_or(0, |old| weight(old)));
            let place = Key::Entry(key).encode();
            match written {
                Some(entry) => {
                    (keys, bytes) = (keys + 1, bytes + weight(&entry));
                    grows |= old.is_none_or(|old| weight(old) < weight(&entry));
                    if entry.created == PENDING && old.is_some() {
                        // Deleted and set again: it begins anew.
                        ops.push(Op::Delete { key: place.clone() });
                    }
                    ops.push(Op::Put { key: place, value: write_entry(&entry) });
                }
                None if old.is_some() => ops.push(Op::Delete { key: place }),
                None => {}
            }
        }
        match grows {
            true if keys > MAX_KEYS => Err(KvError::Full("too many keys")),
            true if bytes > MAX_BYTES => Err(KvError::Full("too many bytes")),
            _ => Ok(Txn { conditions: self.conditions.into_iter().collect(), ops }),
        }
    }

    fn rest_on(&mut self, key: &Key) {
        let key = key.encode();
        let version = self.state.version(&key);
        self.conditions.insert(key, version);
    }
}

/// Puts the revision of the commit where a draft could not know it.
pub(super) fn settle(entry: &Entry, revision: Revision) -> Entry {
    let settled = |at| if at == PENDING { revision } else { at };
    Entry { created: settled(entry.created), modified: settled(entry.modified), ..entry.clone() }
}
