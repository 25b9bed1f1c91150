//! One decoded change of a commit, and what it does to the state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::index::Topic;
use super::key::{Key, StoredInstance, StoredLease, StoredNode, decode};
use super::resource::Resource;
use super::state::{Effects, IntentionRecord, NodeState, State, endpoint_of, is_front};
use super::{CheckRecord, InstanceRecord, LeaseId, Owner, node};
use crate::model::ban::Subject;
use crate::model::{Ban, Check, CheckId, EndpointId, Instance, InstanceId, Intention, NodeName, Party};
use crate::store::{Entry, Revision, StoreError};

/// One decoded change of a commit.
pub(super) enum Write {
    Node(NodeName, Option<StoredNode>),
    Instance(EndpointId, Option<StoredInstance>),
    /// Boxed: it is much larger than the others.
    Check(NodeName, CheckId, Option<Box<Check>>),
    Intention(Party, Party, Option<Intention>),
    Lease(LeaseId, Option<Duration>),
    Ban(Subject, Option<Ban>),
}

/// When the entry behind a write was created and modified.
#[derive(Clone, Copy)]
pub(super) struct Times {
    created: Revision,
    modified: Revision,
}

impl State {
    pub(super) fn write(&mut self, write: Write, times: Times, effects: &mut Effects) {
        match write {
            Write::Node(name, new) => {
                self.nodes.entry(name.clone()).or_default().own = new;
                self.refresh_node(&name, times, effects);
            }
            Write::Instance(id, new) => self.write_instance(&id, new, times, effects),
            Write::Check(node, id, new) => {
                self.write_check(&node, id, new.map(|check| *check), times, effects);
            }
            Write::Intention(source, destination, new) => {
                effects.topics.insert(Topic::Intentions);
                self.write_intention(source, destination, new, times);
            }
            Write::Ban(subject, new) => self.write_ban(subject, new),
            Write::Lease(id, ttl) => {
                match ttl {
                    Some(ttl) => self.leases.insert(id, ttl),
                    None => self.leases.remove(&id),
                };
                effects.leases.push((id, ttl));
            }
        }
    }

    fn write_instance(
        &mut self,
        id: &EndpointId,
        new: Option<StoredInstance>,
        times: Times,
        effects: &mut Effects,
    ) {
        let old = self.nodes.entry(id.node.clone()).or_default().instances.remove(&id.instance);
        if let Some(old) = &old {
            self.unlink(id, old);
        }
        let same = match (&old, &new) {
            (Some(old), Some(new)) => *old.instance == new.instance,
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            effects.topics.insert(Topic::Services);
            let new = new.as_ref().map(|new| &new.instance);
            for instance in old.as_ref().map(|old| &*old.instance).into_iter().chain(new) {
                effects.topics.extend(topics_of(instance));
            }
        }
        if let Some(StoredInstance { instance, lease }) = new {
            let modified = old.filter(|_| same).map_or(times.modified, |old| old.modified);
            let owner = lease.map_or(Owner::Permanent, Owner::Lease);
            let instance = Arc::new(instance);
            let record = InstanceRecord { instance, owner, created: times.created, modified };
            self.link(id, &record);
            let state = self.nodes.entry(id.node.clone()).or_default();
            state.instances.insert(id.instance.clone(), record);
        }
        self.refresh_node(&id.node, times, effects);
    }

    fn link(&mut self, id: &EndpointId, record: &InstanceRecord) {
        let instance = &record.instance;
        self.instance_count += 1;
        self.services.entry(instance.name.clone()).or_default().insert(id.clone());
        if is_front(instance) {
            let (service, application) = endpoint_of(instance);
            let fronts = self.connect.entry(service).or_default().entry(application).or_default();
            fronts.insert(id.instance.clone());
        }
        if let Owner::Lease(lease) = record.owner {
            self.owned.entry(lease).or_default().insert(id.clone());
        }
    }

    fn unlink(&mut self, id: &EndpointId, record: &InstanceRecord) {
        let instance = &record.instance;
        self.instance_count -= 1;
        remove_from(&mut self.services, &instance.name, id);
        if is_front(instance) {
            let (service, application) = endpoint_of(instance);
            if let Some(applications) = self.connect.get_mut(&service) {
                remove_from(applications, &application, &id.instance);
                if applications.is_empty() {
                    self.connect.remove(&service);
                }
            }
        }
        if let Owner::Lease(lease) = record.owner
            && let Some(owned) = self.owned.get_mut(&lease)
        {
            owned.remove(id);
            if owned.is_empty() {
                self.owned.remove(&lease);
            }
        }
    }

    fn write_check(
        &mut self,
        node: &NodeName,
        id: CheckId,
        new: Option<Check>,
        times: Times,
        effects: &mut Effects,
    ) {
        effects.topics.insert(Topic::Checks);
        let state = self.nodes.entry(node.clone()).or_default();
        let old = state.checks.remove(&id);
        let owner = |check: &Check| check.instance.as_ref().map(|(instance, _)| instance.clone());
        let mut owners = BTreeSet::new();
        if let Some(old) = &old {
            let owner = owner(&old.check);
            remove_from(&mut state.attached, &owner, &id);
            // Consul: the list of services moves when a check of a node goes, not when it changes.
            if owner.is_none() && new.is_none() {
                effects.topics.insert(Topic::Services);
            }
            owners.insert(owner);
        }
        if let Some(check) = new {
            let owner = owner(&check);
            state.attached.entry(owner.clone()).or_default().insert(id.clone());
            owners.insert(owner);
            let check = Arc::new(check);
            let record = CheckRecord { check, created: times.created, modified: times.modified };
            state.checks.insert(id, record);
        }
        for record in owners.iter().flat_map(|owner| state.concerned(owner.as_ref())) {
            effects.topics.extend(topics_of(&record.instance));
        }
        self.refresh_node(node, times, effects);
    }

    fn write_intention(
        &mut self,
        source: Party,
        destination: Party,
        new: Option<Intention>,
        Times { created, modified }: Times,
    ) {
        // Also before putting one, because its spelling may be another.
        self.rules.remove(&source, &destination);
        let pair = (destination, source);
        self.intentions.remove(&pair);
        let Some(intention) = new else { return };
        let (destination, source) = pair;
        self.rules.insert(source.clone(), destination.clone(), intention.action);
        let record = IntentionRecord { intention: Arc::new(intention), created, modified };
        self.intentions.insert((destination, source), record);
    }

    /// Builds what is shown of a node anew, after something on it came or went.
    fn refresh_node(&mut self, name: &NodeName, times: Times, effects: &mut Effects) {
        let Some(state) = self.nodes.get_mut(name) else { return };
        let vacant = state.own.is_none() && state.instances.is_empty() && state.checks.is_empty();
        if vacant {
            let state = self.nodes.remove(name);
            if state.is_some_and(|state| state.view.is_some()) {
                effects.topics.insert(Topic::Nodes);
            }
            return;
        }
        let Some(view) = node::refresh(name, state, &self.fallback_address, times.modified) else {
            return;
        };
        state.view = Some(view);
        effects.topics.insert(Topic::Nodes);
        for record in state.instances.values() {
            effects.topics.extend(topics_of(&record.instance));
            if is_front(&record.instance) {
                let (service, id) = endpoint_of(&record.instance);
                effects.resources.insert(Resource::Endpoint(service, id));
            }
        }
    }
}

impl NodeState {
    /// The instances a check counts for: the one it is about, or all when it is about the node.
    pub(super) fn concerned(&self, about: Option<&InstanceId>) -> impl Iterator<Item = &InstanceRecord> {
        let one = about.and_then(|id| self.instances.get(id));
        let all = about.is_none().then(|| self.instances.values());
        one.into_iter().chain(all.into_iter().flatten())
    }
}

impl Times {
    pub(super) fn of(entry: Option<&Entry>, revision: Revision) -> Self {
        entry.map_or(Self { created: revision, modified: revision }, |entry| Self {
            created: entry.created,
            modified: entry.modified,
        })
    }
}

impl Write {
    /// `None` when the key is not the catalog's.
    pub(super) fn read(text: &str, entry: Option<&Entry>) -> Result<Option<Self>, StoreError> {
        fn value<T: serde::de::DeserializeOwned>(
            entry: Option<&Entry>,
        ) -> Result<Option<T>, StoreError> {
            entry.map(|entry| decode(&entry.key, &entry.value)).transpose()
        }
        let Some(key) = Key::parse(text) else { return Ok(None) };
        Ok(Some(match key {
            Key::Node(name) => Self::Node(name, value(entry)?),
            Key::Instance(id) => Self::Instance(id, value(entry)?),
            Key::Check(node, id) => Self::Check(node, id, value(entry)?.map(Box::new)),
            Key::Ban(subject) => Self::Ban(subject, value(entry)?),
            Key::Lease(id) => {
                let lease: Option<StoredLease> = value(entry)?;
                Self::Lease(id, lease.map(|lease| Duration::from_millis(lease.ttl_ms)))
            }
            Key::Intention(source, destination) => {
                let new: Option<Intention> = value(entry)?;
                // The key is lower case; the record keeps the spelling it was given.
                match new {
                    Some(new) => Self::Intention(new.source.clone(), new.destination.clone(), Some(new)),
                    None => Self::Intention(source, destination, None),
                }
            }
        }))
    }
}

pub(super) fn topics_of(instance: &Instance) -> impl Iterator<Item = Topic> {
    let connect = is_front(instance).then(|| Topic::Connect(endpoint_of(instance).0));
    std::iter::once(Topic::Service(instance.name.clone())).chain(connect)
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
