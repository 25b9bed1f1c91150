//! `/v1/weft`: what Consul has no answer for.

use std::time::SystemTime;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::body::JsonBytes;
use super::catalog::service_name;
use super::decode::Fields;
use super::error::ApiError;
use super::gate::Caller;
use super::json::weft::{
    CheckCounts, PositionJson, Proxy, ProxyCounts, RuleJson, ServiceSummary, Status, TokenReply,
    VerdictJson,
};
use super::query::Params;
use super::tokens::on_this_machine;
use super::{App, Shared, reply};
use crate::catalog::HealthEntry;
use crate::catalog::proxies::ProxyStatus;
use crate::model::time::{epoch_ms, rfc3339};
use crate::model::{CheckStatus, Kind, Position, ServiceName, Verdict, duration};

/// Life of a token when the request does not say.
const DEFAULT_TOKEN_TTL: &str = "10m";

pub(super) async fn status(State(app): App, params: Params) -> Response {
    let catalog = &app.state.catalog;
    let settings = catalog.settings();
    let mut checks = CheckCounts::default();
    for node in catalog.nodes() {
        for record in catalog.checks_on(&node.name) {
            match record.check.status {
                CheckStatus::Passing => checks.passing += 1,
                CheckStatus::Warning => checks.warning += 1,
                CheckStatus::Critical => checks.critical += 1,
            }
        }
    }
    let summaries = summaries(&app);
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        datacenter: settings.datacenter.clone(),
        node: settings.node.to_string(),
        trust_domain: app.state.ca.trust_domain().as_str().to_owned(),
        default_policy: settings.default_action.to_string(),
        intentions: catalog.intentions().len(),
        services: summaries.len(),
        instances: summaries.iter().map(|service| service.instances).sum(),
        checks,
        proxies: count_proxies(&catalog.proxies()),
        position: position(catalog.position()),
    };
    reply::json(params.layout, &status)
}

pub(super) async fn services(State(app): App, params: Params) -> Response {
    reply::json(params.layout, &summaries(&app))
}

fn summaries(app: &Shared) -> Vec<ServiceSummary> {
    let catalog = &app.state.catalog;
    let names = catalog.services().into_keys();
    names
        .filter_map(|name| summary(&name, &catalog.health(&name), catalog.connect(&name).len()))
        .collect()
}

/// One application; `None` when all instances are sidecars, or servers.
fn summary(name: &ServiceName, entries: &[HealthEntry], meshed: usize) -> Option<ServiceSummary> {
    let apps = entries.iter().filter(|entry| {
        let instance = &entry.instance.instance;
        instance.kind == Kind::Typical && !instance.is_server()
    });
    let mut summary = ServiceSummary {
        name: name.to_string(),
        instances: 0,
        passing: 0,
        warning: 0,
        critical: 0,
        meshed,
        tags: Vec::new(),
    };
    for entry in apps {
        summary.instances += 1;
        match entry.status() {
            CheckStatus::Passing => summary.passing += 1,
            CheckStatus::Warning => summary.warning += 1,
            CheckStatus::Critical => summary.critical += 1,
        }
        summary.tags.extend(entry.instance.instance.tags.iter().cloned());
    }
    summary.tags.sort();
    summary.tags.dedup();
    (summary.instances > 0).then_some(summary)
}

pub(super) async fn proxies(State(app): App, params: Params) -> Response {
    let now = SystemTime::now();
    let proxies: Vec<_> = app.state.catalog.proxies().iter().map(|status| proxy(status, now)).collect();
    reply::json(params.layout, &proxies)
}

fn proxy(status: &ProxyStatus, now: SystemTime) -> Proxy {
    let seconds_left = |not_after: SystemTime| {
        let left_ms = i128::from(epoch_ms(not_after)) - i128::from(epoch_ms(now));
        i64::try_from(left_ms.div_euclid(1000)).unwrap_or(i64::MAX)
    };
    Proxy {
        service: status.service.to_string(),
        instance: status.instance.to_string(),
        node: status.node.to_string(),
        version: status.version.clone(),
        connected: status.connected,
        draining: status.draining,
        since: rfc3339(epoch_ms(status.since)),
        acknowledged: position(status.acknowledged),
        refused: status.refused.clone(),
        leaf_not_after: status.leaf_not_after.map(|time| rfc3339(epoch_ms(time))),
        leaf_seconds_left: status.leaf_not_after.map(seconds_left),
    }
}

fn count_proxies(proxies: &[ProxyStatus]) -> ProxyCounts {
    let mut counts = ProxyCounts::default();
    for proxy in proxies {
        match (proxy.connected, proxy.refused.is_empty()) {
            (false, _) => counts.disconnected += 1,
            (true, true) => counts.connected += 1,
            (true, false) => counts.refusing += 1,
        }
    }
    counts
}

fn position(position: Position) -> PositionJson {
    PositionJson { epoch: format!("{:016x}", position.epoch), revision: position.revision }
}

pub(super) async fn check(State(app): App, params: Params) -> Result<Response, ApiError> {
    let name = |key: &'static str| {
        let text = params.non_empty(key);
        let missing = || ApiError::bad_request(format!("required query parameter '{key}' not set"));
        text.ok_or_else(missing).and_then(service_name)
    };
    let (source, destination) = (name("source")?, name("destination")?);
    let verdict = app.state.catalog.decide(&source, &destination);
    Ok(reply::json(params.layout, &verdict_json(&source, &destination, &verdict)))
}

fn verdict_json(source: &ServiceName, destination: &ServiceName, verdict: &Verdict) -> VerdictJson {
    VerdictJson {
        source: source.to_string(),
        destination: destination.to_string(),
        allowed: verdict.is_allowed(),
        audited: verdict.is_audited(),
        rule: verdict.rule.as_ref().map(|rule| RuleJson {
            source: rule.source.to_string(),
            destination: rule.destination.to_string(),
            precedence: rule.precedence,
        }),
        reason: verdict.to_string(),
    }
}

/// Makes an enrolment token, which is as good as an identity.
pub(super) async fn create_token(
    State(app): App,
    Extension(caller): Extension<Caller>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    on_this_machine(&caller)?;
    let fields = Fields::parse(&body, &["services", "ttl", "uses"])?;
    let names = fields.list("services")?.unwrap_or_default();
    let services = names.into_iter().map(service_name).collect::<Result<_, _>>()?;
    let ttl = match fields.text("ttl")? {
        "" => DEFAULT_TOKEN_TTL,
        ttl => ttl,
    };
    let ttl = duration::parse(ttl).map_err(|fault| ApiError::bad_request(format!("ttl: {fault}")))?;
    let uses = fields.number("uses")?.unwrap_or(1);
    let token = app.state.ca.create_token(services, ttl, uses).await?;
    let mut response = reply::json(params.layout, &TokenReply { token });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
