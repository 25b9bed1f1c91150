//! Keys, leases and revisions in memory, and what one commit does to them. Pure: no store, no clock.
//!
//! Revisions are etcd's: 1 when nothing was ever written, one more with every request that changes
//! something. Invariant: a key's lease exists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::fault::Fault;
use super::history::{Event, History};
use super::record::{Place, REVISION, read_key, read_number};
use super::span::Span;
use crate::pb::etcd::mvccpb::KeyValue;
use crate::store::replica::Follow;
use crate::store::{Commit, Image, Revision, StoreError};

/// The revision of keys that nobody ever wrote.
const FIRST: i64 = 1;

#[derive(Debug)]
pub(super) struct Keyspace {
    /// Every key of ours in the store and when it was last written.
    versions: HashMap<String, Revision>,
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<Bytes, Arc<KeyValue>>,
    /// Of all keys and values together.
    pub(super) bytes: usize,
    /// Periods in seconds.
    pub(super) leases: BTreeMap<i64, i64>,
    attached: HashMap<i64, BTreeSet<Bytes>>,
    history: History,
    /// What was compacted by a client; older states are not shown even where they are known.
    compacted: i64,
}

/// What a commit means to others.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) revision: i64,
    /// Leases that came (with their period in seconds) and went.
    pub(super) leases: Vec<(i64, Option<i64>)>,
}

impl Keyspace {
    /// The keyspace that an image of the store describes.
    ///
    /// # Errors
    /// `Damaged` when a value cannot be read.
    pub(super) fn load(image: &Image) -> Result<Self, StoreError> {
        let mut space = Self {
            versions: HashMap::new(),
            revision: FIRST,
            keys: BTreeMap::new(),
            bytes: 0,
            leases: BTreeMap::new(),
            attached: HashMap::new(),
            history: History::new(FIRST),
            compacted: 0,
        };
        for entry in &image.entries {
            match Place::parse(&entry.key) {
                None => continue,
                Some(Place::Key(key)) => {
                    space.replace(key, Some(Arc::new(read_key(&entry.key, &entry.value)?)));
                }
                Some(Place::Lease(id)) => {
                    space.leases.insert(id, read_number(&entry.key, &entry.value)?);
                }
                Some(Place::Revision) => space.revision = read_number(&entry.key, &entry.value)?,
            }
            space.versions.insert(entry.key.clone(), entry.modified);
        }
        space.history = History::new(space.revision);
        Ok(space)
    }

    /// When the revision was last written to the store; 0 when it never was.
    pub(super) fn revision_version(&self) -> Revision {
        self.versions.get(REVISION).copied().unwrap_or(0)
    }

    /// Keys attached to a lease, in order.
    pub(super) fn attached(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.attached.get(&lease).into_iter().flatten()
    }

    /// The keys of a span at a revision; 0 and less is now.
    pub(super) fn at(&self, span: &Span, revision: i64) -> Result<Vec<Arc<KeyValue>>, Fault> {
        self.check_revision(revision)?;
        let now = span.of(&self.keys).map(|(_, kv)| Arc::clone(kv));
        if revision <= 0 || revision == self.revision {
            return Ok(now.collect());
        }
        Ok(self.history.rewind(span, now, revision))
    }

    /// Whether the state at a revision is known.
    pub(super) fn check_revision(&self, revision: i64) -> Result<(), Fault> {
        if revision > self.revision {
            return Err(Fault::FutureRevision);
        }
        if revision > 0 && revision < self.compacted.max(self.history.floor()) {
            return Err(Fault::Compacted);
        }
        Ok(())
    }

    /// Events from a revision on, in their order.
    ///
    /// # Errors
    /// The first revision that can still be watched from.
    pub(super) fn events(&self, from: i64) -> Result<impl Iterator<Item = &Event>, i64> {
        let first = self.history.floor() + 1;
        if from < first { Err(first) } else { Ok(self.history.from(from)) }
    }

    /// Forgets what is older than a revision.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Fault> {
        if revision > self.revision {
            return Err(Fault::FutureRevision);
        }
        if revision <= self.compacted || revision < self.history.floor() {
            return Err(Fault::Compacted);
        }
        self.compacted = revision;
        self.history.forget(revision - 1);
        Ok(())
    }

    /// Puts a key or takes it out; returns what was there.
    fn replace(&mut self, key: Bytes, new: Option<Arc<KeyValue>>) -> Option<Arc<KeyValue>> {
        let old = self.keys.remove(&key);
        if let Some(old) = &old {
            self.bytes -= weight(old);
            if let Some(attached) = self.attached.get_mut(&old.lease) {
                attached.remove(&key);
                if attached.is_empty() {
                    self.attached.remove(&old.lease);
                }
            }
        }
        if let Some(new) = new {
            self.bytes += weight(&new);
            if new.lease != 0 {
                self.attached.entry(new.lease).or_default().insert(key.clone());
            }
            self.keys.insert(key, new);
        }
        old
    }

    /// The changes of one revision.
    fn advance(&mut self, revision: i64, changes: impl Iterator<Item = (Bytes, Option<Arc<KeyValue>>)>) {
        self.revision = revision;
        for (key, new) in changes {
            let old = self.replace(key.clone(), new.clone());
            self.history.push(Event { revision, key, new, old });
        }
    }

    fn write(
        &mut self,
        place: &str,
        value: Option<&Bytes>,
        pending: &mut Vec<(Bytes, Option<Arc<KeyValue>>)>,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        match (Place::parse(place), value) {
            (None, _) | (Some(Place::Revision), None) => {}
            (Some(Place::Key(key)), value) => {
                let new = value.map(|value| read_key(place, value)).transpose()?;
                pending.push((key, new.map(Arc::new)));
            }
            (Some(Place::Lease(id)), Some(value)) => {
                let ttl_s = read_number(place, value)?;
                self.leases.insert(id, ttl_s);
                effects.leases.push((id, Some(ttl_s)));
            }
            (Some(Place::Lease(id)), None) => {
                self.leases.remove(&id);
                effects.leases.push((id, None));
            }
            (Some(Place::Revision), Some(value)) => {
                let revision = read_number(place, value)?;
                self.advance(revision, pending.drain(..));
            }
        }
        Ok(())
    }
}

impl Follow for Keyspace {
    type Effects = Effects;

    fn apply(&mut self, commit: &Commit, _now: Instant) -> Effects {
        let (mut effects, mut pending) = (Effects::default(), Vec::new());
        for (place, entry) in &commit.changes {
            let value = entry.as_ref().map(|entry| &entry.value);
            if let Err(error) = self.write(place, value, &mut pending, &mut effects) {
                tracing::error!(%error, "a record of the etcd keys is left out");
            }
            match entry {
                Some(entry) => self.versions.insert(place.clone(), entry.modified),
                None => self.versions.remove(place),
            };
        }
        if !pending.is_empty() {
            tracing::error!(
                changes = pending.len(),
                "changes of etcd keys without a revision are left out"
            );
        }
        effects.revision = self.revision;
        effects
    }

    /// What happened in between is not known one by one: watches begin anew.
    fn catch_up(&mut self, image: &Image, _now: Instant) -> Result<Effects, StoreError> {
        let fresh = Self::load(image)?;
        let gone = self.leases.keys().filter(|id| !fresh.leases.contains_key(id)).map(|id| (*id, None));
        let leases = gone.chain(fresh.leases.iter().map(|(id, ttl)| (*id, Some(*ttl)))).collect();
        *self = fresh;
        Ok(Effects { revision: self.revision, leases })
    }
}

/// What a key counts toward the limit.
pub(super) fn weight(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}
