//! `/v1/connect/intentions`: the legacy API by id and the one by name are two views of one table.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::blocking::Read;
use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::filter::schema;
use super::json::intention::{IntentionJson, describe};
use super::limits::MAX_MATCH_NAMES;
use super::query::Params;
use super::{App, Index, Shared, reply};
use crate::catalog::Topic;
use crate::model::{Action, Intention, NameError, Party, ServiceName};

/// All fields Consul's clients send. Those not read here are read-only or mean nothing without
/// namespaces and peers.
const FIELDS: &[&str] = &[
    "ID",
    "Description",
    "SourceNS",
    "SourceName",
    "SourcePartition",
    "SourcePeer",
    "SourceSamenessGroup",
    "SourceType",
    "DestinationNS",
    "DestinationName",
    "DestinationPartition",
    "Action",
    "DefaultAddr",
    "DefaultPort",
    "Permissions",
    "JWT",
    "Meta",
    "Precedence",
    "LegacyID",
    "LegacyMeta",
    "LegacyCreateTime",
    "LegacyUpdateTime",
    "CreatedAt",
    "UpdatedAt",
    "Hash",
    "CreateIndex",
    "ModifyIndex",
];

/// Fields whose meaning would be lost if they were ignored.
const UNSUPPORTED: &[&str] = &["Permissions", "JWT", "SourcePeer", "SourceSamenessGroup"];

pub(super) type Record = (Arc<Intention>, Index, Index);

pub(super) async fn list(State(app): App, params: Params) -> Result<Response, ApiError> {
    let (read, filter) =
        Read::begin_filtered(&app, &params, &[Topic::Intentions], schema::INTENTION).await?;
    let records = app.state.catalog.intentions();
    let rules: Vec<_> = records.iter().map(legacy).filter(|rule| filter.keeps(rule)).collect();
    Ok(read.json_without_consistency(&rules))
}

pub(super) async fn create(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let wish = Wish::parse(&body)?;
    let (source, destination, action) = wish.validate().map_err(ApiError::internal)?;
    let _alone = app.writes.lock().await;
    if let Some((rule, ..)) = find_pair(&app, &source, &destination) {
        return Err(ApiError::internal(format!("duplicate intention found: {}", describe(&rule))));
    }
    let put = app.state.catalog.put_intention(source, destination, action, wish.description, wish.meta);
    Ok(reply::json(params.layout, &json!({ "ID": put.await?.id })))
}

pub(super) async fn get(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    check_id(&id).map_err(|fault| ApiError::bad_request(format!("Bad request: {fault}")))?;
    let record = find_id(&app, &id).ok_or_else(|| ApiError::not_found("Intention not found"))?;
    Ok(reply::json(params.layout, &legacy(&record)))
}

/// Replaces what a rule says. Its pair is its identity in the store and cannot change.
pub(super) async fn update(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    check_id(&id).map_err(|fault| ApiError::internal(format!("Intention lookup failed: {fault}")))?;
    let wish = Wish::parse(&body)?;
    let (source, destination, action) = wish.validate().map_err(ApiError::internal)?;
    let _alone = app.writes.lock().await;
    let Some((old, ..)) = find_id(&app, &id) else {
        return Err(ApiError::internal(format!("Cannot modify non-existent intention: '{id}'")));
    };
    if (&old.source, &old.destination) != (&source, &destination) {
        return Err(ApiError::bad_request(format!(
            "Intention {id} is for {} => {}; delete it and create one for {source} => {destination}",
            old.source, old.destination
        )));
    }
    app.state.catalog.put_intention(source, destination, action, wish.description, wish.meta).await?;
    Ok(reply::json(params.layout, &json!({ "ID": id })))
}

pub(super) async fn delete(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    check_id(&id).map_err(|fault| ApiError::internal(format!("Intention lookup failed: {fault}")))?;
    let _alone = app.writes.lock().await;
    let Some((rule, ..)) = find_id(&app, &id) else {
        return Err(ApiError::internal(format!("Cannot delete non-existent intention: '{id}'")));
    };
    app.state.catalog.delete_intention(&rule.source, &rule.destination).await?;
    Ok(reply::json(params.layout, &true))
}

pub(super) async fn get_exact(State(app): App, params: Params) -> Result<Response, ApiError> {
    let (source, destination) = exact_pair(&params)?;
    let found = find_pair(&app, &source, &destination);
    let (rule, created, modified) = found.ok_or_else(|| ApiError::not_found("Intention not found"))?;
    Ok(reply::json(params.layout, &IntentionJson::by_name(&rule, created, modified)))
}

pub(super) async fn put_exact(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let (source, destination) = exact_pair(&params)?;
    let wish = Wish::parse(&body)?;
    let Some(action) = Action::parse(&wish.action) else {
        return Err(ApiError::internal(faults(&[BAD_ACTION.to_owned()])));
    };
    let _alone = app.writes.lock().await;
    app.state.catalog.put_intention(source, destination, action, wish.description, wish.meta).await?;
    Ok(reply::json(params.layout, &true))
}

/// Succeeds also when there is no such rule, as in Consul.
pub(super) async fn delete_exact(State(app): App, params: Params) -> Result<Response, ApiError> {
    let (source, destination) = exact_pair(&params)?;
    let _alone = app.writes.lock().await;
    app.state.catalog.delete_intention(&source, &destination).await?;
    Ok(reply::json(params.layout, &true))
}

/// The rules that name a service as their source or destination, in the order they are tried.
pub(super) async fn matching(State(app): App, params: Params) -> Result<Response, ApiError> {
    let by_source = match params.non_empty("by") {
        None => return Err(ApiError::internal("required query parameter 'by' not set")),
        Some("source") => true,
        Some("destination") => false,
        Some(_) => {
            return Err(ApiError::internal("'by' parameter must be one of 'source' or 'destination'"));
        }
    };
    let names: Vec<&str> = params.all("name").filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(ApiError::internal("required query parameter 'name' not set"));
    }
    if names.len() > MAX_MATCH_NAMES {
        return Err(ApiError::bad_request(format!(
            "at most {MAX_MATCH_NAMES} names can be matched at once"
        )));
    }
    let records = app.state.catalog.intentions();
    let mut matches = BTreeMap::new();
    for name in names {
        let party = parse_party(name).map_err(|fault| ApiError::bad_request(fault.to_string()))?;
        let concerns = |(rule, ..): &&Record| {
            let end = if by_source { &rule.source } else { &rule.destination };
            *end == party || *end == Party::Any
        };
        matches.insert(name, records.iter().filter(concerns).map(legacy).collect::<Vec<_>>());
    }
    Ok(reply::json(params.layout, &matches))
}

pub(super) async fn check(State(app): App, params: Params) -> Result<Response, ApiError> {
    let name = |key: &'static str| {
        let text = params.non_empty(key);
        let missing = || ApiError::internal(format!("required query parameter '{key}' not set"));
        let text = text.ok_or_else(missing)?;
        parse_party(text).map_err(|fault| ApiError::bad_request(fault.to_string()))
    };
    if params.non_empty("source-type").is_some_and(|kind| kind != "consul") {
        return Err(ApiError::bad_request("'source-type' must be 'consul'"));
    }
    let (Party::Service(source), Party::Service(destination)) = (name("source")?, name("destination")?)
    else {
        return Err(ApiError::bad_request("'source' and 'destination' must not be wildcards"));
    };
    let verdict = app.state.catalog.decide(&source, &destination);
    Ok(reply::json(params.layout, &json!({ "Allowed": verdict.is_allowed() })))
}

fn legacy((rule, created, modified): &Record) -> IntentionJson<'_> {
    IntentionJson::legacy(rule, *created, *modified)
}

fn find_id(app: &Shared, id: &str) -> Option<Record> {
    let all = app.state.catalog.intentions();
    all.into_iter().find(|(rule, ..)| rule.id.eq_ignore_ascii_case(id))
}

fn find_pair(app: &Shared, source: &Party, destination: &Party) -> Option<Record> {
    let all = app.state.catalog.intentions();
    all.into_iter().find(|(rule, ..)| (&rule.source, &rule.destination) == (source, destination))
}

/// Consul looks ids up in an index of UUIDs, whose complaint its clients see.
fn check_id(id: &str) -> Result<(), &'static str> {
    if id.len() == 36 {
        Ok(())
    } else {
        Err("failed intention lookup: index error: UUID must be 36 characters")
    }
}

fn exact_pair(params: &Params) -> Result<(Party, Party), ApiError> {
    let party = |key: &'static str| {
        let text = params.non_empty(key);
        let missing = || ApiError::bad_request(format!("required query parameter '{key}' not set"));
        let text = text.ok_or_else(missing)?;
        parse_party(text).map_err(|fault| ApiError::bad_request(format!("{key}: {fault}")))
    };
    Ok((party("source")?, party("destination")?))
}

/// A name, also with the only namespace and partition there are: `default/web`.
fn parse_party(text: &str) -> Result<Party, NameError> {
    let name = text.strip_prefix("default/").unwrap_or(text);
    Party::parse(name.strip_prefix("default/").unwrap_or(name))
}

const BAD_ACTION: &str = "Action must be set to 'allow' or 'deny'";

/// The body of a write: texts as they came.
#[derive(Debug, Default)]
struct Wish {
    source: String,
    destination: String,
    source_type: String,
    namespaces: [String; 2],
    action: String,
    description: String,
    meta: BTreeMap<String, String>,
}

impl Wish {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body, FIELDS)?;
        if let Some(field) = UNSUPPORTED.iter().find(|field| fields.is_set(field)) {
            return Err(ApiError::bad_request(format!("{field} is not supported by this server")));
        }
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Ok(Self {
            source: fields.text("SourceName")?.to_owned(),
            destination: fields.text("DestinationName")?.to_owned(),
            source_type: fields.text("SourceType")?.to_owned(),
            namespaces: [fields.text("SourceNS")?.to_owned(), fields.text("DestinationNS")?.to_owned()],
            action: fields.text("Action")?.to_owned(),
            description: fields.text("Description")?.to_owned(),
            meta: fields.texts("Meta")?.into_iter().map(owned).collect(),
        })
    }

    /// Every fault at once, in Consul's words.
    fn validate(&self) -> Result<(Party, Party, Action), String> {
        let mut found = Vec::new();
        let source = party_of("SourceName", &self.source, &mut found);
        let destination = party_of("DestinationName", &self.destination, &mut found);
        for (field, namespace) in ["SourceNS", "DestinationNS"].iter().zip(&self.namespaces) {
            if !matches!(namespace.as_str(), "" | "default") {
                found.push(format!("{field}: there is no namespace but 'default'"));
            }
        }
        let action = Action::parse(&self.action);
        if action.is_none() {
            found.push(BAD_ACTION.to_owned());
        }
        if !matches!(self.source_type.as_str(), "" | "consul") {
            found.push("SourceType must be set to 'consul'".to_owned());
        }
        match (source, destination, action) {
            (Some(source), Some(destination), Some(action)) if found.is_empty() => {
                Ok((source, destination, action))
            }
            _ => Err(faults(&found)),
        }
    }
}

pub(super) fn party_of(field: &str, text: &str, found: &mut Vec<String>) -> Option<Party> {
    if text.is_empty() {
        found.push(format!("{field} must be set"));
        return None;
    }
    if text != "*" && text.contains('*') {
        found.push(format!("{field}: wildcard character '*' cannot be used with partial values"));
        return None;
    }
    if text == "*" {
        return Some(Party::Any);
    }
    match ServiceName::new(text) {
        Ok(name) => Some(Party::Service(name)),
        Err(fault) => {
            found.push(format!("{field}: {fault}"));
            None
        }
    }
}

/// A list of faults as Consul's clients see it: with two newlines at its end.
pub(super) fn faults(found: &[String]) -> String {
    let count = match found.len() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    };
    let lines: Vec<_> = found.iter().map(|fault| format!("\t* {fault}")).collect();
    format!("{count} occurred:\n{}\n\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_has_consuls_words() {
        for (body, text) in [
            (
                r#"{"SourceName":"web","DestinationName":"database2","SourceType":"consul"}"#,
                "1 error occurred:\n\t* Action must be set to 'allow' or 'deny'\n\n",
            ),
            (
                r#"{"SourceName":"web*","DestinationName":"*","Action":"deny"}"#,
                "1 error occurred:\n\t* SourceName: wildcard character '*' cannot be used with partial values\n\n",
            ),
            (
                r#"{"SourceName":"","DestinationName":"*","Action":"deny"}"#,
                "1 error occurred:\n\t* SourceName must be set\n\n",
            ),
            (
                r#"{"SourceName":"a","DestinationName":"b","Action":"zzz"}"#,
                "1 error occurred:\n\t* Action must be set to 'allow' or 'deny'\n\n",
            ),
            (
                r#"{"DestinationName":"b","Action":"zzz","SourceNS":"team"}"#,
                "3 errors occurred:\n\t* SourceName must be set\n\t* SourceNS: there is no namespace but \
                 'default'\n\t* Action must be set to 'allow' or 'deny'\n\n",
            ),
        ] {
            let wish = Wish::parse(body.as_bytes()).unwrap();
            assert_eq!(wish.validate().unwrap_err(), text, "{body}");
        }
    }

    #[test]
    fn what_the_go_client_sends_is_accepted() {
        let body = r#"{"ID":"","Description":"","SourceNS":"","SourceName":"web","DestinationNS":"default",
            "DestinationName":"db","SourceType":"consul","Action":"deny","DefaultAddr":"","DefaultPort":0,
            "Meta":null,"Precedence":0,"CreatedAt":"0001-01-01T00:00:00Z",
            "UpdatedAt":"0001-01-01T00:00:00Z","Hash":null,"CreateIndex":0,"ModifyIndex":0,"Permissions":null}"#;
        let wish = Wish::parse(body.as_bytes()).unwrap();
        let (source, destination, action) = wish.validate().unwrap();
        assert_eq!((source.as_str(), destination.as_str(), action), ("web", "db", Action::Deny));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let body = br#"{"SourceName":"web","DestinationName":"db","Permissions":[{"Action":"allow"}]}"#;
        assert_eq!(Wish::parse(body).unwrap_err().text, "Permissions is not supported by this server");
    }

    #[test]
    fn names_may_carry_the_default_namespace() {
        for (text, name) in
            [("web", "web"), ("default/web", "web"), ("default/default/web", "web"), ("*", "*")]
        {
            assert_eq!(parse_party(text).unwrap().as_str(), name);
        }
        assert!(parse_party("team/web").is_err());
    }
}
