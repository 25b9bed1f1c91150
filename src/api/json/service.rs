//! Service instances, in the three forms Consul has: the agent's, the catalog's flattened one, and the
//! one inside of health entries and node listings.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use super::{Empty, node};
use crate::api::Index;
use crate::catalog::{HealthEntry, InstanceRecord};
use crate::model::{Instance, ProxySpec, Upstream, Weights, service::TaggedAddress};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WeightsJson {
    passing: u32,
    warning: u32,
}

impl From<Weights> for WeightsJson {
    fn from(weights: Weights) -> Self {
        Self { passing: weights.passing, warning: weights.warning }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AddressJson<'a> {
    address: &'a str,
    port: u16,
}

type Addresses<'a> = BTreeMap<&'a str, AddressJson<'a>>;

fn addresses(tagged: &BTreeMap<String, TaggedAddress>) -> Addresses<'_> {
    let mut shapes = Addresses::new();
    for (name, TaggedAddress { address, port }) in tagged {
        shapes.insert(name, AddressJson { address, port: *port });
    }
    shapes
}

/// The `Connect` block.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectJson {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    native: bool,
}

/// The `Proxy` block; all but the last two fields are left out of instances that are not proxies.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProxyJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_service_name: Option<&'a str>,
    #[serde(rename = "DestinationServiceID", skip_serializing_if = "Option::is_none")]
    destination_service_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_service_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_service_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upstreams: Vec<UpstreamJson<'a>>,
    mesh_gateway: Empty,
    expose: Empty,
}

impl<'a> ProxyJson<'a> {
    fn new(proxy: &'a ProxySpec, view: View) -> Self {
        Self {
            destination_service_name: Some(proxy.destination.as_str()),
            destination_service_id: Some(proxy.destination_id.as_str()),
            local_service_address: Some(proxy.local_address.as_str()).filter(|a| !a.is_empty()),
            local_service_port: Some(proxy.local_port).filter(|port| *port != 0),
            config: Some(&proxy.config).filter(|config| !config.is_empty()),
            upstreams: proxy.upstreams.iter().map(|u| UpstreamJson::new(u, view)).collect(),
            mesh_gateway: Empty {},
            expose: Empty {},
        }
    }
}

/// Who looks: the catalog shows an upstream's empty fields that the agent leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Agent,
    Catalog,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpstreamJson<'a> {
    destination_type: &'static str,
    destination_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacenter: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    local_bind_address: &'a str,
    local_bind_port: u16,
    /// `None` is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<ConfigJson<'a>>,
    mesh_gateway: Empty,
}

/// Opaque settings, or the null that stands for none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ConfigJson<'a> {
    Set(&'a BTreeMap<String, Value>),
    Null,
}

impl<'a> UpstreamJson<'a> {
    fn new(upstream: &'a Upstream, view: View) -> Self {
        let all = view == View::Catalog;
        let config = match upstream.config.is_empty() {
            false => Some(ConfigJson::Set(&upstream.config)),
            true => all.then_some(ConfigJson::Null),
        };
        Self {
            destination_type: "service",
            destination_name: upstream.destination.as_str(),
            datacenter: Some(upstream.datacenter.as_str()).filter(|dc| all || !dc.is_empty()),
            local_bind_address: &upstream.local_bind_address,
            local_bind_port: upstream.local_bind_port,
            config,
            mesh_gateway: Empty {},
        }
    }
}

/// An instance of `agent/services`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct AgentService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: u16,
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: Addresses<'a>,
    weights: WeightsJson,
    enable_tag_override: bool,
    /// Shown where it can be waited on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) content_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<ConnectJson>,
}

impl<'a> From<&'a Instance> for AgentService<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self {
            kind: instance.kind.as_str(),
            id: instance.id.as_str(),
            service: instance.name.as_str(),
            tags: &instance.tags,
            meta: &instance.meta,
            port: instance.port,
            address: &instance.address,
            tagged_addresses: addresses(&instance.tagged_addresses),
            weights: instance.weights.into(),
            enable_tag_override: instance.enable_tag_override,
            content_hash: None,
            proxy: instance.proxy.as_ref().map(|proxy| ProxyJson::new(proxy, View::Agent)),
            connect: instance.native.then_some(ConnectJson { native: true }),
        }
    }
}

/// What an instance is, in 16 hex digits: the same registration again has the same.
pub(in crate::api) fn content_hash(instance: &Instance) -> String {
    // Writing a value of ours to memory cannot fail; were it to, all instances would look the same.
    let json = serde_json::to_vec(&AgentService::from(instance)).unwrap_or_default();
    let digest = digest(&SHA256, &json);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// An instance inside of a health entry or of `catalog/node`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct NodeService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: Addresses<'a>,
    meta: &'a BTreeMap<String, String>,
    port: u16,
    weights: WeightsJson,
    enable_tag_override: bool,
    proxy: ProxyJson<'a>,
    connect: ConnectJson,
    create_index: Index,
    modify_index: Index,
}

impl<'a> From<&'a InstanceRecord> for NodeService<'a> {
    fn from(record: &'a InstanceRecord) -> Self {
        let instance = &*record.instance;
        Self {
            kind: instance.kind.as_str(),
            id: instance.id.as_str(),
            service: instance.name.as_str(),
            tags: &instance.tags,
            address: &instance.address,
            tagged_addresses: addresses(&instance.tagged_addresses),
            meta: &instance.meta,
            port: instance.port,
            weights: instance.weights.into(),
            enable_tag_override: instance.enable_tag_override,
            proxy: catalog_proxy(instance),
            connect: ConnectJson { native: instance.native },
            create_index: record.created,
            modify_index: record.modified,
        }
    }
}

/// An item of `catalog/service`: node and instance in one flat object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct CatalogService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Option<BTreeMap<&'a str, &'a str>>,
    node_meta: BTreeMap<&'a str, &'a str>,
    service_kind: &'static str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: Addresses<'a>,
    service_weights: WeightsJson,
    service_meta: &'a BTreeMap<String, String>,
    service_port: u16,
    service_enable_tag_override: bool,
    service_proxy: ProxyJson<'a>,
    service_connect: ConnectJson,
    create_index: Index,
    modify_index: Index,
}

impl<'a> CatalogService<'a> {
    pub(in crate::api) fn new(datacenter: &'a str, entry: &'a HealthEntry) -> Self {
        let instance = &*entry.instance.instance;
        Self {
            id: &entry.node.id,
            node: entry.node.name.as_str(),
            address: &entry.node.address,
            datacenter,
            tagged_addresses: node::tagged_addresses(&entry.node),
            node_meta: entry.node.shown_meta(),
            service_kind: instance.kind.as_str(),
            service_id: instance.id.as_str(),
            service_name: instance.name.as_str(),
            service_tags: &instance.tags,
            service_address: &instance.address,
            service_tagged_addresses: addresses(&instance.tagged_addresses),
            service_weights: instance.weights.into(),
            service_meta: &instance.meta,
            service_port: instance.port,
            service_enable_tag_override: instance.enable_tag_override,
            service_proxy: catalog_proxy(instance),
            service_connect: ConnectJson { native: instance.native },
            create_index: entry.instance.created,
            modify_index: entry.instance.modified,
        }
    }
}

fn catalog_proxy(instance: &Instance) -> ProxyJson<'_> {
    instance.proxy.as_ref().map(|proxy| ProxyJson::new(proxy, View::Catalog)).unwrap_or_default()
}
