//! Keys and sessions in memory, and what one commit does to them. Pure: no store, no waiting; time is
//! passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delays::Delays;
use super::graveyard::Graveyard;
use super::record::{Key, read_entry, read_session};
use super::{Entry, Session, SessionId};
use crate::model::NodeName;
use crate::store::replica::{Follow, difference};
use crate::store::{self, Commit, Image, Revision, StoreError};

#[derive(Debug)]
pub(super) struct State {
    /// Every key of ours in the store and when it was last written, for compare-and-set.
    versions: HashMap<String, Revision>,
    pub(super) entries: BTreeMap<String, Arc<Entry>>,
    /// Of all keys and values together.
    pub(super) bytes: usize,
    pub(super) sessions: BTreeMap<SessionId, Arc<Session>>,
    /// The keys that each session has locked.
    pub(super) locks: HashMap<SessionId, BTreeSet<String>>,
    graves: Graveyard,
    sessions_index: Revision,
    delays: Delays,
}

/// What a commit means to others.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) keys: Vec<String>,
    /// Sessions that came (with their period, if they have one) and went.
    pub(super) sessions: Vec<(SessionId, Option<Option<Duration>>)>,
}

/// One decoded change of a commit.
enum Write {
    Entry(String, Option<Entry>),
    Session(SessionId, Option<Session>),
}

impl State {
    /// The state that an image of the store describes.
    ///
    /// # Errors
    /// `Damaged` when a value cannot be read.
    pub(super) fn load(image: &Image, now: Instant) -> Result<Self, StoreError> {
        let mut state = Self {
            versions: HashMap::new(),
            entries: BTreeMap::new(),
            bytes: 0,
            sessions: BTreeMap::new(),
            locks: HashMap::new(),
            graves: Graveyard::new(image.revision),
            sessions_index: image.revision.max(1),
            delays: Delays::default(),
        };
        for stored in &image.entries {
            if let Some(write) = Write::read(&stored.key, Some(stored))? {
                state.versions.insert(stored.key.clone(), stored.modified);
                state.write(write, image.revision, now, &mut Effects::default());
            }
        }
        Ok(state)
    }

    /// The version of a key of the store; 0 when it is not there.
    pub(super) fn version(&self, key: &str) -> Revision {
        self.versions.get(key).copied().unwrap_or(0)
    }

    /// Entries under a prefix, in the order of their keys.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        under(&self.entries, prefix).map(|(_, entry)| entry)
    }

    /// Keys under a prefix; those that go on behind a separator are cut after it and come once.
    pub(super) fn keys(&self, prefix: &str, separator: &str) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for entry in self.under(prefix) {
            let rest = &entry.key[prefix.len()..];
            let cut = Some(separator).filter(|s| !s.is_empty()).and_then(|s| rest.find(s));
            let end = cut.map_or(entry.key.len(), |at| prefix.len() + at + separator.len());
            let key = &entry.key[..end];
            if keys.last().is_none_or(|last| last != key) {
                keys.push(key.to_owned());
            }
        }
        keys
    }

    pub(super) fn key_index(&self, key: &str) -> Revision {
        self.entries.get(key).map_or_else(|| self.graves.of(key), |entry| entry.modified)
    }

    pub(super) fn prefix_index(&self, prefix: &str) -> Revision {
        let newest = self.under(prefix).map(|entry| entry.modified).max();
        newest.unwrap_or(0).max(self.graves.under(prefix))
    }

    pub(super) const fn sessions_index(&self) -> Revision {
        self.sessions_index
    }

    pub(super) fn sessions_on(&self, node: Option<&NodeName>) -> Vec<Arc<Session>> {
        let wanted = |session: &&Arc<Session>| node.is_none_or(|node| session.node == *node);
        self.sessions.values().filter(wanted).cloned().collect()
    }

    /// Whether a lock-delay forbids to take a lock.
    pub(super) fn is_delayed(&self, key: &str, now: Instant) -> bool {
        self.delays.holds(key, now)
    }

    /// Sessions that hold locks and are gone, because the process ended in between.
    pub(super) fn orphans(&self) -> Vec<SessionId> {
        self.locks.keys().filter(|id| !self.sessions.contains_key(*id)).cloned().collect()
    }

    fn write(&mut self, write: Write, revision: Revision, now: Instant, effects: &mut Effects) {
        match write {
            Write::Entry(key, new) => {
                self.write_entry(&key, new, revision);
                effects.keys.push(key);
            }
            Write::Session(id, new) => {
                self.sessions_index = self.sessions_index.max(revision);
                let period = new.as_ref().map(Session::period);
                match new {
                    Some(session) => drop(self.sessions.insert(id.clone(), Arc::new(session))),
                    None => self.end(&id, now),
                }
                effects.sessions.push((id, period));
            }
        }
    }

    fn write_entry(&mut self, key: &str, new: Option<Entry>, revision: Revision) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= weight(&old);
            self.unlock(&old);
        }
        let Some(new) = new else {
            self.graves.bury(key, revision);
            return;
        };
        self.graves.dig_up(key);
        self.bytes += weight(&new);
        if let Some(session) = &new.session {
            self.locks.entry(session.clone()).or_default().insert(key.to_owned());
        }
        self.entries.insert(key.to_owned(), Arc::new(new));
    }

    fn unlock(&mut self, entry: &Entry) {
        let Some(session) = &entry.session else { return };
        if let Some(keys) = self.locks.get_mut(session) {
            keys.remove(&entry.key);
            if keys.is_empty() {
                self.locks.remove(session);
            }
        }
    }

    /// A session is gone: whatever it had locked is not to be locked for a while.
    fn end(&mut self, id: &str, now: Instant) {
        let Some(session) = self.sessions.remove(id) else { return };
        let keys = self.locks.get(id).into_iter().flatten().cloned();
        self.delays.start(keys, session.lock_delay, now);
    }
}

impl Follow for State {
    type Effects = Effects;

    fn apply(&mut self, commit: &Commit, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let mut writes = Vec::with_capacity(commit.changes.len());
        for (key, entry) in &commit.changes {
            match Write::read(key, entry.as_ref()) {
                Ok(Some(write)) => writes.push(write),
                Ok(None) => continue,
                Err(error) => tracing::error!(%error, "a record of the key-value store is left out"),
            }
            // Also of a record that is left out, so that it can be replaced.
            match entry {
                Some(entry) => self.versions.insert(key.clone(), entry.modified),
                None => self.versions.remove(key),
            };
        }
        // Sessions first: what an ended one holds is known only until its keys are released.
        writes.sort_by_key(|write| matches!(write, Write::Entry(..)));
        for write in writes {
            self.write(write, commit.revision, now, &mut effects);
        }
        effects
    }

    fn catch_up(&mut self, image: &Image, now: Instant) -> Result<Effects, StoreError> {
        Ok(self.apply(&difference(&self.versions, image), now))
    }
}

impl Write {
    /// `None` when the key is not of ours.
    fn read(text: &str, stored: Option<&store::Entry>) -> Result<Option<Self>, StoreError> {
        Ok(match Key::parse(text) {
            None => None,
            Some(Key::Entry(key)) => {
                let entry = stored.map(|stored| read_entry(key.clone(), stored)).transpose()?;
                Some(Self::Entry(key, entry))
            }
            Some(Key::Session(id)) => {
                let session = stored.map(|stored| read_session(id.clone(), stored)).transpose()?;
                Some(Self::Session(id, session))
            }
        })
    }
}

/// The part of a map whose keys begin with a prefix, in order.
pub(super) fn under<'a, V>(
    map: &'a BTreeMap<String, V>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a String, &'a V)> {
    let from = map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    from.take_while(move |(key, _)| key.starts_with(prefix))
}

/// What an entry counts toward the limit.
pub(super) fn weight(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len()
}
