//! Requests → `model`, the only place of the control plane that looks into them.
//!
//! Everything is checked, and a fault names the field as the client wrote it
//! (`instances[0].proxy.upstreams[2].local_bind_port`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tonic::Status;

use super::limits;
use crate::ca::{DEFAULT_JWT_TTL, MAX_JWT_TTL};
use crate::model::service::TaggedAddress;
use crate::model::{
    Check, CheckDefinition, CheckKind, CheckReport, CheckStatus, Instance, InstanceId, Kind, NameError,
    NodeName, ProxySpec, Registration, ServiceName, Upstream, Weights,
};
use crate::pb;

/// Shortest and longest TTL of a check.
const TTL_RANGE_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// Consul's limit for a weight.
const MAX_WEIGHT: u32 = 65_535;
/// Longest id of a check; the catalog's limit, named here by field.
const MAX_CHECK_ID_BYTES: usize = 256;

/// A field that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}; nothing was changed")]
pub(super) struct Fault {
    pub field: String,
    pub reason: String,
}

impl Fault {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::invalid_argument(fault.to_string())
    }
}

type Decoded<T> = Result<T, Fault>;

/// Instances and the checks on them. An empty node means `default_node`; without one it is a fault.
pub(super) fn registrations(
    instances: Vec<pb::Instance>,
    checks: Vec<pb::Check>,
    default_node: Option<&NodeName>,
) -> Decoded<Vec<Registration>> {
    within("instances", instances.len(), limits::MAX_INSTANCES)?;
    within("checks", checks.len(), limits::MAX_CHECKS)?;
    if instances.is_empty() {
        return Err(Fault::new("instances", "there is none; send the instance to register"));
    }
    let mut all = Vec::with_capacity(instances.len());
    for (i, message) in instances.into_iter().enumerate() {
        let instance = instance(message, &format!("instances[{i}]"), default_node)?;
        all.push(Registration { instance, checks: Vec::new() });
    }
    distinct("instances", all.iter().map(|one| one.instance.id.as_str()))?;
    for (i, message) in checks.into_iter().enumerate() {
        let at = format!("checks[{i}]");
        let owner = owner_of(&message, &at, &mut all)?;
        let check = check(message, &at, &owner.instance)?;
        owner.checks.push(check);
    }
    distinct("checks", all.iter().flat_map(|one| &one.checks).map(|check| check.id.as_str()))?;
    Ok(all)
}

/// The registration a check belongs to: the one it names, or the first.
fn owner_of<'a>(
    message: &pb::Check,
    at: &str,
    all: &'a mut [Registration],
) -> Decoded<&'a mut Registration> {
    all.iter_mut()
        .find(|one| message.instance.is_empty() || one.instance.id.as_str() == message.instance)
        .ok_or_else(|| {
            let reason = format!("{:?} is not among the instances of this request", message.instance);
            Fault::new(format!("{at}.instance"), reason)
        })
}

fn instance(message: pb::Instance, at: &str, default_node: Option<&NodeName>) -> Decoded<Instance> {
    let name: ServiceName = parsed(&message.name, at, "name")?;
    let id = if message.id.is_empty() { name.as_str() } else { &message.id };
    let (kind, proxy) = kind_and_proxy(&message.kind, message.proxy, at)?;
    Ok(Instance {
        node: node_name(&message.node, &format!("{at}.node"), default_node)?,
        id: parsed(id, at, "id")?,
        kind,
        tags: texts(message.tags, &format!("{at}.tags"))?,
        meta: meta(message.meta, &format!("{at}.meta"))?,
        address: address(message.address, format!("{at}.address"))?,
        port: port(message.port, format!("{at}.port"))?,
        tagged_addresses: tagged_addresses(message.tagged_addresses, at)?,
        weights: weights(message.weight_passing, message.weight_warning, at)?,
        enable_tag_override: message.enable_tag_override,
        native: message.native,
        proxy,
        name,
    })
}

fn kind_and_proxy(kind: &str, proxy: Option<pb::Proxy>, at: &str) -> Decoded<(Kind, Option<ProxySpec>)> {
    match (kind, proxy) {
        ("", None) => Ok((Kind::Typical, None)),
        ("connect-proxy", Some(proxy)) => {
            Ok((Kind::ConnectProxy, Some(proxy_spec(proxy, &format!("{at}.proxy"))?)))
        }
        ("connect-proxy", None) => {
            Err(Fault::new(format!("{at}.proxy"), "a sidecar must say which service it is for"))
        }
        ("", Some(_)) => Err(Fault::new(
            format!("{at}.proxy"),
            "only an instance of kind `connect-proxy` may have one",
        )),
        (other, _) => Err(Fault::new(
            format!("{at}.kind"),
            format!("{other:?} is not known; leave it empty or write `connect-proxy`"),
        )),
    }
}

fn proxy_spec(message: pb::Proxy, at: &str) -> Decoded<ProxySpec> {
    let destination: ServiceName = parsed(&message.destination, at, "destination")?;
    let id =
        if message.destination_id.is_empty() { destination.as_str() } else { &message.destination_id };
    within(format!("{at}.upstreams"), message.upstreams.len(), limits::MAX_UPSTREAMS)?;
    let upstreams = message
        .upstreams
        .into_iter()
        .enumerate()
        .map(|(i, one)| upstream(one, &format!("{at}.upstreams[{i}]")))
        .collect::<Decoded<_>>()?;
    Ok(ProxySpec {
        destination_id: parsed(id, at, "destination_id")?,
        local_address: address(message.local_address, format!("{at}.local_address"))?,
        local_port: port(message.local_port, format!("{at}.local_port"))?,
        upstreams,
        config: json_object(&message.config_json, format!("{at}.config_json"))?,
        destination,
    })
}

fn upstream(message: pb::Upstream, at: &str) -> Decoded<Upstream> {
    Ok(Upstream {
        destination: parsed(&message.destination, at, "destination")?,
        local_bind_address: address(message.local_bind_address, format!("{at}.local_bind_address"))?,
        local_bind_port: port(message.local_bind_port, format!("{at}.local_bind_port"))?,
        datacenter: text(message.datacenter, format!("{at}.datacenter"))?,
        config: json_object(&message.config_json, format!("{at}.config_json"))?,
    })
}

fn check(message: pb::Check, at: &str, owner: &Instance) -> Decoded<Check> {
    let id = if message.id.is_empty() { format!("service:{}", owner.id) } else { message.id };
    let id = check_id(id, format!("{at}.id"))?;
    let name =
        if message.name.is_empty() { format!("Service '{}' check", owner.name) } else { message.name };
    let name = text(name, format!("{at}.name"))?;
    let notes = text(message.notes, format!("{at}.notes"))?;
    let status = initial_status(message.status, format!("{at}.status"))?;
    let definition = ttl_definition(message.ttl_ms, &id, &name, &notes, status)
        .map_err(|reason| Fault::new(format!("{at}.ttl_ms"), reason))?;
    let type_name = match &definition {
        Some(definition) => definition.kind.type_name().to_owned(),
        None => text(message.type_name, format!("{at}.type_name"))?,
    };
    Ok(Check {
        node: owner.node.clone(),
        output: crate::model::check::cut_output(&message.output),
        instance: Some((owner.id.clone(), owner.name.clone())),
        id,
        name,
        notes,
        status,
        type_name,
        definition,
        shown: None,
    })
}

/// Zero means that the caller runs the check itself.
fn ttl_definition(
    ttl_ms: u64,
    id: &str,
    name: &str,
    notes: &str,
    initial: CheckStatus,
) -> Result<Option<CheckDefinition>, String> {
    if ttl_ms == 0 {
        return Ok(None);
    }
    if !TTL_RANGE_MS.contains(&ttl_ms) {
        let (least, most) = (TTL_RANGE_MS.start(), TTL_RANGE_MS.end());
        return Err(format!("{ttl_ms} is out of range; give {least} to {most} milliseconds"));
    }
    Ok(Some(CheckDefinition {
        id: id.to_owned(),
        name: name.to_owned(),
        notes: notes.to_owned(),
        kind: CheckKind::Ttl { ttl: Duration::from_millis(ttl_ms) },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        initial,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }))
}

/// Results of checks.
pub(super) fn reports(messages: Vec<pb::CheckReport>) -> Decoded<Vec<CheckReport>> {
    within("reports", messages.len(), limits::MAX_REPORTS)?;
    let one = |(i, message): (usize, pb::CheckReport)| {
        let status = pb::CheckStatus::try_from(message.status).ok().and_then(status);
        let status =
            status.ok_or_else(|| unknown_status(format!("reports[{i}].status"), message.status))?;
        Ok(CheckReport {
            id: check_id(message.id, format!("reports[{i}].id"))?,
            status,
            output: crate::model::check::cut_output(&message.output),
        })
    };
    messages.into_iter().enumerate().map(one).collect()
}

/// Names of services, such as the upstreams of a sidecar.
pub(super) fn services(names: &[String], field: &str) -> Decoded<BTreeSet<ServiceName>> {
    within(field, names.len(), limits::MAX_UPSTREAMS)?;
    let one = |(i, name): (usize, &String)| {
        ServiceName::new(name).map_err(|error| Fault::new(format!("{field}[{i}]"), error.to_string()))
    };
    names.iter().enumerate().map(one).collect()
}

/// One service name.
pub(super) fn service(name: &str, field: &str) -> Decoded<ServiceName> {
    ServiceName::new(name).map_err(|error| Fault::new(field, error.to_string()))
}

/// A node; empty means `default`, where there is one.
pub(super) fn node_name(name: &str, field: &str, default: Option<&NodeName>) -> Decoded<NodeName> {
    match default {
        Some(default) if name.is_empty() => Ok(default.clone()),
        _ => NodeName::new(name).map_err(|error| Fault::new(field, error.to_string())),
    }
}

/// The id of an instance.
pub(super) fn instance_id(id: &str, field: &str) -> Decoded<InstanceId> {
    InstanceId::new(id).map_err(|error| Fault::new(field, error.to_string()))
}

/// A request for a certificate; its contents are the CA's to judge.
pub(super) fn csr(csr: &[u8]) -> Decoded<()> {
    if csr.is_empty() {
        return Err(Fault::new("csr", "it is empty; send a PKCS#10 request in DER"));
    }
    within("csr", csr.len(), limits::MAX_CSR_BYTES)
}

/// For whom a token is.
pub(super) fn audience(audience: &[String]) -> Decoded<()> {
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(Fault::new("audience", "it is empty; say for whom the token is"));
    }
    within("audience", audience.len(), limits::MAX_AUDIENCES)?;
    let longest = audience.iter().map(String::len).max().unwrap_or_default();
    within("audience", longest, limits::MAX_AUDIENCE_BYTES)
}

/// The life of a token; 0 is the usual one.
pub(super) fn jwt_ttl(seconds: u32) -> Decoded<Duration> {
    match seconds {
        0 => Ok(DEFAULT_JWT_TTL),
        seconds if u64::from(seconds) <= MAX_JWT_TTL.as_secs() => {
            Ok(Duration::from_secs(seconds.into()))
        }
        seconds => {
            let reason = format!("{seconds} is too long; at most {} are allowed", MAX_JWT_TTL.as_secs());
            Err(Fault::new("ttl_s", reason))
        }
    }
}

pub(super) fn within(field: impl Into<String>, found: usize, limit: usize) -> Decoded<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Fault::new(field, format!("{found} is too much; at most {limit} are allowed")))
}

fn distinct<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Decoded<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Fault::new(field, format!("the id {name:?} comes twice")));
        }
    }
    Ok(())
}

fn parsed<T: std::str::FromStr<Err = NameError>>(text: &str, at: &str, field: &str) -> Decoded<T> {
    text.parse().map_err(|error: NameError| Fault::new(format!("{at}.{field}"), error.to_string()))
}

fn status(status: pb::CheckStatus) -> Option<CheckStatus> {
    match status {
        pb::CheckStatus::Unspecified => None,
        pb::CheckStatus::Passing => Some(CheckStatus::Passing),
        pb::CheckStatus::Warning => Some(CheckStatus::Warning),
        pb::CheckStatus::Critical => Some(CheckStatus::Critical),
    }
}

/// A new check without a status is critical until somebody says otherwise, as in Consul.
fn initial_status(number: i32, field: String) -> Decoded<CheckStatus> {
    let known = pb::CheckStatus::try_from(number).map_err(|_| unknown_status(field, number))?;
    Ok(status(known).unwrap_or(CheckStatus::Critical))
}

fn unknown_status(field: String, number: i32) -> Fault {
    Fault::new(field, format!("{number} is not a status; send passing, warning or critical"))
}

fn check_id(id: String, field: String) -> Decoded<String> {
    if id.is_empty() {
        return Err(Fault::new(field, "it is empty"));
    }
    within(&field, id.len(), MAX_CHECK_ID_BYTES)?;
    if id.chars().any(char::is_control) {
        return Err(Fault::new(field, "control characters are not allowed"));
    }
    Ok(id)
}

fn port(number: u32, field: String) -> Decoded<u16> {
    u16::try_from(number)
        .map_err(|_| Fault::new(field, format!("{number} is not a port; the last one is 65535")))
}

fn weights(passing: u32, warning: Option<u32>, at: &str) -> Decoded<Weights> {
    let warning = warning.unwrap_or(1);
    for (field, weight) in [("weight_passing", passing), ("weight_warning", warning)] {
        if weight > MAX_WEIGHT {
            let reason = format!("{weight} is too much; at most {MAX_WEIGHT} is allowed");
            return Err(Fault::new(format!("{at}.{field}"), reason));
        }
    }
    Ok(Weights { passing: passing.max(1), warning })
}

fn text(text: String, field: String) -> Decoded<String> {
    within(field, text.len(), limits::MAX_TEXT_BYTES)?;
    Ok(text)
}

/// An IP address or host name; whether it can be reached is not known here.
fn address(address: String, field: String) -> Decoded<String> {
    if address.len() > 255 || address.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
        return Err(Fault::new(field, "it is not an IP address or host name"));
    }
    Ok(address)
}

fn texts(all: Vec<String>, field: &str) -> Decoded<Vec<String>> {
    within(field, all.len(), limits::MAX_ATTRIBUTES)?;
    all.into_iter().enumerate().map(|(i, one)| text(one, format!("{field}[{i}]"))).collect()
}

fn meta(
    all: std::collections::HashMap<String, String>,
    field: &str,
) -> Decoded<BTreeMap<String, String>> {
    within(field, all.len(), limits::MAX_ATTRIBUTES)?;
    all.into_iter()
        .map(|(key, value)| {
            let key = text(key, field.to_owned())?;
            let value = text(value, format!("{field}[{key:?}]"))?;
            Ok((key, value))
        })
        .collect()
}

fn tagged_addresses(
    all: std::collections::HashMap<String, pb::TaggedAddress>,
    at: &str,
) -> Decoded<BTreeMap<String, TaggedAddress>> {
    let field = format!("{at}.tagged_addresses");
    within(&field, all.len(), limits::MAX_ATTRIBUTES)?;
    all.into_iter()
        .map(|(name, message)| {
            let name = text(name, field.clone())?;
            let one = TaggedAddress {
                address: address(message.address, format!("{field}[{name:?}].address"))?,
                port: port(message.port, format!("{field}[{name:?}].port"))?,
            };
            Ok((name, one))
        })
        .collect()
}

fn json_object(text: &str, field: String) -> Decoded<BTreeMap<String, Value>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    within(&field, text.len(), limits::MAX_TEXT_BYTES)?;
    serde_json::from_str(text)
        .map_err(|error| Fault::new(field, format!("it is not a JSON object: {error}")))
}

#[cfg(test)]
#[path = "tests/convert.rs"]
mod tests;
