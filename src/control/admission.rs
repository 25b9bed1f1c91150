//! What a service may write to the catalog. Pure but for two questions to the catalog.
//!
//! The identity comes from the caller's certificate; an instance must be of that service, or be its
//! sidecar, and must not take over the id of another service's instance or check.

use std::net::IpAddr;

use tonic::Status;

use crate::catalog::Catalog;
use crate::model::{
    Check, CheckStatus, EndpointId, Instance, InstanceId, Kind, NodeName, Registration, ServiceName,
};

/// Id prefix of the check that keeps peers away from a draining instance.
const DRAIN_CHECK: &str = "_drain:";

/// The service an instance acts for: its own, or the one its proxy stands before.
pub(super) fn subject(instance: &Instance) -> &ServiceName {
    match &instance.proxy {
        Some(proxy) if instance.kind == Kind::ConnectProxy => &proxy.destination,
        _ => &instance.name,
    }
}

/// The application instance that a registration is about.
pub(super) fn application(registrations: &[Registration]) -> Option<EndpointId> {
    let sidecar = registrations.iter().find_map(|one| Some((one, one.instance.proxy.as_ref()?)));
    match sidecar {
        Some((one, proxy)) => {
            Some(EndpointId { node: one.instance.node.clone(), instance: proxy.destination_id.clone() })
        }
        None => registrations.first().map(|one| EndpointId {
            node: one.instance.node.clone(),
            instance: one.instance.id.clone(),
        }),
    }
}

/// Checks that `service` may register all of this.
///
/// # Errors
/// `PERMISSION_DENIED`, saying which instance or check is not its own.
pub(super) fn may_register(
    catalog: &Catalog,
    service: &ServiceName,
    registrations: &[Registration],
) -> Result<(), Status> {
    for Registration { instance, checks } in registrations {
        is_of(instance, service)?;
        may_touch(catalog, service, &instance.node, &instance.id)?;
        if let Some(proxy) = &instance.proxy {
            may_touch(catalog, service, &instance.node, &proxy.destination_id)?;
        }
        for check in checks {
            may_replace(catalog, check)?;
        }
    }
    Ok(())
}

/// Whether an instance is of `service` or its sidecar. A sidecar has the derived name, for under a
/// free one it could pass for an instance of another service.
fn is_of(instance: &Instance, service: &ServiceName) -> Result<(), Status> {
    let of = subject(instance);
    if of != service {
        return Err(Status::permission_denied(format!(
            "instance {} is of service {of}, but the certificate is for {service}; enrol as {of} to register it",
            instance.id
        )));
    }
    let derived = format!("{service}-sidecar-proxy");
    if instance.kind == Kind::ConnectProxy && !instance.name.as_str().eq_ignore_ascii_case(&derived) {
        return Err(Status::permission_denied(format!(
            "the sidecar of {service} must be named {derived}, not {}",
            instance.name
        )));
    }
    Ok(())
}

/// Whether the id of an instance is free or held by the same service.
pub(super) fn may_touch(
    catalog: &Catalog,
    service: &ServiceName,
    node: &NodeName,
    id: &InstanceId,
) -> Result<(), Status> {
    let Some(existing) = catalog.instance(node, id) else { return Ok(()) };
    let owner = subject(&existing.instance.instance);
    if owner == service {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "instance {id} on node {node} belongs to service {owner}; choose another id"
    )))
}

/// Whether the id of a check is free or held by the same instance.
fn may_replace(catalog: &Catalog, check: &Check) -> Result<(), Status> {
    let owner = check.instance.as_ref().map(|(id, _)| id);
    let Some(existing) = catalog.check(&check.node, &check.id) else { return Ok(()) };
    if existing.check.instance.as_ref().map(|(id, _)| id) == owner {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "check {} on node {} belongs to another instance; choose another id",
        check.id, check.node
    )))
}

/// Fills in what only the server knows: an instance without an address has the one it connected from.
pub(super) fn fill_addresses(registrations: &mut [Registration], peer: IpAddr) {
    for one in registrations.iter_mut().filter(|one| one.instance.address.is_empty()) {
        one.instance.address = peer.to_canonical().to_string();
    }
}

/// Gives every instance a critical check, so that nobody chooses it any more.
pub(super) fn add_drain_checks(registrations: &mut [Registration]) {
    for Registration { instance, checks } in registrations {
        checks.push(Check {
            node: instance.node.clone(),
            id: format!("{DRAIN_CHECK}{}", instance.id),
            name: "Draining".to_owned(),
            notes: String::new(),
            status: CheckStatus::Critical,
            output: "The sidecar is shutting down and takes no new connections.".to_owned(),
            instance: Some((instance.id.clone(), instance.name.clone())),
            type_name: String::new(),
            definition: None,
            shown: None,
        });
    }
}
