//! The index of each topic, by Consul's rules: an index is about one result, not about the whole
//! catalog. Pure.
//!
//! Invariants: no index is ever 0, and none goes backwards within an epoch: what is not known after a
//! restart counts as changed at the revision that was loaded.

use std::collections::HashMap;

use crate::model::ServiceName;
use crate::store::Revision;

/// What a blocking query waits on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Instances of a service and checks that count for them.
    Service(ServiceName),
    /// Sidecars (and natives) in front of a service.
    Connect(ServiceName),
    /// The list of services and their tags.
    Services,
    Nodes,
    Checks,
    Intentions,
}

/// What an answer about a topic was made of. As long as it is the same, so is everything there is to read of
/// the topic, and once another took its place it never comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    index: Revision,
    wording: u64,
}

#[cfg(test)]
impl Edition {
    pub(crate) const fn numbered(wording: u64) -> Self {
        Self { index: 1, wording }
    }
}

/// The indexes of all topics.
#[derive(Debug)]
pub(super) struct Indexes {
    /// Nothing is older than what was loaded.
    floor: Revision,
    /// Topics that changed since. A service without instances has none: the extinction index counts.
    changed: HashMap<Topic, Revision>,
    /// When a service last lost its last instance.
    extinction: Revision,
    /// How often outputs of checks that count for a topic changed, which moves no index. Begins anew when
    /// the service does: by then its index is another.
    wording: HashMap<Topic, u64>,
}

impl Indexes {
    pub(super) fn new(loaded: Revision) -> Self {
        let floor = loaded.max(1);
        Self { floor, changed: HashMap::new(), extinction: floor, wording: HashMap::new() }
    }

    /// The index of a topic. `present` says whether a service topic has any instance.
    pub(super) fn get(&self, topic: &Topic, present: bool) -> Revision {
        match topic {
            Topic::Service(_) | Topic::Connect(_) if !present => self.extinction,
            _ => self.changed.get(topic).copied().unwrap_or(self.floor),
        }
    }

    pub(super) fn edition(&self, topic: &Topic, present: bool) -> Edition {
        let wording = self.wording.get(topic).copied().unwrap_or_default();
        Edition { index: self.get(topic, present), wording }
    }

    /// Notes that an output changed.
    pub(super) fn reword(&mut self, topic: Topic) {
        *self.wording.entry(topic).or_default() += 1;
    }

    /// Notes a change of a topic that has something to show.
    pub(super) fn bump(&mut self, topic: Topic, revision: Revision) {
        self.changed.insert(topic, revision);
    }

    /// Notes that a service topic has lost its last instance.
    pub(super) fn extinct(&mut self, topic: &Topic, revision: Revision) {
        self.changed.remove(topic);
        self.wording.remove(topic);
        self.extinction = revision;
    }
}
