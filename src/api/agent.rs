//! `/v1/agent` and `/v1/status`: the server as the agent of its own node. Registrations made here
//! belong to that node and stay until they are taken back.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;

use super::body::JsonBytes;
use super::error::ApiError;
use super::filter::schema;
use super::health::tagged_checks;
use super::json::agent::{SelfFacts, agent_self};
use super::json::check::CheckJson;
use super::json::service::AgentService;
use super::query::Params;
use super::{App, Shared, reply};
use crate::catalog::{CatalogError, CheckRecord, InstanceRecord, Owner};
use crate::model::service::SIDECAR_PORTS;
use crate::model::{CheckKind, CheckReport, CheckStatus, Definition, InstanceId};

pub(super) async fn own(State(app): App, params: Params) -> Response {
    let catalog = &app.state.catalog;
    let settings = catalog.settings();
    let node = catalog.nodes().into_iter().find(|node| node.name == settings.node);
    let leader = control_address(&app);
    let facts = SelfFacts {
        datacenter: &settings.datacenter,
        node: settings.node.as_str(),
        node_id: node.as_ref().map_or("", |node| &node.id),
        address: &settings.node_address,
        version: env!("CARGO_PKG_VERSION"),
        http: &app.bound,
        grpc: app.state.grpc,
        leader: &leader,
        services: catalog.instances_on(&settings.node).len(),
        checks: catalog.checks_on(&settings.node).iter().filter(|record| is_own(record)).count(),
        revision: catalog.position().revision,
        default_policy: settings.default_action.as_str(),
    };
    reply::json(params.layout, &agent_self(&facts))
}

pub(super) async fn leader(State(app): App, params: Params) -> Response {
    reply::json(params.layout, &control_address(&app))
}

pub(super) async fn peers(State(app): App, params: Params) -> Response {
    reply::json(params.layout, &[control_address(&app)])
}

/// Where this server, which is its own leader, is reached by others: the gRPC port, or the HTTP port
/// while there is none.
fn control_address(app: &Shared) -> String {
    let port = app.state.grpc.as_ref().or(app.bound.first()).map_or(0, std::net::SocketAddr::port);
    let host = &app.state.catalog.settings().node_address;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) async fn services(State(app): App, params: Params) -> Result<Response, ApiError> {
    let filter = params.filter(schema::SERVICE)?;
    let records = app.state.catalog.instances_on(&app.state.catalog.settings().node);
    let services: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.instance.id.as_str(), AgentService::from(&*record.instance)))
        .filter(|(_, service)| filter.keeps(service))
        .collect();
    Ok(reply::json(params.layout, &services))
}

pub(super) async fn checks(State(app): App, params: Params) -> Result<Response, ApiError> {
    let filter = params.filter(schema::CHECK)?;
    let checks = tagged_checks(&app, &app.state.catalog.settings().node);
    let checks: BTreeMap<_, _> = checks
        .iter()
        .filter(|(record, _)| is_own(record))
        .map(|(record, tags)| (record.check.id.as_str(), CheckJson::agent(record, tags)))
        .filter(|(_, check)| filter.keeps(check))
        .collect();
    Ok(reply::json(params.layout, &checks))
}

/// Whether a check is the agent's own: `serfHealth` is the catalog's word about the agent.
fn is_own(record: &CheckRecord) -> bool {
    record.check.id != "serfHealth"
}

pub(super) async fn register(State(app): App, JsonBytes(body): JsonBytes) -> Result<Response, ApiError> {
    let definition = (app.state.decode)(&body).map_err(ApiError::bad_request)?;
    accept(&app, &definition).await?;
    Ok(reply::empty())
}

/// Writes a definition to the catalog, under the server's own node.
async fn accept(app: &Shared, definition: &Definition) -> Result<(), ApiError> {
    let catalog = &app.state.catalog;
    let node = &catalog.settings().node;
    // Two registrations at once must not be given the same port.
    let _alone = app.writes.lock().await;
    let port = match &definition.sidecar {
        Some(sidecar) if sidecar.port.is_none() => sidecar_port(
            &catalog.instances_on(node),
            &definition.id,
        )
        .ok_or_else(|| {
            ApiError::internal(format!(
                "no port provided for sidecar_service and none left in the configured range [{}, {}]",
                SIDECAR_PORTS.start(),
                SIDECAR_PORTS.end()
            ))
        })?,
        _ => 0,
    };
    let registrations = definition.expand(node, port).map_err(CatalogError::from)?;
    catalog.register(registrations, Owner::Permanent).await?;
    Ok(())
}

/// The port the sidecar of `parent` has already, or the first of the range that no instance uses.
fn sidecar_port(instances: &[InstanceRecord], parent: &InstanceId) -> Option<u16> {
    let has_parent = |record: &&InstanceRecord| {
        record.instance.proxy.as_ref().is_some_and(|proxy| proxy.destination_id == *parent)
    };
    if let Some(sidecar) = instances.iter().find(has_parent) {
        return Some(sidecar.instance.port);
    }
    let taken: BTreeSet<u16> = instances.iter().map(|record| record.instance.port).collect();
    SIDECAR_PORTS.into_iter().find(|port| !taken.contains(port))
}

pub(super) async fn deregister_nothing() -> ApiError {
    ApiError::internal("ServiceID missing")
}

/// Removing what is not there is a success, as in Consul.
pub(super) async fn deregister(State(app): App, Path(id): Path<String>) -> Result<Response, ApiError> {
    if let Ok(id) = InstanceId::new(&id) {
        app.state.catalog.deregister(&app.state.catalog.settings().node, &id).await?;
    }
    Ok(reply::empty())
}

pub(super) async fn check_pass(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    report(app, id, &params, CheckStatus::Passing).await
}

pub(super) async fn check_warn(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    report(app, id, &params, CheckStatus::Warning).await
}

pub(super) async fn check_fail(
    app: App,
    id: Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    report(app, id, &params, CheckStatus::Critical).await
}

/// Feeds a TTL check: the status is durable before the caller hears so, and the catalog tells whoever
/// runs its clock.
async fn report(
    State(app): App,
    Path(id): Path<String>,
    params: &Params,
    status: CheckStatus,
) -> Result<Response, ApiError> {
    let node = &app.state.catalog.settings().node;
    let has_ttl = app.state.catalog.checks_on(node).iter().any(|record| {
        let kind = record.check.definition.as_ref().map(|definition| &definition.kind);
        record.check.id == id && matches!(kind, Some(CheckKind::Ttl { .. }))
    });
    if !has_ttl {
        return Err(ApiError::internal(format!("CheckID {id:?} does not have associated TTL")));
    }
    let output = params.first("note").unwrap_or_default().to_owned();
    app.state.catalog.report_checks(node, vec![CheckReport { id, status, output }]).await?;
    Ok(reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::Sidecar;
    use crate::model::{NodeName, ServiceName};
    use std::sync::Arc;

    fn with_sidecar(name: &str, port: u16) -> Vec<InstanceRecord> {
        let mut definition = Definition::new(ServiceName::new(name).unwrap(), 80).unwrap();
        definition.sidecar = Some(Sidecar::default());
        let all = definition.expand(&NodeName::new("n1").unwrap(), port).unwrap();
        all.into_iter()
            .map(|registration| InstanceRecord {
                instance: Arc::new(registration.instance),
                owner: Owner::Permanent,
                created: 1,
                modified: 1,
            })
            .collect()
    }

    #[test]
    fn sidecar_ports_are_kept_and_never_shared() {
        let id = |text| InstanceId::new(text).unwrap();
        assert_eq!(sidecar_port(&[], &id("web")), Some(21000));
        let mut instances = with_sidecar("web", 21000);
        assert_eq!(sidecar_port(&instances, &id("web")), Some(21000));
        assert_eq!(sidecar_port(&instances, &id("api")), Some(21001));
        for port in SIDECAR_PORTS {
            instances.extend(with_sidecar(&format!("s{port}"), port));
        }
        assert_eq!(sidecar_port(&instances, &id("api")), None);
        assert_eq!(sidecar_port(&instances, &id("s21255")), Some(21255));
    }
}
