//! The resources sidecars follow, and who follows which. Pure.
//!
//! The order of the variants is the order in which changes are sent: a service before its endpoints,
//! an endpoint before its health.

use super::Interest;
use crate::model::ban::Subject;
use crate::model::{EndpointId, Party, ServiceName};

/// Names one thing that can change for a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    Service(ServiceName),
    Endpoint(ServiceName, EndpointId),
    Health(ServiceName, EndpointId),
    /// Destination and source.
    Intention(Party, Party),
    Ban(Subject),
}

/// A set of resources that somebody follows as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    Service(ServiceName),
    Destination(Party),
    /// Everybody follows them.
    Bans,
}

impl Resource {
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Service(name) | Self::Endpoint(name, _) | Self::Health(name, _) => {
                Scope::Service(name.clone())
            }
            Self::Intention(destination, _) => Scope::Destination(destination.clone()),
            Self::Ban(_) => Scope::Bans,
        }
    }
}

impl Interest {
    /// The scopes of a sidecar: its upstreams, intentions toward its own service and toward all, and
    /// bans.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let services = self.services.iter().cloned().map(Scope::Service);
        let destinations = self.destinations.iter().cloned().map(Party::Service);
        let destinations = destinations.chain([Party::Any]).map(Scope::Destination);
        services.chain(destinations).chain([Scope::Bans])
    }
}
