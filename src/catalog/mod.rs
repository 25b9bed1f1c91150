//! The live registry over a store: services, checks, intentions, leases, and what each sidecar may see.
//!
//! Used by `control`, `api`, `dns` and `app`. A write is planned on the state (`plan`, pure), committed
//! to the store, comes back through the store's watch, and is applied by one task (`state`, pure); only
//! then is it answered. Reads never wait. Invariants: what was answered is durable and visible; an
//! index never goes backwards; a batch at a position holds everything up to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::model::{
    Action, Check, CheckReport, CheckStatus, EndpointId, Instance, InstanceId, Intention, Intentions,
    NameError, NodeName, Party, Position, Registration, ServiceName, Verdict,
};
use crate::store::{Revision, Store, StoreError};

mod changelog;
mod index;
mod key;
mod lease;
mod node;
mod plan;
pub mod proxies;
mod resource;
mod shared;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod validate;
mod view;
mod wait;

pub use self::index::Topic;
pub use self::lease::LEASE_TTL;
pub use self::subscription::{Batch, Subscription};

use self::key::Key;
use self::shared::{Shared, follow};
use self::state::State;

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
    #[error("instance {0} does not exist")]
    NoInstance(String),
    #[error("the catalog changes too fast at this place; try again")]
    Contended,
    #[error("the system gives no random bytes")]
    NoRandom,
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
        let statuses = self.checks.iter().map(|record| record.check.status);
        statuses.max().unwrap_or(CheckStatus::Passing)
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

/// What one sidecar wants to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Upstreams.
    pub services: BTreeSet<ServiceName>,
    /// Intentions toward these destinations (its own service), and wildcard ones.
    pub destinations: BTreeSet<ServiceName>,
}

/// The catalog. Cheap to clone; its tasks end with the last clone and subscription.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// The tasks of a catalog. Dropping it ends them.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Catalog {
    /// Loads the catalog of a store, gives every lease a full period, and registers the server's node.
    ///
    /// # Errors
    /// When the store cannot be read or written, or holds a damaged record.
    pub async fn open(store: Arc<dyn Store>, settings: Settings) -> Result<Self, CatalogError> {
        let image = store.load(key::PREFIX).await?;
        let watch = store.watch("", image.revision).await?;
        let state = State::load(&image, settings.node_address.clone(), settings.default_action)?;
        let orphans = state.owned.keys().filter(|lease| !state.leases.contains_key(lease));
        let orphans = orphans.copied().collect();
        let (applied, progress) = watch::channel(image.revision);
        let shared = Arc::new(Shared::new(store, settings, state, progress));
        let tasks = vec![
            tokio::spawn(follow(Arc::clone(&shared), watch, applied)),
            tokio::spawn(lease::run(Arc::clone(&shared), orphans)),
        ];
        let catalog = Self { shared, tasks: Arc::new(Tasks(tasks)) };
        let Settings { node, node_address, .. } = catalog.settings();
        let id = new_uuid()?;
        catalog.shared.write(|state| plan::own_node(state, node, &id, node_address)).await?;
        Ok(catalog)
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.read().state.position
    }
}

/// Writes: answered when durable and visible to reads.
///
/// # Errors
/// Each may fail with `Store` when the store has stopped, `Contended` when others keep changing the
/// same records, and `Invalid` when a record is not acceptable or a limit is reached.
impl Catalog {
    /// Adds or replaces instances and their checks in one transaction. A check that was known keeps its
    /// status unless it comes with an output; one that is not listed goes, except maintenance mode.
    /// The same registration again writes nothing.
    ///
    /// # Errors
    /// `NoLease` when the owner has expired; see the block.
    pub async fn register(
        &self,
        registrations: Vec<Registration>,
        owner: Owner,
    ) -> Result<Revision, CatalogError> {
        validate::registrations(&registrations)?;
        let write = self.shared.write(|state| plan::register(state, &registrations, owner));
        write.await.map(|(revision, ())| revision)
    }

    /// Removes an instance, its checks and its sidecar; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn deregister(&self, node: &NodeName, id: &InstanceId) -> Result<bool, CatalogError> {
        let write = self.shared.write(|state| Ok(plan::deregister(state, node, id)));
        write.await.map(|(_, known)| known)
    }

    /// Adds or replaces one check with its status: of a node, or of an instance that exists.
    ///
    /// # Errors
    /// `NoInstance` when it is about one that does not exist; see the block.
    pub async fn put_check(&self, check: &Check) -> Result<(), CatalogError> {
        validate::check(check)?;
        self.shared.write(|state| plan::put_check(state, check)).await.map(drop)
    }

    /// Removes one check; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn delete_check(&self, node: &NodeName, id: &str) -> Result<bool, CatalogError> {
        let write = self.shared.write(|state| Ok(plan::delete_check(state, node, id)));
        write.await.map(|(_, known)| known)
    }

    /// Takes check results; only status changes wake watchers and are written. A new output alone stays
    /// in memory.
    ///
    /// # Errors
    /// `NoCheck` for unknown ids, after the others were taken; see the block.
    pub async fn report_checks(
        &self,
        node: &NodeName,
        reports: Vec<CheckReport>,
    ) -> Result<(), CatalogError> {
        validate::reports(&reports)?;
        let (_, reported) = self.shared.write(|state| plan::report(state, node, &reports)).await?;
        self.shared.keep_outputs(reported.outputs);
        reported.unknown.map_or(Ok(()), |id| Err(CatalogError::NoCheck(id)))
    }

    /// Adds the intention of a pair or replaces it; id and time of creation stay.
    ///
    /// # Errors
    /// See the block.
    pub async fn put_intention(
        &self,
        source: Party,
        destination: Party,
        action: Action,
        description: String,
        meta: BTreeMap<String, String>,
    ) -> Result<Intention, CatalogError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let (created_ms, updated_ms) = (now_ms, now_ms);
        let id = new_uuid()?;
        let new =
            Intention { id, source, destination, action, description, meta, created_ms, updated_ms };
        let write = self.shared.write(|state| plan::put_intention(state, &new));
        write.await.map(|(_, intention)| intention)
    }

    /// Removes the intention of a pair; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn delete_intention(
        &self,
        source: &Party,
        destination: &Party,
    ) -> Result<bool, CatalogError> {
        let key = Key::Intention(source.clone(), destination.clone());
        let write = self.shared.write(|state| Ok(plan::delete_intention(state, &key)));
        write.await.map(|(_, known)| known)
    }

    /// Starts a lease. Its id cannot be guessed.
    ///
    /// # Errors
    /// `Invalid` when the period is outside `LEASE_TTL`; see the block.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        if !LEASE_TTL.contains(&ttl) {
            let (least, most) = (LEASE_TTL.start().as_secs(), LEASE_TTL.end().as_secs());
            let text = format!("a lease of {ttl:?} is not possible: {least} to {most} seconds are");
            return Err(CatalogError::Invalid(text));
        }
        let [bytes] = random::<1>()?;
        let lease = LeaseId::from_le_bytes(bytes).max(1);
        self.shared.write(|state| plan::grant_lease(state, lease, ttl)).await?;
        Ok(lease)
    }

    /// Starts the lease's period anew; returns it.
    ///
    /// # Errors
    /// `NoLease` when it does not exist or is being ended.
    // Asynchronous because a store shared by several servers keeps its own leases.
    #[allow(clippy::unused_async)]
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, CatalogError> {
        let renewed = self.shared.deadlines().renew(lease, tokio::time::Instant::now());
        renewed.ok_or(CatalogError::NoLease(lease))
    }

    /// Ends a lease now and removes what it holds.
    ///
    /// # Errors
    /// `NoLease` when it does not exist; see the block.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        if !self.shared.read().state.leases.contains_key(&lease) {
            return Err(CatalogError::NoLease(lease));
        }
        self.shared.end_lease(lease).await
    }
}

/// Reads: of one moment each, without waiting.
impl Catalog {
    /// All services (applications and sidecars) with the union of their tags.
    #[must_use]
    pub fn services(&self) -> BTreeMap<ServiceName, BTreeSet<String>> {
        self.shared.read().state.service_tags()
    }

    /// The instances of a service, by node and id.
    #[must_use]
    pub fn health(&self, service: &ServiceName) -> Vec<HealthEntry> {
        self.shared.read().state.health(service)
    }

    /// Sidecars and natives in front of a service.
    #[must_use]
    pub fn connect(&self, service: &ServiceName) -> Vec<HealthEntry> {
        self.shared.read().state.connect_entries(service)
    }

    #[must_use]
    pub fn instance(&self, node: &NodeName, id: &InstanceId) -> Option<HealthEntry> {
        let id = EndpointId { node: node.clone(), instance: id.clone() };
        self.shared.read().state.health_entry(&id)
    }

    /// All instances of a node.
    #[must_use]
    pub fn instances_on(&self, node: &NodeName) -> Vec<InstanceRecord> {
        let live = self.shared.read();
        let node = live.state.nodes.get(node);
        node.map(|node| node.instances.values().cloned().collect()).unwrap_or_default()
    }

    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.shared.read().state.node_list()
    }

    /// One check of a node or of an instance on it.
    #[must_use]
    pub fn check(&self, node: &NodeName, id: &str) -> Option<CheckRecord> {
        self.shared.read().state.check_record(node, id).cloned()
    }

    /// All checks of a node, its own first.
    #[must_use]
    pub fn checks_on(&self, node: &NodeName) -> Vec<CheckRecord> {
        self.shared.read().state.checks_on(node)
    }

    /// With the revisions of creation and last change; ordered by precedence, then by name.
    #[must_use]
    pub fn intentions(&self) -> Vec<(Arc<Intention>, Revision, Revision)> {
        self.shared.read().state.intention_list()
    }

    #[must_use]
    pub fn rules(&self) -> Intentions {
        self.shared.read().state.rules.clone()
    }

    #[must_use]
    pub fn decide(&self, source: &ServiceName, destination: &ServiceName) -> Verdict {
        self.shared.read().state.rules.decide(source, destination)
    }

    /// The index of a topic (never 0).
    #[must_use]
    pub fn index(&self, topic: &Topic) -> Revision {
        self.shared.read().state.index(topic)
    }

    /// Waits until the index of a topic passes `index` or `timeout` is over; returns the current one.
    /// Cancel-safe.
    pub async fn wait(&self, topic: &Topic, index: Revision, timeout: Duration) -> Revision {
        let waiter = self.shared.waiters.join(topic);
        let passed = async {
            loop {
                // Listening begins before the look, so nothing is missed in between.
                let woken = waiter.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                if self.index(topic) > index {
                    return;
                }
                woken.await;
            }
        };
        // Either way the current index is the answer.
        let _ = tokio::time::timeout(timeout, passed).await;
        self.index(topic)
    }

    #[must_use]
    pub fn subscribe(&self, interest: Interest) -> Subscription {
        Subscription::new(Arc::clone(&self.shared), interest, Arc::clone(&self.tasks))
    }
}

/// The board of sidecars.
impl Catalog {
    /// The sidecars known to this server, by service and instance.
    #[must_use]
    pub fn proxies(&self) -> Vec<proxies::ProxyStatus> {
        self.shared.board.list()
    }

    /// Adds or replaces the record of a sidecar.
    pub fn update_proxy(&self, status: proxies::ProxyStatus) {
        self.shared.board.put(status);
    }

    /// Forgets a sidecar.
    pub fn remove_proxy(&self, node: &NodeName, instance: &InstanceId) {
        self.shared.board.remove(&EndpointId { node: node.clone(), instance: instance.clone() });
    }
}

fn new_uuid() -> Result<String, CatalogError> {
    let [low, high] = random::<2>()?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low);
    bytes[8..].copy_from_slice(&high);
    Ok(node::uuid(bytes, 4))
}

fn random<const N: usize>() -> Result<[[u8; 8]; N], CatalogError> {
    let mut words = [[0; 8]; N];
    for word in &mut words {
        aws_lc_rs::rand::fill(word).map_err(|_| CatalogError::NoRandom)?;
    }
    Ok(words)
}
