//! The live registry over a store: services, checks, intentions, leases, and what each sidecar may see.
//!
//! Used by `control`, `api`, `dns` and `app`. A write is planned on the state (`plan`, pure), committed
//! to the store, comes back through the store's watch, and is applied by one task (`state`, pure); only
//! then is it answered. Reads never wait. Invariants: what was answered is durable and visible; an
//! index never goes backwards; a batch at a position holds everything up to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::model::{Action, Check, CheckStatus, Instance, NameError, NodeName, ServiceName};
use crate::store::{Store, StoreError};

mod bans;
mod changelog;
mod commands;
mod draft;
mod external;
mod index;
mod key;
mod lease;
mod node;
mod plan;
pub mod proxies;
mod queries;
mod reports;
mod resource;
mod shared;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod validate;
mod view;
mod write;

pub use self::bans::{MAX_BANS, MAX_REASON_BYTES};
pub use self::commands::{IntentionRule, new_uuid};
pub use self::external::{External, NodeUpdate};
pub use self::index::{Edition, Topic};
pub use self::lease::LEASE_TTL;
pub use self::queries::Sizes;
pub use self::reports::{Reporter, Taken};
pub use self::subscription::{Batch, Subscription};
pub use crate::store::Revision;

use self::shared::{Shared, follow};
use self::state::State;

/// What becomes of checks that an instance has and a new registration of it does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// They stay: Consul's rule for registrations over the API.
    Keep,
    /// They go, except maintenance mode: the registration says all there is, as a file does.
    Remove,
}

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
    /// UUID; may be empty for a node without an agent.
    pub id: String,
    pub address: String,
    /// Further addresses by kind, such as `wan`. Those of a node with an agent follow from its address.
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub meta: BTreeMap<String, String>,
    /// A server or a sidecar of ours runs there; otherwise somebody wrote it to the catalog by hand.
    pub has_agent: bool,
    pub created: Revision,
    pub modified: Revision,
}

impl Node {
    /// The metadata that clients are shown: nodes with an agent have the network segment that they
    /// look for.
    #[must_use]
    pub fn shown_meta(&self) -> BTreeMap<&str, &str> {
        let mut meta: BTreeMap<_, _> = self.meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if self.has_agent {
            meta.entry("consul-network-segment").or_insert("");
        }
        meta
    }
}

/// Who is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Node(NodeName),
    Service(ServiceName),
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
}
