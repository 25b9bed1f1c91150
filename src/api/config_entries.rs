//! `/v1/config`: configuration entries. `service-intentions` is a view of the intentions. The other kinds
//! that Consul knows shape HTTP traffic and gateways, which do nothing here; storing one would promise
//! what is not kept, so writing one is refused and reading finds none.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::blocking::Read;
use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::intentions::{Record, faults, party_of};
use super::query::Params;
use super::{App, Index, Shared, reply};
use crate::catalog::{IntentionRule, Topic};
use crate::model::{Action, Party};

const INTENTIONS: &str = "service-intentions";
/// Kinds that Consul knows and this mesh has no use for.
const OTHERS: [&str; 17] = [
    "proxy-defaults",
    "service-defaults",
    "service-resolver",
    "service-splitter",
    "service-router",
    "ingress-gateway",
    "terminating-gateway",
    "api-gateway",
    "mesh",
    "exported-services",
    "sameness-group",
    "jwt-provider",
    "http-route",
    "tcp-route",
    "inline-certificate",
    "file-system-certificate",
    "control-plane-request-limit",
];

const ENTRY: &[&str] = &[
    "Kind",
    "Name",
    "Sources",
    "Meta",
    "JWT",
    "Namespace",
    "Partition",
    "Hash",
    "CreateIndex",
    "ModifyIndex",
];
const SOURCE: &[&str] =
    &["Name", "Action", "Description", "Permissions", "Type", "Peer", "SamenessGroup", "LegacyMeta"];

/// What a write asks for.
struct Wish {
    destination: Party,
    rules: Vec<IntentionRule>,
}

pub(super) async fn put(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let wish = Wish::parse(&body)?;
    let cas = cas(&params)?;
    let _alone = app.writes.lock().await;
    if cas.is_some_and(|cas| cas != modified(&app, &wish.destination)) {
        return Ok(reply::json(params.layout, &false));
    }
    app.state.catalog.replace_intentions(&wish.destination, wish.rules).await?;
    Ok(reply::json(params.layout, &true))
}

pub(super) async fn list(
    State(app): App,
    Path(kind): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    check_kind(&kind)?;
    let read = Read::begin(&app, &params, &[Topic::Intentions]).await?;
    let mut entries = Vec::new();
    if kind == INTENTIONS {
        let mut by_destination: BTreeMap<Party, Vec<Record>> = BTreeMap::new();
        for record in app.state.catalog.intentions() {
            by_destination.entry(record.0.destination.clone()).or_default().push(record);
        }
        entries.extend(by_destination.values().filter_map(|records| shape(records)));
    }
    Ok(read.json_without_consistency(&entries))
}

pub(super) async fn get(
    State(app): App,
    Path((kind, name)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    check_kind(&kind)?;
    let read = Read::begin(&app, &params, &[Topic::Intentions]).await?;
    let found = (kind == INTENTIONS).then(|| shape(&toward(&app, &name))).flatten();
    let Some(entry) = found else {
        let text = format!("Config entry not found for {kind:?} / {name:?}");
        let mut response = ApiError::not_found(text).into_response();
        reply::add_index(&mut response, read.index(), true);
        return Ok(response);
    };
    Ok(read.json_without_consistency(&entry))
}

/// `{}` also when there was none; with `?cas`, whether it was removed.
pub(super) async fn delete(
    State(app): App,
    Path((kind, name)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    check_kind(&kind)?;
    let cas = cas(&params)?;
    let destination = Party::parse(&name).ok().filter(|_| kind == INTENTIONS);
    let _alone = app.writes.lock().await;
    let Some(destination) = destination else {
        return Ok(deleted(&params, cas.map(|cas| cas == 0)));
    };
    if cas.is_some_and(|cas| cas != modified(&app, &destination)) {
        return Ok(deleted(&params, Some(false)));
    }
    app.state.catalog.replace_intentions(&destination, Vec::new()).await?;
    Ok(deleted(&params, cas.map(|_| true)))
}

fn deleted(params: &Params, of_cas: Option<bool>) -> Response {
    match of_cas {
        Some(done) => reply::json(params.layout, &done),
        None => reply::json(params.layout, &json!({})),
    }
}

impl Wish {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let bad = |text: String| ApiError::bad_request(format!("Bad request: {text}"));
        let any = Fields::parse_lenient(body, ENTRY).map_err(|fault| bad(fault.text))?;
        match any.text("Kind")? {
            "" => {
                let text = "Payload does not contain a kind/Kind key at the top level";
                return Err(bad(format!("Request decoding failed: {text}")));
            }
            INTENTIONS => {}
            kind if OTHERS.contains(&kind) => {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    format!("{kind} has no effect in this mesh and is therefore not kept; leave it out"),
                ));
            }
            kind => {
                let text = format!("Request decoding failed: invalid config entry kind: {kind}");
                return Err(bad(text));
            }
        }
        let fields = Fields::parse(body, ENTRY).map_err(|fault| bad(fault.text))?;
        refuse(&fields, &["JWT"])?;
        let mut found = Vec::new();
        let destination = party_of("Name", fields.text("Name")?, &mut found);
        let mut rules = Vec::new();
        for source in fields.objects("Sources", SOURCE)? {
            refuse(&source, &["Permissions", "Peer", "SamenessGroup"])?;
            rules.extend(rule(&source, &mut found)?);
        }
        let names: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.source).collect();
        if names.len() != rules.len() {
            found.push("Sources has one name twice".to_owned());
        }
        match destination {
            Some(destination) if found.is_empty() => Ok(Self { destination, rules }),
            _ => Err(ApiError::internal(faults(&found))),
        }
    }
}

fn rule(source: &Fields, found: &mut Vec<String>) -> Result<Option<IntentionRule>, ApiError> {
    let name = party_of("Sources.Name", source.text("Name")?, found);
    let action = Action::parse(source.text("Action")?);
    if action.is_none() {
        found.push("Action must be set to 'allow' or 'deny'".to_owned());
    }
    let meta = source.texts("LegacyMeta")?;
    let meta = meta.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let description = source.text("Description")?.to_owned();
    Ok(name.zip(action).map(|(source, action)| IntentionRule { source, action, description, meta }))
}

/// Fields whose meaning would be lost if they were ignored.
fn refuse(fields: &Fields, names: &[&str]) -> Result<(), ApiError> {
    match names.iter().find(|name| fields.is_set(name)) {
        Some(name) => Err(ApiError::bad_request(format!("{name} is not supported by this server"))),
        None => Ok(()),
    }
}

fn check_kind(kind: &str) -> Result<(), ApiError> {
    if kind == INTENTIONS || OTHERS.contains(&kind) {
        return Ok(());
    }
    Err(ApiError::internal(format!("invalid config entry kind: {kind}")))
}

fn cas(params: &Params) -> Result<Option<Index>, ApiError> {
    let parse = |text: &str| text.parse().map_err(|_| ApiError::bad_request("Invalid cas value"));
    params.non_empty("cas").map(parse).transpose()
}

fn toward(app: &Shared, name: &str) -> Vec<Record> {
    let Ok(destination) = Party::parse(name) else { return Vec::new() };
    let mut records = app.state.catalog.intentions();
    records.retain(|(rule, ..)| rule.destination == destination);
    records
}

/// When the entry of a destination was last written; 0 when there is none.
fn modified(app: &Shared, destination: &Party) -> Index {
    toward(app, destination.as_str()).iter().map(|(.., modified)| *modified).max().unwrap_or(0)
}

/// The entry of one destination; its rules are in the order in which they are looked at.
fn shape(records: &[Record]) -> Option<Value> {
    let (first, ..) = records.first()?;
    let sources: Vec<_> = records
        .iter()
        .map(|(rule, ..)| {
            let mut source = json!({
                "Name": rule.source.as_str(),
                "Action": rule.action.as_str(),
                "Precedence": rule.precedence(),
                "Type": "consul",
            });
            if let (false, Some(fields)) = (rule.description.is_empty(), source.as_object_mut()) {
                fields.insert("Description".to_owned(), rule.description.clone().into());
            }
            source
        })
        .collect();
    Some(json!({
        "Kind": INTENTIONS,
        "Name": first.destination.as_str(),
        "Sources": sources,
        "CreateIndex": records.iter().map(|(_, created, _)| *created).min(),
        "ModifyIndex": records.iter().map(|(.., modified)| *modified).max(),
    }))
}
