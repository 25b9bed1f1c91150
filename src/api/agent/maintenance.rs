//! Maintenance mode: a critical check that takes an instance, or all of the node, out of every answer.

use axum::extract::{Path, State};
use axum::response::Response;

use super::services::own_instances;
use crate::api::error::ApiError;
use crate::api::query::{Params, parse_bool};
use crate::api::{App, Shared, reply};
use crate::model::{Check, CheckStatus, Instance};

/// Id of the check of the node.
pub(super) const NODE_CHECK: &str = "_node_maintenance";
/// What ids of checks of instances begin with.
pub(super) const SERVICE_PREFIX: &str = "_service_maintenance:";
/// Consul's word in the `Type` field; the catalog keeps such checks through registrations.
const TYPE: &str = "maintenance";

pub(in crate::api) async fn no_service() -> ApiError {
    ApiError::bad_request("Missing service ID")
}

pub(in crate::api) async fn service(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let enable = enable(&params)?;
    let records = own_instances(&app);
    let found = records.into_iter().find(|record| record.instance.id.as_str() == id);
    let unknown = || ApiError::not_found(format!("No service registered with ID {id:?}"));
    let instance = found.ok_or_else(unknown)?.instance;
    set(&app, Some(&instance), enable, params.first("reason").unwrap_or_default()).await
}

pub(in crate::api) async fn node(State(app): App, params: Params) -> Result<Response, ApiError> {
    set(&app, None, enable(&params)?, params.first("reason").unwrap_or_default()).await
}

fn enable(params: &Params) -> Result<bool, ApiError> {
    let word =
        params.first("enable").ok_or_else(|| ApiError::bad_request("Missing value for enable"))?;
    parse_bool(word).ok_or_else(|| ApiError::bad_request(format!("Invalid value for enable: {word:?}")))
}

async fn set(
    app: &Shared,
    instance: Option<&Instance>,
    enable: bool,
    reason: &str,
) -> Result<Response, ApiError> {
    let node = &app.state.catalog.settings().node;
    let (id, name, what) = match instance {
        Some(instance) => {
            (format!("{SERVICE_PREFIX}{}", instance.id), "Service Maintenance Mode", "service")
        }
        None => (NODE_CHECK.to_owned(), "Node Maintenance Mode", "node"),
    };
    if !enable {
        app.state.catalog.delete_check(node, &id).await?;
        return Ok(reply::empty());
    }
    let notes = if reason.is_empty() {
        format!("Maintenance mode is enabled for this {what}, but no reason was provided.")
    } else {
        reason.to_owned()
    };
    let check = Check {
        node: node.clone(),
        id,
        name: name.to_owned(),
        notes,
        status: CheckStatus::Critical,
        output: String::new(),
        instance: instance.map(|instance| (instance.id.clone(), instance.name.clone())),
        type_name: TYPE.to_owned(),
        definition: None,
        shown: None,
    };
    app.state.catalog.put_check(&check).await?;
    Ok(reply::empty())
}
