//! `/v1/agent/checks` and `/v1/agent/check`: checks of the server's own node and of what runs there.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;

use super::scripts_refused;
use super::services::own_instances;
use crate::api::body::JsonBytes;
use crate::api::decode::Fields;
use crate::api::error::ApiError;
use crate::api::filter::schema;
use crate::api::health::tagged_checks;
use crate::api::json::check::CheckJson;
use crate::api::query::Params;
use crate::api::{App, Shared, reply};
use crate::catalog::CheckRecord;
use crate::model::check::cut_output;
use crate::model::{Check, CheckKind, CheckReport, CheckStatus};

pub(in crate::api) async fn list(State(app): App, params: Params) -> Result<Response, ApiError> {
    let filter = params.filter(schema::CHECK)?;
    let checks = own_checks(&app);
    let checks: BTreeMap<_, _> = checks
        .iter()
        .map(|(record, tags)| (record.check.id.as_str(), CheckJson::agent(record, tags)))
        .filter(|(_, check)| filter.keeps(check))
        .collect();
    Ok(reply::json(params.layout, &checks))
}

/// The checks of the server's node, without `serfHealth`, which is the catalog's word about the node.
pub(super) fn own_checks(app: &Shared) -> Vec<(CheckRecord, Vec<String>)> {
    let mut checks = tagged_checks(app, &app.state.catalog.settings().node);
    checks.retain(|(record, _)| !record.check.is_alive());
    checks
}

/// The same check again changes nothing: it keeps the status it has.
pub(in crate::api) async fn register(
    State(app): App,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let (definition, service) = (app.state.decoders.check)(&body).map_err(ApiError::bad_request)?;
    scripts_refused([&definition])?;
    let node = &app.state.catalog.settings().node;
    let instance = match service {
        None => None,
        Some(id) => {
            let records = own_instances(&app);
            let found = records.into_iter().find(|record| record.instance.id.as_str() == id);
            let missing = || ApiError::internal(format!("ServiceID {id:?} does not exist"));
            let instance = found.ok_or_else(missing)?.instance;
            Some((instance.id.clone(), instance.name.clone()))
        }
    };
    let check = Check::declared(node, instance, &definition);
    app.state.catalog.put_check(&check).await?;
    Ok(reply::empty())
}

/// Removing what is not there is a success, as in Consul.
pub(in crate::api) async fn deregister(
    State(app): App,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    app.state.catalog.delete_check(&app.state.catalog.settings().node, &id).await?;
    Ok(reply::empty())
}

pub(in crate::api) async fn pass(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    note(app, id, &params, CheckStatus::Passing).await
}

pub(in crate::api) async fn warn(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    note(app, id, &params, CheckStatus::Warning).await
}

pub(in crate::api) async fn fail(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    note(app, id, &params, CheckStatus::Critical).await
}

async fn note(
    State(app): App,
    Path(id): Path<String>,
    params: &Params,
    status: CheckStatus,
) -> Result<Response, ApiError> {
    report(&app, id, status, params.first("note").unwrap_or_default()).await
}

/// `{"Status","Output"}`: what `pass`, `warn` and `fail` do, with a longer text.
pub(in crate::api) async fn update(
    State(app): App,
    Path(id): Path<String>,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["Status", "Output"])?;
    let word = fields.text("Status")?;
    let status = CheckStatus::parse(word)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{word}'")))?;
    report(&app, id, status, fields.text("Output")?).await
}

/// Feeds a TTL check: the status is durable before the caller hears so, and the catalog tells whoever
/// runs its clock.
async fn report(
    app: &Shared,
    id: String,
    status: CheckStatus,
    output: &str,
) -> Result<Response, ApiError> {
    let node = &app.state.catalog.settings().node;
    let has_ttl = app.state.catalog.check(node, &id).is_some_and(|record| {
        let kind = record.check.definition.as_ref().map(|definition| &definition.kind);
        matches!(kind, Some(CheckKind::Ttl { .. }))
    });
    if !has_ttl {
        return Err(ApiError::internal(format!("CheckID {id:?} does not have associated TTL")));
    }
    let report = CheckReport { id, status, output: cut_output(output) };
    app.state.catalog.report_checks(node, vec![report]).await?;
    Ok(reply::empty())
}
