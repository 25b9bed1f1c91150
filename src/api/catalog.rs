//! `/v1/catalog`: nodes, services and instances.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::App;
use super::answers::{Form, Question};
use super::blocking::Read;
use super::error::ApiError;
use super::filter::{Filter, schema};
use super::json::node::NodeJson;
use super::json::service::{CatalogService, NodeService};
use super::query::Params;
use super::reply;
use crate::catalog::{HealthEntry, Node, Topic};
use crate::model::{NodeName, ServiceName};

pub(super) async fn datacenters(State(app): App, params: Params) -> Response {
    reply::json(params.layout, &[&app.state.catalog.settings().datacenter])
}

pub(super) async fn nodes(State(app): App, params: Params) -> Result<Response, ApiError> {
    let (read, filter) = Read::begin_filtered(&app, &params, &[Topic::Nodes], schema::NODE).await?;
    let datacenter = &app.state.catalog.settings().datacenter;
    let wanted = params.node_meta();
    let nodes = app.state.catalog.nodes();
    let nodes: Vec<_> = nodes
        .iter()
        .filter(|node| has_meta(node, &wanted))
        .map(|node| NodeJson::new(datacenter, node))
        .filter(|node| filter.keeps(node))
        .collect();
    Ok(read.json(&nodes))
}

pub(super) async fn services(State(app): App, params: Params) -> Result<Response, ApiError> {
    let (read, filter) =
        Read::begin_filtered(&app, &params, &[Topic::Services], schema::CATALOG_SERVICE).await?;
    let wanted = params.node_meta();
    let all = app.state.catalog.services();
    if wanted.is_empty() && filter.keeps_all() {
        return Ok(read.json(&all));
    }
    let datacenter = &app.state.catalog.settings().datacenter;
    let mut services: BTreeMap<&ServiceName, BTreeSet<String>> = BTreeMap::new();
    for name in all.keys() {
        for entry in app.state.catalog.health(name) {
            if has_meta(&entry.node, &wanted) && filter.keeps(&CatalogService::new(datacenter, &entry)) {
                let tags = entry.instance.instance.tags.iter().cloned();
                services.entry(name).or_default().extend(tags);
            }
        }
    }
    Ok(read.json(&services))
}

pub(super) async fn service(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let topic = Topic::Service(name.clone());
    let (read, filter) =
        Read::begin_filtered(&app, &params, from_ref(&topic), schema::CATALOG_SERVICE).await?;
    let question = Question::new(Form::Catalog, topic, &params);
    read.kept(&app, question, || encode(&app, &params, &read, &filter, &app.state.catalog.health(&name)))
}

pub(super) async fn connect(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let topic = Topic::Connect(name.clone());
    let (read, filter) =
        Read::begin_filtered(&app, &params, from_ref(&topic), schema::CATALOG_SERVICE).await?;
    let question = Question::new(Form::Catalog, topic, &params);
    read.kept(&app, question, || {
        encode(&app, &params, &read, &filter, &app.state.catalog.connect(&name))
    })
}

fn encode(
    app: &super::Shared,
    params: &Params,
    read: &Read,
    filter: &Filter,
    entries: &[HealthEntry],
) -> Result<Bytes, ApiError> {
    let datacenter = &app.state.catalog.settings().datacenter;
    let wanted = Wanted::new(params);
    let items: Vec<_> = entries
        .iter()
        .filter(|entry| wanted.matches(entry))
        .map(|entry| CatalogService::new(datacenter, entry))
        .filter(|service| filter.keeps(service))
        .collect();
    read.encode(&items)
}

pub(super) async fn node(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let topics = [Topic::Nodes, Topic::Services];
    let (read, filter) = Read::begin_filtered(&app, &params, &topics, schema::SERVICE).await?;
    let Some(node) = app.state.catalog.nodes().into_iter().find(|node| node.name == name) else {
        return Ok(read.json(&serde_json::Value::Null));
    };
    let records = app.state.catalog.instances_on(&name);
    let services: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.instance.id.as_str(), NodeService::from(record)))
        .filter(|(_, service)| filter.keeps(service))
        .collect();
    let node = NodeJson::new(&app.state.catalog.settings().datacenter, &node);
    Ok(read.json(&json!({ "Node": node, "Services": services })))
}

/// The same with the services as a list.
pub(super) async fn node_services(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let topics = [Topic::Nodes, Topic::Services];
    let (read, filter) = Read::begin_filtered(&app, &params, &topics, schema::SERVICE).await?;
    let Some(node) = app.state.catalog.nodes().into_iter().find(|node| node.name == name) else {
        return Ok(read.json(&json!({ "Node": null, "Services": null })));
    };
    let records = app.state.catalog.instances_on(&name);
    let services = records.iter().map(NodeService::from);
    let services: Vec<_> = services.filter(|service| filter.keeps(service)).collect();
    let node = NodeJson::new(&app.state.catalog.settings().datacenter, &node);
    Ok(read.json(&json!({ "Node": node, "Services": services })))
}

/// There are no gateways, so none has a service.
pub(super) async fn gateway_services(State(app): App, params: Params) -> Result<Response, ApiError> {
    let read = Read::begin(&app, &params, &[Topic::Services]).await?;
    Ok(read.json(&[(); 0]))
}

/// What instances a query asks for by `tag` (all of them, in any case) and `node-meta`.
pub(super) struct Wanted<'a> {
    tags: Vec<&'a str>,
    meta: Vec<(&'a str, &'a str)>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(params: &'a Params) -> Self {
        let tags = params.all("tag").filter(|tag| !tag.is_empty()).collect();
        Self { tags, meta: params.node_meta() }
    }

    pub(super) fn matches(&self, entry: &HealthEntry) -> bool {
        let tags = &entry.instance.instance.tags;
        let tagged = |wanted: &&str| tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted));
        self.tags.iter().all(tagged) && has_meta(&entry.node, &self.meta)
    }
}

fn has_meta(node: &Node, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| node.meta.get(*key).is_some_and(|found| found == value))
}

/// A name of the path. One that cannot exist is refused: waiting for it would never end.
pub(super) fn service_name(text: &str) -> Result<ServiceName, ApiError> {
    ServiceName::new(text)
        .map_err(|fault| ApiError::bad_request(format!("Invalid service name: {fault}")))
}

pub(super) fn node_name(text: &str) -> Result<NodeName, ApiError> {
    NodeName::new(text).map_err(|fault| ApiError::bad_request(format!("Invalid node name: {fault}")))
}
