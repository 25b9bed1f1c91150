//! `/v1/agent` and `/v1/status`: the server as the agent of its own node.
//!
//! `services`, `checks`, `maintenance` and `health` are what is registered there; `process` is about the
//! running program. This file tells who the server is.

pub(super) mod checks;
pub(super) mod health;
pub(super) mod host;
pub(super) mod maintenance;
pub(super) mod process;
pub(super) mod services;

use axum::extract::State;
use axum::response::Response;

use super::error::ApiError;
use super::json::agent::{SelfFacts, agent_self, member};
use super::query::Params;
use super::{App, Shared, reply};
use crate::model::CheckDefinition;

pub(super) async fn own(State(app): App, params: Params) -> Response {
    with_facts(&app, |facts| reply::json(params.layout, &agent_self(facts)))
}

/// The one member there is: servers meet in the store, and sidecars are no members.
pub(super) async fn members(State(app): App, params: Params) -> Response {
    with_facts(&app, |facts| reply::json(params.layout, &[member(facts)]))
}

fn with_facts(app: &Shared, then: impl FnOnce(&SelfFacts<'_>) -> Response) -> Response {
    let catalog = &app.state.catalog;
    let settings = catalog.settings();
    let node = catalog.nodes().into_iter().find(|node| node.name == settings.node);
    let leader = control_address(app);
    then(&SelfFacts {
        datacenter: &settings.datacenter,
        node: settings.node.as_str(),
        node_id: node.as_ref().map_or("", |node| &node.id),
        address: &settings.node_address,
        version: env!("CARGO_PKG_VERSION"),
        http: &app.bound,
        grpc: app.state.grpc,
        leader: &leader,
        services: services::own_instances(app).len(),
        checks: checks::own_checks(app).len(),
        revision: catalog.position().revision,
        default_policy: settings.default_action.as_str(),
    })
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

/// Refuses scripts: whoever reaches the API must not run programs here. Consul's words.
fn scripts_refused<'a>(checks: impl IntoIterator<Item = &'a CheckDefinition>) -> Result<(), ApiError> {
    if checks.into_iter().any(|check| check.kind.is_script()) {
        return Err(ApiError::internal(
            "Scripts are disabled on this agent from remote calls; to enable, configure \
             'enable_script_checks' to true",
        ));
    }
    Ok(())
}
