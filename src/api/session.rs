//! `/v1/session`: the holders of locks.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::blocking::Read;
use super::body::JsonBytes;
use super::decode::{Fields, failed};
use super::error::ApiError;
use super::json::kv::SessionJson;
use super::query::Params;
use super::{App, Shared, reply};
use crate::kv::limits::DEFAULT_LOCK_DELAY;
use crate::kv::{Subject, Wish};
use crate::model::{NodeName, duration};

/// All fields Consul's clients send. Those not read here are read-only or mean nothing without
/// namespaces.
const FIELDS: &[&str] = &[
    "ID",
    "Name",
    "Node",
    "LockDelay",
    "Behavior",
    "TTL",
    "NodeChecks",
    "ServiceChecks",
    "Checks",
    "Namespace",
    "Partition",
    "CreateIndex",
    "ModifyIndex",
];
/// The check that every node has.
const ALIVE: &str = "serfHealth";
/// Smaller numbers are seconds, as old clients meant them.
const LEAST_NANOSECONDS: f64 = 1000.0;

pub(super) async fn create(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    params.read_options(&app.state.catalog.settings().datacenter)?;
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let wish = wish(&Fields::parse(body, FIELDS)?, &app.state.catalog.settings().node)?;
    let id = app.state.kv.create_session(wish).await?;
    Ok(reply::json(params.layout, &json!({ "ID": id })))
}

fn wish(fields: &Fields, own_node: &NodeName) -> Result<Wish, ApiError> {
    let node = fields.text("Node")?;
    Ok(Wish {
        name: fields.text("Name")?.to_owned(),
        node: if node.is_empty() { own_node.as_str() } else { node }.to_owned(),
        ttl: fields.text("TTL")?.to_owned(),
        lock_delay: lock_delay(fields.value("LockDelay"))?,
        behavior: fields.text("Behavior")?.to_owned(),
        node_checks: node_checks(fields)?,
        service_checks: service_checks(fields.value("ServiceChecks"))?,
    })
}

/// The node's checks: `Checks` is the older name, and empty under either name means none at all.
fn node_checks(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (fields.list("Checks")?.map(owned), fields.list("NodeChecks")?.map(owned));
    Ok(match (old, new) {
        (None, None) => vec![ALIVE.to_owned()],
        (Some(list), None) | (None, Some(list)) => list,
        (Some(old), Some(new)) if old.is_empty() || new.is_empty() => Vec::new(),
        (Some(mut old), Some(new)) => {
            old.extend(new);
            old.sort_unstable();
            old.dedup();
            old
        }
    })
}

/// `[{"ID": …}]`.
fn service_checks(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(failed("json: ServiceChecks must be a list of objects with an ID")),
    };
    let id = |item: &Value| {
        let fields = Fields::of(item.clone(), &["ID", "Namespace"])?;
        fields.text("ID").map(str::to_owned)
    };
    items.iter().map(id).collect()
}

/// A Go duration, or nanoseconds as the listings show them.
fn lock_delay(value: Option<&Value>) -> Result<Duration, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(DEFAULT_LOCK_DELAY),
        Some(Value::String(text)) => duration::parse(text).map_err(|fault| failed(&fault.to_string())),
        Some(value) => {
            let number = value.as_f64().unwrap_or(-1.0);
            let seconds = if number < LEAST_NANOSECONDS { number } else { number / 1e9 };
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| failed(&format!("json: {value} is not a LockDelay")))
        }
    }
}

pub(super) async fn no_session() -> ApiError {
    ApiError::bad_request("Missing session")
}

pub(super) async fn destroy(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    app.state.kv.end_session(&id).await?;
    Ok(reply::json(params.layout, &true))
}

pub(super) async fn renew(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let renewed = app.state.kv.renew_session(&id);
    let session = renewed.ok_or_else(|| ApiError::not_found(format!("Session id '{id}' not found")))?;
    Ok(reply::json(params.layout, &[SessionJson::from(&*session)]))
}

pub(super) async fn info(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let read = Read::begin_kv(&app, &params, &Subject::Sessions).await?;
    let session = app.state.kv.session(&id);
    let shown: Vec<_> = session.iter().map(|session| SessionJson::from(&**session)).collect();
    Ok(read.json_without_consistency(&shown))
}

pub(super) async fn list(State(app): App, params: Params) -> Result<Response, ApiError> {
    sessions(&app, &params, None).await
}

pub(super) async fn on_node(
    State(app): App,
    Path(node): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let node = NodeName::new(&node).map_err(|fault| ApiError::bad_request(fault.to_string()))?;
    sessions(&app, &params, Some(&node)).await
}

async fn sessions(app: &Shared, params: &Params, node: Option<&NodeName>) -> Result<Response, ApiError> {
    let read = Read::begin_kv(app, params, &Subject::Sessions).await?;
    let sessions = app.state.kv.sessions(node);
    let shown: Vec<_> = sessions.iter().map(|session| SessionJson::from(&**session)).collect();
    Ok(read.json_without_consistency(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Wish, String> {
        let fields = Fields::parse(json.as_bytes(), FIELDS).map_err(|fault| fault.text)?;
        wish(&fields, &NodeName::new("n1").unwrap()).map_err(|fault| fault.text)
    }

    #[test]
    fn lock_delays_by_table() {
        for (json, seconds) in [
            ("{}", Some(15.0)),
            (r#"{"LockDelay":null}"#, Some(15.0)),
            (r#"{"LockDelay":"15s"}"#, Some(15.0)),
            (r#"{"LockDelay":"0s"}"#, Some(0.0)),
            (r#"{"LockDelay":15000000000}"#, Some(15.0)),
            (r#"{"lock_delay":15}"#, Some(15.0)),
            (r#"{"LockDelay":0}"#, Some(0.0)),
            (r#"{"LockDelay":1000}"#, Some(1e-6)),
            (r#"{"LockDelay":-1}"#, None),
            (r#"{"LockDelay":1e300}"#, None),
            (r#"{"LockDelay":true}"#, None),
            (r#"{"LockDelay":"15"}"#, None),
        ] {
            let delay = read(json).ok().map(|wish| wish.lock_delay.as_secs_f64());
            assert_eq!(delay, seconds, "{json}");
        }
    }

    #[test]
    fn checks_by_table() {
        for (json, checks) in [
            ("{}", vec!["serfHealth"]),
            (r#"{"NodeChecks":[]}"#, vec![]),
            (r#"{"Checks":[]}"#, vec![]),
            (r#"{"Checks":["a"]}"#, vec!["a"]),
            (r#"{"NodeChecks":["a","serfHealth"]}"#, vec!["a", "serfHealth"]),
            (r#"{"Checks":["b","a"],"NodeChecks":["a"]}"#, vec!["a", "b"]),
        ] {
            assert_eq!(read(json).unwrap().node_checks, checks, "{json}");
        }
        let wish = read(r#"{"ServiceChecks":[{"ID":"service:web","Namespace":""}]}"#).unwrap();
        assert_eq!(wish.service_checks, ["service:web"]);
        for bad in [r#"{"ServiceChecks":["a"]}"#, r#"{"ServiceChecks":"a"}"#, r#"{"Checks":[1]}"#] {
            assert!(read(bad).unwrap_err().starts_with("Request decode failed: "), "{bad}");
        }
        assert!(read(r#"{"Foo":1}"#).unwrap_err().contains("unknown field \"Foo\""));
    }
}
