//! The table of all routes of the HTTP API: what each needs, and whether it changes anything.
//!
//! `api` asks before every request. A route that is not in the table is refused where tokens are
//! required, and a test of `api` fails on it. Health is for probes, which have no token.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::scope::Scope::{
    self, CaRead, CaWrite, EnrolWrite, IntentionRead, IntentionWrite, KvRead, KvWrite, OperatorRead,
    OperatorWrite, ServiceRead, ServiceWrite, SessionRead, SessionWrite,
};

/// What a caller must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// Any token that is valid.
    Token,
    Scope(Scope),
}

/// One row: a method on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub path: &'static str,
    pub method: &'static str,
    pub need: Need,
    /// Whether it changes anything that lasts, or gives out an identity: then it is audited.
    pub changes: bool,
}

const fn open(path: &'static str) -> Rule {
    Rule { path, method: "GET", need: Need::Nothing, changes: false }
}

const fn any(path: &'static str) -> Rule {
    Rule { path, method: "GET", need: Need::Token, changes: false }
}

const fn get(path: &'static str, scope: Scope) -> Rule {
    Rule { path, method: "GET", need: Need::Scope(scope), changes: false }
}

const fn change(method: &'static str, path: &'static str, scope: Scope) -> Rule {
    Rule { path, method, need: Need::Scope(scope), changes: true }
}

const fn put(path: &'static str, scope: Scope) -> Rule {
    change("PUT", path, scope)
}

const fn post(path: &'static str, scope: Scope) -> Rule {
    change("POST", path, scope)
}

const fn delete(path: &'static str, scope: Scope) -> Rule {
    change("DELETE", path, scope)
}

/// A question that has a body.
const fn ask(method: &'static str, path: &'static str, scope: Scope) -> Rule {
    Rule { path, method, need: Need::Scope(scope), changes: false }
}

/// See the module.
pub const TABLE: &[Rule] = &[
    open("/"),
    open("/health/live"),
    open("/health/ready"),
    open("/health/startup"),
    get("/metrics", OperatorRead),
    // The process.
    get("/v1/agent/self", OperatorRead),
    get("/v1/agent/members", OperatorRead),
    any("/v1/agent/version"),
    get("/v1/agent/metrics", OperatorRead),
    get("/v1/agent/host", OperatorRead),
    get("/v1/agent/monitor", OperatorRead),
    put("/v1/agent/reload", OperatorWrite),
    put("/v1/agent/leave", OperatorWrite),
    put("/v1/agent/join/{address}", OperatorWrite),
    put("/v1/agent/force-leave/{node}", OperatorWrite),
    put("/v1/agent/token/{kind}", OperatorWrite),
    put("/v1/agent/maintenance", OperatorWrite),
    any("/v1/status/leader"),
    any("/v1/status/peers"),
    // Services and checks of this agent.
    get("/v1/agent/services", ServiceRead),
    get("/v1/agent/service/{id}", ServiceRead),
    put("/v1/agent/service/register", ServiceWrite),
    put("/v1/agent/service/deregister/", ServiceWrite),
    put("/v1/agent/service/deregister/{id}", ServiceWrite),
    put("/v1/agent/service/maintenance/", ServiceWrite),
    put("/v1/agent/service/maintenance/{id}", ServiceWrite),
    get("/v1/agent/health/service/id/{id}", ServiceRead),
    get("/v1/agent/health/service/name/{name}", ServiceRead),
    get("/v1/agent/checks", ServiceRead),
    put("/v1/agent/check/register", ServiceWrite),
    put("/v1/agent/check/deregister/{id}", ServiceWrite),
    put("/v1/agent/check/pass/{id}", ServiceWrite),
    put("/v1/agent/check/warn/{id}", ServiceWrite),
    put("/v1/agent/check/fail/{id}", ServiceWrite),
    put("/v1/agent/check/update/{id}", ServiceWrite),
    // The catalog.
    any("/v1/catalog/datacenters"),
    get("/v1/catalog/nodes", ServiceRead),
    get("/v1/catalog/services", ServiceRead),
    get("/v1/catalog/service/", ServiceRead),
    get("/v1/catalog/service/{name}", ServiceRead),
    get("/v1/catalog/connect/", ServiceRead),
    get("/v1/catalog/connect/{name}", ServiceRead),
    get("/v1/catalog/node/", ServiceRead),
    get("/v1/catalog/node/{node}", ServiceRead),
    get("/v1/catalog/node-services/{node}", ServiceRead),
    get("/v1/catalog/gateway-services/{gateway}", ServiceRead),
    put("/v1/catalog/register", ServiceWrite),
    put("/v1/catalog/deregister", ServiceWrite),
    get("/v1/health/service/", ServiceRead),
    get("/v1/health/service/{name}", ServiceRead),
    get("/v1/health/connect/", ServiceRead),
    get("/v1/health/connect/{name}", ServiceRead),
    get("/v1/health/ingress/{name}", ServiceRead),
    get("/v1/health/node/", ServiceRead),
    get("/v1/health/node/{node}", ServiceRead),
    get("/v1/health/checks/", ServiceRead),
    get("/v1/health/checks/{name}", ServiceRead),
    get("/v1/health/state/", ServiceRead),
    get("/v1/health/state/{state}", ServiceRead),
    // Intentions, and the configuration entries that are a view of them.
    get("/v1/connect/intentions", IntentionRead),
    post("/v1/connect/intentions", IntentionWrite),
    get("/v1/connect/intentions/match", IntentionRead),
    get("/v1/connect/intentions/check", IntentionRead),
    get("/v1/connect/intentions/exact", IntentionRead),
    put("/v1/connect/intentions/exact", IntentionWrite),
    delete("/v1/connect/intentions/exact", IntentionWrite),
    get("/v1/connect/intentions/{id}", IntentionRead),
    put("/v1/connect/intentions/{id}", IntentionWrite),
    delete("/v1/connect/intentions/{id}", IntentionWrite),
    put("/v1/config", IntentionWrite),
    get("/v1/config/{kind}", IntentionRead),
    get("/v1/config/{kind}/{name}", IntentionRead),
    delete("/v1/config/{kind}/{name}", IntentionWrite),
    // The certificate authority. Roots are public, as in Consul.
    any("/v1/connect/ca/roots"),
    any("/v1/agent/connect/ca/roots"),
    get("/v1/connect/ca/configuration", CaRead),
    put("/v1/connect/ca/configuration", CaWrite),
    get("/v1/weft/ca", CaRead),
    post("/v1/weft/ca/rotate", CaWrite),
    post("/v1/weft/ca/import", CaWrite),
    post("/v1/weft/ca/csr", CaWrite),
    post("/v1/weft/ca/install", CaWrite),
    ask("POST", "/v1/agent/connect/authorize", ServiceWrite),
    ask("PUT", "/v1/agent/connect/authorize", ServiceWrite),
    change("GET", "/v1/agent/connect/ca/leaf/", EnrolWrite),
    change("GET", "/v1/agent/connect/ca/leaf/{name}", EnrolWrite),
    // Keys and sessions.
    get("/v1/kv/", KvRead),
    put("/v1/kv/", KvWrite),
    delete("/v1/kv/", KvWrite),
    get("/v1/kv/{*key}", KvRead),
    put("/v1/kv/{*key}", KvWrite),
    delete("/v1/kv/{*key}", KvWrite),
    put("/v1/txn", KvWrite),
    put("/v1/session/create", SessionWrite),
    put("/v1/session/destroy/", SessionWrite),
    put("/v1/session/destroy/{id}", SessionWrite),
    put("/v1/session/renew/", SessionWrite),
    put("/v1/session/renew/{id}", SessionWrite),
    get("/v1/session/info/", SessionRead),
    get("/v1/session/info/{id}", SessionRead),
    get("/v1/session/node/", SessionRead),
    get("/v1/session/node/{node}", SessionRead),
    get("/v1/session/list", SessionRead),
    // What Consul has no answer for.
    get("/v1/weft/status", OperatorRead),
    get("/v1/weft/services", ServiceRead),
    get("/v1/weft/proxies", OperatorRead),
    get("/v1/weft/intention/check", IntentionRead),
    post("/v1/weft/tokens", EnrolWrite),
    get("/v1/weft/bans", CaRead),
    post("/v1/weft/bans", CaWrite),
    delete("/v1/weft/bans", CaWrite),
    get("/v1/weft/api-tokens", OperatorRead),
    post("/v1/weft/api-tokens", OperatorWrite),
    delete("/v1/weft/api-tokens/{accessor}", OperatorWrite),
];

static INDEX: LazyLock<HashMap<(&str, &str), &Rule>> =
    LazyLock::new(|| TABLE.iter().map(|rule| ((rule.path, rule.method), rule)).collect());

/// The row of a route, `HEAD` being a `GET`. `None` for what is not in the table.
#[must_use]
pub fn rule(path: &str, method: &str) -> Option<&'static Rule> {
    let method = if method == "HEAD" { "GET" } else { method };
    INDEX.get(&(path, method)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_stands_twice() {
        assert_eq!(INDEX.len(), TABLE.len());
    }

    #[test]
    fn rows_by_table() {
        let need = |path, method| rule(path, method).map(|rule| (rule.need, rule.changes));
        let scope = Need::Scope;
        assert_eq!(need("/v1/kv/{*key}", "HEAD"), Some((scope(KvRead), false)));
        assert_eq!(need("/v1/kv/{*key}", "PUT"), Some((scope(KvWrite), true)));
        assert_eq!(need("/v1/kv/{*key}", "PATCH"), None);
        assert_eq!(need("/v1/no/such", "GET"), None);
        assert_eq!(need("/health/live", "GET"), Some((Need::Nothing, false)));
    }
}
