//! `model` → protobuf. Total: every value has a message.

use std::collections::BTreeMap;

use serde_json::Value;

use super::generated as pb;
use crate::model::ban::Subject;
use crate::model::service::TaggedAddress;
use crate::model::snapshot::Change;
use crate::model::{
    Action, Bundle, Check, CheckKind, CheckReport, CheckStatus, Endpoint, EndpointId, Instance,
    JwtBundle, JwtKey, Party, Position, ProxySpec, ServiceName, Upstream,
};

impl From<Position> for pb::Position {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, revision: position.revision }
    }
}

impl From<pb::Position> for Position {
    fn from(position: pb::Position) -> Self {
        Self { epoch: position.epoch, revision: position.revision }
    }
}

impl From<&JwtBundle> for pb::JwtKeys {
    fn from(bundle: &JwtBundle) -> Self {
        let key = |key: &JwtKey| pb::JwtKey { id: key.id().to_owned(), point: key.point().to_vec() };
        Self {
            trust_domain: bundle.trust_domain.as_str().to_owned(),
            version: bundle.version,
            keys: bundle.keys.iter().map(key).collect(),
        }
    }
}

impl From<CheckStatus> for pb::CheckStatus {
    fn from(status: CheckStatus) -> Self {
        match status {
            CheckStatus::Passing => Self::Passing,
            CheckStatus::Warning => Self::Warning,
            CheckStatus::Critical => Self::Critical,
        }
    }
}

impl From<Action> for pb::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
            Action::Audit => Self::Audit,
        }
    }
}

impl From<&Instance> for pb::Instance {
    fn from(instance: &Instance) -> Self {
        let tagged = |(name, at): (&String, &TaggedAddress)| {
            (name.clone(), pb::TaggedAddress { address: at.address.clone(), port: at.port.into() })
        };
        Self {
            node: instance.node.to_string(),
            id: instance.id.to_string(),
            name: instance.name.to_string(),
            kind: instance.kind.as_str().to_owned(),
            tags: instance.tags.clone(),
            meta: instance.meta.clone().into_iter().collect(),
            address: instance.address.clone(),
            port: instance.port.into(),
            tagged_addresses: instance.tagged_addresses.iter().map(tagged).collect(),
            weight_passing: instance.weights.passing,
            weight_warning: Some(instance.weights.warning),
            native: instance.native,
            proxy: instance.proxy.as_ref().map(Into::into),
            enable_tag_override: instance.enable_tag_override,
        }
    }
}

impl From<&ProxySpec> for pb::Proxy {
    fn from(proxy: &ProxySpec) -> Self {
        Self {
            destination: proxy.destination.to_string(),
            destination_id: proxy.destination_id.to_string(),
            local_address: proxy.local_address.clone(),
            local_port: proxy.local_port.into(),
            upstreams: proxy.upstreams.iter().map(Into::into).collect(),
            config_json: json_object(&proxy.config),
        }
    }
}

impl From<&Upstream> for pb::Upstream {
    fn from(upstream: &Upstream) -> Self {
        Self {
            destination: upstream.destination.to_string(),
            local_bind_address: upstream.local_bind_address.clone(),
            local_bind_port: upstream.local_bind_port.into(),
            datacenter: upstream.datacenter.clone(),
            config_json: json_object(&upstream.config),
        }
    }
}

/// Empty for an empty map, to spare the common case two bytes and a parser.
fn json_object(map: &BTreeMap<String, Value>) -> String {
    if map.is_empty() {
        return String::new();
    }
    Value::Object(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()).to_string()
}

impl From<&Check> for pb::Check {
    /// The definition stays at home, but for a TTL that the server shall watch.
    fn from(check: &Check) -> Self {
        let ttl_ms = match check.definition.as_ref().map(|definition| &definition.kind) {
            Some(CheckKind::Ttl { ttl }) => u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        };
        let instance = check.instance.as_ref().map(|(id, _)| id.to_string()).unwrap_or_default();
        Self {
            id: check.id.clone(),
            name: check.name.clone(),
            notes: check.notes.clone(),
            status: pb::CheckStatus::from(check.status).into(),
            output: check.output.clone(),
            instance,
            type_name: check.type_name.clone(),
            ttl_ms,
        }
    }
}

impl From<&CheckReport> for pb::CheckReport {
    fn from(report: &CheckReport) -> Self {
        Self {
            id: report.id.clone(),
            status: pb::CheckStatus::from(report.status).into(),
            output: report.output.clone(),
        }
    }
}

impl From<&Bundle> for pb::Bundle {
    fn from(bundle: &Bundle) -> Self {
        Self {
            trust_domain: bundle.trust_domain.to_string(),
            version: bundle.version,
            roots: bundle.roots.iter().map(|root| root.to_vec()).collect(),
        }
    }
}

impl From<&Endpoint> for pb::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            service: endpoint.service.to_string(),
            node: endpoint.id.node.to_string(),
            instance: endpoint.id.instance.to_string(),
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            weight_passing: endpoint.weights.passing,
            weight_warning: endpoint.weights.warning,
        }
    }
}

impl From<&Subject> for pb::Ban {
    fn from(subject: &Subject) -> Self {
        Self { kind: subject.kind().to_owned(), value: subject.value().to_owned() }
    }
}

impl From<&Change> for pb::Resource {
    fn from(change: &Change) -> Self {
        use pb::resource::Resource;
        let resource = match change {
            Change::Service { name, exists } => {
                Resource::Service(pb::ServiceState { name: name.to_string(), exists: *exists })
            }
            Change::Endpoint(endpoint) => Resource::Endpoint(endpoint.into()),
            Change::EndpointGone { service, id } => Resource::EndpointGone(gone(service, id)),
            Change::Health { service, id, status } => Resource::Health(pb::EndpointHealth {
                service: service.to_string(),
                node: id.node.to_string(),
                instance: id.instance.to_string(),
                status: pb::CheckStatus::from(*status).into(),
            }),
            Change::Intention { source, destination, action } => {
                Resource::Intention(intention(source, destination, *action))
            }
            Change::IntentionGone { source, destination } => {
                Resource::IntentionGone(pb::IntentionGone {
                    source: source.to_string(),
                    destination: destination.to_string(),
                })
            }
            Change::DefaultAction(action) => {
                let action = pb::Action::from(*action).into();
                Resource::DefaultAction(pb::DefaultAction { action })
            }
            Change::Ban(subject) => Resource::Ban(subject.into()),
            Change::BanGone(subject) => Resource::BanGone(subject.into()),
            Change::Bundle(bundle) => Resource::Bundle(bundle.into()),
        };
        Self { resource: Some(resource) }
    }
}

fn gone(service: &ServiceName, id: &EndpointId) -> pb::EndpointGone {
    pb::EndpointGone {
        service: service.to_string(),
        node: id.node.to_string(),
        instance: id.instance.to_string(),
    }
}

fn intention(source: &Party, destination: &Party, action: Action) -> pb::Intention {
    pb::Intention {
        source: source.to_string(),
        destination: destination.to_string(),
        action: pb::Action::from(action).into(),
    }
}
