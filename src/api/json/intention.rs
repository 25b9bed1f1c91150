//! Intentions of the legacy API and of the one by name.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::api::Index;
use crate::model::time::rfc3339;
use crate::model::{Intention, Party};

/// An intention. Results of the API by name have no id, and with it none of what belongs to one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct IntentionJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    description: &'a str,
    #[serde(rename = "SourceNS")]
    source_ns: &'static str,
    source_name: &'a str,
    #[serde(rename = "DestinationNS")]
    destination_ns: &'static str,
    destination_name: &'a str,
    source_type: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_addr: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_port: Option<u16>,
    meta: &'a BTreeMap<String, String>,
    precedence: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    create_index: Index,
    modify_index: Index,
}

impl<'a> IntentionJson<'a> {
    pub(in crate::api) fn legacy(rule: &'a Intention, created: Index, modified: Index) -> Self {
        Self {
            id: Some(&rule.id),
            default_addr: Some(""),
            default_port: Some(0),
            created_at: Some(rfc3339(rule.created_ms)),
            updated_at: Some(rfc3339(rule.updated_ms)),
            hash: Some(hash(rule)),
            ..Self::by_name(rule, created, modified)
        }
    }

    pub(in crate::api) fn by_name(rule: &'a Intention, created: Index, modified: Index) -> Self {
        Self {
            id: None,
            description: &rule.description,
            source_ns: "default",
            source_name: rule.source.as_str(),
            destination_ns: "default",
            destination_name: rule.destination.as_str(),
            source_type: "consul",
            action: rule.action.as_str(),
            default_addr: None,
            default_port: None,
            meta: &rule.meta,
            precedence: rule.precedence(),
            created_at: None,
            updated_at: None,
            hash: None,
            create_index: created,
            modify_index: modified,
        }
    }
}

/// Changes whenever what the rule says changes; each field is preceded by its length, so that no two
/// rules share a text.
fn hash(rule: &Intention) -> String {
    let mut context = Context::new(&SHA256);
    let mut field = |text: &str| {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    for text in
        [rule.source.as_str(), rule.destination.as_str(), rule.action.as_str(), &rule.description]
    {
        field(text);
    }
    for (key, value) in &rule.meta {
        field(key);
        field(value);
    }
    STANDARD.encode(context.finish())
}

/// `DENY default/web => default/database (ID: …, Precedence: 9)`: how Consul names a rule in texts.
pub(in crate::api) fn describe(rule: &Intention) -> String {
    format!(
        "{} {} (ID: {}, Precedence: {})",
        rule.action.as_str().to_uppercase(),
        pair(&rule.source, &rule.destination),
        rule.id,
        rule.precedence()
    )
}

fn pair(source: &Party, destination: &Party) -> String {
    format!("default/{source} => default/{destination}")
}
