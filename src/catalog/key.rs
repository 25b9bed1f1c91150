//! Where the catalog keeps what in the store: keys, and the values under them as JSON. Pure.
//!
//! Invariant: `Key::parse` reads back everything `Key::encode` writes. Names hold no `/`; check ids
//! may, and are escaped. Services compare without regard to case, so their keys are lower case.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CatalogError, LeaseId};
use crate::model::ban::Subject;
use crate::model::{CheckId, EndpointId, Instance, InstanceId, NodeName, Party};
use crate::store::StoreError;

/// Everything of the catalog lives under this prefix.
pub(super) const PREFIX: &str = "catalog/";
/// Longest value; an instance with all its tags and settings has to fit.
pub(super) const MAX_VALUE_BYTES: usize = 64 << 10;

/// What a key of the catalog stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Node(NodeName),
    Instance(EndpointId),
    Check(NodeName, CheckId),
    Intention(Party, Party),
    Lease(LeaseId),
    Ban(Subject),
}

/// An instance and the lease that owns it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredInstance {
    pub(super) instance: Instance,
    /// `None` for a permanent one.
    pub(super) lease: Option<LeaseId>,
}

/// A node somebody described: a server its own, or a caller of the API a machine without an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredNode {
    pub(super) id: String,
    pub(super) address: String,
    #[serde(default)]
    pub(super) tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) meta: BTreeMap<String, String>,
    /// Nobody vouches for it: it has no check that it is alive, and stays until it is deregistered.
    #[serde(default)]
    pub(super) external: bool,
}

/// A promise to come back within a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLease {
    pub(super) ttl_ms: u64,
}

impl Key {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Node(node) => format!("{PREFIX}node/{node}"),
            Self::Instance(id) => format!("{PREFIX}inst/{}/{}", id.node, id.instance),
            Self::Check(node, id) => format!("{PREFIX}check/{node}/{}", escape(id)),
            Self::Intention(source, destination) => {
                format!("{PREFIX}intention/{}/{}", lower(source), lower(destination))
            }
            Self::Lease(id) => format!("{PREFIX}lease/{id:016x}"),
            Self::Ban(subject) => format!("{PREFIX}ban/{}/{}", subject.kind(), escape(subject.value())),
        }
    }

    /// `None` for keys of others and of later versions.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('/');
        let (kind, first, second) = (parts.next()?, parts.next()?, parts.next());
        if parts.next().is_some() {
            return None;
        }
        match (kind, second) {
            ("node", None) => Some(Self::Node(NodeName::new(first).ok()?)),
            ("lease", None) => LeaseId::from_str_radix(first, 16).ok().map(Self::Lease),
            ("inst", Some(second)) => Some(Self::Instance(EndpointId {
                node: NodeName::new(first).ok()?,
                instance: InstanceId::new(second).ok()?,
            })),
            ("check", Some(second)) => Some(Self::Check(NodeName::new(first).ok()?, unescape(second))),
            ("intention", Some(second)) => {
                Some(Self::Intention(Party::parse(first).ok()?, Party::parse(second).ok()?))
            }
            ("ban", Some(second)) => Subject::parse(first, &unescape(second))?.ok().map(Self::Ban),
            _ => None,
        }
    }
}

/// Writes a value.
///
/// # Errors
/// `Invalid` when it is too large.
pub(super) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Bytes, CatalogError> {
    let json = serde_json::to_vec(value)
        .map_err(|e| CatalogError::Invalid(format!("{key} cannot be written as JSON: {e}")))?;
    if json.len() > MAX_VALUE_BYTES {
        let bytes = json.len();
        let text =
            format!("{key} needs {bytes} bytes; at most {MAX_VALUE_BYTES} are kept for one record");
        return Err(CatalogError::Invalid(text));
    }
    Ok(json.into())
}

/// Reads a value.
///
/// # Errors
/// `Damaged` when it is not what the key promises.
pub(super) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value)
        .map_err(|e| StoreError::Damaged { key: key.to_owned(), detail: e.to_string() })
}

fn lower(party: &Party) -> String {
    party.as_str().to_ascii_lowercase()
}

fn escape(id: &str) -> String {
    id.replace('%', "%25").replace('/', "%2F")
}

fn unescape(text: &str) -> String {
    text.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_is_read_back(id in "[a-z:/%2F5]{1,12}", lease in 1_u64.., name in "[A-Za-z.:_%-]{3,9}") {
            let node = NodeName::new(&name).unwrap();
            let instance = InstanceId::new(&name).unwrap();
            for key in [
                Key::Node(node.clone()),
                Key::Instance(EndpointId { node: node.clone(), instance }),
                Key::Check(node, id),
                Key::Intention(Party::Any, Party::parse(&name).unwrap()),
                Key::Lease(lease),
                Key::Ban(Subject::identity("spiffe://t/ns/default/dc/dc1/svc/web").unwrap()),
                Key::Ban(Subject::serial(&format!("{lease:016x}")).unwrap()),
            ] {
                prop_assert_eq!(Key::parse(&key.encode()), Some(key));
            }
        }
    }

    #[test]
    fn an_intention_has_one_key_whatever_its_spelling() {
        let key = |source: &str| Key::Intention(Party::parse(source).unwrap(), Party::Any).encode();
        assert_eq!(key("Web"), key("web"));
    }

    #[test]
    fn foreign_keys_are_none_of_ours() {
        for key in ["ca/root/1", "catalog/", "catalog/inst/n1", "catalog/node/n1/x", "catalog/new/1/2"] {
            assert_eq!(Key::parse(key), None, "{key}");
        }
    }
}
