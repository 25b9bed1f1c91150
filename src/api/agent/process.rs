//! Endpoints about the running program: its version, metrics and log, and what one may ask of it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tracing::Level;

use crate::api::error::ApiError;
use crate::api::json::metrics::metrics_json;
use crate::api::query::Params;
use crate::api::{App, Shared, reply};
use crate::model::time::{epoch_ms, rfc3339};
use crate::telemetry::feed::{self, Form, Watcher};
use crate::telemetry::metrics::encode;

/// Kinds of tokens an agent of Consul has. There are no ACL tokens here: setting one changes nothing.
const TOKENS: [&str; 10] = [
    "default",
    "agent",
    "agent_recovery",
    "agent_master",
    "acl_token",
    "acl_agent_token",
    "acl_agent_master_token",
    "replication",
    "config_file_service_registration",
    "dns",
];

pub(in crate::api) async fn version(params: Params) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let shape = json!({
        "SHA": "",
        "BuildDate": "",
        "HumanVersion": version,
        "FIPS": "",
    });
    reply::json(params.layout, &shape)
}

/// The same numbers as `/metrics`, in the shape of Consul's telemetry.
pub(in crate::api) async fn metrics(State(app): App, params: Params) -> Response {
    let text = encode(&app.state.metrics.registry());
    if params.first("format") == Some("prometheus") {
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        // The older format knows no end mark; all else that we write is the same in both.
        let text = text.strip_suffix("# EOF\n").unwrap_or(&text).to_owned();
        return ([(header::CONTENT_TYPE, kind)], text).into_response();
    }
    let now = rfc3339(epoch_ms(std::time::SystemTime::now()));
    reply::json(params.layout, &metrics_json(&text, &now))
}

/// Lines of the log as they come, until the caller or the server ends it.
pub(in crate::api) async fn monitor(State(app): App, params: Params) -> Result<Response, ApiError> {
    let level = match params.non_empty("loglevel").unwrap_or("INFO").to_ascii_lowercase().as_str() {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "info" => Level::INFO,
        "warn" => Level::WARN,
        "err" | "error" => Level::ERROR,
        _ => {
            let word = params.first("loglevel").unwrap_or_default();
            return Err(ApiError::bad_request(format!("Bad request: Unknown log level: {word}")));
        }
    };
    let form = if params.first("logjson").is_some() { Form::Json } else { Form::Text };
    let watcher = feed::watch(level, form).ok_or_else(|| {
        let text = "too many callers watch the log already; end one of them";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let lines = stream::unfold((watcher, app), |(mut watcher, app)| async move {
        let line = next_line(&mut watcher, &app).await?;
        Some((Ok::<_, Infallible>(line), (watcher, app)))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(lines)).into_response())
}

async fn next_line(watcher: &mut Watcher, app: &Arc<Shared>) -> Option<String> {
    let mut draining = app.draining.clone();
    tokio::select! {
        line = watcher.next() => line,
        // An error means that the server is gone, which ends the log as well.
        _ = draining.wait_for(|draining| *draining) => None,
    }
}

/// Reads the configuration again; on a fault the old one goes on, and the answer says why.
pub(in crate::api) async fn reload(State(app): App) -> Result<Response, ApiError> {
    let Some(reload) = &app.state.operations.reload else {
        return Err(ApiError::internal("this server reads no configuration files"));
    };
    reload().await.map_err(ApiError::internal)?;
    Ok(reply::empty())
}

pub(in crate::api) async fn leave(State(app): App) -> Result<Response, ApiError> {
    let Some(leave) = &app.state.operations.leave else {
        return Err(ApiError::internal("this server does not end on request"));
    };
    leave();
    Ok(reply::empty())
}

/// Servers meet in the store, so there is nobody to join; joining oneself is what clients try.
pub(in crate::api) async fn join(
    State(app): App,
    Path(address): Path<String>,
) -> Result<Response, ApiError> {
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    let own = &app.state.catalog.settings().node_address;
    if address == *own || host == own.as_str() {
        return Ok(reply::empty());
    }
    Err(ApiError::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: there is no gossip to join; servers meet in \
         the store\n\n"
    )))
}

/// A node without an agent goes; others have nothing to be forced out of.
pub(in crate::api) async fn force_leave(
    State(app): App,
    Path(node): Path<String>,
) -> Result<Response, ApiError> {
    if let Ok(node) = crate::model::NodeName::new(&node) {
        app.state.catalog.delete_node(&node).await?;
    }
    Ok(reply::empty())
}

pub(in crate::api) async fn token(Path(kind): Path<String>) -> Result<Response, ApiError> {
    if TOKENS.contains(&kind.as_str()) {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled"));
    }
    Err(ApiError::not_found(format!("Token {kind:?} is unknown")))
}
