//! How an application feeds its TTL checks: as it would with Consul's local agent, but at the admin
//! port of its own sidecar, which runs the clocks.
//!
//! `PUT /v1/agent/check/{pass,warn,fail}/<check id>[?note=…]`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::put;
use serde::Deserialize;

use crate::health::Runner;
use crate::model::CheckStatus;
use crate::model::check::cut_output;

/// The routes; the runner is the sidecar's.
pub(super) fn router(checks: Arc<Runner>) -> Router {
    Router::new().route("/v1/agent/check/{verdict}/{id}", put(feed)).with_state(checks)
}

#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    note: String,
}

async fn feed(
    State(checks): State<Arc<Runner>>,
    Path((verdict, id)): Path<(String, String)>,
    Query(Note { note }): Query<Note>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if !names_this_machine(&headers) {
        let refusal = "the Host header names neither localhost nor an address";
        return (StatusCode::MISDIRECTED_REQUEST, refusal.to_owned());
    }
    let status = match verdict.as_str() {
        "pass" => CheckStatus::Passing,
        "warn" => CheckStatus::Warning,
        "fail" => CheckStatus::Critical,
        _ => return (StatusCode::NOT_FOUND, String::new()),
    };
    if checks.update_ttl(&id, status, &cut_output(&note)) {
        (StatusCode::OK, String::new())
    } else {
        (StatusCode::NOT_FOUND, format!("CheckID {id:?} does not have associated TTL"))
    }
}

/// A page that was led here by DNS rebinding says its own name, which is neither.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}
