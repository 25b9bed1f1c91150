//! `/v1/catalog/register` and `deregister`: entries of nodes that have no agent. What they say is kept as
//! it is; their checks are run by nobody here.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::body::JsonBytes;
use super::catalog::node_name;
use super::decode::Fields;
use super::error::ApiError;
use super::query::Params;
use super::{App, Shared, reply};
use crate::catalog::{CatalogError, External, NodeUpdate};
use crate::model::check::cut_output;
use crate::model::{Check, CheckStatus, Instance, InstanceId, NodeName, ServiceName};

/// Most checks in one entry.
const MAX_CHECKS: usize = 64;

const ENTRY: &[&str] = &[
    "Datacenter",
    "ID",
    "Node",
    "Address",
    "TaggedAddresses",
    "NodeMeta",
    "Service",
    "Check",
    "Checks",
    "SkipNodeUpdate",
];
/// The keys of a service that mean something here, with the name under `Service`.
const SERVICE: &[&str] = &[
    "ID",
    "Service",
    "Kind",
    "Tags",
    "Address",
    "TaggedAddresses",
    "Meta",
    "Port",
    "Weights",
    "EnableTagOverride",
    "Proxy",
    "Connect",
];
const CHECK: &[&str] =
    &["CheckID", "Name", "Notes", "Status", "Output", "ServiceID", "Type", "Definition"];
const DEFINITION: &[&str] = &[
    "Interval",
    "Timeout",
    "DeregisterCriticalServiceAfter",
    "HTTP",
    "Header",
    "Method",
    "Body",
    "TLSSkipVerify",
    "TCP",
    "UDP",
    "GRPC",
    "GRPCUseTLS",
];

pub(super) async fn register(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let entry = entry(&app, &body)?;
    app.state.catalog.put_external(&entry).await.map_err(|fault| match fault {
        CatalogError::NoInstance(_) => {
            ApiError::internal(format!("failed inserting check: {fault}: Missing service registration"))
        }
        other => other.into(),
    })?;
    Ok(reply::json(params.layout, &true))
}

fn entry(app: &Shared, body: &[u8]) -> Result<External, ApiError> {
    let fields = Fields::parse_lenient(body, ENTRY)?;
    check_datacenter(app, &fields)?;
    let node = required_node(&fields)?;
    let update = match fields.boolean("SkipNodeUpdate")? {
        true => None,
        false => Some(update(&fields)?),
    };
    let instance = match fields.object("Service", SERVICE)? {
        Some(service) => Some(instance(app, &node, service)?),
        None => None,
    };
    let mut given: Vec<Fields> = fields.object("Check", CHECK)?.into_iter().collect();
    given.extend(fields.objects("Checks", CHECK)?);
    if given.len() > MAX_CHECKS {
        let text = format!("{} checks in one entry; at most {MAX_CHECKS}", given.len());
        return Err(ApiError::bad_request(text));
    }
    let checks = given.iter().map(|fields| check(app, &node, instance.as_ref(), fields));
    let checks = checks.collect::<Result<_, _>>()?;
    Ok(External { node, update, instance, checks })
}

fn check_datacenter(app: &Shared, fields: &Fields) -> Result<(), ApiError> {
    let wanted = fields.text("Datacenter")?;
    if wanted.is_empty() || wanted.eq_ignore_ascii_case(&app.state.catalog.settings().datacenter) {
        return Ok(());
    }
    Err(ApiError::internal("No path to datacenter"))
}

fn required_node(fields: &Fields) -> Result<NodeName, ApiError> {
    match fields.text("Node")? {
        "" => Err(ApiError::internal("Must provide node")),
        name => node_name(name),
    }
}

fn update(fields: &Fields) -> Result<NodeUpdate, ApiError> {
    let address = fields.text("Address")?;
    if address.is_empty() {
        return Err(ApiError::internal("Must provide address if SkipNodeUpdate is not set"));
    }
    let owned = |pairs: Vec<(&str, &str)>| -> BTreeMap<String, String> {
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let tagged = owned(fields.texts("TaggedAddresses")?);
    Ok(NodeUpdate {
        id: fields.text("ID")?.to_owned(),
        address: address.to_owned(),
        tagged_addresses: (!tagged.is_empty()).then_some(tagged),
        meta: owned(fields.texts("NodeMeta")?),
    })
}

/// The service has the form of a registration but for the key of its name, so the same reader reads it.
fn instance(app: &Shared, node: &NodeName, service: Fields) -> Result<Instance, ApiError> {
    if service.text("Service")?.is_empty() {
        return Err(ApiError::internal(
            "failed inserting service: failed inserting service: object missing primary index",
        ));
    }
    let mut definition = Map::new();
    for (key, value) in service.into_values() {
        let key = if key == "Service" { "Name".to_owned() } else { key };
        definition.insert(key, value);
    }
    let body = Value::Object(definition).to_string();
    let definition = (app.state.decoders.definition)(body.as_bytes()).map_err(ApiError::bad_request)?;
    let registrations = definition.expand(node, 0).map_err(CatalogError::from)?;
    let first = registrations.into_iter().next();
    first.map(|first| first.instance).ok_or_else(|| ApiError::internal("the service is empty"))
}

fn check(
    app: &Shared,
    node: &NodeName,
    instance: Option<&Instance>,
    fields: &Fields,
) -> Result<Check, ApiError> {
    let name = fields.text("Name")?;
    let id = Some(fields.text("CheckID")?).filter(|id| !id.is_empty()).unwrap_or(name);
    let status = match fields.text("Status")? {
        "" => CheckStatus::Critical,
        word => CheckStatus::parse(word)
            .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{word}'")))?,
    };
    let definition = fields.object("Definition", DEFINITION)?;
    let shown = definition.map(|definition| ordered(definition.into_values()));
    let type_name = match fields.text("Type")? {
        "" => inferred_type(shown.as_ref()),
        word => word,
    };
    Ok(Check {
        node: node.clone(),
        id: id.to_owned(),
        name: name.to_owned(),
        notes: fields.text("Notes")?.to_owned(),
        status,
        output: cut_output(fields.text("Output")?),
        instance: about(app, node, instance, fields.text("ServiceID")?)?,
        type_name: type_name.to_owned(),
        definition: None,
        shown: shown.filter(|shown| shown.as_object().is_some_and(|object| !object.is_empty())),
    })
}

/// The instance a check is about: of the same entry, or one that is there.
fn about(
    app: &Shared,
    node: &NodeName,
    instance: Option<&Instance>,
    id: &str,
) -> Result<Option<(InstanceId, ServiceName)>, ApiError> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = InstanceId::new(id)
        .map_err(|fault| ApiError::bad_request(format!("Invalid service ID: {fault}")))?;
    let held = app.state.catalog.instance(node, &id);
    let name = match (instance.filter(|instance| instance.id == id), held) {
        (Some(instance), _) => instance.name.clone(),
        (None, Some(held)) => held.instance.instance.name.clone(),
        (None, None) => {
            let text = "failed inserting check: failed inserting check: Missing service registration";
            return Err(ApiError::internal(text));
        }
    };
    Ok(Some((id, name)))
}

/// Whether this is the entry of the server itself.
fn is_server(app: &Shared, node: &NodeName, id: &InstanceId) -> bool {
    let held = app.state.catalog.instance(node, id);
    *node == app.state.catalog.settings().node
        && held.is_some_and(|held| held.instance.instance.is_server())
}

/// In the order in which Consul shows the fields.
fn ordered(mut fields: Map<String, Value>) -> Value {
    let known = DEFINITION.iter().filter_map(|key| Some(((*key).to_owned(), fields.remove(*key)?)));
    Value::Object(known.filter(|(_, value)| !value.is_null()).collect())
}

fn inferred_type(shown: Option<&Value>) -> &'static str {
    let given = |key: &str| {
        let value = shown.and_then(|shown| shown.get(key)).and_then(Value::as_str);
        value.is_some_and(|text| !text.is_empty())
    };
    let kinds = [("HTTP", "http"), ("TCP", "tcp"), ("UDP", "udp"), ("GRPC", "grpc")];
    kinds.into_iter().find(|(key, _)| given(key)).map_or("", |(_, kind)| kind)
}

/// Removing what is not there is a success. A node with an agent stays: its agent would write it again.
pub(super) async fn deregister(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse_lenient(&body, &["Datacenter", "Node", "ServiceID", "CheckID"])?;
    check_datacenter(&app, &fields)?;
    let node = required_node(&fields)?;
    let catalog = &app.state.catalog;
    match (fields.text("ServiceID")?, fields.text("CheckID")?) {
        ("", "") => drop(catalog.delete_node(&node).await?),
        ("", check) => drop(catalog.delete_check(&node, check).await?),
        (service, _) => {
            let held = InstanceId::new(service).ok().filter(|id| !is_server(&app, &node, id));
            if let Some(id) = held {
                catalog.deregister(&node, &id).await?;
            }
        }
    }
    Ok(reply::json(params.layout, &json!(true)))
}
