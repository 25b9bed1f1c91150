//! What is shown of a node: its address, its id and the check that it is alive. Pure.
//!
//! A server's own node is kept in the store. Any other node exists as long as an instance or a check
//! is on it; its address is that of its first instance that has one.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::state::NodeState;
use super::{CheckRecord, Node};
use crate::model::{Check, CheckStatus, NodeName};
use crate::store::Revision;

/// The check that Consul gives every node.
const ALIVE_ID: &str = "serfHealth";
const ALIVE_NAME: &str = "Serf Health Status";
const ALIVE_OUTPUT: &str = "Agent alive and reachable";

/// A node as readers see it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) node: Arc<Node>,
    pub(super) alive: CheckRecord,
}

/// The new view of a node, or `None` when it is what it was.
pub(super) fn refresh(
    name: &NodeName,
    state: &NodeState,
    fallback_address: &str,
    revision: Revision,
) -> Option<View> {
    let old = state.view.as_ref().map(|view| &view.node);
    let mut addresses = state.instances.values().map(|record| record.instance.address.as_str());
    let (id, address) = match &state.own {
        Some(own) => (Some(&own.id), own.address.as_str()),
        None => (None, addresses.find(|a| !a.is_empty()).unwrap_or(fallback_address)),
    };
    if old.is_some_and(|old| old.address == address && id.is_none_or(|id| *id == old.id)) {
        return None;
    }
    let id = id.cloned().unwrap_or_else(|| id_of(name));
    let created = old.map_or(revision, |old| old.created);
    let node = Node {
        name: name.clone(),
        id,
        address: address.to_owned(),
        meta: std::collections::BTreeMap::new(),
        created,
        modified: revision,
    };
    let alive = Check {
        node: name.clone(),
        id: ALIVE_ID.to_owned(),
        name: ALIVE_NAME.to_owned(),
        notes: String::new(),
        status: CheckStatus::Passing,
        output: ALIVE_OUTPUT.to_owned(),
        instance: None,
        type_name: String::new(),
        definition: None,
    };
    let alive = CheckRecord { check: Arc::new(alive), created, modified: revision };
    Some(View { node: Arc::new(node), alive })
}

/// A node that nobody gave an id has one that follows from its name, the same on every server.
fn id_of(name: &NodeName) -> String {
    let hash = digest(&SHA256, name.as_str().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid(bytes, 8)
}

/// Writes 16 bytes as a UUID of the given version (4: random, 8: of one's own making).
pub(super) fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
