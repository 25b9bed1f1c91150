//! Nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::api::Index;
use crate::catalog::Node;

/// A node of `catalog/nodes`, and inside of health entries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct NodeJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Option<BTreeMap<&'a str, &'a str>>,
    meta: BTreeMap<&'a str, &'a str>,
    create_index: Index,
    modify_index: Index,
}

impl<'a> NodeJson<'a> {
    pub(in crate::api) fn new(datacenter: &'a str, node: &'a Node) -> Self {
        Self {
            id: &node.id,
            node: node.name.as_str(),
            address: &node.address,
            datacenter,
            tagged_addresses: tagged_addresses(node),
            meta: node.shown_meta(),
            create_index: node.created,
            modify_index: node.modified,
        }
    }
}

/// The addresses of a node by kind; of a node without an agent those that its writer gave.
pub(super) fn tagged_addresses(node: &Node) -> Option<BTreeMap<&str, &str>> {
    if let Some(given) = &node.tagged_addresses {
        return Some(given.iter().map(|(kind, address)| (kind.as_str(), address.as_str())).collect());
    }
    if !node.has_agent {
        return None;
    }
    let address = node.address.as_str();
    let mut tagged = BTreeMap::from([("lan", address), ("wan", address)]);
    match address.parse() {
        Ok(IpAddr::V4(_)) => tagged.extend([("lan_ipv4", address), ("wan_ipv4", address)]),
        Ok(IpAddr::V6(_)) => tagged.extend([("lan_ipv6", address), ("wan_ipv6", address)]),
        Err(_) => {}
    }
    Some(tagged)
}
