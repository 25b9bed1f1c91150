//! The live registry over a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::snapshot::Change;
use crate::model::{
    Action, Check, CheckReport, CheckStatus, Instance, InstanceId, Intention, Intentions, NameError,
    NodeName, Party, Position, Registration, ServiceName, Verdict,
};
use crate::store::{Revision, Store, StoreError};

/// Number of a lease. Never zero.
pub type LeaseId = u64;

#[derive(Debug, Clone)]
pub struct Settings {
    pub datacenter: String,
    /// The server's own node: where config-dir and API registrations live.
    pub node: NodeName,
    pub node_address: String,
    /// What applies when no intention matches.
    pub default_action: Action,
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("lease {0} does not exist or has expired")]
    NoLease(LeaseId),
    #[error("check {0:?} does not exist")]
    NoCheck(String),
    #[error("{0}")]
    Invalid(String),
}

/// Who keeps an instance alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Stays until deregistered.
    Permanent,
    /// Goes with the lease.
    Lease(LeaseId),
}

/// An instance with its indexes and everything that decides its health.
#[derive(Debug, Clone)]
pub struct InstanceRecord {
    pub instance: Arc<Instance>,
    pub owner: Owner,
    pub created: Revision,
    pub modified: Revision,
}

#[derive(Debug, Clone)]
pub struct CheckRecord {
    pub check: Arc<Check>,
    pub created: Revision,
    pub modified: Revision,
}

/// One entry of a health query: the instance, its node and all checks that count for it.
#[derive(Debug, Clone)]
pub struct HealthEntry {
    pub instance: InstanceRecord,
    pub node: Arc<Node>,
    /// Node checks first, then the instance's.
    pub checks: Vec<CheckRecord>,
}

impl HealthEntry {
    /// The worst of the checks; passing without any.
    #[must_use]
    pub fn status(&self) -> CheckStatus {
        todo!()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// UUID.
    pub id: String,
    pub address: String,
    pub meta: BTreeMap<String, String>,
    pub created: Revision,
    pub modified: Revision,
}

/// What a blocking query waits on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Instances of a service and checks that count for them (surface 2.1).
    Service(ServiceName),
    /// Sidecars (and natives) in front of a service.
    Connect(ServiceName),
    /// The list of services and their tags.
    Services,
    Nodes,
    Checks,
    Intentions,
}

/// What one sidecar wants to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Upstreams.
    pub services: BTreeSet<ServiceName>,
    /// Intentions toward these destinations (its own service), and wildcard ones.
    pub destinations: BTreeSet<ServiceName>,
}

/// Changes for one sidecar, coalesced: at most one for each resource.
#[derive(Debug, Clone)]
pub struct Batch {
    pub position: Position,
    pub changes: Vec<Change>,
}

/// A sidecar's view: the set of resources that changed since it was last asked, never a queue.
pub struct Subscription {
    _private: (),
}

impl Subscription {
    /// Everything the interest covers, now; forgets pending changes.
    pub fn snapshot(&mut self) -> Batch {
        todo!()
    }
    /// What changed after `position`, or `None` when that is not known any more: send a snapshot.
    pub fn resume(&mut self, _position: Position) -> Option<Batch> {
        todo!()
    }
    /// Waits until something the interest covers has changed. Cancel-safe.
    pub async fn changed(&mut self) {
        todo!()
    }
    /// The current value of everything that changed since the last call. May be empty.
    pub fn take(&mut self) -> Batch {
        todo!()
    }
    /// The position that a reader with no pending changes is current at.
    pub fn position(&self) -> Position {
        todo!()
    }
}

/// The catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    _private: Arc<()>,
}

impl Catalog {
    pub async fn open(_store: Arc<dyn Store>, _settings: Settings) -> Result<Self, CatalogError> {
        todo!()
    }
    pub fn settings(&self) -> &Settings {
        todo!()
    }
    pub fn position(&self) -> Position {
        todo!()
    }

    // Writes: answered when durable and visible to reads.
    /// Adds or replaces instances and their checks in one transaction. A check that was known keeps its status.
    pub async fn register(
        &self,
        _registrations: Vec<Registration>,
        _owner: Owner,
    ) -> Result<Revision, CatalogError> {
        todo!()
    }
    /// Removes an instance, its checks and its sidecar; says whether there was one.
    pub async fn deregister(&self, _node: &NodeName, _id: &InstanceId) -> Result<bool, CatalogError> {
        todo!()
    }
    /// Takes check results; only status changes wake watchers. Unknown check ids are an error after the others were taken.
    pub async fn report_checks(
        &self,
        _node: &NodeName,
        _reports: Vec<CheckReport>,
    ) -> Result<(), CatalogError> {
        todo!()
    }
    /// Adds the intention of a pair or replaces it.
    pub async fn put_intention(
        &self,
        _source: Party,
        _destination: Party,
        _action: Action,
        _description: String,
        _meta: BTreeMap<String, String>,
    ) -> Result<Intention, CatalogError> {
        todo!()
    }
    pub async fn delete_intention(
        &self,
        _source: &Party,
        _destination: &Party,
    ) -> Result<bool, CatalogError> {
        todo!()
    }
    pub async fn grant_lease(&self, _ttl: Duration) -> Result<LeaseId, CatalogError> {
        todo!()
    }
    /// Starts the lease's period anew; returns it.
    pub async fn keep_alive(&self, _lease: LeaseId) -> Result<Duration, CatalogError> {
        todo!()
    }
    /// Ends a lease now and removes what it holds.
    pub async fn revoke_lease(&self, _lease: LeaseId) -> Result<(), CatalogError> {
        todo!()
    }

    // Reads.
    /// All services (applications and sidecars) with the union of their tags.
    pub fn services(&self) -> BTreeMap<ServiceName, BTreeSet<String>> {
        todo!()
    }
    pub fn health(&self, _service: &ServiceName) -> Vec<HealthEntry> {
        todo!()
    }
    /// Sidecars and natives in front of a service.
    pub fn connect(&self, _service: &ServiceName) -> Vec<HealthEntry> {
        todo!()
    }
    pub fn instance(&self, _node: &NodeName, _id: &InstanceId) -> Option<HealthEntry> {
        todo!()
    }
    /// All instances of a node.
    pub fn instances_on(&self, _node: &NodeName) -> Vec<InstanceRecord> {
        todo!()
    }
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        todo!()
    }
    /// All checks of a node.
    pub fn checks_on(&self, _node: &NodeName) -> Vec<CheckRecord> {
        todo!()
    }
    /// Ordered by precedence, then by name.
    pub fn intentions(&self) -> Vec<(Arc<Intention>, Revision, Revision)> {
        todo!()
    }
    pub fn rules(&self) -> Intentions {
        todo!()
    }
    pub fn decide(&self, _source: &ServiceName, _destination: &ServiceName) -> Verdict {
        todo!()
    }
    /// The index of a topic (never 0).
    pub fn index(&self, _topic: &Topic) -> Revision {
        todo!()
    }
    /// Waits until the index of a topic passes `index` or `timeout` is over; returns the current one.
    pub async fn wait(&self, _topic: &Topic, _index: Revision, _timeout: Duration) -> Revision {
        todo!()
    }
    pub fn subscribe(&self, _interest: Interest) -> Subscription {
        todo!()
    }
}
pub mod proxies;
impl Catalog {
    /// The sidecars known to this server, by service and instance.
    pub fn proxies(&self) -> Vec<proxies::ProxyStatus> {
        todo!()
    }
    /// Adds or replaces the record of a sidecar.
    pub fn update_proxy(&self, _status: proxies::ProxyStatus) {
        todo!()
    }
    /// Forgets a sidecar.
    pub fn remove_proxy(&self, _node: &NodeName, _instance: &InstanceId) {
        todo!()
    }
}
