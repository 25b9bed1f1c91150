//! `/v1/catalog`: nodes, services and instances.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::App;
use super::blocking::Read;
use super::error::ApiError;
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
    let read = Read::begin(&app, &params, &[Topic::Nodes]).await?;
    let datacenter = &app.state.catalog.settings().datacenter;
    let wanted = params.node_meta();
    let nodes = app.state.catalog.nodes();
    let nodes: Vec<_> = nodes
        .iter()
        .filter(|node| has_meta(node, &wanted))
        .map(|node| NodeJson::new(datacenter, node))
        .collect();
    Ok(read.json(&nodes))
}

pub(super) async fn services(State(app): App, params: Params) -> Result<Response, ApiError> {
    let read = Read::begin(&app, &params, &[Topic::Services]).await?;
    let wanted = params.node_meta();
    if wanted.is_empty() {
        return Ok(read.json(&app.state.catalog.services()));
    }
    let mut services: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
    for node in app.state.catalog.nodes().iter().filter(|node| has_meta(node, &wanted)) {
        for record in app.state.catalog.instances_on(&node.name) {
            let tags = services.entry(record.instance.name.clone()).or_default();
            tags.extend(record.instance.tags.iter().cloned());
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
    let read = Read::begin(&app, &params, &[Topic::Service(name.clone())]).await?;
    Ok(answer(&app, &params, &read, &app.state.catalog.health(&name)))
}

pub(super) async fn connect(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = service_name(&name)?;
    let read = Read::begin(&app, &params, &[Topic::Connect(name.clone())]).await?;
    Ok(answer(&app, &params, &read, &app.state.catalog.connect(&name)))
}

fn answer(app: &super::Shared, params: &Params, read: &Read, entries: &[HealthEntry]) -> Response {
    let datacenter = &app.state.catalog.settings().datacenter;
    let wanted = Wanted::new(params);
    let items: Vec<_> = entries
        .iter()
        .filter(|entry| wanted.matches(entry))
        .map(|entry| CatalogService::new(datacenter, entry))
        .collect();
    read.json(&items)
}

pub(super) async fn node(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let read = Read::begin(&app, &params, &[Topic::Nodes, Topic::Services]).await?;
    let Some(node) = app.state.catalog.nodes().into_iter().find(|node| node.name == name) else {
        return Ok(read.json(&serde_json::Value::Null));
    };
    let records = app.state.catalog.instances_on(&name);
    let services: BTreeMap<_, _> =
        records.iter().map(|record| (record.instance.id.as_str(), NodeService::from(record))).collect();
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
    let read = Read::begin(&app, &params, &[Topic::Nodes, Topic::Services]).await?;
    let Some(node) = app.state.catalog.nodes().into_iter().find(|node| node.name == name) else {
        return Ok(read.json(&json!({ "Node": null, "Services": null })));
    };
    let records = app.state.catalog.instances_on(&name);
    let services: Vec<_> = records.iter().map(NodeService::from).collect();
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
