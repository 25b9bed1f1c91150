//! What is shown of a node: its address, its id and the check that it is alive. Pure.
//!
//! A server's own node is kept in the store, and so are nodes that callers of the API described. Any
//! other node exists as long as an instance or a check is on it; its address is that of its first
//! instance that has one.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::key::StoredNode;
use super::state::NodeState;
use super::{CheckRecord, Node};
use crate::model::check::ALIVE_ID;
use crate::model::{Check, CheckStatus, NodeName};
use crate::store::Revision;

const ALIVE_NAME: &str = "Serf Health Status";
const ALIVE_OUTPUT: &str = "Agent alive and reachable";

/// A node as readers see it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) node: Arc<Node>,
    /// `None` for a node without an agent, of which nobody knows.
    pub(super) alive: Option<CheckRecord>,
}

/// The new view of a node, or `None` when it is what it was.
pub(super) fn refresh(
    name: &NodeName,
    state: &NodeState,
    fallback_address: &str,
    revision: Revision,
) -> Option<View> {
    let old = state.view.as_ref().map(|view| &view.node);
    let created = old.map_or(revision, |old| old.created);
    let mut node = describe(name, state, fallback_address);
    if let Some(old) = old {
        (node.created, node.modified) = (old.created, old.modified);
        if **old == node {
            return None;
        }
    }
    (node.created, node.modified) = (created, revision);
    let alive = node.has_agent.then(|| alive(name, created, revision));
    Some(View { node: Arc::new(node), alive })
}

/// The node as it is now, without its indexes.
fn describe(name: &NodeName, state: &NodeState, fallback_address: &str) -> Node {
    let stored = state.own.clone().unwrap_or_else(|| {
        let mut addresses = state.instances.values().map(|record| record.instance.address.as_str());
        let address = addresses.find(|address| !address.is_empty()).unwrap_or(fallback_address);
        StoredNode {
            id: id_of(name),
            address: address.to_owned(),
            tagged_addresses: None,
            meta: BTreeMap::new(),
            external: false,
        }
    });
    Node {
        name: name.clone(),
        id: stored.id,
        address: stored.address,
        tagged_addresses: stored.tagged_addresses,
        meta: stored.meta,
        has_agent: !stored.external,
        created: 0,
        modified: 0,
    }
}

fn alive(name: &NodeName, created: Revision, modified: Revision) -> CheckRecord {
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
        shown: None,
    };
    CheckRecord { check: Arc::new(alive), created, modified }
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
