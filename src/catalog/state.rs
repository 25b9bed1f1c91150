//! The registry in memory, and what one commit does to it. Pure: no store, no clock, no waiting.
//!
//! `State` is a function of the commits applied to it, plus the outputs of checks that nobody found
//! worth a commit. `apply` says what changed for whom: topics for blocking queries, resources for
//! sidecars. What a single write does is in `write`, reads are in `view`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::index::{Indexes, Topic};
use super::key::StoredNode;
use super::resource::Resource;
use super::write::{Times, Write, topics_of};
use super::{CheckRecord, InstanceRecord, LeaseId, node};
use crate::model::ban::Subject;
use crate::model::{
    Action, Ban, Bans, Check, CheckId, EndpointId, Instance, InstanceId, Intention, Intentions, Kind,
    NodeName, Party, Position, ServiceName,
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
    pub(super) bans: BTreeMap<Subject, Ban>,
    /// The same, for looking up.
    pub(super) banned: Arc<Bans>,
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
            bans: BTreeMap::new(),
            banned: Arc::default(),
            leases: BTreeMap::new(),
            owned: HashMap::new(),
            instance_count: 0,
            indexes: Indexes::new(image.revision),
        };
        let mut unused = Effects::default();
        for entry in &image.entries {
            if let Some(write) = Write::read(&entry.key, Some(entry))? {
                state.versions.insert(entry.key.clone(), entry.modified);
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
                Ok(Some(write)) => writes.push((write, Times::of(entry.as_ref(), commit.revision))),
                Ok(None) => continue,
                Err(error) => tracing::error!(%error, "a catalog record is left out"),
            }
            // Also of a record that is left out, so that it can be replaced.
            match entry {
                Some(entry) => self.versions.insert(key.clone(), entry.modified),
                None => self.versions.remove(key),
            };
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
        let Some(state) = self.nodes.get_mut(node) else { return };
        let Some(record) = state.checks.get_mut(id) else { return };
        if record.check.output == output {
            return;
        }
        let check = Arc::make_mut(&mut record.check);
        check.output = output;
        let about = check.instance.as_ref().map(|(instance, _)| instance.clone());
        for topic in state.concerned(about.as_ref()).flat_map(|record| topics_of(&record.instance)) {
            self.indexes.reword(topic);
        }
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
                for check in old.into_iter().chain(new.as_deref()) {
                    self.touch_health(node, check, touched);
                }
            }
            Write::Intention(source, destination, _) => {
                touched.insert(Resource::Intention(destination.clone(), source.clone()));
            }
            Write::Ban(subject, _) => {
                touched.insert(Resource::Ban(subject.clone()));
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

fn touch_instance(instance: &Instance, touched: &mut BTreeSet<Resource>) {
    let (service, id) = endpoint_of(instance);
    touched.insert(Resource::Service(instance.name.clone()));
    touched.insert(Resource::Service(service.clone()));
    touched.insert(Resource::Endpoint(service.clone(), id.clone()));
    touched.insert(Resource::Health(service, id));
}
