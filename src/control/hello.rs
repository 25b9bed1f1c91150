//! The first message of a Sync stream: checked against the caller's certificate, then taken hold of.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;

use super::admission::{add_drain_checks, application, fill_addresses, may_register};
use super::convert;
use super::failure::of_catalog;
use super::limits::{MAX_PROCESS_BYTES, MAX_VERSION_BYTES};
use super::peer::{Peer, Proven};
use super::sessions::{Bid, Claim, Taken};
use super::sync::Context;
use crate::catalog::proxies::ProxyStatus;
use crate::catalog::{Catalog, CatalogError, Interest, LeaseId, Owner, Unlisted};
use crate::model::{EndpointId, NodeName, Position, Registration};
use crate::pb;

/// A first message that the caller may send.
pub(super) struct Greeting {
    pub proven: Proven,
    pub registrations: Vec<Registration>,
    pub node: NodeName,
    pub interest: Interest,
    pub resume: Option<Position>,
    pub bundle_version: u64,
    /// Another process of the sidecar holds the instances.
    pub observe: bool,
    draining: bool,
}

/// The instances are registered and belong to this stream.
pub(super) struct Hold {
    pub claim: Claim,
    /// Closes when another stream takes over.
    pub replaced: oneshot::Receiver<()>,
    pub lease: LeaseId,
}

impl Greeting {
    /// Checks every field, and that the caller may register all of it.
    pub(super) fn read(context: &Context, peer: &Peer, hello: pb::Hello) -> Result<(Self, Bid), Status> {
        let (proven, service) = peer.service(SystemTime::now())?;
        let upstreams = convert::services(&hello.upstreams, "upstreams")?;
        convert::within("process", hello.process.len(), MAX_PROCESS_BYTES)?;
        convert::within("version", hello.version.len(), MAX_VERSION_BYTES)?;
        let mut registrations = convert::registrations(hello.instances, hello.checks, None)?;
        may_register(&context.catalog, &service, &registrations)?;
        fill_addresses(&mut registrations, peer.address.ip());
        leave_checks_to_sidecar(&mut registrations);
        let subject = application(&registrations).ok_or_else(|| {
            Status::invalid_argument("instances: there is none; send the instance to register")
        })?;
        let node = subject.node.clone();
        let status = ProxyStatus {
            node: node.clone(),
            instance: subject.instance.clone(),
            service: service.clone(),
            version: hello.version,
            connected: true,
            since: SystemTime::now(),
            acknowledged: Position::default(),
            refused: Vec::new(),
            leaf_not_after: Some(proven.not_after),
            draining: hello.draining,
        };
        let bid = Bid {
            instances: claimed(subject, &registrations)?,
            process: hello.process,
            bundle: hello.bundle_version,
            root_key_id: proven.root_key_id.clone(),
            status,
        };
        let greeting = Self {
            interest: Interest { services: upstreams, destinations: BTreeSet::from([service]) },
            resume: hello.resume.map(Into::into),
            bundle_version: hello.bundle_version,
            observe: hello.observe,
            draining: hello.draining,
            proven,
            registrations,
            node,
        };
        Ok((greeting, bid))
    }

    /// Claims the instances against other streams, then registers them under a lease.
    pub(super) async fn take_hold(&self, context: &Context, bid: Bid) -> Result<Hold, Status> {
        let claimed = context.sessions.claim(bid, Instant::now(), context.settings.lease_ttl);
        let (claim, replaced) = claimed.map_err(|taken| already_held(&taken))?;
        let mut registrations = self.registrations.clone();
        if self.draining {
            add_drain_checks(&mut registrations);
        }
        match register(context, registrations).await {
            Ok(lease) => Ok(Hold { claim, replaced, lease }),
            Err(error) => {
                claim.leave();
                Err(of_catalog(&error))
            }
        }
    }
}

/// A sidecar runs its checks itself, TTL clocks too, and tells changes only: a clock of the server's
/// would run out although the sidecar's is fed.
fn leave_checks_to_sidecar(registrations: &mut [Registration]) {
    for check in registrations.iter_mut().flat_map(|one| &mut one.checks) {
        check.definition = None;
    }
}

/// All instances of the registrations and the one they are about, which are on one node.
fn claimed(subject: EndpointId, registrations: &[Registration]) -> Result<Vec<EndpointId>, Status> {
    let mut instances = BTreeSet::new();
    for Registration { instance, .. } in registrations {
        if instance.node != subject.node {
            return Err(Status::invalid_argument(
                "instances: an application and its sidecar must be on the same node",
            ));
        }
        instances.insert(EndpointId { node: instance.node.clone(), instance: instance.id.clone() });
    }
    instances.insert(subject);
    Ok(instances.into_iter().collect())
}

/// Registers the instances under a lease: the one they have, so that a reconnect changes nothing, or
/// a new one.
async fn register(context: &Context, registrations: Vec<Registration>) -> Result<LeaseId, CatalogError> {
    let catalog = &context.catalog;
    if let Some(lease) = common_lease(catalog, &registrations)
        && catalog.keep_alive(lease).await.is_ok()
    {
        match catalog.register(registrations.clone(), Owner::Lease(lease), Unlisted::Remove).await {
            Ok(_) => return Ok(lease),
            Err(CatalogError::NoLease(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let lease = catalog.grant_lease(context.settings.lease_ttl).await?;
    match catalog.register(registrations, Owner::Lease(lease), Unlisted::Remove).await {
        Ok(_) => Ok(lease),
        Err(error) => {
            // It holds nothing and would run out by itself.
            let _revoked = catalog.revoke_lease(lease).await;
            Err(error)
        }
    }
}

/// The lease that all of these instances already have.
fn common_lease(catalog: &Catalog, registrations: &[Registration]) -> Option<LeaseId> {
    let mut found = None;
    for Registration { instance, .. } in registrations {
        let Owner::Lease(lease) = catalog.instance(&instance.node, &instance.id)?.instance.owner else {
            return None;
        };
        if found.is_some_and(|first| first != lease) {
            return None;
        }
        found = Some(lease);
    }
    found
}

fn already_held(taken: &Taken) -> Status {
    let EndpointId { node, instance } = &taken.instance;
    Status::already_exists(format!(
        "instance {instance} on node {node} is held by another sidecar that is alive; stop that one or choose \
         another instance id"
    ))
}
