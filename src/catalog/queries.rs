//! The catalog's reads, the waiting for changes, and the board of sidecars.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Catalog, CheckRecord, Edition, HealthEntry, Holder, InstanceRecord, Interest, Node, Subscription,
    Topic, proxies,
};
use crate::model::{
    CheckStatus, EndpointId, InstanceId, Intention, Intentions, NodeName, Position, ServiceName, Verdict,
};
use crate::store::Revision;

/// How much there is in a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    pub nodes: usize,
    pub services: usize,
    pub instances: usize,
    pub intentions: usize,
    pub checks: BTreeMap<CheckStatus, usize>,
}

/// Reads: of one moment each, without waiting.
impl Catalog {
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.read().state.position
    }

    /// Counts everything; all statuses of checks are there. Looks at every check.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let live = self.shared.read();
        let state = &live.state;
        let all = [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical];
        let mut checks = BTreeMap::from(all.map(|status| (status, 0)));
        for record in state.nodes.values().flat_map(|node| node.checks.values()) {
            *checks.entry(record.check.status).or_default() += 1;
        }
        Sizes {
            nodes: state.nodes.len(),
            services: state.services.len(),
            instances: state.instance_count,
            intentions: state.intentions.len(),
            checks,
        }
    }

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

    /// A node by its name, without regard to ASCII case. Looks at every node.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<Arc<Node>> {
        self.shared.read().state.node_named(name)
    }

    /// Who is at an address: a node, else a service. Looks at every node and instance.
    #[must_use]
    pub fn holder_of(&self, address: IpAddr) -> Option<Holder> {
        self.shared.read().state.holder_of(address)
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

    /// What there is to read of a service topic, told from what there was before.
    #[must_use]
    pub fn edition(&self, topic: &Topic) -> Edition {
        self.shared.read().state.edition(topic)
    }

    /// Waits until the index of a topic passes `index` or `timeout` is over; returns the current one.
    /// Cancel-safe.
    pub async fn wait(&self, topic: &Topic, index: Revision, timeout: Duration) -> Revision {
        self.shared.waiters.wait(topic, timeout, || self.index(topic) > index).await;
        self.index(topic)
    }

    /// Waits until the index of a topic passes `index`, however long that takes. Cancel-safe, and without a
    /// timer: thousands may wait, each with a deadline of its own elsewhere.
    pub async fn changed(&self, topic: &Topic, index: Revision) {
        self.shared.waiters.changed(topic, || self.index(topic) > index).await;
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
