//! The table of all routes, and what is common to them: allowed methods, `OPTIONS`, unknown paths.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};

use super::error::ApiError;
use super::{
    Shared, agent, bans, ca, catalog, catalog_write, config_entries, configuration, connect, guard,
    health, intentions, kv, leaf, session, tokens, txn, weft,
};

type Handlers = MethodRouter<Arc<Shared>, Infallible>;

/// What stands at one path.
struct Route {
    /// For `OPTIONS`, which is among them.
    methods: &'static str,
    handlers: Handlers,
}

/// All routes behind the guard.
pub(super) fn router(shared: Shared) -> Router {
    let others = shared.state.routes.clone();
    let shared = Arc::new(shared);
    let ours = ours().router.with_state(Arc::clone(&shared));
    ours.merge(others)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(axum::middleware::from_fn_with_state(shared, guard::guard))
}

/// Every route of this module with the methods it takes, as `OPTIONS` tells them.
#[must_use]
pub fn listing() -> Vec<(&'static str, &'static str)> {
    ours().list
}

fn ours() -> Routes {
    agent_routes()
        .merge(catalog_routes())
        .merge(connect_routes())
        .merge(kv_routes())
        .merge(weft_routes())
}

/// A router that knows what it has.
struct Routes {
    router: Router<Arc<Shared>>,
    list: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn new() -> Self {
        Self { router: Router::new(), list: Vec::new() }
    }

    fn route(mut self, path: &'static str, route: Route) -> Self {
        self.list.push((path, route.methods));
        Self { router: self.router.route(path, route.handlers), ..self }
    }

    fn merge(mut self, mut other: Self) -> Self {
        self.list.append(&mut other.list);
        Self { router: self.router.merge(other.router), ..self }
    }
}

fn agent_routes() -> Routes {
    let process = Routes::new()
        .route("/v1/agent/self", get(agent::own))
        .route("/v1/agent/members", get(agent::members))
        .route("/v1/agent/version", get(agent::process::version))
        .route("/v1/agent/metrics", get(agent::process::metrics))
        .route("/v1/agent/host", get(agent::host::host))
        .route("/v1/agent/monitor", get(agent::process::monitor))
        .route("/v1/agent/reload", put(agent::process::reload))
        .route("/v1/agent/leave", put(agent::process::leave))
        .route("/v1/agent/join/{address}", put(agent::process::join))
        .route("/v1/agent/force-leave/{node}", put(agent::process::force_leave))
        .route("/v1/agent/token/{kind}", put(agent::process::token))
        .route("/v1/status/leader", get(agent::leader))
        .route("/v1/status/peers", get(agent::peers));
    process.merge(agent_service_routes()).merge(agent_check_routes())
}

fn agent_service_routes() -> Routes {
    use agent::{health, maintenance, services};
    Routes::new()
        .route("/v1/agent/services", get(services::list))
        .route("/v1/agent/service/{id}", get(services::get))
        .route("/v1/agent/service/register", put(services::register))
        .route("/v1/agent/service/deregister/", put(services::deregister_nothing))
        .route("/v1/agent/service/deregister/{id}", put(services::deregister))
        .route("/v1/agent/service/maintenance/", put(maintenance::no_service))
        .route("/v1/agent/service/maintenance/{id}", put(maintenance::service))
        .route("/v1/agent/maintenance", put(maintenance::node))
        .route("/v1/agent/health/service/id/{id}", get(health::by_id))
        .route("/v1/agent/health/service/name/{name}", get(health::by_name))
}

fn agent_check_routes() -> Routes {
    use agent::checks;
    Routes::new()
        .route("/v1/agent/checks", get(checks::list))
        .route("/v1/agent/check/register", put(checks::register))
        .route("/v1/agent/check/deregister/{id}", put(checks::deregister))
        .route("/v1/agent/check/pass/{id}", put(checks::pass))
        .route("/v1/agent/check/warn/{id}", put(checks::warn))
        .route("/v1/agent/check/fail/{id}", put(checks::fail))
        .route("/v1/agent/check/update/{id}", put(checks::update))
}

fn catalog_routes() -> Routes {
    let no_name = || get(|| async { ApiError::bad_request("Missing service name") });
    Routes::new()
        .route("/v1/catalog/datacenters", get(catalog::datacenters))
        .route("/v1/catalog/nodes", get(catalog::nodes))
        .route("/v1/catalog/services", get(catalog::services))
        .route("/v1/catalog/service/", no_name())
        .route("/v1/catalog/service/{name}", get(catalog::service))
        .route("/v1/catalog/connect/", no_name())
        .route("/v1/catalog/connect/{name}", get(catalog::connect))
        .route("/v1/catalog/node/", get(|| async { ApiError::bad_request("Missing node name") }))
        .route("/v1/catalog/node/{node}", get(catalog::node))
        .route("/v1/catalog/node-services/{node}", get(catalog::node_services))
        .route("/v1/catalog/gateway-services/{gateway}", get(catalog::gateway_services))
        .route("/v1/catalog/register", put(catalog_write::register))
        .route("/v1/catalog/deregister", put(catalog_write::deregister))
        .route("/v1/health/service/", no_name())
        .route("/v1/health/service/{name}", get(health::service))
        .route("/v1/health/connect/", no_name())
        .route("/v1/health/connect/{name}", get(health::connect))
        .route("/v1/health/ingress/{name}", get(health::ingress))
        .route("/v1/health/node/", get(|| async { ApiError::bad_request("Missing node name") }))
        .route("/v1/health/node/{node}", get(health::node))
        .route("/v1/health/checks/", no_name())
        .route("/v1/health/checks/{name}", get(health::checks))
        .route("/v1/health/state/", get(|| async { ApiError::bad_request("Missing check state") }))
        .route("/v1/health/state/{state}", get(health::state))
}

fn connect_routes() -> Routes {
    let collection = routing::get(intentions::list).post(intentions::create);
    let entry = routing::get(config_entries::get).delete(config_entries::delete);
    let configuration = routing::get(configuration::get).put(configuration::put);
    // Consul takes POST; some of its clients send PUT.
    let authorize = routing::post(connect::authorize).put(connect::authorize);
    let by_id = routing::get(intentions::get).put(intentions::update).delete(intentions::delete);
    let exact =
        routing::get(intentions::get_exact).put(intentions::put_exact).delete(intentions::delete_exact);
    Routes::new()
        .route("/v1/connect/intentions", allow("OPTIONS,GET,POST", collection))
        .route("/v1/connect/intentions/match", get(intentions::matching))
        .route("/v1/connect/intentions/check", get(intentions::check))
        .route("/v1/connect/intentions/exact", allow("OPTIONS,GET,PUT,DELETE", exact))
        .route("/v1/connect/intentions/{id}", allow("OPTIONS,GET,PUT,DELETE", by_id))
        .route("/v1/config", put(config_entries::put))
        .route("/v1/config/{kind}", get(config_entries::list))
        .route("/v1/config/{kind}/{name}", allow("OPTIONS,GET,DELETE", entry))
        .route("/v1/connect/ca/roots", get(connect::roots))
        .route("/v1/connect/ca/configuration", allow("OPTIONS,GET,PUT", configuration))
        .route("/v1/agent/connect/authorize", allow("OPTIONS,POST", authorize))
        .route("/v1/agent/connect/ca/leaf/", get(leaf::no_name))
        .route("/v1/agent/connect/ca/leaf/{name}", get(leaf::leaf))
        .route("/v1/agent/connect/ca/roots", get(connect::agent_roots))
}

fn kv_routes() -> Routes {
    let root = routing::get(kv::get_root).put(kv::no_key).delete(kv::delete_root);
    let key = routing::get(kv::get).put(kv::put).delete(kv::delete);
    Routes::new()
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

fn weft_routes() -> Routes {
    let bans = routing::get(bans::list).post(bans::add).delete(bans::remove);
    let api_tokens = routing::get(tokens::list).post(tokens::create);
    Routes::new()
        .route("/v1/weft/status", get(weft::status))
        .route("/v1/weft/services", get(weft::services))
        .route("/v1/weft/proxies", get(weft::proxies))
        .route("/v1/weft/intention/check", get(weft::check))
        .route("/v1/weft/ca", get(ca::show))
        .route("/v1/weft/ca/rotate", allow("OPTIONS,POST", routing::post(ca::rotate)))
        .route("/v1/weft/ca/import", allow("OPTIONS,POST", routing::post(ca::import)))
        .route("/v1/weft/ca/csr", allow("OPTIONS,POST", routing::post(ca::request)))
        .route("/v1/weft/ca/install", allow("OPTIONS,POST", routing::post(ca::install)))
        .route("/v1/weft/api-tokens", allow("OPTIONS,GET,POST", api_tokens))
        .route(
            "/v1/weft/api-tokens/{accessor}",
            allow("OPTIONS,DELETE", routing::delete(tokens::revoke)),
        )
        .route("/v1/weft/tokens", allow("OPTIONS,POST", routing::post(weft::create_token)))
        .route("/v1/weft/bans", allow("OPTIONS,GET,POST,DELETE", bans))
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
fn allow(methods: &'static str, handlers: Handlers) -> Route {
    let allow = [(header::ALLOW, HeaderValue::from_static(methods))];
    let refusal = allow.clone();
    let handlers = handlers.options(|| async move { (allow, ()).into_response() }).fallback(
        move |method: Method| -> std::future::Ready<Response> {
            let text = format!("method {method} not allowed");
            let refused = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text);
            std::future::ready((refusal, refused).into_response())
        },
    );
    Route { methods, handlers }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::routes::{Rule, TABLE, rule};

    /// The routes that other modules lend: health and metrics.
    const LENT: [&str; 5] = ["/", "/health/live", "/health/ready", "/health/startup", "/metrics"];

    #[test]
    fn every_route_needs_something_that_is_known() {
        let mut routes = BTreeSet::new();
        for (path, methods) in listing() {
            for method in methods.split(',').filter(|method| *method != "OPTIONS") {
                assert!(rule(path, method).is_some(), "{method} {path} is not in the table of access");
                routes.insert((path, method));
            }
        }
        assert!(routes.len() > 90, "only {} routes were found", routes.len());
        // Taken because some clients send it, and not told by `OPTIONS`, as Consul does not.
        routes.insert(("/v1/agent/connect/authorize", "PUT"));
        for row in TABLE.iter().filter(|row| !LENT.contains(&row.path)) {
            assert!(routes.contains(&(row.path, row.method)), "{} {} is no route", row.method, row.path);
        }
    }

    /// A change is what is neither a read nor a question; reads that change give out identities.
    #[test]
    fn every_write_is_a_change_unless_it_only_asks() {
        let differs = |row: &&Rule| row.changes != (row.method != "GET");
        let paths: BTreeSet<&str> = TABLE.iter().filter(differs).map(|row| row.path).collect();
        let known = [
            "/v1/agent/connect/authorize",
            "/v1/agent/connect/ca/leaf/",
            "/v1/agent/connect/ca/leaf/{name}",
        ];
        assert_eq!(paths, BTreeSet::from(known));
    }
}
