//! `/v1/health`: instances with their checks, and checks alone.

use std::slice::from_ref;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;

use super::answers::{Form, Question};
use super::blocking::Read;
use super::catalog::{Wanted, node_name, service_name};
use super::error::ApiError;
use super::filter::{Filter, schema};
use super::json::check::{CheckJson, HealthJson};
use super::query::Params;
use super::{App, Shared};
use crate::catalog::{CheckRecord, HealthEntry, Topic};
use crate::model::{CheckStatus, NodeName};

pub(super) async fn service(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let passing = params.passing()?;
    let topic = Topic::Service(name.clone());
    let (read, filter) = Read::begin_filtered(&app, &params, from_ref(&topic), schema::HEALTH).await?;
    let question = Question::new(Form::Health, topic, &params);
    read.kept(&app, question, || {
        encode(&app, &read, &params, passing, &filter, &app.state.catalog.health(&name))
    })
}

pub(super) async fn connect(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let passing = params.passing()?;
    let topic = Topic::Connect(name.clone());
    let (read, filter) = Read::begin_filtered(&app, &params, from_ref(&topic), schema::HEALTH).await?;
    let question = Question::new(Form::Health, topic, &params);
    read.kept(&app, question, || {
        encode(&app, &read, &params, passing, &filter, &app.state.catalog.connect(&name))
    })
}

fn encode(
    app: &Shared,
    read: &Read,
    params: &Params,
    passing: bool,
    filter: &Filter,
    entries: &[HealthEntry],
) -> Result<Bytes, ApiError> {
    let wanted = Wanted::new(params);
    let datacenter = &app.state.catalog.settings().datacenter;
    let items: Vec<_> = entries
        .iter()
        .filter(|entry| wanted.matches(entry) && (!passing || entry.status() == CheckStatus::Passing))
        .map(|entry| HealthJson::new(datacenter, entry))
        .filter(|entry| filter.keeps(entry))
        .collect();
    read.encode(&items)
}

/// There are no gateways, so none leads to a service.
pub(super) async fn ingress(State(app): App, params: Params) -> Result<Response, ApiError> {
    let read = Read::begin(&app, &params, &[Topic::Services]).await?;
    Ok(read.json(&[(); 0]))
}

pub(super) async fn node(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let (read, filter) = begin_checks(&app, &params).await?;
    Ok(checks_json(&read, &filter, &tagged_checks(&app, &name)))
}

/// The checks of a service's instances, without those of their nodes.
pub(super) async fn checks(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let (read, filter) = begin_checks(&app, &params).await?;
    let entries = app.state.catalog.health(&name);
    let checks: Vec<_> = entries
        .iter()
        .flat_map(|entry| entry.checks.iter().map(|check| (check, &entry.instance.instance.tags)))
        .filter(|(record, _)| record.check.instance.is_some())
        .map(|(record, tags)| CheckJson::catalog(record, tags))
        .filter(|check| filter.keeps(check))
        .collect();
    Ok(read.json(&checks))
}

/// Every check in one state; a word that is no state matches none.
pub(super) async fn state(
    State(app): App,
    Path(word): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let (read, filter) = begin_checks(&app, &params).await?;
    let wanted = CheckStatus::parse(&word);
    let mut checks = Vec::new();
    if word == "any" || wanted.is_some() {
        for node in app.state.catalog.nodes() {
            checks.extend(tagged_checks(&app, &node.name));
        }
        checks.retain(|(record, _)| wanted.is_none_or(|status| record.check.status == status));
    }
    Ok(checks_json(&read, &filter, &checks))
}

async fn begin_checks(app: &Shared, params: &Params) -> Result<(Read, Filter), ApiError> {
    Read::begin_filtered(app, params, &[Topic::Checks], schema::CHECK).await
}

type TaggedCheck = (CheckRecord, Vec<String>);

fn checks_json(read: &Read, filter: &Filter, checks: &[TaggedCheck]) -> Response {
    let shapes: Vec<_> = checks
        .iter()
        .map(|(record, tags)| CheckJson::catalog(record, tags))
        .filter(|check| filter.keeps(check))
        .collect();
    read.json(&shapes)
}

/// The checks of a node, each with the tags of the instance it is about.
pub(super) fn tagged_checks(app: &Shared, node: &NodeName) -> Vec<TaggedCheck> {
    let instances = app.state.catalog.instances_on(node);
    let tags = |record: &CheckRecord| {
        let (id, _) = record.check.instance.as_ref()?;
        let owner = instances.iter().find(|other| other.instance.id == *id)?;
        Some(owner.instance.tags.clone())
    };
    let mut tagged = Vec::new();
    for record in app.state.catalog.checks_on(node) {
        let tags = tags(&record).unwrap_or_default();
        tagged.push((record, tags));
    }
    tagged
}
