//! What one sidecar knows of the mesh, and how it changes.
//!
//! A `Snapshot` is an immutable value behind an `Arc`: the agent clones it, applies a batch of
//! `Change`s and publishes the result. Each resource has a key; a later change of the same key
//! replaces the earlier one, so batches may be coalesced and repeated freely.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::ban::{Bans, Subject};
use super::check::CheckStatus;
use super::intention::{Action, Intentions, Party};
use super::name::{InstanceId, NodeName, ServiceName};
use super::service::Weights;
use super::spiffe::TrustDomain;

/// How far a reader has followed the control plane. Positions of one epoch are ordered; positions of
/// different epochs are not comparable (the store was created anew or restored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub epoch: u64,
    pub revision: u64,
}

/// Names one endpoint: the application instance behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    pub node: NodeName,
    pub instance: InstanceId,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.instance)
    }
}

/// Where the sidecar of one instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub service: ServiceName,
    /// IP address or host name.
    pub host: String,
    pub port: u16,
    pub weights: Weights,
}

/// The certificates that may sign in a trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub trust_domain: TrustDomain,
    /// Grows with every change.
    pub version: u64,
    /// DER, one certificate each. The first is the root that signs now: whoever has a certificate below
    /// another is to renew it soon.
    pub roots: Vec<Arc<[u8]>>,
}

/// An endpoint and its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    pub endpoint: Arc<Endpoint>,
    pub status: CheckStatus,
}

impl EndpointState {
    /// Share of the load it may take: zero when critical.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self.status {
            CheckStatus::Passing => self.endpoint.weights.passing,
            CheckStatus::Warning => self.endpoint.weights.warning,
            CheckStatus::Critical => 0,
        }
    }
}

/// What is known of an upstream service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceView {
    /// Whether the catalog has any instance of it.
    pub exists: bool,
    pub endpoints: BTreeMap<EndpointId, EndpointState>,
}

/// All that one sidecar needs to decide and to dial. Immutable once published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub position: Position,
    pub services: BTreeMap<ServiceName, Arc<ServiceView>>,
    pub intentions: Arc<Intentions>,
    pub bans: Arc<Bans>,
    pub bundle: Option<Arc<Bundle>>,
}

/// One resource put or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Whether the catalog has any instance of a service.
    Service {
        name: ServiceName,
        exists: bool,
    },
    Endpoint(Endpoint),
    EndpointGone {
        service: ServiceName,
        id: EndpointId,
    },
    Health {
        service: ServiceName,
        id: EndpointId,
        status: CheckStatus,
    },
    Intention {
        source: Party,
        destination: Party,
        action: Action,
    },
    IntentionGone {
        source: Party,
        destination: Party,
    },
    DefaultAction(Action),
    Ban(Subject),
    BanGone(Subject),
    Bundle(Bundle),
}

impl Default for Snapshot {
    /// Knows nothing, therefore allows nothing.
    fn default() -> Self {
        Self {
            position: Position::default(),
            services: BTreeMap::new(),
            intentions: Arc::new(Intentions::new(Action::Deny)),
            bans: Arc::default(),
            bundle: None,
        }
    }
}

impl Snapshot {
    /// Applies one change. A health record of an unknown endpoint is ignored: the endpoint went
    /// first, or arrives later together with its own health.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service { name, exists } => self.view_mut(&name).exists = exists,
            Change::Endpoint(endpoint) => self.put_endpoint(endpoint),
            Change::EndpointGone { service, id } => {
                self.view_mut(&service).endpoints.remove(&id);
            }
            Change::Health { service, id, status } => {
                if let Some(state) = self.view_mut(&service).endpoints.get_mut(&id) {
                    state.status = status;
                }
            }
            Change::Intention { source, destination, action } => {
                Arc::make_mut(&mut self.intentions).insert(source, destination, action);
            }
            Change::IntentionGone { source, destination } => {
                Arc::make_mut(&mut self.intentions).remove(&source, &destination);
            }
            Change::DefaultAction(action) => Arc::make_mut(&mut self.intentions).set_default(action),
            Change::Ban(subject) => Arc::make_mut(&mut self.bans).insert(subject),
            Change::BanGone(subject) => Arc::make_mut(&mut self.bans).remove(&subject),
            Change::Bundle(bundle) => self.put_bundle(bundle),
        }
    }

    /// A new endpoint is critical until its health is known; a changed one keeps its health.
    fn put_endpoint(&mut self, endpoint: Endpoint) {
        let endpoints = &mut self.view_mut(&endpoint.service).endpoints;
        let status = endpoints.get(&endpoint.id).map_or(CheckStatus::Critical, |state| state.status);
        let id = endpoint.id.clone();
        endpoints.insert(id, EndpointState { endpoint: Arc::new(endpoint), status });
    }

    /// An older bundle never replaces a newer one.
    fn put_bundle(&mut self, bundle: Bundle) {
        if self.bundle.as_ref().is_none_or(|held| held.version <= bundle.version) {
            self.bundle = Some(Arc::new(bundle));
        }
    }

    fn view_mut(&mut self, name: &ServiceName) -> &mut ServiceView {
        Arc::make_mut(self.services.entry(name.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(instance: &str, port: u16) -> Endpoint {
        Endpoint {
            id: EndpointId {
                node: NodeName::new("n1").unwrap(),
                instance: InstanceId::new(instance).unwrap(),
            },
            service: ServiceName::new("db").unwrap(),
            host: "127.0.0.1".to_owned(),
            port,
            weights: Weights { passing: 3, warning: 1 },
        }
    }

    #[test]
    fn an_endpoint_takes_no_load_before_its_health_is_known() {
        let mut snapshot = Snapshot::default();
        let (one, db) = (endpoint("db-1", 1), ServiceName::new("db").unwrap());
        snapshot.apply(Change::Endpoint(one.clone()));
        let weight = |s: &Snapshot| s.services[&db].endpoints[&one.id].weight();
        assert_eq!(weight(&snapshot), 0);
        let status = CheckStatus::Passing;
        snapshot.apply(Change::Health { service: db.clone(), id: one.id.clone(), status });
        assert_eq!(weight(&snapshot), 3);
        snapshot.apply(Change::Endpoint(endpoint("db-1", 2)));
        assert_eq!(weight(&snapshot), 3, "a changed address keeps its health");
    }

    #[test]
    fn published_snapshots_do_not_change() {
        let mut next = Snapshot::default();
        next.apply(Change::Endpoint(endpoint("db-1", 1)));
        let published = next.clone();
        next.apply(Change::EndpointGone {
            service: ServiceName::new("db").unwrap(),
            id: endpoint("db-1", 1).id,
        });
        assert_eq!(published.services.values().next().unwrap().endpoints.len(), 1);
        assert_eq!(next.services.values().next().unwrap().endpoints.len(), 0);
    }

    #[test]
    fn an_empty_snapshot_denies() {
        let (a, b) = (ServiceName::new("a").unwrap(), ServiceName::new("b").unwrap());
        assert!(!Snapshot::default().intentions.decide(&a, &b).is_allowed());
    }
}
