//! What the answerer reads: the catalog, or in tests whatever stands for it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{Catalog, HealthEntry, Holder, Node};
use crate::model::ServiceName;

/// Reads of one moment each, without waiting.
pub trait Registry {
    fn datacenter(&self) -> &str;
    /// All instances of a service.
    fn instances(&self, service: &ServiceName) -> Vec<HealthEntry>;
    /// Sidecars and natives in front of a service.
    fn fronts(&self, service: &ServiceName) -> Vec<HealthEntry>;
    /// A node by its name, without regard to case.
    fn node(&self, name: &str) -> Option<Arc<Node>>;
    /// Who is at an address.
    fn holder(&self, address: IpAddr) -> Option<Holder>;
    /// The nodes that answer questions like this one.
    fn servers(&self) -> Vec<Arc<Node>>;
}

impl Registry for Catalog {
    fn datacenter(&self) -> &str {
        &self.settings().datacenter
    }

    fn instances(&self, service: &ServiceName) -> Vec<HealthEntry> {
        self.health(service)
    }

    fn fronts(&self, service: &ServiceName) -> Vec<HealthEntry> {
        self.connect(service)
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.node_named(name)
    }

    fn holder(&self, address: IpAddr) -> Option<Holder> {
        self.holder_of(address)
    }

    fn servers(&self) -> Vec<Arc<Node>> {
        self.node_named(self.settings().node.as_str()).into_iter().collect()
    }
}
