//! Checks, and health entries made of them.

use serde::Serialize;
use serde_json::Value;

use super::Empty;
use super::node::NodeJson;
use super::service::NodeService;
use crate::api::Index;
use crate::catalog::{CheckRecord, HealthEntry};

/// A check, in every listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct CheckJson<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    check_id: &'a str,
    name: &'a str,
    status: &'static str,
    notes: &'a str,
    output: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    #[serde(rename = "Type")]
    type_name: &'a str,
    definition: DefinitionJson<'a>,
    create_index: Index,
    modify_index: Index,
}

/// What the writer of a check said of how it is run; nothing for checks that are run here.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DefinitionJson<'a> {
    Shown(&'a Value),
    Nothing(Empty),
    Verbose(VerboseDefinition),
}

impl<'a> CheckJson<'a> {
    /// As the catalog shows it. `tags` are those of the instance the check is about; node checks have
    /// none.
    pub(in crate::api) fn catalog(record: &'a CheckRecord, tags: &'a [String]) -> Self {
        let check = &*record.check;
        let (service_id, service_name) = match &check.instance {
            Some((id, name)) => (id.as_str(), name.as_str()),
            None => ("", ""),
        };
        Self {
            node: check.node.as_str(),
            check_id: &check.id,
            name: &check.name,
            status: check.status.as_str(),
            notes: &check.notes,
            output: &check.output,
            service_id,
            service_name,
            service_tags: if check.instance.is_some() { tags } else { &[] },
            type_name: &check.type_name,
            definition: check
                .shown
                .as_ref()
                .map_or(DefinitionJson::Nothing(Empty {}), DefinitionJson::Shown),
            create_index: record.created,
            modify_index: record.modified,
        }
    }

    /// As the agent shows it: the indexes are the catalog's business.
    pub(in crate::api) fn agent(record: &'a CheckRecord, tags: &'a [String]) -> Self {
        Self { create_index: 0, modify_index: 0, ..Self::catalog(record, tags) }
    }

    /// As `agent/health` shows it, and nothing else in Consul does: without its type.
    pub(in crate::api) fn verbose(record: &'a CheckRecord, tags: &'a [String]) -> Self {
        let definition = DefinitionJson::Verbose(VerboseDefinition {
            interval: "0s",
            timeout: "0s",
            deregister_critical_service_after: "0s",
            http: "",
            header: None,
            method: "",
            body: "",
            tls_skip_verify: false,
            tcp: "",
        });
        Self { type_name: "", definition, ..Self::agent(record, tags) }
    }
}

/// A definition that spells out that nothing is in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VerboseDefinition {
    interval: &'static str,
    timeout: &'static str,
    deregister_critical_service_after: &'static str,
    #[serde(rename = "HTTP")]
    http: &'static str,
    header: Option<()>,
    method: &'static str,
    body: &'static str,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    #[serde(rename = "TCP")]
    tcp: &'static str,
}

/// An entry of `health/service`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct HealthJson<'a> {
    node: NodeJson<'a>,
    service: NodeService<'a>,
    checks: Vec<CheckJson<'a>>,
}

impl<'a> HealthJson<'a> {
    pub(in crate::api) fn new(datacenter: &'a str, entry: &'a HealthEntry) -> Self {
        let tags = &entry.instance.instance.tags;
        Self {
            node: NodeJson::new(datacenter, &entry.node),
            service: NodeService::from(&entry.instance),
            checks: entry.checks.iter().map(|check| CheckJson::catalog(check, tags)).collect(),
        }
    }
}
