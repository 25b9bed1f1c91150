//! Keys and sessions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::api::Index;
use crate::kv::{Entry, Session};

/// An entry, in every listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct EntryJson<'a> {
    lock_index: Index,
    key: &'a str,
    flags: u64,
    /// Base64; `null` when it is empty.
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    create_index: Index,
    modify_index: Index,
}

impl<'a> From<&'a Entry> for EntryJson<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            lock_index: entry.lock_index,
            key: &entry.key,
            flags: entry.flags,
            value: (!entry.value.is_empty()).then(|| STANDARD.encode(&entry.value)),
            session: entry.session.as_deref(),
            create_index: entry.created,
            modify_index: entry.modified,
        }
    }
}

/// A session, in every listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct SessionJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    node: &'a str,
    /// Nanoseconds.
    lock_delay: u64,
    behavior: &'static str,
    #[serde(rename = "TTL")]
    ttl: &'a str,
    node_checks: &'a [String],
    /// `null` when there are none.
    service_checks: Option<Vec<ServiceCheckJson<'a>>>,
    create_index: Index,
    modify_index: Index,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceCheckJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    namespace: &'static str,
}

impl<'a> From<&'a Session> for SessionJson<'a> {
    fn from(session: &'a Session) -> Self {
        let checks = session.service_checks.iter();
        let checks: Vec<_> = checks.map(|id| ServiceCheckJson { id, namespace: "" }).collect();
        Self {
            id: &session.id,
            name: &session.name,
            node: session.node.as_str(),
            lock_delay: u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX),
            behavior: session.behavior.as_str(),
            ttl: &session.ttl,
            node_checks: &session.node_checks,
            service_checks: (!checks.is_empty()).then_some(checks),
            create_index: session.created,
            modify_index: session.modified,
        }
    }
}
