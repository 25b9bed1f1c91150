//! The registry in memory, and what one commit does to it. Pure: no store, no clock, no waiting.
//!
//! `State` is a function of the commits applied to it, plus the outputs of checks that nobody found
//! worth a commit. `apply` says what changed for whom: topics for blocking queries, resources for
//! sidecars. Reads are in `view`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::index::{Indexes, Topic};
use super::key::{Key, StoredInstance, StoredLease, StoredNode, decode};
use super::resource::Resource;
use super::{CheckRecord, InstanceRecord, LeaseId, Owner, node};
use crate::model::{
    Action, Check, CheckId, EndpointId, Instance, InstanceId, Intention, Intentions, Kind, NodeName,
    Party, Position, ServiceName,
};
use crate::store::{Commit, Entry, Image, Revision, StoreError};

/// Everything the catalog knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) position: Position,
    /// Address of nodes that nobody gave one.
    pub(super) fallback_address: String,
    /// Every key of ours in the store and when it was last written, for compare-and-set.
    pub(super) versions: HashMap<String, Revision>,
    pub(super) nodes: BTreeMap<NodeName, NodeState>,
    pub(super) services: BTreeMap<ServiceName, BTreeSet<EndpointId>>,
    /// Service → application instance → what stands in front of it on the same node.
    pub(super) connect: BTreeMap<ServiceName, BTreeMap<EndpointId, BTreeSet<InstanceId>>>,
    /// By destination first, because that is how sidecars ask.
    pub(super) intentions: BTreeMap<(Party, Party), IntentionRecord>,
    pub(super) rules: Intentions,
    pub(super) leases: BTreeMap<LeaseId, Duration>,
    pub(super) owned: HashMap<LeaseId, BTreeSet<EndpointId>>,
    pub(super) instance_count: usize,
    pub(super) indexes: Indexes,
}

/// A node and everything on it.
#[derive(Debug, Default)]
pub(super) struct NodeState {
    /// What is shown of the node; `None` only while it is being built.
    pub(super) view: Option<node::View>,
    /// Of a server; other nodes exist because something is on them.
    pub(super) own: Option<StoredNode>,
    pub(super) instances: BTreeMap<InstanceId, InstanceRecord>,
    pub(super) checks: BTreeMap<CheckId, CheckRecord>,
    /// Ids of the checks of each instance; those of the node itself stand under `None`.
    pub(super) attached: BTreeMap<Option<InstanceId>, BTreeSet<CheckId>>,
}

#[derive(Debug, Clone)]
pub(super) struct IntentionRecord {
    pub(super) intention: Arc<Intention>,
    pub(super) created: Revision,
    pub(super) modified: Revision,
}

/// What a commit means to others.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) topics: BTreeSet<Topic>,
    /// A service lost its last instance, which moves the index of all that have none.
    pub(super) extinction: bool,
    pub(super) resources: BTreeSet<Resource>,
    /// Leases that came (with their period) and went.
    pub(super) leases: Vec<(LeaseId, Option<Duration>)>,
}

/// One decoded change of a commit.
enum Write {
    Node(NodeName, Option<StoredNode>),
    Instance(EndpointId, Option<StoredInstance>),
    Check(NodeName, CheckId, Option<Check>),
    Intention(Party, Party, Option<Intention>),
    Lease(LeaseId, Option<Duration>),
}

/// When the entry behind a write was created and modified.
#[derive(Clone, Copy)]
struct Times {
    created: Revision,
    modified: Revision,
}

impl State {
    /// The state that an image of the store describes.
    ///
    /// # Errors
    /// `Damaged` when a value cannot be read.
    pub(super) fn load(
        image: &Image,
        fallback_address: String,
        default_action: Action,
    ) -> Result<Self, StoreError> {
        let mut state = Self {
            position: Position { epoch: image.epoch, revision: image.revision },
            fallback_address,
            versions: HashMap::new(),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            connect: BTreeMap::new(),
            intentions: BTreeMap::new(),
            rules: Intentions::new(default_action),
            leases: BTreeMap::new(),
            owned: HashMap::new(),
            instance_count: 0,
            indexes: Indexes::new(image.revision),
        };
        let mut unused = Effects::default();
        for entry in &image.entries {
            if let Some(write) = Write::read(&entry.key, Some(entry))? {
                state.note_version(&entry.key, Some(entry));
                state.write(write, Times::of(Some(entry), image.revision), &mut unused);
            }
        }
        Ok(state)
    }

    /// Applies one commit and says what it changed. Values that cannot be read are left out and logged:
    /// the process that wrote them is newer or broken, and the rest of the mesh goes on.
    pub(super) fn apply(&mut self, commit: &Commit) -> Effects {
        let mut writes = Vec::with_capacity(commit.changes.len());
        for (key, entry) in &commit.changes {
            match Write::read(key, entry.as_ref()) {
                Ok(Some(write)) => {
                    self.note_version(key, entry.as_ref());
                    writes.push((write, Times::of(entry.as_ref(), commit.revision)));
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a catalog record is left out"),
            }
        }
        let mut effects = Effects::default();
        let mut touched = BTreeSet::new();
        for (write, _) in &writes {
            self.touch(write, &mut touched);
        }
        let before: Vec<_> = touched.into_iter().map(|r| (self.change(&r), r)).collect();
        for (write, times) in writes {
            self.write(write, times, &mut effects);
        }
        for (old, resource) in before {
            if self.change(&resource) != old {
                effects.resources.insert(resource);
            }
        }
        self.move_indexes(&mut effects, commit.revision);
        self.position.revision = commit.revision;
        effects
    }

    /// The commit that leads from this state to an image of the store, for a reader that lost track.
    pub(super) fn catch_up(&self, image: Image) -> Commit {
        let mut gone = self.versions.clone();
        let mut changes: Vec<(String, Option<Entry>)> = Vec::new();
        for entry in image.entries {
            if gone.remove(&entry.key) != Some(entry.modified) {
                changes.push((entry.key.clone(), Some(entry)));
            }
        }
        changes.extend(gone.into_keys().map(|key| (key, None)));
        Commit { revision: image.revision, changes }
    }

    /// Keeps the output of a check without a commit: it moves no index and wakes nobody.
    pub(super) fn set_output(&mut self, node: &NodeName, id: &str, output: String) {
        let record = self.nodes.get_mut(node).and_then(|state| state.checks.get_mut(id));
        if let Some(record) = record {
            Arc::make_mut(&mut record.check).output = output;
        }
    }

    fn note_version(&mut self, key: &str, entry: Option<&Entry>) {
        match entry {
            Some(entry) => self.versions.insert(key.to_owned(), entry.modified),
            None => self.versions.remove(key),
        };
    }

    /// The resources that a write may change, judged before and after it.
    fn touch(&self, write: &Write, touched: &mut BTreeSet<Resource>) {
        match write {
            Write::Instance(id, new) => {
                let old = self.instance_record(id).map(|record| &*record.instance);
                for instance in old.into_iter().chain(new.as_ref().map(|new| &new.instance)) {
                    touch_instance(instance, touched);
                }
            }
            Write::Check(node, id, new) => {
                let old = self.check_record(node, id).map(|record| &*record.check);
                for check in old.into_iter().chain(new) {
                    self.touch_health(node, check, touched);
                }
            }
            Write::Intention(source, destination, _) => {
                touched.insert(Resource::Intention(destination.clone(), source.clone()));
            }
            // Endpoints on a node whose address changed are found when the node's view is built.
            Write::Node(..) | Write::Lease(..) => {}
        }
    }

    fn touch_health(&self, node: &NodeName, check: &Check, touched: &mut BTreeSet<Resource>) {
        let Some(state) = self.nodes.get(node) else { return };
        for record in state.concerned(check.instance.as_ref().map(|(id, _)| id)) {
            let (service, id) = endpoint_of(&record.instance);
            touched.insert(Resource::Health(service, id));
        }
    }

    fn write(&mut self, write: Write, times: Times, effects: &mut Effects) {
        match write {
            Write::Node(name, new) => {
                self.nodes.entry(name.clone()).or_default().own = new;
                self.refresh_node(&name, times, effects);
            }
            Write::Instance(id, new) => self.write_instance(&id, new, times, effects),
            Write::Check(node, id, new) => self.write_check(&node, id, new, times, effects),
            Write::Intention(source, destination, new) => {
                effects.topics.insert(Topic::Intentions);
                self.write_intention(source, destination, new, times);
            }
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
        let Some(intention) = new else {
            self.rules.remove(&source, &destination);
            self.intentions.remove(&(destination, source));
            return;
        };
        self.rules.remove(&source, &destination);
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
            let (service, id) = endpoint_of(&record.instance);
            effects.resources.insert(Resource::Endpoint(service, id));
        }
    }

    fn move_indexes(&mut self, effects: &mut Effects, revision: Revision) {
        for topic in &effects.topics {
            if self.is_present(topic) {
                self.indexes.bump(topic.clone(), revision);
            } else {
                self.indexes.extinct(topic, revision);
                effects.extinction = true;
            }
        }
    }
}

impl NodeState {
    /// The instances a check counts for: the one it is about, or all when it is about the node.
    fn concerned(&self, about: Option<&InstanceId>) -> impl Iterator<Item = &InstanceRecord> {
        let one = about.and_then(|id| self.instances.get(id));
        let all = about.is_none().then(|| self.instances.values());
        one.into_iter().chain(all.into_iter().flatten())
    }
}

impl Times {
    fn of(entry: Option<&Entry>, revision: Revision) -> Self {
        entry.map_or(Self { created: revision, modified: revision }, |entry| Self {
            created: entry.created,
            modified: entry.modified,
        })
    }
}

impl Write {
    /// `None` when the key is not the catalog's.
    fn read(text: &str, entry: Option<&Entry>) -> Result<Option<Self>, StoreError> {
        fn value<T: serde::de::DeserializeOwned>(
            entry: Option<&Entry>,
        ) -> Result<Option<T>, StoreError> {
            entry.map(|entry| decode(&entry.key, &entry.value)).transpose()
        }
        let Some(key) = Key::parse(text) else { return Ok(None) };
        Ok(Some(match key {
            Key::Node(name) => Self::Node(name, value(entry)?),
            Key::Instance(id) => Self::Instance(id, value(entry)?),
            Key::Check(node, id) => Self::Check(node, id, value(entry)?),
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

/// Whether others may connect to this instance through the mesh.
pub(super) fn is_front(instance: &Instance) -> bool {
    instance.native || (instance.kind == Kind::ConnectProxy && instance.proxy.is_some())
}

/// The endpoint an instance is part of: a sidecar of the one it stands for, others of their own.
pub(super) fn endpoint_of(instance: &Instance) -> (ServiceName, EndpointId) {
    let node = instance.node.clone();
    match &instance.proxy {
        Some(proxy) if instance.kind == Kind::ConnectProxy => {
            (proxy.destination.clone(), EndpointId { node, instance: proxy.destination_id.clone() })
        }
        _ => (instance.name.clone(), EndpointId { node, instance: instance.id.clone() }),
    }
}

fn topics_of(instance: &Instance) -> impl Iterator<Item = Topic> {
    let connect = is_front(instance).then(|| Topic::Connect(endpoint_of(instance).0));
    std::iter::once(Topic::Service(instance.name.clone())).chain(connect)
}

fn touch_instance(instance: &Instance, touched: &mut BTreeSet<Resource>) {
    let (service, id) = endpoint_of(instance);
    touched.insert(Resource::Service(instance.name.clone()));
    touched.insert(Resource::Service(service.clone()));
    touched.insert(Resource::Endpoint(service.clone(), id.clone()));
    touched.insert(Resource::Health(service, id));
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
