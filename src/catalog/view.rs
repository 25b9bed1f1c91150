//! Reading the state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{Edition, Topic};
use super::resource::{Resource, Scope};
use super::state::{NodeState, State, endpoint_of};
use super::{CheckRecord, HealthEntry, Holder, InstanceRecord, Interest, Node};
use crate::model::snapshot::Change;
use crate::model::{
    CheckStatus, Endpoint, EndpointId, InstanceId, Intention, Kind, NodeName, Party, ServiceName,
};
use crate::store::Revision;

impl State {
    pub(super) fn instance_record(&self, id: &EndpointId) -> Option<&InstanceRecord> {
        self.nodes.get(&id.node)?.instances.get(&id.instance)
    }

    pub(super) fn check_record(&self, node: &NodeName, id: &str) -> Option<&CheckRecord> {
        self.nodes.get(node)?.checks.get(id)
    }

    /// Ids of the checks on one instance.
    pub(super) fn check_ids<'a>(&'a self, id: &EndpointId) -> impl Iterator<Item = &'a str> + use<'a> {
        let attached = self.nodes.get(&id.node).and_then(|n| n.attached.get(&Some(id.instance.clone())));
        attached.into_iter().flatten().map(String::as_str)
    }

    pub(super) fn is_present(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Service(name) => self.services.contains_key(name),
            Topic::Connect(name) => self.connect.contains_key(name),
            Topic::Services | Topic::Nodes | Topic::Checks | Topic::Intentions => true,
        }
    }

    pub(super) fn index(&self, topic: &Topic) -> Revision {
        self.indexes.get(topic, self.is_present(topic))
    }

    pub(super) fn edition(&self, topic: &Topic) -> Edition {
        self.indexes.edition(topic, self.is_present(topic))
    }

    pub(super) fn service_tags(&self) -> BTreeMap<ServiceName, BTreeSet<String>> {
        let tags = |ids: &BTreeSet<EndpointId>| {
            let records = ids.iter().filter_map(|id| self.instance_record(id));
            records.flat_map(|record| record.instance.tags.iter().cloned()).collect()
        };
        self.services.iter().map(|(name, ids)| (name.clone(), tags(ids))).collect()
    }

    pub(super) fn health(&self, service: &ServiceName) -> Vec<HealthEntry> {
        let ids = self.services.get(service).into_iter().flatten();
        ids.filter_map(|id| self.health_entry(id)).collect()
    }

    pub(super) fn connect_entries(&self, service: &ServiceName) -> Vec<HealthEntry> {
        let applications = self.connect.get(service).into_iter().flatten();
        let fronts = applications.flat_map(|(application, fronts)| {
            let node = &application.node;
            fronts.iter().map(|front| EndpointId { node: node.clone(), instance: front.clone() })
        });
        fronts.filter_map(|id| self.health_entry(&id)).collect()
    }

    pub(super) fn health_entry(&self, id: &EndpointId) -> Option<HealthEntry> {
        let node = self.nodes.get(&id.node)?;
        let view = node.view.as_ref()?;
        let instance = node.instances.get(&id.instance)?.clone();
        let mut checks: Vec<_> = view.alive.iter().cloned().collect();
        checks.extend(node.checks_of(None).cloned());
        checks.extend(node.checks_of(Some(&id.instance)).cloned());
        Some(HealthEntry { instance, node: Arc::clone(&view.node), checks })
    }

    pub(super) fn node_list(&self) -> Vec<Arc<Node>> {
        let views = self.nodes.values().filter_map(|state| state.view.as_ref());
        views.map(|view| Arc::clone(&view.node)).collect()
    }

    pub(super) fn node_named(&self, name: &str) -> Option<Arc<Node>> {
        let is_named = |known: &NodeName| known.as_str().eq_ignore_ascii_case(name);
        let folded = || self.nodes.iter().find(|(known, _)| is_named(known)).map(|(_, state)| state);
        let state = self.nodes.get(name).or_else(folded)?;
        state.view.as_ref().map(|view| Arc::clone(&view.node))
    }

    pub(super) fn holder_of(&self, address: IpAddr) -> Option<Holder> {
        let mut nodes = self.nodes.values().filter_map(|state| state.view.as_ref());
        if let Some(view) = nodes.find(|view| is_address(&view.node.address, address)) {
            return Some(Holder::Node(view.node.name.clone()));
        }
        let mut instances = self.nodes.values().flat_map(|state| state.instances.values());
        let found = instances.find(|record| is_address(&record.instance.address, address))?;
        Some(Holder::Service(found.instance.name.clone()))
    }

    /// All checks of a node: its own first, then by id.
    pub(super) fn checks_on(&self, node: &NodeName) -> Vec<CheckRecord> {
        let Some(state) = self.nodes.get(node) else { return Vec::new() };
        let alive = state.view.iter().filter_map(|view| view.alive.clone());
        let others = state.checks.values().filter(|record| record.check.instance.is_some());
        alive.chain(state.checks_of(None).cloned()).chain(others.cloned()).collect()
    }

    /// Ordered by precedence, then by name.
    pub(super) fn intention_list(&self) -> Vec<(Arc<Intention>, Revision, Revision)> {
        let records = self.intentions.values();
        let mut all: Vec<_> =
            records.map(|r| (Arc::clone(&r.intention), r.created, r.modified)).collect();
        all.sort_by(|(a, ..), (b, ..)| {
            let by_precedence = b.precedence().cmp(&a.precedence());
            by_precedence.then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
        });
        all
    }

    /// The current value of a resource; `None` when there is nothing to say of it.
    pub(super) fn change(&self, resource: &Resource) -> Option<Change> {
        match resource {
            Resource::Service(name) => {
                let exists = self.services.contains_key(name) || self.connect.contains_key(name);
                Some(Change::Service { name: name.clone(), exists })
            }
            Resource::Endpoint(service, id) => Some(match self.endpoint(service, id) {
                Some(endpoint) => Change::Endpoint(endpoint),
                None => Change::EndpointGone { service: service.clone(), id: id.clone() },
            }),
            Resource::Health(service, id) => {
                let status = self.endpoint_status(service, id)?;
                Some(Change::Health { service: service.clone(), id: id.clone(), status })
            }
            Resource::Ban(subject) => Some(self.ban_change(subject)),
            Resource::Intention(destination, source) => {
                let (source, destination) = (source.clone(), destination.clone());
                Some(match self.intentions.get(&(destination.clone(), source.clone())) {
                    Some(record) => {
                        Change::Intention { source, destination, action: record.intention.action }
                    }
                    None => Change::IntentionGone { source, destination },
                })
            }
        }
    }

    /// Every resource an interest covers that exists, in the order of sending.
    pub(super) fn covered(&self, interest: &Interest) -> BTreeSet<Resource> {
        interest.scopes().flat_map(|scope| self.resources_in(scope)).collect()
    }

    fn resources_in(&self, scope: Scope) -> Vec<Resource> {
        match scope {
            Scope::Service(service) => {
                let ids = self.connect.get(&service).into_iter().flat_map(BTreeMap::keys);
                let endpoints = ids.flat_map(|id| {
                    let endpoint = Resource::Endpoint(service.clone(), id.clone());
                    [endpoint, Resource::Health(service.clone(), id.clone())]
                });
                endpoints.chain([Resource::Service(service.clone())]).collect()
            }
            Scope::Bans => self.bans.keys().cloned().map(Resource::Ban).collect(),
            Scope::Destination(party) => {
                // `Any` is the least of all parties.
                let from = self.intentions.range((party.clone(), Party::Any)..);
                let rules = from.take_while(|((destination, _), _)| *destination == party);
                rules.map(|((to, from), _)| Resource::Intention(to.clone(), from.clone())).collect()
            }
        }
    }

    fn endpoint(&self, service: &ServiceName, id: &EndpointId) -> Option<Endpoint> {
        let front = self.front(service, id)?;
        let application = self.application(service, id).unwrap_or(front);
        let node = self.nodes.get(&id.node)?.view.as_ref()?;
        let instance = &front.instance;
        let host = if instance.address.is_empty() { &node.node.address } else { &instance.address };
        Some(Endpoint {
            id: id.clone(),
            service: service.clone(),
            host: host.clone(),
            port: instance.port,
            weights: application.instance.weights,
        })
    }

    /// The worst of the checks on the node, on what stands in front, and on the application.
    fn endpoint_status(&self, service: &ServiceName, id: &EndpointId) -> Option<CheckStatus> {
        let front = self.front(service, id)?;
        let application = self.application(service, id);
        let node = self.nodes.get(&id.node)?;
        let of_instance = [Some(front), application].into_iter().flatten();
        let checks = of_instance.flat_map(|record| node.checks_of(Some(&record.instance.id)));
        let statuses = checks.chain(node.checks_of(None)).map(|record| record.check.status);
        Some(statuses.max().unwrap_or(CheckStatus::Passing))
    }

    /// What takes connections for an application: a sidecar rather than the application itself.
    fn front(&self, service: &ServiceName, id: &EndpointId) -> Option<&InstanceRecord> {
        let fronts = self.connect.get(service)?.get(id)?;
        let instances = &self.nodes.get(&id.node)?.instances;
        let records = fronts.iter().filter_map(|front| instances.get(front));
        records.min_by_key(|record| record.instance.kind != Kind::ConnectProxy)
    }

    fn application(&self, service: &ServiceName, id: &EndpointId) -> Option<&InstanceRecord> {
        let record = self.instance_record(id)?;
        let (of, application) = endpoint_of(&record.instance);
        (of == *service && application == *id).then_some(record)
    }
}

/// Whether a text, which may be a host name, is this address.
fn is_address(text: &str, address: IpAddr) -> bool {
    text.starts_with(|first: char| first.is_ascii_hexdigit() || first == ':')
        && text.parse() == Ok(address)
}

impl NodeState {
    /// The checks on one instance, or those of the node itself.
    fn checks_of(&self, instance: Option<&InstanceId>) -> impl Iterator<Item = &CheckRecord> {
        let ids = self.attached.get(&instance.cloned()).into_iter().flatten();
        ids.filter_map(|id| self.checks.get(id))
    }
}
