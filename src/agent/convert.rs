//! Messages of the control plane → `model`, and the first message of a stream.
//!
//! A resource that cannot be taken is refused alone; its refusal names it, so that the older one of
//! the same name can stay.

use std::collections::BTreeMap;

use crate::model::ban::Subject;
use crate::model::snapshot::Change;
use crate::model::{
    Action, Bundle, CheckId, CheckReport, CheckStatus, Endpoint, EndpointId, InstanceId, JwtBundle,
    JwtKey, NodeName, Party, Registration, ServiceName, TrustDomain, Weights,
};
use crate::pb;
use crate::pb::resource::Resource;

/// Roots or keys of a bundle; rotation needs two or three.
const MAX_ROOTS: usize = 64;

/// A resource that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// As in a log line: `endpoint db n1/db-1`.
    pub resource: String,
    pub reason: String,
    /// The endpoint it is about, whose older state stays.
    pub endpoint: Option<(ServiceName, EndpointId)>,
    /// What to do instead, where doing nothing is not safe.
    pub instead: Option<Box<Change>>,
}

impl Refused {
    fn new(resource: String, reason: &impl ToString) -> Self {
        Self { resource, reason: reason.to_string(), endpoint: None, instead: None }
    }

    pub(super) fn bundle(reason: &impl ToString) -> Self {
        Self::new("bundle".to_owned(), reason)
    }
}

impl From<&Refused> for pb::Refusal {
    fn from(refused: &Refused) -> Self {
        Self { resource: refused.resource.clone(), reason: refused.reason.clone() }
    }
}

/// Reads one resource.
pub(super) fn change(message: pb::Resource) -> Result<Change, Refused> {
    match message.resource {
        Some(Resource::Service(message)) => service(&message),
        Some(Resource::Endpoint(message)) => endpoint(message),
        Some(Resource::EndpointGone(m)) => {
            let (service, id) = endpoint_name("endpoint_gone", &m.service, &m.node, &m.instance)?;
            Ok(Change::EndpointGone { service, id })
        }
        Some(Resource::Health(message)) => health(&message),
        Some(Resource::Intention(message)) => intention(&message),
        Some(Resource::IntentionGone(m)) => {
            let (source, destination) = parties("intention_gone", &m.source, &m.destination)?;
            Ok(Change::IntentionGone { source, destination })
        }
        Some(Resource::DefaultAction(message)) => default_action(message),
        Some(Resource::Ban(message)) => subject(&message).map(Change::Ban),
        Some(Resource::BanGone(message)) => subject(&message).map(Change::BanGone),
        Some(Resource::Bundle(message)) => {
            bundle(message).map(Change::Bundle).map_err(|reason| Refused::bundle(&reason))
        }
        None => Err(Refused::new("unknown".to_owned(), &"its kind is not known to this version")),
    }
}

fn service(message: &pb::ServiceState) -> Result<Change, Refused> {
    let name = ServiceName::new(&message.name)
        .map_err(|error| Refused::new(format!("service {:?}", message.name), &error))?;
    Ok(Change::Service { name, exists: message.exists })
}

fn endpoint(message: pb::Endpoint) -> Result<Change, Refused> {
    let (service, id) = endpoint_name("endpoint", &message.service, &message.node, &message.instance)?;
    let refuse = |reason: String| Refused {
        resource: format!("endpoint {service} {id}"),
        reason,
        endpoint: Some((service.clone(), id.clone())),
        instead: None,
    };
    let port = u16::try_from(message.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| refuse(format!("{} is not a port", message.port)))?;
    let host_is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    if message.host.is_empty() || message.host.len() > 255 || message.host.contains(host_is_odd) {
        return Err(refuse("its host is not an IP address or host name".to_owned()));
    }
    let weights = Weights { passing: message.weight_passing, warning: message.weight_warning };
    Ok(Change::Endpoint(Endpoint { id, service, host: message.host, port, weights }))
}

/// An endpoint whose health cannot be read keeps what it had.
fn health(message: &pb::EndpointHealth) -> Result<Change, Refused> {
    let (service, id) = endpoint_name("health", &message.service, &message.node, &message.instance)?;
    let status = match message.status() {
        pb::CheckStatus::Passing => CheckStatus::Passing,
        pb::CheckStatus::Warning => CheckStatus::Warning,
        pb::CheckStatus::Critical => CheckStatus::Critical,
        pb::CheckStatus::Unspecified => {
            let resource = format!("health {service} {id}");
            let reason = format!("{} is not a status", message.status);
            return Err(Refused { resource, reason, endpoint: Some((service, id)), instead: None });
        }
    };
    Ok(Change::Health { service, id, status })
}

/// A rule whose action is not understood denies: a later version may mean something stricter.
fn intention(message: &pb::Intention) -> Result<Change, Refused> {
    let (source, destination) = parties("intention", &message.source, &message.destination)?;
    if let Some(action) = action(message.action()) {
        return Ok(Change::Intention { source, destination, action });
    }
    let resource = format!("intention {source} {destination}");
    let reason = format!("{} is not an action; it denies", message.action);
    let instead = Change::Intention { source, destination, action: Action::Deny };
    Err(Refused { instead: Some(Box::new(instead)), ..Refused::new(resource, &reason) })
}

fn default_action(message: pb::DefaultAction) -> Result<Change, Refused> {
    if let Some(action) = action(message.action()) {
        return Ok(Change::DefaultAction(action));
    }
    let reason = format!("{} is not an action; it denies", message.action);
    let instead = Some(Box::new(Change::DefaultAction(Action::Deny)));
    Err(Refused { instead, ..Refused::new("default_action".to_owned(), &reason) })
}

/// A ban whose kind is not known cannot be applied, and nothing that could be done instead is safe: the
/// server hears of it.
fn subject(message: &pb::Ban) -> Result<Subject, Refused> {
    let refuse =
        |reason: &str| Refused::new(format!("ban {:?} {:?}", message.kind, message.value), &reason);
    match Subject::parse(&message.kind, &message.value) {
        Some(parsed) => parsed.map_err(|error| refuse(&error.to_string())),
        None => Err(refuse("its kind is not known to this version")),
    }
}

const fn action(action: pb::Action) -> Option<Action> {
    match action {
        pb::Action::Unspecified => None,
        pb::Action::Allow => Some(Action::Allow),
        pb::Action::Deny => Some(Action::Deny),
        pb::Action::Audit => Some(Action::Audit),
    }
}

/// Reads a trust bundle; whether its roots are certificates is for `tls` to say.
pub(super) fn bundle(message: pb::Bundle) -> Result<Bundle, String> {
    let trust_domain = TrustDomain::new(&message.trust_domain).map_err(|error| error.to_string())?;
    if message.roots.is_empty() || message.roots.len() > MAX_ROOTS {
        return Err(format!("it has {} roots; 1 to {MAX_ROOTS} are allowed", message.roots.len()));
    }
    let roots = message.roots.into_iter().map(Into::into).collect();
    Ok(Bundle { trust_domain, version: message.version, roots })
}

/// Reads the keys that check tokens.
pub(super) fn jwt_keys(message: pb::JwtKeys) -> Result<JwtBundle, String> {
    let trust_domain = TrustDomain::new(&message.trust_domain).map_err(|error| error.to_string())?;
    if message.keys.len() > MAX_ROOTS {
        return Err(format!("it tells {} keys for tokens", message.keys.len()));
    }
    let key = |key: pb::JwtKey| JwtKey::new(&key.id, &key.point);
    let keys = message.keys.into_iter().map(key).collect::<Option<_>>();
    let keys = keys.ok_or("a key for tokens is malformed")?;
    Ok(JwtBundle { trust_domain, version: message.version, keys })
}

fn endpoint_name(
    kind: &str,
    service: &str,
    node: &str,
    instance: &str,
) -> Result<(ServiceName, EndpointId), Refused> {
    let read = || Ok((ServiceName::new(service)?, NodeName::new(node)?, InstanceId::new(instance)?));
    let (service, node, instance) = read().map_err(|error: crate::model::NameError| {
        Refused::new(format!("{kind} {service:?} {node:?}/{instance:?}"), &error)
    })?;
    Ok((service, EndpointId { node, instance }))
}

fn parties(kind: &str, source: &str, destination: &str) -> Result<(Party, Party), Refused> {
    let read = || Ok((Party::parse(source)?, Party::parse(destination)?));
    read().map_err(|error: crate::model::NameError| {
        Refused::new(format!("{kind} {source:?} {destination:?}"), &error)
    })
}

/// The instances and checks of a registration. Definitions stay here, where the checks run; a result
/// that is known already goes along.
pub(super) fn registrations(
    registrations: &[Registration],
    known: &BTreeMap<CheckId, CheckReport>,
) -> (Vec<pb::Instance>, Vec<pb::Check>) {
    let instances = registrations.iter().map(|one| (&one.instance).into()).collect();
    let checks = registrations.iter().flat_map(|one| &one.checks);
    let checks = checks.map(|check| {
        let mut message = pb::Check { ttl_ms: 0, ..check.into() };
        if let Some(report) = known.get(&check.id) {
            message.status = pb::CheckStatus::from(report.status).into();
            message.output.clone_from(&report.output);
        }
        message
    });
    (instances, checks.collect())
}

#[cfg(test)]
#[path = "tests/convert.rs"]
mod tests;
