//! The table of all routes, and what is common to them: allowed methods, `OPTIONS`, unknown paths.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};

use super::error::ApiError;
use super::{Shared, agent, catalog, connect, guard, health, intentions, kv, session, txn, weft};

type Route = MethodRouter<Arc<Shared>, Infallible>;

/// All routes behind the guard.
pub(super) fn router(shared: Shared) -> Router {
    let others = shared.state.routes.clone();
    let shared = Arc::new(shared);
    let ours = Router::new()
        .merge(agent_routes())
        .merge(catalog_routes())
        .merge(connect_routes())
        .merge(kv_routes())
        .merge(weft_routes())
        .with_state(Arc::clone(&shared));
    ours.merge(others)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(axum::middleware::from_fn_with_state(shared, guard::guard))
}

fn agent_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/agent/self", get(agent::own))
        .route("/v1/agent/services", get(agent::services))
        .route("/v1/agent/checks", get(agent::checks))
        .route("/v1/agent/service/register", put(agent::register))
        .route("/v1/agent/service/deregister/", put(agent::deregister_nothing))
        .route("/v1/agent/service/deregister/{id}", put(agent::deregister))
        .route("/v1/agent/check/pass/{id}", put(agent::check_pass))
        .route("/v1/agent/check/warn/{id}", put(agent::check_warn))
        .route("/v1/agent/check/fail/{id}", put(agent::check_fail))
        .route("/v1/status/leader", get(agent::leader))
        .route("/v1/status/peers", get(agent::peers))
}

fn catalog_routes() -> Router<Arc<Shared>> {
    let no_name = || get(|| async { ApiError::bad_request("Missing service name") });
    Router::new()
        .route("/v1/catalog/datacenters", get(catalog::datacenters))
        .route("/v1/catalog/nodes", get(catalog::nodes))
        .route("/v1/catalog/services", get(catalog::services))
        .route("/v1/catalog/service/", no_name())
        .route("/v1/catalog/service/{name}", get(catalog::service))
        .route("/v1/catalog/connect/", no_name())
        .route("/v1/catalog/connect/{name}", get(catalog::connect))
        .route("/v1/catalog/node/", get(|| async { ApiError::bad_request("Missing node name") }))
        .route("/v1/catalog/node/{node}", get(catalog::node))
        .route("/v1/health/service/", no_name())
        .route("/v1/health/service/{name}", get(health::service))
        .route("/v1/health/connect/", no_name())
        .route("/v1/health/connect/{name}", get(health::connect))
        .route("/v1/health/node/", get(|| async { ApiError::bad_request("Missing node name") }))
        .route("/v1/health/node/{node}", get(health::node))
        .route("/v1/health/checks/", no_name())
        .route("/v1/health/checks/{name}", get(health::checks))
        .route("/v1/health/state/", get(|| async { ApiError::bad_request("Missing check state") }))
        .route("/v1/health/state/{state}", get(health::state))
}

fn connect_routes() -> Router<Arc<Shared>> {
    let collection = routing::get(intentions::list).post(intentions::create);
    let by_id = routing::get(intentions::get).put(intentions::update).delete(intentions::delete);
    let exact =
        routing::get(intentions::get_exact).put(intentions::put_exact).delete(intentions::delete_exact);
    Router::new()
        .route("/v1/connect/intentions", allow("OPTIONS,GET,POST", collection))
        .route("/v1/connect/intentions/match", get(intentions::matching))
        .route("/v1/connect/intentions/check", get(intentions::check))
        .route("/v1/connect/intentions/exact", allow("OPTIONS,GET,PUT,DELETE", exact))
        .route("/v1/connect/intentions/{id}", allow("OPTIONS,GET,PUT,DELETE", by_id))
        .route("/v1/connect/ca/roots", get(connect::roots))
        .route("/v1/agent/connect/ca/roots", get(connect::roots))
}

fn kv_routes() -> Router<Arc<Shared>> {
    let root = routing::get(kv::get_root).put(kv::no_key).delete(kv::delete_root);
    let key = routing::get(kv::get).put(kv::put).delete(kv::delete);
    Router::new()
        .route("/v1/kv/", allow("OPTIONS,GET,PUT,DELETE", root))
        .route("/v1/kv/{*key}", allow("OPTIONS,GET,PUT,DELETE", key))
        .route("/v1/session/create", put(session::create))
        .route("/v1/session/destroy/", put(session::no_session))
        .route("/v1/session/destroy/{id}", put(session::destroy))
        .route("/v1/session/renew/", put(session::no_session))
        .route("/v1/session/renew/{id}", put(session::renew))
        .route("/v1/session/info/", get(session::no_session))
        .route("/v1/session/info/{id}", get(session::info))
        .route("/v1/session/node/", get(|| async { ApiError::bad_request("Missing node name") }))
        .route("/v1/session/node/{node}", get(session::on_node))
        .route("/v1/session/list", get(session::list))
        .route("/v1/txn", put(txn::run))
}

fn weft_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/weft/status", get(weft::status))
        .route("/v1/weft/services", get(weft::services))
        .route("/v1/weft/proxies", get(weft::proxies))
        .route("/v1/weft/intention/check", get(weft::check))
        .route("/v1/weft/tokens", allow("OPTIONS,POST", routing::post(weft::create_token)))
}

fn get<H, T>(handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    allow("OPTIONS,GET", routing::get(handler))
}

fn put<H, T>(handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    allow("OPTIONS,PUT", routing::put(handler))
}

/// Answers `OPTIONS` and refuses all other methods in Consul's words.
fn allow(methods: &'static str, route: Route) -> Route {
    let allow = [(header::ALLOW, HeaderValue::from_static(methods))];
    let refusal = allow.clone();
    route.options(|| async move { (allow, ()).into_response() }).fallback(
        move |method: Method| -> std::future::Ready<Response> {
            let text = format!("method {method} not allowed");
            let refused = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text);
            std::future::ready((refusal, refused).into_response())
        },
    )
}
